"""The generated parts of the chart, schema and topics: `python -m scripts.chart` writes them.

The shape of the values is below; the names, types and bounds of `settings` are those of the code, so the
chart knows every new setting. Types that are passed through are Kubernetes' own
(`helm/schema/kubernetes.json`, made by `scripts/kubernetes_schemas.py`). JSON Schema draft 7 is what every
Helm 3 and 4 reads.
"""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path
from typing import Any

from delaystream.adapters.operate.metrics_lateness import LATENESS_BUCKETS_MS
from delaystream.config import Settings
from delaystream.config.kafka import SECRET, SUPPORTED
from delaystream.config.tenant_settings import TABLE, TenantSettings

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "delaystream"
TOPICS = ROOT / "topics" / "topics.json"
KUBERNETES = ROOT / "helm" / "schema" / "kubernetes.json"

#: Settings that the chart decides by itself or has a value of its own for.
CHARTS_OWN_SETTINGS = frozenset({"data_dir", "instance_id", "http_host", "http_port", "kafka"})
#: Kafka's settings that the chart has a value of its own for.
CHARTS_OWN_PROPERTIES = frozenset(
    {
        "bootstrap.servers",
        "security.protocol",
        "sasl.mechanism",
        "sasl.username",
        "sasl.oauthbearer.client.credentials.client.id",
        "ssl.ca.location",
        "ssl.certificate.location",
        "ssl.key.location",
    }
)

Schema = dict[str, Any]

_TEXT: Schema = {"type": "string"}
_BOOLEAN: Schema = {"type": "boolean"}
_DNS_LABEL = "^[a-z0-9]([-a-z0-9]*[a-z0-9])?$"
_NAME: Schema = {"type": "string", "pattern": "^$|" + _DNS_LABEL.strip("^$"), "maxLength": 253}
_SECRET_KEY: Schema = {"type": "string", "pattern": "^[-._a-zA-Z0-9]+$"}
_TEXTS: Schema = {"type": "object", "additionalProperties": {"type": "string"}}
_QUANTITY: Schema = {"type": "string", "pattern": "^[0-9]+(\\.[0-9]+)?([KMGTPE]i?|[mk])?$"}
_DURATION: Schema = {"type": "string", "pattern": "^([0-9]+(ms|s|m|h))+$"}
_COUNT_OR_PERCENTAGE: Schema = {
    "anyOf": [
        {"type": "integer", "minimum": 0},
        {"type": "string", "pattern": "^(100|[0-9]{1,2})%$"},
        {"type": "null"},
    ]
}
_ID: Schema = {"type": ["integer", "null"], "minimum": 1}


def schema() -> Schema:
    """The whole schema of the values."""
    return {
        "$schema": "http://json-schema.org/draft-07/schema#",
        "title": "Values of the chart delaystream",
        **_values(),
        "definitions": json.loads(KUBERNETES.read_text("utf-8")),
    }


def settings() -> Schema:
    """The settings that may be given, as the model has them; a list may also be text with commas."""
    described = Settings.model_json_schema()["properties"]
    found = {name: _setting(each) for name, each in described.items() if name not in CHARTS_OWN_SETTINGS}
    found[TABLE] = {
        "type": "object",
        "description": described[TABLE]["description"],
        "additionalProperties": _map(**{name: found[name] for name in TenantSettings.model_fields}),
    }
    return found


def kafka_properties() -> Schema:
    """The permitted Kafka settings: without secrets, and without those that have a value of their own."""
    names = [name for name in SUPPORTED if name not in SECRET and name not in CHARTS_OWN_PROPERTIES]
    return {
        name: {"type": ["string", "integer", "boolean"], "description": SUPPORTED[name]} for name in names
    }


def _setting(described: Schema) -> Schema:
    kept = {key: value for key, value in described.items() if key in _KEPT}
    if described.get("type") == "array":
        kept.pop("items", None)
        kept.pop("minLength", None)
        return {**kept, "type": ["array", "string"], "items": {"type": ["string", "integer"]}}
    return kept


