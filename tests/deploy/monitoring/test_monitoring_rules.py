"""The alert rules: valid, tested in both directions, each with a page for whoever is woken by it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from delaystream.config import Settings, environment_name
from tests.deploy.conftest import ROOT, Tool
from tests.deploy.monitoring.metric_names import known_metrics, matched_labels, series_names

RULES = sorted((ROOT / "helm" / "delaystream" / "files" / "rules").glob("*.yml"))
CASES = sorted(Path(__file__).parent.glob("*.test.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
HEADINGS = ["## Symptom", "## What it means for users", "## How to check", "## What to do"]


def rules() -> list[dict[str, Any]]:
    return [
        rule
        for path in RULES
        for group in yaml.safe_load(path.read_text())["groups"]
        for rule in group["rules"]
    ]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def promtool(tool: Tool, *arguments: str | Path) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_promtool_accepts_the_rules(tool: Tool) -> None:
    promtool(tool, "check", "rules", *RULES)


def test_promtool_accepts_the_configuration_of_compose(tool: Tool) -> None:
    promtool(tool, "check", "config", "--syntax-only", ROOT / "deploy" / "prometheus.yml")


@pytest.mark.parametrize("cases", CASES, ids=lambda path: path.name)
def test_rules_fire_when_they_should_and_only_then(tool: Tool, cases: Path) -> None:
    promtool(tool, "test", "rules", cases)


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(alert: str) -> None:
    cases = [
        case
        for path in CASES
        for test in yaml.safe_load(path.read_text())["tests"]
        for case in test.get("alert_rule_test", [])
        if case["alertname"] == alert
    ]
    assert any(case.get("exp_alerts") for case in cases), f"no case in which {alert} fires"
    assert any(not case.get("exp_alerts") for case in cases), f"no case in which {alert} does not fire"


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_says_who_is_hurt_and_what_to_do(alert: str) -> None:
    rule = ALERTS[alert]
    assert rule["labels"]["severity"] in {"critical", "warning"}
    assert {"summary", "impact", "runbook"} == set(rule["annotations"])
    page = ROOT / rule["annotations"]["runbook"]
    text = page.read_text()
    assert alert in text.partition("\n")[0], f"{page.name} does not name {alert} in its title"
    assert [line for line in text.splitlines() if line.startswith("## ")] == HEADINGS
    row = next(line for line in (RUNBOOKS / "README.md").read_text().splitlines() if f"`{alert}`" in line)
    assert rule["labels"]["severity"] in row
    assert f"({page.name})" in row


def test_each_page_belongs_to_an_alert() -> None:
    pages = {path.name for path in RUNBOOKS.glob("*.md")} - {"README.md"}
    assert pages == {Path(rule["annotations"]["runbook"]).name for rule in ALERTS.values()}


def test_the_pages_name_metrics_and_settings_that_there_are() -> None:
    """At three in the morning nobody wants to look for a setting that was renamed."""
    metrics = {re.sub(r"_(bucket|count|sum)$", "", name) for name in known_metrics()}
    settings = {environment_name(name) for name in Settings.model_fields}
    for page in RUNBOOKS.glob("*.md"):
        text = page.read_text()
        named = set(re.findall(r"\bdelaystream_[a-z_]*[a-z]", text))
        assert named <= metrics, f"{page.name}: {named - metrics}"
        variables = set(re.findall(r"\bDELAYSTREAM_[A-Z_]*[A-Z]", text))
        assert variables <= settings, f"{page.name}: {variables - settings}"


def test_links_of_the_pages_lead_somewhere() -> None:
    for page in RUNBOOKS.glob("*.md"):
        for target in re.findall(r"\]\(([^)#]+)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_rules_read_only_what_there_is() -> None:
    """A metric or a label that is renamed would silence an alert without a word."""
    metrics = known_metrics()
    recorded = {rule["record"] for rule in rules() if "record" in rule}
    for rule in rules():
        names = series_names(rule["expr"])
        assert names <= metrics.keys() | recorded, f"{names - metrics.keys() - recorded} in {rule['expr']}"
        assert names, rule["expr"]
        for name, label in matched_labels(rule["expr"]):
            assert label in metrics[name], f"{name} has no label {label}"
