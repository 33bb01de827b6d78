"""The alert rules: valid, tested in both directions, each with a page for whoever is woken by it."""

from __future__ import annotations

import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

from delaystream.config import Settings, environment_name
from deploy import rules as source
from tests.deploy.chart import ChartRefused, case, render
from tests.deploy.conftest import ROOT, Tool
from tests.deploy.monitoring.metric_names import known_metrics, matched_labels, series_names
from tests.unit.test_setup import script

chart = script("chart")

CASES = sorted(Path(__file__).parent.glob("*.test.yml"))
RUNBOOKS = ROOT / "docs" / "runbooks"
HEADINGS = ["## Symptom", "## What it means for users", "## How to check", "## What to do"]
APP = 'app_id="delaystream"'


def rules() -> list[dict[str, Any]]:
    return [rule for found in source.rules().values() for group in found["groups"] for rule in group["rules"]]


ALERTS = {rule["alert"]: rule for rule in rules() if "alert" in rule}


def cases(path: Path) -> dict[str, Any]:
    """A file of cases; every scalar as it is written, because promtool's notation looks like numbers."""
    loaded: dict[str, Any] = yaml.load(path.read_text("utf-8"), yaml.BaseLoader)
    return loaded


def promtool(tool: Tool, *arguments: str | Path) -> None:
    done = subprocess.run(
        [tool("promtool"), *arguments], capture_output=True, text=True, check=False, timeout=100
    )
    assert done.returncode == 0, done.stdout + done.stderr


def written(directory: Path, app_id: str = source.APP_ID, **changed: Any) -> list[Path]:
    """The rules, rendered into a directory."""
    for name, text in source.files(app_id, changed=changed).items():
        (directory / name).write_text(text)
    return sorted(directory.glob("*.yml"))


def _of_application(series: str) -> str:
    if "app_id=" in series:
        return series
    name, brace, labels = series.partition("{")
    return f"{name}{{{APP}, {labels}" if brace else f"{name}{{{APP}}}"


def _complete(test: dict[str, Any]) -> dict[str, Any]:
    """A case with what all of them have in common."""
    for each in test["input_series"]:
        each["series"] = _of_application(each["series"])
    for asked in test.get("promql_expr_test", []):
        for sample in asked["exp_samples"]:
            sample["value"] = float(sample["value"])
    for asked in test.get("alert_rule_test", []):
        rule = ALERTS[asked["alertname"]]
        common = {name: text for name, text in rule["annotations"].items() if name != "summary"}
        for alert in asked.get("exp_alerts", []):
            labels = {"app_id": "delaystream", "severity": rule["labels"]["severity"]}
            alert["exp_labels"] = labels | alert["exp_labels"]
            alert["exp_annotations"] = common | alert["exp_annotations"]
    return test


def _by_thresholds(path: Path) -> Iterator[tuple[dict[str, Any], dict[str, Any]]]:
    """The thresholds of some cases, and the file with these alone."""
    found = cases(path)
    known: list[dict[str, Any]] = []
    for test in found["tests"]:
        thresholds = test.pop("thresholds", {})
        if thresholds not in known:
            known.append(thresholds)
        test["of"] = known.index(thresholds)
    for number, thresholds in enumerate(known):
        tests = [_complete(test) for test in found["tests"] if test["of"] == number]
        yield thresholds, found | {"tests": [{k: v for k, v in test.items() if k != "of"} for test in tests]}


def test_promtool_accepts_the_rules(tool: Tool, tmp_path: Path) -> None:
    promtool(tool, "check", "rules", *written(tmp_path))


@pytest.mark.parametrize("name", source.files())
def test_the_rendered_rules_are_current(name: str) -> None:
    """`python -m deploy.rules` renews them; Compose and those without Helm take them."""
    assert (source.RENDERED / name).read_text("utf-8") == source.files()[name]


def test_the_chart_renders_the_same_rules(tool: Tool) -> None:
    """One source; the chart alone knows how many workers there should be."""
    objects = render(tool("helm"), *case("minimal"), "--set", "metrics.rules.enabled=true,replicas=3")
    found = {each["metadata"]["name"]: each["spec"] for each in objects if each["kind"] == "PrometheusRule"}
    expected = source.rules(changed={"workers": 3})
    assert found == {f"r-delaystream-{name.removesuffix('.yml')}": spec for name, spec in expected.items()}


