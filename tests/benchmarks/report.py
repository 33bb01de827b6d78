"""The table for people, the JSON for machines, the plot for the documentation."""

from __future__ import annotations

import json
import math
import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import UTC, datetime
from importlib.metadata import version
from pathlib import Path
from typing import Any

import psutil

from tests.benchmarks.bench import Row

_REACHED, _MISSED = "#2b8a3e", "#c92a2a"


def machine() -> dict[str, Any]:
    """What the figures were measured on."""
    return {
        "cores": os.cpu_count(),
        "processor": _processor(),
        "memory_gb": round(psutil.virtual_memory().total / 1e9),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "load_average_before": round(os.getloadavg()[0], 2),
    }


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor()
    return next((line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")), "")


def document(rows: Iterable[Row], *, scale: float, kafka: str, facts: dict[str, Any]) -> dict[str, Any]:
    """The whole run as one JSON object."""
    commit = subprocess.run(
        ["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, check=False
    )
    return {
        "taken": datetime.now(UTC).isoformat(timespec="seconds"),
        "commit": commit.stdout.strip(),
        "scale": scale,
        "kafka": kafka,
        "packages": {
            name: version(name) for name in ("aiokafka", "confluent-kafka", "faust-streaming", "rocksdict")
        },
        "machine": facts,
        "rows": [
            {
                "name": row.name,
                "what": row.what,
                "value": row.value,
                "unit": row.unit,
                "limit": row.limit,
                "good": "at least" if row.at_least else "at most",
                "met": row.met,
                **row.detail,
            }
            for row in rows
        ],
    }


def shown(row: Row) -> str:
    """One line for the terminal."""
    sign = ">=" if row.at_least else "<="
    verdict = "    " if row.limit is None else "met " if row.met else "MISS"
    limit = "" if row.limit is None else f"{sign} {_number(row.limit)}"
    beside = ""
    if "ceiling_per_second" in row.detail:
        beside = f"  {row.detail['per_second']:,}/s, copy {row.detail['ceiling_per_second']:,}/s"
    elif "peer_per_second" in row.detail:
        beside = f"  {row.detail['per_second']:,}/s, the peer {row.detail['peer_per_second']:,}/s"
    elif "plain_per_second" in row.detail:
        beside = f"  {row.detail['processor_us']} us of processor time each; {_plain(row)}"
    elif "per_second" in row.detail:
        beside = f"  {row.detail['per_second']:,}/s"
    faults = {name: row.detail[name] for name in ("lost", "duplicated", "early") if row.detail.get(name)}
    wrong = f"  {faults}" if faults else ""
    figure = f"{_number(row.value)} {row.unit}"
    return f"{verdict}  {row.name:24} {figure:>18}  {limit:>10}{beside}{wrong}   {row.what}"


def _plain(row: Row) -> str:
    return (
        f"a plain producer {row.detail['plain_per_second']:,}/s, {row.detail['plain_processor_us']} us each"
    )


def _number(value: float) -> str:
    return f"{value:,.0f}" if value >= 1000 or value == int(value) else f"{value:,.2f}"


def table(rows: Iterable[Row]) -> str:
    """The rows as a Markdown table."""
    lines = ["| | what | measured | to reach | |", "|---|---|---|---|---|"]
    for row in rows:
        sign = "≥" if row.at_least else "≤"
        figure = f"{_number(row.value)} {row.unit}"
        if "per_second" in row.detail:
            figure += f" ({row.detail['per_second']:,}/s"
            if "ceiling_per_second" in row.detail:
                figure += f"; the copy: {row.detail['ceiling_per_second']:,}/s"
            if "peer_per_second" in row.detail:
                figure += f"; the peer: {row.detail['peer_per_second']:,}/s"
            if "plain_per_second" in row.detail:
                figure += f"; {_plain(row)}"
            figure += ")"
        limit, verdict = "", ""
        if row.limit is not None:
            limit, verdict = f"{sign} {_number(row.limit)} {row.unit}", "met" if row.met else "not met"
        lines.append(f"| {row.name} | {row.what} | {figure} | {limit} | {verdict} |")
    return "\n".join(lines) + "\n"


def plot(rows: list[Row], path: Path) -> None:
    """Left: rates beside the copy's. Right: the curve of lateness under steady load. Nothing without data."""
    import matplotlib as mpl

    mpl.use("svg")
    mpl.rcParams["svg.hashsalt"] = "delaystream"
    import matplotlib.pyplot as plt

    rates = [row for row in rows if "ceiling_per_second" in row.detail]
    curves = [row for row in rows if row.detail.get("curve")]
    if not rates and not curves:
        return
    figure, (left, right) = plt.subplots(1, 2, figsize=(11, 3.6), layout="constrained")
    for place, row in enumerate(rates):
        left.barh(place - 0.2, row.detail["per_second"], 0.38, color=_REACHED if row.met else _MISSED)
        left.barh(place + 0.2, row.detail["ceiling_per_second"], 0.38, color="#adb5bd")
        left.text(row.detail["per_second"], place - 0.2, f" {row.value:.2f} x", va="center", fontsize=8)
    left.set_yticks(range(len(rates)), [row.name for row in rates])
    left.invert_yaxis()
    left.set_xlabel("records a second (grey: plain transactional copy)")
    left.xaxis.set_major_formatter(lambda value, _: f"{value / 1000:.0f}k")
    for row in curves:
        points, values = zip(*row.detail["curve"], strict=True)
        # A nine more is a step up: the tail is what matters.
        right.plot([_nines(point) for point in points], values, label=row.name.split()[1])
        right.plot(_nines(99), row.limit, "_", color=right.lines[-1].get_color(), markersize=14)
    shown_points = (0, 50, 90, 99, 99.9, 99.99)
    right.set_xticks([_nines(point) for point in shown_points], [f"{point:g}" for point in shown_points])
    right.set_xlabel("percentile (dash: to reach at 99)")
    right.set_ylabel("lateness, ms, at 10,000/s in and out")
    if curves:
        right.legend(frameon=False)
    for axes in (left, right):
        axes.spines[["top", "right"]].set_visible(False)
    figure.savefig(path, metadata={"Date": None})
    plt.close(figure)


def _nines(percentile: float) -> float:
    return -math.log10(1 - percentile / 100)


def write(directory: Path, rows: list[Row], whole: dict[str, Any]) -> None:
    """``results.json``, ``results.md`` and ``results.svg``."""
    directory.mkdir(parents=True, exist_ok=True)
    (directory / "results.json").write_text(json.dumps(whole, indent=1) + "\n")
    (directory / "results.md").write_text(table(rows))
    plot(rows, directory / "results.svg")
