"""A Kubernetes cluster without machines: the real control plane on loopback, its nodes played by kwok.

It proves what the API server, its admission and the controllers do with the chart's objects; it runs no
container, so it says nothing of images, probes, what volumes hold, or network policies.
"""

from __future__ import annotations

import json
import os
import secrets
import subprocess
import time
from collections.abc import Callable, Iterable, Sequence
from contextlib import closing
from pathlib import Path
from socket import socket
from types import TracebackType
from typing import Any

import yaml
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

Manifest = dict[str, Any]

_START_SECONDS = 90.0


class Refused(Exception):
    """kubectl failed; the message is what the API server said."""


class ControlPlane:
    """Use it as a context. `programs` holds etcd, the control plane, kubectl and kwok."""

    def __init__(self, programs: Path, stages: Path, directory: Path) -> None:
        self._programs = programs
        self._stages = stages
        self._directory = directory
        self._processes: list[subprocess.Popen[bytes]] = []
        self._token = secrets.token_hex(16)
        self.kubeconfig = directory / "kubeconfig"

    def __enter__(self) -> ControlPlane:
        try:
            self._start()
        except BaseException:
            self._stop()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._stop()

    # -- what tests do with it -------------------------------------------------------------------------

    @property
    def environment(self) -> dict[str, str]:
        """For programs that talk to this cluster: none of them finds another one, or the user's settings."""
        home = self._directory / "home"
        home.mkdir(exist_ok=True)
        return {**os.environ, "KUBECONFIG": str(self.kubeconfig), "HOME": str(home)}

    def kubectl(self, *arguments: str, manifests: Iterable[Manifest] = ()) -> str:
        """Run kubectl, with manifests on its input for `-f -`. Raises Refused."""
        done = subprocess.run(
            [self._programs / "kubectl", *arguments],
            input=yaml.safe_dump_all(list(manifests)),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=180,
        )
        if done.returncode != 0:
            raise Refused(done.stderr.strip())
        return str(done.stdout)

    def get(self, *arguments: str) -> Manifest:
        """One object, or a list of them, as the API server has it."""
        found: Manifest = json.loads(self.kubectl("get", *arguments, "-o", "json"))
        return found

    def names(self, kind: str, namespace: str) -> set[str]:
        """The names of all objects of a kind in a namespace."""
        return {each["metadata"]["name"] for each in self.get(kind, "-n", namespace)["items"]}

    def apply(self, manifests: Iterable[Manifest]) -> None:
        """Create or change objects."""
        self.kubectl("apply", "--server-side", "-f", "-", manifests=manifests)

    def evict(self, pod: str, namespace: str) -> None:
        """Ask for an eviction, as a drain does. Raises Refused when a budget forbids it."""
        body = {
            "apiVersion": "policy/v1",
            "kind": "Eviction",
            "metadata": {"name": pod, "namespace": namespace},
        }
        path = self._directory / "eviction.json"
        path.write_text(json.dumps(body))
        address = f"/api/v1/namespaces/{namespace}/pods/{pod}/eviction"
        self.kubectl("create", "--raw", address, "-f", str(path))

    # -- its processes ---------------------------------------------------------------------------------

    def _start(self) -> None:
        etcd, peer, api = _free_ports(3)
        self._run(
            "etcd",
            f"--data-dir={self._directory / 'etcd'}",
            f"--listen-client-urls=http://127.0.0.1:{etcd}",
            f"--advertise-client-urls=http://127.0.0.1:{etcd}",
            f"--listen-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-advertise-peer-urls=http://127.0.0.1:{peer}",
            f"--initial-cluster=default=http://127.0.0.1:{peer}",
            "--unsafe-no-fsync",
        )
        key = self._service_account_key()
        self._run(
            "kube-apiserver",
            f"--etcd-servers=http://127.0.0.1:{etcd}",
            "--bind-address=127.0.0.1",
            "--advertise-address=127.0.0.1",
            f"--secure-port={api}",
            f"--cert-dir={self._directory / 'certificates'}",
            "--endpoint-reconciler-type=none",
            "--service-cluster-ip-range=10.96.0.0/16",
            "--authorization-mode=RBAC",
            f"--token-auth-file={self._tokens()}",
            "--service-account-issuer=https://kubernetes.default.svc",
            f"--service-account-key-file={key}",
            f"--service-account-signing-key-file={key}",
        )
        self._write_kubeconfig(api)
        self._await("the API server", lambda: self.kubectl("get", "--raw", "/readyz") == "ok")
        common = (f"--kubeconfig={self.kubeconfig}", "--leader-elect=false", "--bind-address=127.0.0.1")
        self._run(
            "kube-controller-manager",
            *common,
            f"--service-account-private-key-file={key}",
            f"--secure-port={_free_ports(1)[0]}",
            # The volumes' claims and what a StatefulSet leaves behind are looked after at once.
            "--pvclaimbinder-sync-period=1s",
        )
        self._run("kube-scheduler", *common, f"--secure-port={_free_ports(1)[0]}")
        self._run(
            "kwok",
            f"--kubeconfig={self.kubeconfig}",
            f"--config={self._stages}",
            "--manage-all-nodes",
            "--node-lease-duration-seconds=40",
        )
        self.apply(_node(number) for number in range(3))
        self._await("the nodes", lambda: sum(_is_ready(node) for node in self.get("nodes")["items"]) == 3)

    def _run(self, program: str, *arguments: str) -> None:
        with (self._directory / f"{program}.log").open("wb") as log:
            self._processes.append(
                subprocess.Popen(
                    [self._programs / program, *arguments], stdout=log, stderr=log, cwd=self._directory
                )
            )

    def _await(self, what: str, condition: Callable[[], bool]) -> None:
        deadline = time.monotonic() + _START_SECONDS
        while True:
            try:
                if condition():
                    return
            except Refused as refused:
                problem = str(refused)
            else:
                problem = "not yet"
            dead = [str(each.args[0]) for each in self._processes if each.poll() is not None]  # type: ignore[index]
            assert not dead, f"{dead[0]} ended:\n{self._log(Path(dead[0]).name)}"
            assert time.monotonic() < deadline, f"waited {_START_SECONDS} s for {what}: {problem}"
            time.sleep(0.2)

    def _log(self, program: str) -> str:
        return (self._directory / f"{program}.log").read_text(errors="replace")[-4000:]

    def _stop(self) -> None:
        # The API server last but for etcd: the others would complain for seconds.
        for process in reversed(self._processes):
            process.terminate()
        for process in self._processes:
            try:
                process.wait(20)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()

    def _service_account_key(self) -> Path:
        path = self._directory / "service-account.key"
        path.write_bytes(
            rsa.generate_private_key(65_537, 2_048).private_bytes(
                serialization.Encoding.PEM,
                serialization.PrivateFormat.TraditionalOpenSSL,
                serialization.NoEncryption(),
            )
        )
        return path

    def _tokens(self) -> Path:
        path = self._directory / "tokens.csv"
        path.touch(mode=0o600)
        path.write_text(f'{self._token},administrator,administrator,"system:masters"\n')
        return path

    def _write_kubeconfig(self, port: int) -> None:
        cluster = {"server": f"https://127.0.0.1:{port}", "insecure-skip-tls-verify": True}
        content = {
            "apiVersion": "v1",
            "kind": "Config",
            "clusters": [{"name": "test", "cluster": cluster}],
            "users": [{"name": "administrator", "user": {"token": self._token}}],
            "contexts": [{"name": "test", "context": {"cluster": "test", "user": "administrator"}}],
            "current-context": "test",
        }
        self.kubeconfig.touch(mode=0o600)
        self.kubeconfig.write_text(yaml.safe_dump(content))


