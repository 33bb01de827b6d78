"""The chart's life on a cluster: install, upgrade, roll back, evict, uninstall; nothing of it is refused."""

from __future__ import annotations

import shutil
import time
from collections.abc import Callable
from pathlib import Path

import pytest
import yaml

from tests.cluster.control_plane import ControlPlane, Manifest, Refused
from tests.deploy.chart import CASES, CHART, ChartRefused, case, helm, one, render
from tests.deploy.conftest import Tool

RELEASE = "r"
WAIT = ("--wait", "--timeout", "120s")

pytestmark = pytest.mark.timeout(600)


class Installed:
    """A release in a namespace that enforces the restricted Pod Security Standard."""

    def __init__(self, cluster: ControlPlane, program: Path, namespace: str) -> None:
        self.cluster = cluster
        self.namespace = namespace
        self._program = program
        labels = {"pod-security.kubernetes.io/enforce": "restricted"}
        cluster.apply(
            [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace, "labels": labels}}]
        )

    def helm(self, verb: str, *arguments: str) -> str:
        """Run helm on the release."""
        options = ("--namespace", self.namespace, "--kubeconfig", str(self.cluster.kubeconfig))
        return helm(self._program, verb, RELEASE, *arguments, *options)

    def pods(self, component: str = "worker") -> list[Manifest]:
        """Its workers or consoles, in the order of their names."""
        found = self.cluster.get(
            "pods", "-n", self.namespace, "-l", f"app.kubernetes.io/component={component}"
        )
        return sorted(found["items"], key=lambda pod: str(pod["metadata"]["name"]))

    def images(self) -> set[str]:
        return {pod["spec"]["containers"][0]["image"] for pod in self.pods()}


@pytest.mark.parametrize("name", CASES)
def test_every_case_installs_and_runs(cluster: ControlPlane, tool: Tool, name: str) -> None:
    """Accepted by the API server's schemas, validation and admission; pods are placed and run."""
    release = Installed(cluster, tool("helm"), f"case-{name}")
    if name == "full":
        cluster.kubectl("create", "namespace", "kafka")
        for node in ("node-0", "node-1", "node-2"):
            cluster.kubectl("taint", "node", node, "dedicated=kafka:PreferNoSchedule", "--overwrite")
    release.helm("install", str(CHART), *case(name), *WAIT)
    pods = release.pods()
    assert {pod["status"]["phase"] for pod in pods} == {"Running"}
    # Without `replicas` (KEDA decides it) a StatefulSet begins with one.
    assert len(pods) == (1 if name == "full" else 2)
    claims = cluster.get("persistentvolumeclaims", "-n", release.namespace)["items"]
    assert {claim["status"]["phase"] for claim in claims} == (set() if name == "no-operator" else {"Bound"})
    consoles = release.pods("console")
    assert len(consoles) == {"full": 2, "console": 1}.get(name, 0)
    assert {pod["status"]["phase"] for pod in consoles} <= {"Running"}
    # The pod of `helm test` is admitted too.
    manifests = render(tool("helm"), *case(name))
    cluster.kubectl(
        *("create", "--dry-run=server", "-n", release.namespace, "-f", "-"), manifests=[one(manifests, "Pod")]
    )
    release.helm("uninstall", "--wait")
    assert cluster.names("statefulsets", release.namespace) == set()
    if name == "full":
        assert len(cluster.names("kafkatopics.kafka.strimzi.io", "kafka")) == 6
        assert len(cluster.names("kafkausers.kafka.strimzi.io", "kafka")) == 7


