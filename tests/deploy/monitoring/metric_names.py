"""Which metrics and labels there are, by the tables in docs/, which are made from the code."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]

#: of every series of workers and consoles, of every target by Prometheus, or made by rules and functions
_TARGET_LABELS = frozenset({"app_id", "job", "instance", "namespace", "pod", "le"})
#: of prometheus-client and of Prometheus itself
_FOREIGN = {
    "up": frozenset[str](),
    "process_start_time_seconds": frozenset[str](),
    "process_resident_memory_bytes": frozenset[str](),
    "process_cpu_seconds_total": frozenset[str](),
    "process_open_fds": frozenset[str](),
    "process_max_fds": frozenset[str](),
    "ALERTS": frozenset({"alertname", "alertstate", "severity"}),
}
#: of workers, and of consoles
_TABLES = (("operations.md", "metrics"), ("console.md", "console-metrics"))
_ROW = re.compile(r"^\| `(delaystream_\w+)` \| (\w+) \| ([^|]*) \|", re.MULTILINE)
_STRING = re.compile(r'"[^"]*"')
#: whatever could be a series of ours, or is one of those that any exporter has
_NAME = re.compile(r"(?<![\w:])(?:(?:\w+:)?delaystream_\w+(?::\w+)*|process_\w+|up(?=\{| ==)|ALERTS)")


def known_metrics() -> dict[str, frozenset[str]]:
    """Each series' name and its labels, those of targets included."""
    found: dict[str, frozenset[str]] = dict(_FOREIGN)
    tables = "".join(
        (ROOT / "docs" / page).read_text().partition(f"<!-- table: {table} -->")[2] for page, table in _TABLES
    )
    for name, kind, labels in _ROW.findall(tables):
        suffixes = ("_bucket", "_count", "_sum") if kind == "histogram" else ("",)
        for suffix in suffixes:
            found[name + suffix] = frozenset(re.findall(r"`(\w+)`", labels))
    return {name: labels | _TARGET_LABELS for name, labels in found.items()}


def series_names(expression: str) -> set[str]:
    """The names of the series that an expression reads."""
    return set(_NAME.findall(_STRING.sub('""', expression)))


def matched_labels(expression: str) -> list[tuple[str, str]]:
    """(series, label) for each label that a selector matches."""
    return [
        (name, label)
        for name, matchers in re.findall(r"([\w:]+)\{([^}]*)\}", expression)
        for label in re.findall(r"(\w+)\s*(?:=~|!~|!=|=)", _STRING.sub('""', matchers))
    ]
