"""The chart, by the ecosystem's own tools: helm, helm-unittest, kubeconform, helm-docs."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml

import delaystream
from delaystream.config import Settings
from delaystream.topics.access import by_resource, users
from delaystream.topics.specification import plan
from tests.deploy.chart import CASES, CHART, ROOT, ChartRefused, case, helm, one, render, template
from tests.deploy.conftest import Tool

SCHEMAS = ROOT / "tests" / "deploy" / "schemas"
VERSIONS = sorted(path.name for path in SCHEMAS.iterdir() if path.name[0].isdecimal())
VALUES: dict[str, Any] = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))
#: Which kinds of object a case has beside those that every case has.
ALWAYS = {"StatefulSet", "Service", "ServiceAccount", "PodDisruptionBudget", "Pod"}
FURTHER = {
    "minimal": {"NetworkPolicy"},
    "mtls": {"NetworkPolicy"},
    "scram": {"NetworkPolicy"},
    "no-operator": {"ConfigMap"},
    "console": {"NetworkPolicy", "Deployment", "PersistentVolumeClaim"},
    "full": {
        *("NetworkPolicy", "PodMonitor", "PrometheusRule", "ConfigMap"),
        *("KafkaTopic", "KafkaUser", "ScaledObject"),
        *("Deployment", "HTTPRoute", "Ingress", "ServiceMonitor"),
    },
}


@pytest.mark.parametrize("name", CASES)
def test_helm_lint_finds_nothing(tool: Tool, name: str) -> None:
    helm(tool("helm"), "lint", "--strict", str(CHART), *case(name))


@pytest.mark.parametrize("name", CASES)
def test_a_case_renders_the_kinds_that_it_is_to_have(tool: Tool, name: str) -> None:
    """A check of objects that are not there would find nothing wrong with them."""
    assert {each["kind"] for each in render(tool("helm"), *case(name))} == ALWAYS | FURTHER[name]


@pytest.mark.parametrize("version", VERSIONS)
def test_every_object_is_valid(tool: Tool, tmp_path: Path, version: str) -> None:
    """Strictly, by the schemas of several Kubernetes versions and of the operators' definitions."""
    for name in CASES:
        rendered = template(tool("helm"), *case(name), "--kube-version", version)
        (tmp_path / f"{name}.yaml").write_text(rendered)
    summary = conform(tool, tmp_path, version)
    assert (summary["invalid"], summary["errors"], summary["skipped"]) == (0, 0, 0), summary
    assert summary["valid"] >= len(CASES) * len(ALWAYS)


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ("terminationGracePeriodSeconds: 90", "terminationGracePeriodSecond: 90"),
        ("interval: 10s", "intervall: 10s"),
        ("scrapeTimeout: 8s", "scrapeTimeOut: 8s"),
        ("strategy:", "strategies:"),
        ("pathType: Exact", "pathtype: Exact"),
        ("minReplicaCount: 3", "minReplicaCount: three"),
        ("topicName: delays.commands", "topic: delays.commands"),
    ],
)
def test_the_validation_would_find_a_mistake(tool: Tool, tmp_path: Path, old: str, new: str) -> None:
    text = template(tool("helm"), *case("full"))
    assert old in text
    manifests = tmp_path / "manifests.yaml"
    manifests.write_text(text.replace(old, new))
    assert conform(tool, manifests, VERSIONS[-1])["invalid"] > 0