def _rules() -> Schema:
    share = {"type": "number", "exclusiveMinimum": 0, "maximum": 1}
    more_than_0 = {"type": "number", "exclusiveMinimum": 0}
    count = {"type": "integer", "minimum": 0}
    return _map(
        enabled=_BOOLEAN,
        labels=_TEXTS,
        alertLabels=_TEXTS,
        runbookUrl={"type": "string", "pattern": "^$|^https?://.*[{]page[}]"},
        disabled=_list({"enum": alerts()}),
        severities=_map(**{name: {"type": "string", "minLength": 1} for name in alerts()}),
        thresholds=_map(
            overdueSeconds=more_than_0,
            noCommitSeconds=more_than_0,
            delayedShare=share,
            delayBound={"enum": [repr(bound / 1000) for bound in LATENESS_BUCKETS_MS]},
            workers={"type": ["integer", "null"], "minimum": 0},
            restartsAnHour=count,
            unreadRequests=count,
            heldUpSeconds=more_than_0,
            deadLettersLeast=count,
            deadLettersShare=share,
            abortedShare=share,
            quotaShare=share,
            diskFreeShare=share,
            diskFreeBytes=count,
            clockSkewSeconds=more_than_0,
        ),
    )


def alerts() -> list[str]:
    """The names of all alerts, in their order."""
    files = sorted((CHART / "files" / "rules").glob("*.yml"))
    return [name for path in files for name in re.findall(r"- alert: (\w+)", path.read_text("utf-8"))]


_KEPT = frozenset(
    {"type", "anyOf", "description", "pattern", "enum", "minimum", "maximum", "items", "minLength"}
)