def test_admission_is_at_work(cluster: ControlPlane, tool: Tool) -> None:
    """The namespace would refuse a pod that is less than restricted."""
    release = Installed(cluster, tool("helm"), "admission")
    pod = one(render(tool("helm"), *case("minimal")), "Pod")
    pod["spec"]["serviceAccountName"] = "default"
    _await(lambda: "default" in cluster.names("serviceaccounts", release.namespace), "the account")
    create = ("create", "--dry-run=server", "-n", release.namespace, "-f", "-")
    cluster.kubectl(*create, manifests=[pod])
    del pod["spec"]["containers"][0]["securityContext"]["capabilities"]
    with pytest.raises(Refused, match="violates PodSecurity"):
        cluster.kubectl(*create, manifests=[pod])


def test_upgrade_and_rollback_keep_the_volumes(cluster: ControlPlane, tool: Tool, tmp_path: Path) -> None:
    """A new version of chart and image replaces the pods one by one; their claims are the ones of before."""
    release = Installed(cluster, tool("helm"), "upgrade")
    release.helm("install", str(CHART), *case("minimal"), *WAIT)
    claims = _claims(release)
    before = release.images()
    assert len(claims) == 2

    newer = tmp_path / "delaystream"
    shutil.copytree(CHART, newer)
    about = yaml.safe_load((newer / "Chart.yaml").read_text())
    (newer / "Chart.yaml").write_text(yaml.safe_dump({**about, "version": "9.0.0", "appVersion": "9.0.0"}))
    release.helm("upgrade", str(newer), *case("minimal"), "--set", "minReadySeconds=0", *WAIT)
    assert release.images() == {"registry.example.com/delaystream:9.0.0"}
    assert _claims(release) == claims

    release.helm("rollback", "1", *WAIT)
    _await(lambda: release.images() == before, "the images of before")
    assert _claims(release) == claims

    release.helm("uninstall", "--wait")
    assert release.cluster.names("statefulsets", release.namespace) == set()
    assert _claims(release) == claims, "the state outlives the release"


def test_a_console_comes_and_goes_beside_the_workers(cluster: ControlPlane, tool: Tool) -> None:
    """Workers are not touched; the volume stays, and is the one that a later console has."""
    release = Installed(cluster, tool("helm"), "console")
    release.helm("install", str(CHART), *case("console"), "--set", "console.enabled=false", *WAIT)
    workers = {pod["metadata"]["uid"] for pod in release.pods()}
    assert release.pods("console") == []
    release.helm("upgrade", str(CHART), *case("console"), *WAIT)
    assert len(release.pods("console")) == 1
    claim = _claims(release)["r-delaystream-console"]
    endpoints = cluster.get("endpointslices", "-n", release.namespace)["items"]
    selected = {
        target["targetRef"]["name"]
        for each in endpoints
        if each["metadata"]["labels"]["kubernetes.io/service-name"] == "r-delaystream-console"
        for target in each["endpoints"]
    }
    assert selected == {pod["metadata"]["name"] for pod in release.pods("console")}
    release.helm("upgrade", str(CHART), *case("console"), "--set", "console.enabled=false", *WAIT)
    _await(lambda: release.pods("console") == [], "the console's end")
    assert _claims(release)["r-delaystream-console"] == claim
    release.helm("upgrade", str(CHART), *case("console"), *WAIT)
    assert _claims(release)["r-delaystream-console"] == claim
    assert {pod["metadata"]["uid"] for pod in release.pods()} == workers
    release.helm("uninstall", "--wait")
    release.helm("install", str(CHART), *case("console"), *WAIT)
    assert _claims(release)["r-delaystream-console"] == claim
    release.helm("uninstall", "--wait")


def test_pods_are_replaced_when_a_secret_changes(cluster: ControlPlane, tool: Tool) -> None:
    """With `checksums.enabled`: Helm sees the secrets that the cluster has."""
    release = Installed(cluster, tool("helm"), "checksums")
    about = {"name": "delaystream-worker", "namespace": release.namespace}
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": about}
    options = (*case("scram"), "--set", "checksums.enabled=true,minReadySeconds=0", *WAIT)
    cluster.apply([{**secret, "stringData": {"password": "one"}}])
    release.helm("install", str(CHART), *options)
    first = {pod["metadata"]["uid"] for pod in release.pods()}
    release.helm("upgrade", str(CHART), *options)
    assert {pod["metadata"]["uid"] for pod in release.pods()} == first
    cluster.apply([{**secret, "stringData": {"password": "two"}}])
    release.helm("upgrade", str(CHART), *options)
    _await(lambda: first.isdisjoint(pod["metadata"]["uid"] for pod in release.pods()), "other pods")
    release.helm("uninstall", "--wait")


