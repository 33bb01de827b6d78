"""The dashboards as files: current, well formed for Grafana's own types, and asking for what there is."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest

from deploy import rules as rule_files
from deploy.dashboards.__main__ import files
from tests.deploy.conftest import ROOT
from tests.deploy.monitoring.metric_names import known_metrics, matched_labels, series_names
from tests.deploy.monitoring.node_packages import installed
from tests.deploy.monitoring.test_monitoring_rules import rules

DASHBOARDS = sorted((ROOT / "helm" / "delaystream" / "files" / "dashboards").glob("*.json"))
#: Strings in a file stand for string enumerations, which TypeScript keeps apart.
_PRELUDE = """
import type {Dashboard, Panel, RowPanel} from "@grafana/schema";
type Plain<T> = T extends string ? `${T}` : T extends (infer U)[] ? Plain<U>[]
  : T extends object ? {[K in keyof T]: Plain<T[K]>} : T;
"""
#: Kept for the dashboards of others: ours have what came after.
SUPERSEDED = {"delaystream_last_commit_timestamp_seconds", "delaystream_parked_destinations"}
_VISUALISATIONS = {"timeseries": "TimeSeries", "stat": "Stat", "table": "Table", "heatmap": "Heatmap"}


def load(path: Path) -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads(path.read_text())
    return loaded


def panels(dashboard: dict[str, Any]) -> list[dict[str, Any]]:
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def expressions() -> list[str]:
    return [t["expr"] for path in DASHBOARDS for panel in panels(load(path)) for t in panel["targets"]]


def test_the_files_are_what_the_code_makes() -> None:
    """`python -m deploy.dashboards` writes them; nobody edits them by hand."""
    assert {path: path.read_text() for path in DASHBOARDS} == files()


def typed(dashboard: dict[str, Any]) -> str:
    """TypeScript that compiles only if every key and value is one of Grafana's types."""
    lines = [_PRELUDE]
    for kind, name in _VISUALISATIONS.items():
        module = f"@grafana/schema/dist/esm/raw/composable/{kind}/panelcfg/x/{name}PanelCfg_types.gen"
        config = "" if kind == "stat" else f", FieldConfig as {name}Field"
        lines.append(f'import type {{Options as {name}Options{config}}} from "{module}";')
    frame = {key: value for key, value in dashboard.items() if key != "panels"}
    lines.append(f"({json.dumps(frame)}) satisfies Plain<Dashboard>;")
    for panel in dashboard["panels"]:
        whole = "RowPanel" if panel["type"] == "row" else "Panel"
        lines.append(f"({json.dumps(panel)}) satisfies Plain<{whole}>;")
        if whole == "Panel":
            name = _VISUALISATIONS[panel["type"]]
            lines.append(f"({json.dumps(panel['options'])}) satisfies Plain<{name}Options>;")
            custom = panel["fieldConfig"]["defaults"]["custom"]
            field = "Record<string, never>" if name == "Stat" else f"Partial<Plain<{name}Field>>"
            lines.append(f"({json.dumps(custom)}) satisfies {field};")
    return "\n".join(lines) + "\n"


def compile_typescript(directory: Path, sources: dict[str, str]) -> str:
    """What the compiler complains about; empty when nothing."""
    home = installed()
    (directory / "node_modules").symlink_to(home / "node_modules")
    for name, source in sources.items():
        (directory / name).write_text(source)
    options = ["--noEmit", "--strict", "--skipLibCheck", "--module", "nodenext", "--target", "es2022"]
    compiler = home / "node_modules" / "typescript" / "bin" / "tsc"
    done = subprocess.run(
        [compiler, *options, *sources], cwd=directory, capture_output=True, text=True, check=False
    )
    return done.stdout + done.stderr


def test_the_dashboards_have_grafanas_types(tmp_path: Path) -> None:
    assert compile_typescript(tmp_path, {f"{path.stem}.ts": typed(load(path)) for path in DASHBOARDS}) == ""


def _misspelt_key(dashboard: dict[str, Any]) -> None:
    dashboard["refesh"] = "30s"


