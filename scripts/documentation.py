"""The generated tables of docs/: `python -m scripts.documentation` writes them.


A table stands between `<!-- table: NAME -->` and `<!-- end -->`; the lines between are replaced.
"""

from __future__ import annotations

import importlib
import json
import re
import subprocess
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import typer
from prometheus_client import CollectorRegistry

from delaystream.adapters.clock import SystemClock
from delaystream.adapters.kafka.source_bounds import SourceEnds
from delaystream.adapters.membership.static_membership import Fencings
from delaystream.adapters.operate.metrics import PrometheusObserver
from delaystream.adapters.operate.preflight_metrics import ClockSkew, StateDisk
from delaystream.cli.application import app
from delaystream.codec.envelope import Status
from delaystream.codec.event import EVENT_DESCRIPTIONS, WhyPassed, json_schema
from delaystream.config import Settings, environment_name
from delaystream.config.kafka import REFUSED, SUPPORTED
from delaystream.config.settings import TABLES
from delaystream.config.tenant_settings import TenantSettings
from delaystream.console.api.metrics import ConsoleMetrics
from delaystream.console.history.follower import HistoryStatus
from delaystream.console.letters.latest import LetterStatus
from delaystream.console.replica.follower import CopyStatus
from delaystream.console.replica.follower import Phase as CopyPhase
from delaystream.core.durations import format_duration
from delaystream.core.rejection import DESCRIPTIONS
from delaystream.dialects import NAMES as DIALECTS
from delaystream.dialects import by_name
from delaystream.engine.observer import Fires, Phase, Wait, Work
from delaystream.engine.ports import TopicPartition
from delaystream.engine.state.pending import PendingChange
from delaystream.exit_codes import EXIT_CODES_HELP, ExitCode
from delaystream.logging import FIELDS
from delaystream.topics import ROLES, users
from delaystream.topics.access import by_resource
from delaystream.topics.specification import description

#: mypy knows this directory's modules by their own names, and Python finds them from the root.
log_lines = importlib.import_module("scripts.log_lines")

ROOT = Path(__file__).resolve().parent.parent
_TABLE = re.compile(r"(<!-- table: ([a-z0-9-]+) -->\n).*?(<!-- end -->)", re.DOTALL)


def tables() -> dict[str, str]:
    """Every generated table by its name, as Markdown that ends in a newline."""
    return {
        "settings": _settings(),
        "tenant-settings": _tenant_settings(),
        "kafka-settings": _table(("setting", "meaning"), ([_code(n), m] for n, m in SUPPORTED.items())),
        "kafka-refused": _refused(),
        "rejections": _table(("code", "meaning"), ([_code(c.value), m] for c, m in DESCRIPTIONS.items())),
        "metrics": _metrics(),
        "console-metrics": _console_metrics(),
        "events": _table(("`type`", "means"), ([_code(t), m] for t, m in EVENT_DESCRIPTIONS.items())),
        "event-fields": _event_fields(),
        "exit-codes": _table(("code", "meaning"), ([str(c.value), _meaning(c)] for c in ExitCode)),
        "log-fields": _table(("field", "meaning"), ([_code(name), m] for name, m in FIELDS.items())),
        "log-lines": _table(
            ("level", "event", "fields"),
            ([line.level, line.event, ", ".join(map(_code, line.fields))] for line in log_lines.log_lines()),
        ),
        "acls": _acls(),
        **{f"dialect-{name}": _dialect(name) for name in DIALECTS},
    }


def filled(text: str) -> str:
    """A document with its tables as the code has them now."""
    known = tables()
    return _TABLE.sub(lambda found: f"{found[1]}\n{known[found[2]]}\n{found[3]}", text)


def documents() -> list[Path]:
    """The documents that are written by hand: README, CONTRIBUTING, docs/*.md."""
    return [ROOT / "README.md", ROOT / "CONTRIBUTING.md", *sorted((ROOT / "docs").glob("*.md"))]


