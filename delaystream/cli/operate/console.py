"""`delaystream console`: what is pending, for people and services."""

from datetime import UTC, datetime, timedelta
from importlib.util import find_spec
from typing import Annotated, Final

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded
from delaystream.cli.output import say, say_json, tell

#: The packages of the extra `console`, by the names of their modules.
EXTRA: Final = ("alembic", "cryptography", "fastapi", "jinja2", "joserfc", "psycopg", "sqlalchemy")


console = typer.Typer(invoke_without_command=True, rich_markup_mode=None)


@console.callback()
@expanded
def run(
    *,
    context: typer.Context,
    service: options.Service,
) -> None:
    """Run a console: what is pending, searchable, over HTTP.

    It follows the changelog and the events beside the workers. What is changed over it goes to Kafka as
    requests, unless console_writes is off. Stop it, kill it, start several: the workers do not notice. On
    loopback it may ask nobody who they are; beyond it, it needs console_tokens_file, the file of the tokens
    that it takes.

    Needs the extra `console`. Exits with 0 at SIGTERM or Ctrl-C.

    Example: delaystream console -b broker:9092
    """
    if context.invoked_subcommand is not None:
        return
    loaded = service.load("console_")
    _refuse_without_extra()
    from delaystream.console.pages.appearance import Appearance
    from delaystream.console.process import run_console
    from delaystream.logging import configure_logging

    configure_logging(loaded.settings.log_format, loaded.settings.log_level)
    raise typer.Exit(int(run_console(loaded.settings, Appearance.of(loaded))))


@console.command()
@expanded
def token(
    *,
    name: Annotated[
        str, typer.Option(help="Its owner: the actor of every change made with it.", metavar="NAME")
    ],
    role: Annotated[str, typer.Option(help="viewer, operator or admin.", metavar="ROLE")] = "viewer",
    topics: Annotated[
        list[str] | None,
        typer.Option(help="Request topics, by name or glob; repeatable. Default: all.", metavar="GLOB"),
    ] = None,
    payload: Annotated[bool, typer.Option("--payload", help="May see values and headers.")] = False,
    expires: Annotated[
        str | None,
        typer.Option(help="Until when: a time such as 2031-01-01T00:00:00Z, or a duration.", metavar="TIME"),
    ] = None,
    output: options.HumanOrJson = "human",
) -> None:
    """Make a token, and the entry for the file of console_tokens_file.

    The entry goes to standard output, and has only a hash. The token goes to standard error, this once. The
    console reads its file again when it changes.

    Example: delaystream console token --name ops --role admin --expires 90d >> tokens.toml
    """
    from delaystream.console.access.caller import Role
    from delaystream.console.access.tokens import TokensError, entry_text, new_token

    if role not in list(Role):
        raise typer.BadParameter(f"--role is {role!r}: expected {', '.join(Role)}")
    made = new_token()
    roles = {glob: Role(role) for glob in topics or ["*"]}
    try:
        entry = entry_text(made, name, roles, payload=payload, expires=_expiry(expires))
    except TokensError as error:
        raise typer.BadParameter(str(error)) from None
    if output == "json":
        say_json({"entry": entry})
    else:
        say(*entry.split("\n"))
    tell(made)


def _expiry(text: str | None) -> datetime | None:
    """When a token ends, on a whole second. Raises `typer.BadParameter`."""
    from delaystream.core.durations import DurationError, parse_duration
    from delaystream.core.instants import InstantError, parse_instant

    if text is None:
        return None
    now = datetime.now(UTC).replace(microsecond=0)
    try:
        ends = now + timedelta(milliseconds=parse_duration(text))
    except (DurationError, OverflowError):
        try:
            ends = datetime.fromtimestamp(parse_instant(text) // 1_000, UTC)
        except (InstantError, OverflowError) as error:
            raise typer.BadParameter(f"--expires is {text!r}: {error}") from None
    if ends <= now:
        raise typer.BadParameter(f"--expires is {text!r}: that time has passed")
    return ends


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