def _misspelt_panel_key(dashboard: dict[str, Any]) -> None:
    panels(dashboard)[0]["desciption"] = "x"


def _unknown_option(dashboard: dict[str, Any]) -> None:
    panels(dashboard)[0]["options"]["colourMode"] = "value"


def _impossible_value(dashboard: dict[str, Any]) -> None:
    next(p for p in panels(dashboard) if p["type"] == "timeseries")["options"]["tooltip"]["mode"] = "many"


def _wrong_type(dashboard: dict[str, Any]) -> None:
    panels(dashboard)[0]["gridPos"]["w"] = "4"


@pytest.mark.parametrize(
    "spoil", [_misspelt_key, _misspelt_panel_key, _unknown_option, _impossible_value, _wrong_type]
)
def test_what_grafana_would_not_know_is_found(tmp_path: Path, spoil: Any) -> None:
    """The check above can fail."""
    dashboard = load(DASHBOARDS[0])
    spoil(dashboard)
    assert "error TS" in compile_typescript(tmp_path, {"spoilt.ts": typed(dashboard)})


@pytest.mark.parametrize("path", DASHBOARDS, ids=lambda path: path.stem)
def test_a_dashboard_is_complete(path: Path) -> None:
    """Explained, without overlaps, every variable that it uses defined, every query with the choice above."""
    dashboard = load(path)
    assert dashboard["description"]
    taken: set[tuple[int, int]] = set()
    for panel in dashboard["panels"]:
        place = panel["gridPos"]
        cells = {
            (x, y)
            for x in range(place["x"], place["x"] + place["w"])
            for y in range(place["y"], place["y"] + place["h"])
        }
        assert place["x"] + place["w"] <= 24
        assert not cells & taken, panel["title"]
        taken |= cells
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"])
    assert len({panel["title"] for panel in panels(dashboard)}) == len(panels(dashboard))
    variables = {variable["name"] for variable in dashboard["templating"]["list"]}
    for panel in panels(dashboard):
        assert panel["description"], panel["title"]
        for target in panel["targets"]:
            used = set(re.findall(r"\$\{?(\w+)", target["expr"])) - {"__rate_interval", "__range"}
            assert {"app_id"} <= used <= variables, target["expr"]


def test_queries_ask_only_for_what_there_is() -> None:
    metrics = known_metrics()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    choosers = [
        variable["query"]["query"]
        for path in DASHBOARDS
        for variable in load(path)["templating"]["list"]
        if variable["type"] == "query"
    ]
    assert len(choosers) == len(DASHBOARDS) + 2
    for expression in [*expressions(), *choosers]:
        names = series_names(expression)
        assert names, expression
        assert names <= metrics.keys() | recorded, f"{names - metrics.keys() - recorded} in {expression}"
        for name, label in matched_labels(expression):
            assert name in recorded or label in metrics[name], f"{name} has no label {label}"


def read_expressions() -> list[str]:
    return [*expressions(), *(rule["expr"] for rule in rules())]


def _family(name: str) -> str:
    return re.sub(r"_(bucket|count|sum)$", "", name)


def test_every_metric_is_shown_or_watched() -> None:
    """One that nobody looks at should not be there, but for those that others may look at since before."""
    read = {name for expression in read_expressions() for name in series_names(expression)}
    families = {_family(name) for name in read}
    for name in known_metrics().keys() - SUPERSEDED:
        assert _family(name) in families, f"{name} is on no dashboard and in no rule"


def test_every_recorded_series_is_used() -> None:
    """By an alert, another rule or a dashboard."""
    read = {name for expression in read_expressions() for name in series_names(expression)}
    for name in (rule["record"] for rule in rules() if "record" in rule):
        assert name in read, name


def test_rules_and_dashboards_agree_on_the_objective() -> None:
    """1 s and 1 % stand in several places."""
    of_rules = rule_files.files()["slo.yml"]
    for read in (of_rules, "".join(expressions())):
        assert set(re.findall(r'le="([^"]+)"', read)) == {"1.0"}
    page = (ROOT / "docs" / "runbooks" / "lateness-budget-burns.md").read_text()
    assert "99 % of fires happen within one second" in page
