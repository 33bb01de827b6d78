"""`delaystream config`: every setting, its value, and where it came from."""

from typing import Annotated, Any

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded
from delaystream.cli.output import say, say_json


@expanded
def config(
    *,
    connection: options.Connection,
    describe: Annotated[
        bool, typer.Option("--describe", help="Also print meaning, default and environment variable.")
    ] = False,
    output: options.HumanOrJson = "human",
    as_json: Annotated[bool, typer.Option("--json", help="As -o json.")] = False,
) -> None:
    """Print every setting and where its value came from.

    From a flag, the environment, the file of --config, or the default. Secrets are masked. Exits with 78 when
    a setting is wrong, and says which.
    """
    from delaystream.adapters.security.client_config import ClientConfig

    loaded = connection.load()
    ClientConfig.parse(loaded.settings.kafka)
    rows = _rows(loaded)
    if as_json or output == "json":
        say_json([{name: _utf8(value) for name, value in row.items()} for row in rows], indent=True)
    else:
        _print(rows, describe=describe)


def _rows(loaded: Any) -> list[dict[str, Any]]:
    from dataclasses import asdict

    from delaystream.config.listing import listed

    return [asdict(setting) for setting in listed(loaded)]


def _utf8(value: Any) -> Any:
    """A file's name may be any bytes. Bytes that are not UTF-8 are escaped, as in the table."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _print(rows: list[dict[str, Any]], *, describe: bool) -> None:
    shown = [
        row for row in rows if describe or row["value"] is not None or not row["name"].startswith("kafka.")
    ]
    width = max(len(row["name"]) for row in shown)
    value_width = min(40, max(len(str(row["value"])) for row in shown))
    for row in shown:
        value = "(not set)" if row["value"] in {None, ""} else row["value"]
        say(f"{row['name']:<{width}}  {value!s:<{value_width}}  {row['origin']}")
        if describe:
            say(f"    {row['meaning']}", f"    {row['variable']}")
            if row["default"] not in {None, ""}:
                say(f"    default: {row['default']}")
