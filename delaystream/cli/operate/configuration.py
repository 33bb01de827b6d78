"""`delaystream config`: every setting, its value, and where it came from."""

import sys
from typing import Annotated, Any

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded


@expanded
def config(
    *,
    connection: options.Connection,
    describe: Annotated[
        bool, typer.Option("--describe", help="Also print meaning, default and environment variable.")
    ] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON.")] = False,
) -> None:
    """Print every setting and where its value came from.

    From a flag, the environment, the file of --config, or the default. Secrets are masked. Exits with 78 when
    a setting is wrong, and says which.
    """
    from delaystream.adapters.security.client_config import ClientConfig

    loaded = connection.load()
    ClientConfig.parse(loaded.settings.kafka)
    rows = _rows(loaded)
    if as_json:
        import orjson

        shown = [{name: _utf8(value) for name, value in row.items()} for row in rows]
        sys.stdout.write(orjson.dumps(shown, option=orjson.OPT_INDENT_2).decode() + "\n")
    else:
        _print(rows, describe=describe)


def _rows(loaded: Any) -> list[dict[str, Any]]:
    from delaystream.config import Settings, environment_name
    from delaystream.config.kafka import SECRET, SUPPORTED
    from delaystream.config.settings import TABLES

    rows = []
    for name, field in Settings.model_fields.items():
        if name in TABLES:
            continue
        rows.append(
            {
                "name": name,
                "value": _shown(field, getattr(loaded.settings, name)),
                "origin": str(loaded.origin(name)),
                "default": _plain(field.default),
                "variable": environment_name(name),
                "meaning": field.description,
            }
        )
    rows += _tenant_rows(loaded)
    for name, meaning in SUPPORTED.items():
        value = loaded.settings.kafka.get(name)
        rows.append(
            {
                "name": f"kafka.{name}",
                "value": "********" if name in SECRET and value is not None else value,
                "origin": str(loaded.origin(f"kafka.{name}")),
                "default": "localhost:9092" if name == "bootstrap.servers" else None,
                "variable": environment_name("kafka_" + name.replace(".", "_")),
                "meaning": meaning,
            }
        )
    return rows


def _tenant_rows(loaded: Any) -> list[dict[str, Any]]:
    """The settings in the tables of request topics; the shared settings hold for the rest."""
    from delaystream.config import tenant_settings

    rows = []
    for topic, table in loaded.settings.tenants.items():
        for field, described in tenant_settings.TenantSettings.model_fields.items():
            if (value := getattr(table, field)) is None:
                continue
            name = tenant_settings.setting_name(topic, field)
            shared = getattr(loaded.settings, field)
            rows.append(
                {
                    "name": name,
                    "value": _plain(value),
                    "origin": str(loaded.origin(name)),
                    "default": None if field in tenant_settings.BESIDE else _plain(shared),
                    "variable": tenant_settings.variable_name(topic, field),
                    "meaning": described.description,
                }
            )
    return rows


def _utf8(value: Any) -> Any:
    """A file's name may be any bytes. Bytes that are not UTF-8 are escaped, as in the table."""
    return value.encode("utf-8", "backslashreplace").decode() if isinstance(value, str) else value


def _shown(field: Any, value: Any) -> Any:
    """The value of a setting; a secret one is masked."""
    return _plain(value) if field.repr or value is None else "********"


def _plain(value: Any) -> Any:
    if isinstance(value, tuple):
        return ",".join(value)
    return value if value is None or isinstance(value, int | str) else str(value)


def _print(rows: list[dict[str, Any]], *, describe: bool) -> None:
    shown = [
        row for row in rows if describe or row["value"] is not None or not row["name"].startswith("kafka.")
    ]
    width = max(len(row["name"]) for row in shown)
    value_width = min(40, max(len(str(row["value"])) for row in shown))
    for row in shown:
        value = "(not set)" if row["value"] in {None, ""} else row["value"]
        print(f"{row['name']:<{width}}  {value!s:<{value_width}}  {row['origin']}")
        if describe:
            print(f"    {row['meaning']}\n    {row['variable']}")
            if row["default"] not in {None, ""}:
                print(f"    default: {row['default']}")
