"""`make test-cluster`: the chart on a real Kubernetes API server; in no other test run."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator

import pytest

from tests.cluster.control_plane import ControlPlane, Manifest, volumes
from tests.deploy.conftest import ROOT, tool

sys.path.insert(0, str(ROOT / "scripts"))

__all__ = ["tool"]


@pytest.fixture(scope="session")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[ControlPlane]:
    """One cluster for all tests, with the operators' definitions, and volumes to bind."""
    import cluster_tools

    programs = cluster_tools.install()
    directory = tmp_path_factory.mktemp("cluster")
    with ControlPlane(programs, programs / cluster_tools.STAGES, directory) as control_plane:
        control_plane.apply(_definitions())
        control_plane.apply(volumes(32, "10Gi", ["ReadWriteOnce"]))
        control_plane.apply(volumes(4, "50Gi", ["ReadWriteOncePod"], "local-ssd"))
        control_plane.apply([_priority("high"), _priority("low")])
        yield control_plane


def _definitions() -> list[Manifest]:
    """The custom resource definitions of the operators, from where their schemas are from."""
    import kubernetes_schemas

    found = [*kubernetes_schemas.operators(), *kubernetes_schemas.strimzi()]
    plain: list[Manifest] = json.loads(json.dumps(found))
    return plain


def _priority(name: str) -> Manifest:
    return {
        "apiVersion": "scheduling.k8s.io/v1",
        "kind": "PriorityClass",
        "metadata": {"name": name},
        "value": 1000,
    }