def _values() -> Schema:
    replicas = {"type": "integer", "minimum": 0}
    positive = {"type": "integer", "minimum": 1}
    port = {"type": "integer", "minimum": 1, "maximum": 65_535}
    probe = _map(periodSeconds=positive, failureThreshold=positive, timeoutSeconds=positive)
    monitor = _map(enabled=_BOOLEAN, interval=_DURATION, labels=_TEXTS)
    spread = {"enum": ["", "ScheduleAnyway", "DoNotSchedule"]}
    keep = {"enum": ["Retain", "Delete"]}
    return _map(
        # Helm gives it to every chart that is part of another one.
        **{"global": {"type": "object"}},
        nameOverride=_NAME,
        fullnameOverride={**_NAME, "maxLength": 52},
        image=_map(
            repository={"type": "string", "minLength": 1},
            tag=_TEXT,
            digest={"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
            pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
            pullSecrets=_list(_NAME),
        ),
        replicas=replicas,
        staticMembership=_BOOLEAN,
        kafka=_map(
            bootstrapServers={"type": "string", "pattern": "^$|^[^,\\s]+:[0-9]+(,\\s*[^,\\s]+:[0-9]+)*$"},
            protocol={"enum": ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]},
            tls=_map(
                authority=_map(existingSecret=_NAME, key=_SECRET_KEY),
                client=_map(
                    existingSecret=_NAME,
                    certificateKey=_SECRET_KEY,
                    keyKey=_SECRET_KEY,
                    passwordKey={**_SECRET_KEY, "pattern": "^[-._a-zA-Z0-9]*$"},
                ),
            ),
            sasl=_map(
                mechanism={"enum": ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]},
                username=_TEXT,
                existingSecret=_NAME,
                usernameKey=_SECRET_KEY,
                passwordKey=_SECRET_KEY,
                serviceAccountToken=_map(
                    audience=_TEXT, expirationSeconds={"type": "integer", "minimum": 600}
                ),
            ),
            properties=_map(**kafka_properties()),
        ),
        settings=_map(**settings()),
        env={
            "type": "object",
            # Helm's regular expressions (RE2) cannot look ahead.
            "propertyNames": {"pattern": "^[A-Za-z_][A-Za-z0-9_]*$", "not": {"pattern": "^DELAYSTREAM_"}},
            "additionalProperties": {"type": ["string", "integer", "boolean"]},
        },
        http=_map(host={"type": "string", "minLength": 1}, port=port),
        persistence=_map(
            enabled=_BOOLEAN,
            size=_QUANTITY,
            storageClass=_NAME,
            accessModes=_list({"enum": ["ReadWriteOnce", "ReadWriteOncePod"]}, least=1),
            annotations=_TEXTS,
            whenDeleted=keep,
            whenScaled=keep,
        ),
        resources=_kubernetes("ResourceRequirements"),
        terminationGracePeriodSeconds={"type": "integer", "minimum": 10},
        minReadySeconds=replicas,
        updateStrategy=_map(type={"enum": ["RollingUpdate", "OnDelete"]}, partition=replicas),
        probes=_map(startup=probe, readiness=probe, liveness=probe),
        podDisruptionBudget=_map(
            enabled=_BOOLEAN,
            maxUnavailable=_COUNT_OR_PERCENTAGE,
            minAvailable=_COUNT_OR_PERCENTAGE,
            unhealthyPodEvictionPolicy={"enum": ["AlwaysAllow", "IfHealthyBudget"]},
        ),
        topologySpread=_map(hosts=spread, zones=spread),
        nodeSelector=_TEXTS,
        tolerations=_list(_kubernetes("Toleration")),
        affinity=_kubernetes("Affinity"),
        priorityClassName=_NAME,
        podLabels=_TEXTS,
        podAnnotations=_TEXTS,
        serviceAccount=_map(create=_BOOLEAN, name=_NAME, annotations=_TEXTS),
        security=_map(runAsUser=_ID, runAsGroup=_ID, fsGroup=_ID),
        networkPolicy=_map(
            **{"from": _list(_kubernetes("NetworkPolicyPeer"))},
            enabled=_BOOLEAN,
            egress=_map(
                enabled=_BOOLEAN,
                brokers=_list(_kubernetes("NetworkPolicyPeer")),
                brokerPorts=_list(port),
                further=_list(_kubernetes("NetworkPolicyEgressRule")),
            ),
        ),
        metrics=_map(
            annotations=_BOOLEAN,
            serviceMonitor=monitor,
            podMonitor=monitor,
            rules=_rules(),
            dashboards=_map(enabled=_BOOLEAN, labels=_TEXTS, annotations=_TEXTS),
        ),
        strimzi=_map(
            cluster=_NAME,
            namespace=_NAME,
            topics=_map(enabled=_BOOLEAN, partitions=positive, replicas=positive),
            users=_map(enabled=_BOOLEAN, authentication={"enum": ["scram-sha-512", "tls"]}),
        ),
        keda=_map(
            enabled=_BOOLEAN,
            prometheusAddress={"type": "string", "pattern": "^$|^https?://"},
            minReplicas=positive,
            maxReplicas=positive,
            overdueSeconds={"type": "number", "exclusiveMinimum": 0},
            partitionsPerReplica={"type": "number", "exclusiveMinimum": 0},
            query=_TEXT,
            pollingInterval=positive,
            stabilizationSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
        ),
    )


def _map(**properties: Schema) -> Schema:
    return {"type": "object", "additionalProperties": False, "properties": properties}


def _list(items: Schema, *, least: int = 0) -> Schema:
    return {"type": "array", "items": items, **({"minItems": least} if least else {})}


def _kubernetes(name: str) -> Schema:
    return {"$ref": f"#/definitions/{name}"}


def files() -> dict[Path, str]:
    """Every generated file of the chart, with its text."""
    return {
        CHART / "values.schema.json": json.dumps(schema(), indent=1) + "\n",
        # A chart can read its own files only.
        CHART / "files" / "topics.json": TOPICS.read_text("utf-8"),
    }


def main() -> int:
    """Rewrite the files that differ, and name them."""
    for path, text in files().items():
        if not path.exists() or path.read_text("utf-8") != text:
            path.write_text(text, "utf-8")
            print(path.relative_to(ROOT))
    return 0


if __name__ == "__main__":
    sys.exit(main())
