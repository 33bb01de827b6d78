"""The chart as Helm renders it, and a pod of it as a kubelet would start it, but as a process."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import yaml

ROOT = Path(__file__).resolve().parents[2]
CHART = ROOT / "helm" / "delaystream"
#: Values that stand for what people install; each is a file of `ci/`.
CASES = ("minimal", "full", "mtls", "scram", "no-operator", "console")
RELEASE = "r"
NAMESPACE = "delays-ns"

Manifest = dict[str, Any]


class ChartRefused(Exception):
    """Helm did not render; the message is what it printed."""


def case(name: str) -> list[str]:
    """The arguments that select the values of a case."""
    return ["--values", str(CHART / "ci" / f"{name}-values.yaml")]


def helm(program: Path, *arguments: str) -> str:
    """Run helm; its output. Raises ChartRefused when it fails."""
    done = subprocess.run([program, *arguments], capture_output=True, text=True, check=False, timeout=180)
    if done.returncode != 0:
        raise ChartRefused(done.stderr + done.stdout)
    return done.stdout


def template(program: Path, *arguments: str, chart: Path = CHART) -> str:
    """What `helm template` prints."""
    return helm(program, "template", RELEASE, str(chart), "--namespace", NAMESPACE, *arguments)


def render(program: Path, *arguments: str, chart: Path = CHART) -> list[Manifest]:
    """Every object that the chart makes of these values."""
    return [each for each in yaml.safe_load_all(template(program, *arguments, chart=chart)) if each]


def one(manifests: Sequence[Manifest], kind: str) -> Manifest:
    """The only object of a kind."""
    [found] = [each for each in manifests if each["kind"] == kind]
    return found


class Pod:
    """One container of a pod: its arguments, its environment, its volumes as directories below `directory`.

    `secrets` are those of the namespace: name -> key -> content. Paths in the environment that lie in a
    volume are those of its directory. Raises KeyError for a secret, or a key of one, that is not there: the
    kubelet would not start such a pod either.
    """

    def __init__(
        self,
        name: str,
        spec: Manifest,
        container: str,
        directory: Path,
        secrets: Mapping[str, Mapping[str, bytes]],
    ) -> None:
        self.name = name
        self._spec = spec
        self._secrets = secrets
        [self.container] = [each for each in spec["containers"] if each["name"] == container]
        self._port = "DELAYSTREAM_CONSOLE_HTTP_PORT" if container == "console" else "DELAYSTREAM_HTTP_PORT"
        self._places = {
            mount["mountPath"]: directory / mount["name"] for mount in self.container["volumeMounts"]
        }
        volumes = {volume["name"]: volume for volume in spec["volumes"]}
        for mount in self.container["volumeMounts"]:
            place = directory / mount["name"]
            place.mkdir(parents=True, exist_ok=True)
            if secret := volumes.get(mount["name"], {}).get("secret"):
                assert mount["readOnly"]
                content = secrets[secret["secretName"]]
                for item in secret["items"]:
                    (place / item["path"]).write_bytes(content[item["key"]])

    @property
    def arguments(self) -> list[str]:
        """What the image's entry point, `delaystream`, is called with."""
        assert "command" not in self.container
        return [str(argument) for argument in self.container["args"]]

    @property
    def environment(self) -> dict[str, str]:
        """As the container would have it; nothing of the caller's own settings."""
        found = {key: value for key, value in os.environ.items() if not key.startswith("DELAYSTREAM_")}
        for variable in self.container["env"]:
            if "value" in variable:
                found[variable["name"]] = self._placed(variable["value"])
            elif (value := self._looked_up(variable["valueFrom"])) is not None:
                found[variable["name"]] = value
        return found

    def _looked_up(self, source: Manifest) -> str | None:
        """What a variable has from elsewhere; None: it is optional, and not there."""
        [(kind, chosen)] = source.items()
        if kind == "secretKeyRef":
            return self._secrets[chosen["name"]][chosen["key"]].decode()
        if kind == "configMapKeyRef":
            assert chosen["optional"], "there are no config maps"
            return None
        return {"metadata.name": self.name, "spec.nodeName": "node"}[chosen["fieldPath"]]

    def _placed(self, value: str) -> str:
        assert isinstance(value, str), f"Kubernetes takes text only, not {value!r}"
        scheme, separator, path = value.rpartition("://") if value.startswith("file://") else ("", "", value)
        for mount, place in self._places.items():
            if path == mount or path.startswith(mount + "/"):
                return f"{scheme}{separator}{place}{path.removeprefix(mount)}"
        return value

    def probe(self, name: str) -> str:
        """The path that a probe asks for on the container's port for it."""
        probe = self.container[name]["httpGet"]
        [port] = [each for each in self.container["ports"] if each["name"] == probe["port"]]
        assert str(port["containerPort"]) == self.environment[self._port]
        return str(probe["path"])


def worker_pod(
    manifests: Sequence[Manifest],
    directory: Path,
    secrets: Mapping[str, Mapping[str, bytes]] | None = None,
    ordinal: int = 0,
) -> Pod:
    """A pod of the StatefulSet."""
    stateful_set = one(manifests, "StatefulSet")
    name = f"{stateful_set['metadata']['name']}-{ordinal}"
    return Pod(name, stateful_set["spec"]["template"]["spec"], "worker", directory / name, secrets or {})


def console_pod(
    manifests: Sequence[Manifest], directory: Path, secrets: Mapping[str, Mapping[str, bytes]]
) -> Pod:
    """A pod of the console's Deployment."""
    deployment = one(manifests, "Deployment")
    name = f"{deployment['metadata']['name']}-0"
    return Pod(name, deployment["spec"]["template"]["spec"], "console", directory / name, secrets)
