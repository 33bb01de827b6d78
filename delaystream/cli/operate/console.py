"""`delaystream console`: what is pending, for people and services."""

from importlib.util import find_spec
from pathlib import Path
from typing import Annotated, Final

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded

#: The packages of the extra `console`, by the names of their modules.
EXTRA: Final = ("alembic", "fastapi", "jinja2", "psycopg", "sqlalchemy")


@expanded
def console(
    config: options.ConfigFile = None,
    bootstrap_server: options.BootstrapServers = None,
    app_id: Annotated[
        str | None, typer.Option(help="The application that is looked at.", metavar="NAME")
    ] = None,
    data_dir: Annotated[
        Path | None,
        typer.Option(help="The console's copy; may be lost, is rebuilt then.", metavar="DIR"),
    ] = None,
    http_host: Annotated[
        str | None, typer.Option(help="Address to listen on; of loopback.", metavar="HOST")
    ] = None,
    http_port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0: a free one, logged.", metavar="PORT")
    ] = None,
    log_format: Annotated[str | None, typer.Option(help="auto, human or json.", metavar="FORMAT")] = None,
    log_level: Annotated[
        str | None, typer.Option(help="debug, info, warning or error.", metavar="LEVEL")
    ] = None,
    properties: options.KafkaProperties = None,
    settings: options.SettingPairs = None,
) -> None:
    """Run a console: what is pending, searchable, over HTTP.

    It follows the changelog and the events beside the workers, and never writes to Kafka. Stop it, kill it,
    start several: the workers do not notice. It asks nobody who they are, so it listens on loopback alone.

    Needs the extra `console`. Exits with 0 at SIGTERM or Ctrl-C.

    Example: delaystream console -b broker:9092
    """
    loaded = options.load_settings(
        config,
        bootstrap_server,
        properties,
        settings,
        {
            "app_id": app_id,
            "console_data_dir": data_dir,
            "console_http_host": http_host,
            "console_http_port": http_port,
            "log_format": log_format,
            "log_level": log_level,
        },
    )
    _refuse_without_extra()
    from delaystream.console.pages.appearance import Appearance
    from delaystream.console.process import run_console
    from delaystream.logging import configure_logging

    configure_logging(loaded.settings.log_format, loaded.settings.log_level)
    raise typer.Exit(int(run_console(loaded.settings, Appearance.of(loaded))))


def missing_packages() -> list[str]:
    """The packages of the extra that are not installed."""
    return [name for name in EXTRA if find_spec(name) is None]


def _refuse_without_extra() -> None:
    """Raises ConfigurationError, with what to install."""
    from delaystream.config import ConfigurationError

    if missing := missing_packages():
        names = ", ".join(missing)
        raise ConfigurationError(
            [f"The console needs {names}: install the extra, `pip install 'delaystream[console]'`."]
        )