def test_the_chart_changes_what_its_values_say(tool: Tool) -> None:
    """The application, thresholds, what is left out, severities, routing labels, pages."""
    values = {
        "settings.app_id": "orders",
        "metrics.rules.enabled": "true",
        "metrics.rules.thresholds.overdueSeconds": "120",
        "metrics.rules.thresholds.workers": "7",
        "metrics.rules.disabled[0]": "DelaystreamClockSkew",
        "metrics.rules.severities.DelaystreamWorkerDown": "critical",
        "metrics.rules.alertLabels.team": "payments",
        "metrics.rules.runbookUrl": "https://docs.example.org/{page}.html",
    }
    # Braces are lists for --set.
    sets = [f"{name}={value}".replace("{", "\\{").replace("}", "\\}") for name, value in values.items()]
    arguments = [argument for each in sets for argument in ("--set", each)]
    objects = render(tool("helm"), *case("minimal"), *arguments)
    found = {
        rule["alert"]: rule
        for each in objects
        if each["kind"] == "PrometheusRule"
        for group in each["spec"]["groups"]
        for rule in group["rules"]
        if "alert" in rule
    }
    assert found.keys() == ALERTS.keys() - {"DelaystreamClockSkew"}
    assert "> 120" in found["DelaystreamOverdueGrows"]["expr"]
    assert "< 7" in found["DelaystreamWorkersMissing"]["expr"]
    assert found["DelaystreamWorkerDown"]["labels"] == {
        "severity": "critical",
        "app_id": "orders",
        "team": "payments",
    }
    assert {rule["labels"]["team"] for rule in found.values()} == {"payments"}
    assert (
        found["DelaystreamDown"]["annotations"]["runbook_url"] == "https://docs.example.org/worker-down.html"
    )
    assert 'app_id="orders"' in found["DelaystreamDown"]["expr"]


@pytest.mark.parametrize(
    "wrong",
    [
        "disabled[0]=DelaystreamDwon",
        "severities.DelaystreamDwon=critical",
        "runbookUrl=docs/runbooks",
        "thresholds.delayBound=1",
        "thresholds.overdueSecond=1",
    ],
)
def test_the_chart_refuses_what_the_rules_do_not_have(tool: Tool, wrong: str) -> None:
    with pytest.raises(ChartRefused, match=r"rules"):
        render(tool("helm"), *case("minimal"), "--set", f"metrics.rules.{wrong}")


def test_the_rules_of_another_application_are_rendered_on_the_command_line(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "deploy.rules", "--app-id", "orders", "--output", str(tmp_path)]
    subprocess.run([*command, "--set", "overdueSeconds=7"], cwd=ROOT, check=True, capture_output=True)
    text = (tmp_path / "alerts.yml").read_text()
    assert "delaystream-alerts-orders" in text
    assert '{app_id="orders"}[3m]) > 7' in text
    assert '"delaystream"' not in text
    wrong = subprocess.run(
        [*command, "--set", "overdue=7"], cwd=ROOT, check=False, capture_output=True, text=True
    )
    assert wrong.returncode == 2
    assert "overdue: there is no such threshold" in wrong.stderr


def test_the_rules_concern_one_application() -> None:
    """All that is read is that application's: two of them do not hear of each other's faults."""
    for rule in rules():
        for selected in re.findall(r"[\w:]*delaystream_[\w:]+(?![\w:(])(?:\{[^}]*\})?", rule["expr"]):
            assert APP in selected, f"{selected} in {rule['expr']}"
        assert not re.search(r"\b(job|namespace)(=|!|~)", rule["expr"]), rule["expr"]


def test_promtool_accepts_the_configuration_of_compose(tool: Tool) -> None:
    promtool(tool, "check", "config", "--syntax-only", ROOT / "deploy" / "prometheus.yml")


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.name)
def test_rules_fire_when_they_should_and_only_then(tool: Tool, tmp_path: Path, path: Path) -> None:
    for number, (thresholds, found) in enumerate(_by_thresholds(path)):
        directory = tmp_path / str(number)
        directory.mkdir()
        written(directory, **thresholds)
        (directory / "cases.yaml").write_text(yaml.safe_dump(found, sort_keys=False))
        promtool(tool, "test", "rules", directory / "cases.yaml")


@pytest.mark.parametrize("alert", ALERTS)
def test_each_alert_has_a_case_that_fires_and_one_that_does_not(alert: str) -> None:
    found = [
        asked
        for path in CASES
        for test in cases(path)["tests"]
        for asked in test.get("alert_rule_test", [])
        if asked["alertname"] == alert
    ]
    assert any(asked.get("exp_alerts") for asked in found), f"no case in which {alert} fires"
    assert any(not asked.get("exp_alerts") for asked in found), f"no case in which {alert} does not fire"


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


def test_the_schema_of_the_values_knows_the_alerts() -> None:
    assert chart.alerts() == list(ALERTS)


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
            assert name in recorded or label in metrics[name], f"{name} has no label {label}"