def test_what_cannot_be_changed_is_refused_and_harms_nothing(cluster: ControlPlane, tool: Tool) -> None:
    """The size of the claims: the documentation says how it is done instead."""
    release = Installed(cluster, tool("helm"), "immutable")
    release.helm("install", str(CHART), *case("minimal"), *WAIT)
    before = {pod["metadata"]["uid"] for pod in release.pods()}
    with pytest.raises(ChartRefused, match="updates to statefulset spec"):
        release.helm("upgrade", str(CHART), *case("minimal"), "--set", "persistence.size=20Gi", *WAIT)
    assert {pod["metadata"]["uid"] for pod in release.pods()} == before
    release.helm("uninstall", "--wait")


def test_a_drain_takes_one_worker_at_a_time(cluster: ControlPlane, tool: Tool) -> None:
    """While one is away, evicting another one is refused by the budget."""
    release = Installed(cluster, tool("helm"), "eviction")
    release.helm("install", str(CHART), *case("minimal"), *WAIT)
    first, second = (pod["metadata"]["name"] for pod in release.pods())
    _await(lambda: _allowed(release) == 1, "a budget that knows its pods")
    nodes = [node["metadata"]["name"] for node in cluster.get("nodes")["items"]]
    cluster.kubectl("cordon", *nodes)
    try:
        cluster.evict(first, release.namespace)
        _await(lambda: _allowed(release) == 0, "a budget that is used up")
        with pytest.raises(Refused, match="disruption budget"):
            cluster.evict(second, release.namespace)
    finally:
        cluster.kubectl("uncordon", *nodes)
    _await(lambda: _allowed(release) == 1, "the first one back")
    cluster.evict(second, release.namespace)
    release.helm("uninstall", "--wait")


def test_workers_are_spread_over_zones(cluster: ControlPlane, tool: Tool) -> None:
    release = Installed(cluster, tool("helm"), "spread")
    release.helm("install", str(CHART), *case("minimal"), "--set", "replicas=3", *WAIT)
    assert {pod["spec"]["nodeName"] for pod in release.pods()} == {"node-0", "node-1", "node-2"}
    release.helm("uninstall", "--wait")


def test_objects_of_another_release_are_not_taken_over(cluster: ControlPlane, tool: Tool) -> None:
    release = Installed(cluster, tool("helm"), "twice")
    names = ("--set", "fullnameOverride=delays")
    release.helm("install", str(CHART), *case("minimal"), *names, *WAIT)
    options = ("--namespace", release.namespace, "--kubeconfig", str(cluster.kubeconfig))
    with pytest.raises(ChartRefused, match=r"invalid ownership metadata"):
        helm(tool("helm"), "install", "other", str(CHART), *case("minimal"), *names, *options)
    release.helm("uninstall", "--wait")


def _claims(release: Installed) -> dict[str, str]:
    found = release.cluster.get("persistentvolumeclaims", "-n", release.namespace)["items"]
    return {claim["metadata"]["name"]: claim["metadata"]["uid"] for claim in found}


def _allowed(release: Installed) -> int:
    [budget] = release.cluster.get("poddisruptionbudgets", "-n", release.namespace)["items"]
    return int(budget["status"].get("disruptionsAllowed", 0))


def _await(condition: Callable[[], bool], what: str, seconds: float = 60.0) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, f"waited {seconds} s for {what}"
        time.sleep(0.2)