def volumes(count: int, size: str, modes: Sequence[str], storage_class: str = "") -> list[Manifest]:
    """Volumes for claims to be bound to: nothing here makes them."""
    return [
        {
            "apiVersion": "v1",
            "kind": "PersistentVolume",
            "metadata": {"name": f"volume-{storage_class or 'default'}-{number}"},
            "spec": {
                "capacity": {"storage": size},
                "accessModes": list(modes),
                "storageClassName": storage_class,
                "persistentVolumeReclaimPolicy": "Retain",
                "csi": {"driver": "test.example.com", "volumeHandle": f"{storage_class}-{number}"},
            },
        }
        for number in range(count)
    ]


def _node(number: int) -> Manifest:
    name = f"node-{number}"
    labels = {
        "kubernetes.io/hostname": name,
        "kubernetes.io/os": "linux",
        "topology.kubernetes.io/zone": f"zone-{number}",
    }
    return {
        "apiVersion": "v1",
        "kind": "Node",
        "metadata": {"name": name, "labels": labels, "annotations": {"kwok.x-k8s.io/node": "fake"}},
        "status": {
            "allocatable": {"cpu": "8", "memory": "32Gi", "pods": "110"},
            "capacity": {"cpu": "8", "memory": "32Gi", "pods": "110"},
        },
    }


def _is_ready(node: Manifest) -> bool:
    conditions = node.get("status", {}).get("conditions", [])
    return any(each["type"] == "Ready" and each["status"] == "True" for each in conditions)


def _free_ports(count: int) -> list[int]:
    probes = [socket() for _ in range(count)]
    try:
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [int(probe.getsockname()[1]) for probe in probes]
    finally:
        for probe in probes:
            with closing(probe):
                pass
