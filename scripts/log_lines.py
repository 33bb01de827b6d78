"""The log lines of a worker, read from the code for the tables of docs/logs.md."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

PACKAGE = Path(__file__).resolve().parent.parent / "delaystream"
_LOGGERS = frozenset({"logger", "_log", "log"})
_LEVELS = ("debug", "info", "warning", "error", "exception", "critical")
_PLACEHOLDER = re.compile(r"%[-0-9.]*[a-z]")
_NOT_FIELDS = frozenset({"exc_info", "stack_info", "extra", "stacklevel"})


class LogLine(NamedTuple):
    """One event: its level, its text with … for the variable parts, and its fields."""

    level: str
    event: str
    fields: tuple[str, ...]


def log_lines() -> list[LogLine]:
    """Every event that delaystream's own code logs, the gravest first."""
    found = {line for path in sorted(PACKAGE.rglob("*.py")) for line in _of(path)}
    return sorted(found, key=lambda line: (-_LEVELS.index(line.level), line.event))


def _of(path: Path) -> Iterator[LogLine]:
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute)):
            continue
        target, level = node.func.value, node.func.attr
        if level not in _LEVELS or not (isinstance(target, ast.Name) and target.id in _LOGGERS):
            continue
        text = node.args[0] if node.args else None
        if not (isinstance(text, ast.Constant) and isinstance(text.value, str)):
            raise TypeError(f"{path}:{node.lineno}: an event's text is a constant; what varies is a field")
        fields = tuple(word.arg for word in node.keywords if word.arg and word.arg not in _NOT_FIELDS)
        if text.value.startswith("partition %d: "):
            fields = ("partition", *fields)  # delaystream.logging makes it one
        if level == "exception" or any(word.arg == "exc_info" for word in node.keywords):
            fields = (*fields, "exception")
        yield LogLine(level, _PLACEHOLDER.sub("…", text.value), fields)