def conform(tool: Tool, manifests: Path, version: str) -> dict[str, int]:
    name = "{{.ResourceKind}}{{.KindSuffix}}.json"
    locations = [f"{SCHEMAS}/{version}/{name}", f"{SCHEMAS}/crds/{name}"]
    options = [word for location in locations for word in ("-schema-location", location)]
    command: list[str | Path] = [
        tool("kubeconform"),
        "-strict",
        "-summary",
        "-output",
        "json",
        *options,
        manifests,
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    summary: dict[str, int] = json.loads(done.stdout)["summary"]
    return summary


def test_a_version_of_kubernetes_that_is_too_old_is_refused(tool: Tool) -> None:
    with pytest.raises(ChartRefused, match=r"chart requires kubeVersion: >=1\.29"):
        render(tool("helm"), *case("minimal"), "--kube-version", "1.28.0")


def test_the_units_of_the_chart(tool: Tool) -> None:
    """helm-unittest's suites, in the chart's own `tests/`."""
    done = subprocess.run(
        [tool("helm-unittest"), "--strict", str(CHART)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"Tests: +[1-9][0-9]+ passed", done.stdout), done.stdout


def test_dashboards_are_those_of_the_files(tool: Tool) -> None:
    """One source: Compose takes the same files; their own `{{ }}` are not Helm's."""
    manifests = render(tool("helm"), *case("full"))
    dashboards = {
        name: json.loads(text)
        for each in manifests
        if each["kind"] == "ConfigMap"
        for name, text in each["data"].items()
    }
    paths = (CHART / "files" / "dashboards").glob("*.json")
    assert dashboards == {path.name: json.loads(path.read_text("utf-8")) for path in paths}
    assert dashboards


def test_the_readme_is_as_helm_docs_writes_it(tool: Tool) -> None:
    """`make chart` renews it."""
    done = subprocess.run(
        [tool("helm-docs"), "--dry-run", "--chart-search-root", str(CHART), "--log-level", "error"],
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == (CHART / "README.md").read_text("utf-8").strip()


def test_the_chart_is_for_the_version_that_it_stands_beside() -> None:
    chart = yaml.safe_load((CHART / "Chart.yaml").read_text("utf-8"))
    assert chart["appVersion"] == delaystream.__version__


def test_every_value_is_in_the_schema_and_every_property_in_the_values() -> None:
    """What has no default could not be found by reading `values.yaml`."""
    schema = json.loads((CHART / "values.schema.json").read_text("utf-8"))
    free = {"settings", "kafka.properties", "metrics.rules.severities"}

    def walk(node: dict[str, Any], values: Any, path: str) -> None:
        if path in free or "properties" not in node:
            return
        assert set(values) == set(node["properties"]), path
        for name, each in node["properties"].items():
            walk(each, values[name], f"{path}.{name}".strip("."))

    walk(schema, VALUES, "")


def objects(values: dict[str, Any], path: str = "") -> Iterator[str]:
    yield path
    for name, value in values.items():
        if isinstance(value, dict):
            yield from objects(value, f"{path}.{name}".strip("."))


#: Maps of names that people choose.
CHOSEN = {"nodeSelector", "podLabels", "podAnnotations", "env", "requests", "limits"}
CHOSEN |= {"labels", "annotations", "commonLabels", "commonAnnotations", "alertLabels"}


def test_an_unknown_value_is_refused_at_every_depth(tool: Tool) -> None:
    """All of them at once: Helm names each."""
    # Others' values are in `global`, too; what would have no effect is refused by a sentence.
    paths = [path for path in objects(VALUES) if path.rpartition(".")[2] not in {*CHOSEN, "global"}]
    words = [word for path in paths for word in ("--set", f"{path}.mispelt=1".strip("."))]
    with pytest.raises(ChartRefused) as refused:
        template(tool("helm"), *case("minimal"), *words)
    named = re.findall(r"at '([^']*)': additional properties 'mispelt' not allowed", str(refused.value))
    assert {place.strip("/").replace("/", ".") for place in named} == set(paths)
    assert len(paths) > 50


def test_the_chart_may_be_part_of_another_one(tool: Tool, tmp_path: Path) -> None:
    """Helm gives `global` to every chart then, with what is meant for others."""
    parent = tmp_path / "parent"
    parent.mkdir()
    dependency = {"name": CHART.name, "version": "*", "repository": f"file://{CHART}"}
    about = {"apiVersion": "v2", "name": "parent", "version": "1.0.0", "dependencies": [dependency]}
    (parent / "Chart.yaml").write_text(yaml.safe_dump(about))
    shutil.copytree(CHART, parent / "charts" / CHART.name)
    own = yaml.safe_load((CHART / "ci" / "minimal-values.yaml").read_text("utf-8"))
    shared = {"imageRegistry": "mirror.example.com", "postgresql": {"auth": {"database": "x"}}}
    (parent / "values.yaml").write_text(yaml.safe_dump({CHART.name: own, "global": shared}))
    manifests = render(tool("helm"), chart=parent)
    [container] = one(manifests, "StatefulSet")["spec"]["template"]["spec"]["containers"]
    assert container["image"].startswith("mirror.example.com/delaystream:")


# -- Strimzi, as topics/topics.json has it -------------------------------------------------------------


def application() -> Settings:
    given = yaml.safe_load((CHART / "ci" / "full-values.yaml").read_text("utf-8"))["settings"]
    return Settings(**given)


def test_the_topics_are_those_of_the_one_description(tool: Tool) -> None:
    """Name, partitions, replicas and every setting: what `delaystream topics print` says."""
    rendered = {
        each["spec"]["topicName"]: each
        for each in render(tool("helm"), *case("full"))
        if each["kind"] == "KafkaTopic"
    }
    expected = {topic.name: topic for topic in plan(application(), partitions=12)}
    assert rendered.keys() == expected.keys()
    for name, topic in expected.items():
        manifest = rendered[name]
        assert manifest["spec"]["partitions"] == topic.partitions
        assert manifest["spec"]["replicas"] == topic.replication_factor
        assert {key: str(value) for key, value in manifest["spec"]["config"].items()} == topic.config
        assert manifest["metadata"]["annotations"]["helm.sh/resource-policy"] == "keep"
        assert manifest["metadata"]["namespace"] == "kafka"


@pytest.mark.parametrize(
    "destinations", [["orders", "reminders-*"], ["*"], ["a-*", "b[12]", "c?d", "*-x"], ["one"]]
)
def test_the_users_have_the_least_rights_and_no_others(tool: Tool, destinations: list[str]) -> None:
    """Those of `topics/topics.json`, for any allow-list."""
    settings = application().model_copy(update={"destinations_allow": tuple(destinations)})
    rendered = {
        each["metadata"]["name"]: {
            (acl["resource"]["type"], acl["resource"]["name"], acl["resource"]["patternType"]): set(
                acl["operations"]
            )
            for acl in each["spec"]["authorization"]["acls"]
        }
        for each in render(
            tool("helm"),
            *case("full"),
            "--set-json",
            f"settings.destinations_allow={json.dumps(destinations)}",
        )
        if each["kind"] == "KafkaUser"
    }
    kinds = {"topic": "topic", "group": "group", "transactional-id": "transactionalId"}
    expected = {
        user.name: {
            (kinds[acl.resource], acl.name, "prefix" if acl.prefixed else "literal"): set(operations)
            for acl, operations in by_resource(user.acls)
        }
        for user in users(settings)
    }
    assert rendered == expected


def test_the_chart_and_the_image_agree(tool: Tool) -> None:
    """User, entry point, and the directory of the state."""
    dockerfile = (ROOT / "Dockerfile").read_text("utf-8")
    spec = one(render(tool("helm"), *case("minimal")), "StatefulSet")["spec"]["template"]["spec"]
    security, [container] = spec["securityContext"], spec["containers"]
    assert f"\nUSER {security['runAsUser']}:{security['runAsGroup']}\n" in dockerfile
    assert security["fsGroup"] == security["runAsGroup"]
    assert '\nENTRYPOINT ["delaystream"]\n' in dockerfile
    assert "command" not in container
    [state] = [mount["mountPath"] for mount in container["volumeMounts"] if mount["name"] == "state"]
    assert f"\nVOLUME {state}\n" in dockerfile


@pytest.mark.parametrize("authentication", ["scram-sha-512", "tls"])
def test_the_chart_and_the_command_say_the_same_to_strimzi(tool: Tool, authentication: str) -> None:
    """`delaystream topics print --output strimzi`: the same objects, whoever applies them."""
    given = yaml.safe_load((CHART / "ci" / "full-values.yaml").read_text("utf-8"))["settings"]
    for topic, table in given.pop("tenants").items():
        given |= {f"tenants.{topic}.{name}": value for name, value in table.items()}
    pairs = [
        f"{name}={','.join(value) if isinstance(value, list) else value}" for name, value in given.items()
    ]
    command = [
        *(sys.executable, "-m", "delaystream", "topics", "print", "--output", "strimzi"),
        *("--partitions", "12", "--cluster", "my-cluster", "--namespace", "kafka"),
        *("--authentication", authentication),
        *(word for pair in pairs for word in ("--set", pair)),
    ]
    printed = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60).stdout
    chosen = ("--set", f"strimzi.users.authentication={authentication}")
    rendered = render(tool("helm"), *case("full"), *chosen)
    expected = {_key(each): _said(each) for each in yaml.safe_load_all(printed) if each}
    found = {_key(each): _said(each) for each in rendered if each["kind"] in {"KafkaTopic", "KafkaUser"}}
    assert {kind for _, kind, _, _ in expected} == {"KafkaTopic", "KafkaUser"}
    assert found == expected


def _key(manifest: dict[str, Any]) -> tuple[str, str, str, str]:
    about = manifest["metadata"]
    return manifest["apiVersion"], manifest["kind"], about["namespace"], about["name"]


def _said(manifest: dict[str, Any]) -> dict[str, Any]:
    """What it asks for; the order of ACLs, and how numbers are written, do not matter."""
    spec = dict(manifest["spec"])
    if "config" in spec:
        spec["config"] = {name: str(value).lower() for name, value in spec["config"].items()}
    # A topic that has the name of its object need not say so.
    if manifest["kind"] == "KafkaTopic":
        spec.setdefault("topicName", manifest["metadata"]["name"])
    if "authorization" in spec:
        spec["authorization"] = sorted(
            (*sorted(acl["resource"].items()), *sorted(acl["operations"]))
            for acl in spec["authorization"]["acls"]
        )
    return {**spec, "cluster": manifest["metadata"]["labels"]["strimzi.io/cluster"]}


def test_what_keda_asks_prometheus_is_promql_over_a_metric_that_there_is(tool: Tool, tmp_path: Path) -> None:
    scaled = one(render(tool("helm"), *case("full")), "ScaledObject")
    [trigger] = scaled["spec"]["triggers"]
    query = trigger["metadata"]["query"]
    rules = {"groups": [{"name": "keda", "rules": [{"record": "keda:query", "expr": query}]}]}
    path = tmp_path / "rules.yml"
    path.write_text(yaml.safe_dump(rules))
    done = subprocess.run(
        [tool("promtool"), "check", "rules", path], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert set(re.findall(r"delaystream_\w+", query)) == {"delaystream_fireable_overdue_seconds"}
    assert "| `delaystream_fireable_overdue_seconds` |" in (ROOT / "docs" / "operations.md").read_text(
        "utf-8"
    )