def commands(group: Any = None, prefix: str = "") -> dict[str, list[str]]:
    """Every command of the command line (`topics apply`, ...) with its options (`--help` aside)."""
    group = typer.main.get_command(app) if group is None else group
    found: dict[str, list[str]] = {}
    for name, command in group.commands.items():
        if hasattr(command, "commands"):
            found |= commands(command, f"{prefix}{name} ")
        if not hasattr(command, "commands") or command.invoke_without_command:
            options = [o for p in command.params for o in [*p.opts, *p.secondary_opts] if o.startswith("-")]
            found[prefix + name] = options
    return found


def schemas() -> dict[Path, str]:
    """Every published JSON Schema: where it is, and its text."""
    text = json.dumps(json_schema(), indent=2) + "\n"
    return {
        ROOT / "docs" / "events.schema.json": text,
        ROOT / "delaystream" / "codec" / "event.schema.json": text,
    }


def _event_fields() -> str:
    schema = json_schema()["$defs"]["Event"]
    required = set(schema["required"])
    rows = []
    for name, field in schema["properties"].items():
        about = field.get("description") or next(
            (choice["description"] for choice in field.get("anyOf", ()) if "description" in choice), ""
        )
        rows.append([_code(name), "always" if name in required else "", about])
    return _table(("field", "there", "means"), rows)


def _acls() -> str:
    """The rights of each role, with the names of the default settings and one destination."""
    settings = Settings.model_validate({"app_id": "delay", "destinations_allow": ("orders", "reminders-*")})
    rows = []
    for user in users(settings):
        for acl, operations in by_resource(user.acls):
            name = _code(f"{acl.name}*" if acl.prefixed else acl.name)
            if acl.name in description().access[user.role].groups:
                name = "of `delaystream watch` (`topics print` has its name)"
            rows.append([user.role, f"{acl.resource} {name}", ", ".join(operations)])
    assert {row[0] for row in rows} == set(ROLES)
    return _table(("role", "resource", "operations"), rows)


def _dialect(name: str) -> str:
    dialect = by_name(name)
    read = _table(
        (f"header of {dialect.system}", "read as", ""),
        ([_header(row.theirs), row.ours, row.notes] for row in dialect.table),
    )
    added = _table(
        ("on deliveries", "holds", ""),
        ([_header(row.theirs), row.ours, row.notes] for row in dialect.outgoing),
    )
    return f"{read}\n{added}"


def _header(text: str) -> str:
    """A header's name as code; other text stays unchanged."""
    return (
        text if " " in text.split(":", maxsplit=1)[0] or "`" in text or text.startswith("(") else _code(text)
    )


def _settings() -> str:
    flags = {option[2:].replace("-", "_"): option for option in commands()["worker"]}
    rows = []
    for name, field in Settings.model_fields.items():
        if name in TABLES:
            continue
        flag = _code(flags[name]) if name in flags else ""
        meaning = f"{field.description}{_bounds(name, field.metadata)}"
        rows.append([_code(environment_name(name)), flag, _default(name, field.default), meaning])
    return _table(("environment variable", "flag of `worker`", "default", "meaning"), rows)


def _tenant_settings() -> str:
    fields = TenantSettings.model_fields.items()
    return _table(("setting", "meaning"), ([_code(name), field.description or ""] for name, field in fields))


def _bounds(name: str, metadata: Iterable[Any]) -> str:
    least = next((m.ge for m in metadata if hasattr(m, "ge")), None)
    most = next((m.le for m in metadata if hasattr(m, "le")), None)
    if least is None or most is None:
        return ""
    return f" From {_with_unit(name, least) or least} to {_with_unit(name, most) or most}."


def _default(name: str, value: Any) -> str:
    if value is None or value == ():
        return "none"
    text = ",".join(value) if isinstance(value, tuple) else str(value)
    said = _with_unit(name, value)
    return _code(text) if said is None else f"{_code(text)} ({said})"


def _with_unit(name: str, value: Any) -> str | None:
    """Milliseconds and bytes in readable units; None for a plain number."""
    if name.endswith("_ms"):
        return format_duration(value)
    if name.endswith("_bytes"):
        for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
            if value >= size and value % size == 0:
                return f"{value // size} {unit}"
        return f"{value} byte{'s' * (value > 1)}"
    return None


