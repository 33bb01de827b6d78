"""Answers of a console, as text: tables for people, JSON, JSON Lines and YAML for programs.

All of it may hold what strangers wrote. A terminal obeys none of it: what cannot be printed is escaped.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Literal

from delaystream.cli.output import json_text
from delaystream.printable import printable

Form = Literal["table", "wide", "json", "yaml", "jsonl"]
Column = tuple[str, str]
"""Its heading, and the path of its value: `definition.destination`."""

_CUT = 60


def table(items: Sequence[Mapping[str, Any]], columns: Sequence[Column], *, cut: bool = True) -> str:
    """Rows under headings, in columns as wide as their contents; values longer than 60 are cut, if wanted."""
    rows = [[heading.upper() for heading, _ in columns]]
    rows += [[_cell(_value(item, path), cut=cut) for _, path in columns] for item in items]
    widths = [max(len(row[place]) for row in rows) for place in range(len(columns))]
    return "\n".join(
        "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows
    )


def line(
    item: Mapping[str, Any] | None,
    columns: Sequence[Column],
    widths: Mapping[str, int],
    *,
    cut: bool = True,
) -> str:
    """One row of a table that goes on, in columns of at least these widths; None: the headings."""
    cells = [
        heading.upper() if item is None else _cell(_value(item, path), cut=cut) for heading, path in columns
    ]
    return "  ".join(
        cell.ljust(widths.get(heading, len(heading)))
        for cell, (heading, _) in zip(cells, columns, strict=True)
    ).rstrip()


def facts(body: Mapping[str, Any], prefix: str = "") -> str:
    """One thing, a line for each value that is there."""
    lines = []
    for name, value in body.items():
        if value is None or value == []:
            continue
        if isinstance(value, Mapping):
            lines.append(facts(value, f"{prefix}{name}."))
        else:
            lines.append(f"{printable(prefix + str(name)):<24} {_cell(value, cut=False)}")
    return "\n".join(line for line in lines if line)


def json(body: object) -> str:
    """Indented; every character that no terminal should see is escaped."""
    return json_text(body, indent=True)


def jsonl(items: Sequence[object]) -> str:
    """One line each."""
    return "\n".join(map(json_text, items))


def yaml(body: object, indent: int = 0) -> str:
    """YAML 1.2 of the part that JSON has, texts in its double quotes."""
    pad = "  " * indent
    if isinstance(body, Mapping) and body:
        rows = [(json_text(str(name)), _below(value, indent)) for name, value in body.items()]
        return "\n".join(f"{pad}{name}:{below}" for name, below in rows)
    if isinstance(body, list) and body:
        return "\n".join(f"{pad}-{_below(value, indent)}" for value in body)
    return f"{pad}{json_text(body)}"


def _below(value: object, indent: int) -> str:
    if isinstance(value, Mapping | list) and value:
        return f"\n{yaml(value, indent + 1)}"
    return f" {json_text(value)}"


def _value(item: Mapping[str, Any], path: str) -> Any:
    """The value of the first path that is there, of several with `|`."""
    for one in path.split("|"):
        value: Any = item
        for name in one.split("."):
            value = value.get(name) if isinstance(value, Mapping) else None
        if value is not None:
            return value
    return None


def _cell(value: Any, *, cut: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, list):
        text = ", ".join(_cell(one, cut=False) for one in value)
    else:
        text = printable(value if isinstance(value, str) else json_text(value))
    return f"{text[: _CUT - 1]}…" if cut and len(text) > _CUT else text