def _refused() -> str:
    by_reason: dict[str, list[str]] = {}
    for name, reason in REFUSED.items():
        by_reason.setdefault(reason, []).append(_code(name))
    return _table(("setting", "it ..."), ([", ".join(names), reason] for reason, names in by_reason.items()))


def _metrics() -> str:
    observer = PrometheusObserver(SystemClock())
    # A metric shows its labels only once it has a sample.
    observer.phase(0, Phase.RUNNING)
    observer.recovery(0, 1, 1, 1)
    observer.committed(0, Work({"topic": 1}, {("topic", "code"): 1}, {"topic": Fires([1])}, 0.0))
    observer.read(0, {"topic": 1})
    observer.sources.found({TopicPartition("topic", 0): SourceEnds(1, 1)})
    observer.overdue(0, {("topic", Wait.FIREABLE): 0})
    observer.missed(0, {(WhyPassed.LATE, "destination"): 1})
    observer.aborted(0, "reason")
    observer.pending(0, 1, None)
    observer.parked(0, "destination", "reason")
    observer.quotas({"topic": 1})
    observer.counted(0, PendingChange({"destination": 1}, {0: 1}, {"topic": 1}), anew=True)
    skew = ClockSkew()
    skew.appended(1, 0, 0, 0)
    for surroundings in (skew, StateDisk(ROOT / "docs"), Fencings(ROOT / "docs")):
        observer.registry.register(surroundings)
    return _families(observer.registry)


def _console_metrics() -> str:
    """As `_metrics`, of a console that has one of everything."""
    console = SimpleNamespace(
        app_id="delaystream",
        clock=SystemClock(),
        statuses=[CopyStatus(0, CopyPhase.FOLLOWING, as_of_ms=0)],
        history_statuses=[HistoryStatus(0)],
        letters=SimpleNamespace(statuses=[LetterStatus(0)]),
        catalog=SimpleNamespace(counts=lambda: [("topic", "destination", Status.PENDING, 1)]),
        pending=SimpleNamespace(counts=list),
        tail=SimpleNamespace(streams=0),
    )
    entrance = SimpleNamespace(
        refused={"code": 1}, tokens=SimpleNamespace(tokens=SimpleNamespace(entries=()), problem=None)
    )
    metrics = ConsoleMetrics(cast("Any", console), cast("Any", entrance))
    metrics.requests.labels("route", "method", 200).inc()
    metrics.seconds.labels("route").observe(0.0)
    return _families(metrics.registry)


def _families(registry: CollectorRegistry) -> str:
    rows = []
    for family in registry.collect():
        if not family.name.startswith("delaystream_"):
            continue  # process_* and python_info are prometheus-client's
        labels = dict.fromkeys(label for sample in family.samples for label in sample.labels if label != "le")
        suffix = {"counter": "_total", "info": "_info"}.get(family.type, "")
        kind = "gauge" if family.type == "info" else family.type
        shown = ", ".join(map(_code, labels))
        rows.append([_code(family.name + suffix), kind, shown, family.documentation])
    return _table(("metric", "type", "labels", "meaning"), sorted(rows))


def _meaning(code: ExitCode) -> str:
    found = re.search(rf"\b{code.value} ([^;.]+)", " ".join(EXIT_CODES_HELP.split()))
    assert found is not None, f"the help text explains no exit code {code.value}"
    return found[1]


def _code(text: str) -> str:
    return f"`{text}`"


def _table(heads: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [heads, ["---"] * len(heads), *rows]
    return "".join("| " + " | ".join(_escaped(cell) for cell in line) + " |\n" for line in lines)


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("<", "&lt;")


def main() -> int:
    """Rewrite the documents whose tables differ, and name them."""
    for path in documents():
        before = path.read_text("utf-8")
        after = filled(before)
        if after != before:
            path.write_text(after, "utf-8")
            print(path.relative_to(ROOT))
    for path, schema in schemas().items():
        path.write_text(schema, "utf-8")
    # The chart is generated from the same settings; the header contract is written by hand.
    scripts = ("scripts.chart", "scripts.contract")
    return max(
        subprocess.run([sys.executable, "-m", name], cwd=ROOT, check=False).returncode for name in scripts
    )


if __name__ == "__main__":
    sys.exit(main())
