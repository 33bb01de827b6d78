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
from delaystream.console.access.caller import Role

ROOT = Path(__file__).resolve().parent.parent
CHART = ROOT / "helm" / "delaystream"
TOPICS = ROOT / "topics" / "topics.json"
KUBERNETES = ROOT / "helm" / "schema" / "kubernetes.json"

#: Settings that the chart decides by itself or has a value of its own for.
CHARTS_OWN_SETTINGS = frozenset(
    {
        *("data_dir", "instance_id", "http_host", "http_port", "kafka"),
        *("console_data_dir", "console_http_host", "console_http_port", "console_tokens_file"),
        *(name for name in Settings.model_fields if name.startswith("console_oidc_")),
        # Of the command line, which no pod runs.
        "console_url",
        # Secrets are files of secrets that are there already; a release keeps its values in clear text.
        *(name for name, field in Settings.model_fields.items() if not field.repr),
    }
)
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
_COUNT: Schema = {"type": "integer", "minimum": 0}
_POSITIVE: Schema = {"type": "integer", "minimum": 1}
_PORT: Schema = {"type": "integer", "minimum": 1, "maximum": 65_535}
_KEEP: Schema = {"enum": ["Retain", "Delete"]}
_ACCESS_MODES: Schema = {
    "type": "array",
    "items": {"enum": ["ReadWriteOnce", "ReadWriteOncePod"]},
    "minItems": 1,
}
#: Names are checked by the templates, whose sentence says where a setting belongs instead.
_ENVIRONMENT: Schema = {
    "type": "object",
    "additionalProperties": {"type": ["string", "integer", "boolean"]},
}
_LABEL: Schema = {"type": "string", "pattern": "^[a-zA-Z_][a-zA-Z0-9_]*$"}
_HOST: Schema = {
    "type": "string",
    "pattern": "^(\\*\\.)?[a-z0-9]([-a-z0-9]*[a-z0-9])?(\\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$",
}
_PATH_TYPE: Schema = {"enum": ["Exact", "Prefix", "ImplementationSpecific"]}
#: The Prometheus operator's RelabelConfig.
_RELABELING: Schema = {
    "type": "object",
    "additionalProperties": False,
    "properties": {
        "action": {"type": "string", "pattern": "^[A-Za-z]+$"},
        "modulus": {"type": "integer", "minimum": 1},
        "regex": _TEXT,
        "replacement": _TEXT,
        "separator": _TEXT,
        "sourceLabels": {"type": "array", "items": _LABEL},
        "targetLabel": _TEXT,
    },
}


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
            consoles={"type": ["integer", "null"], "minimum": 0},
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
            consoleBehindSeconds=more_than_0,
            consoleHistoryRecords=count,
            consoleFailedShare=share,
            consoleRefusedLeast=count,
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
    spread = {"enum": ["", "ScheduleAnyway", "DoNotSchedule"]}
    return _map(
        **{"global": _global()},
        nameOverride=_NAME,
        fullnameOverride={**_NAME, "maxLength": 52},
        namespaceOverride={**_NAME, "maxLength": 63},
        commonLabels=_TEXTS,
        commonAnnotations=_TEXTS,
        image=_map(
            registry={"type": "string", "pattern": "^$|^[^\\s/]+(/[^\\s/]+)*$"},
            repository={"type": "string", "minLength": 1},
            tag=_TEXT,
            digest={"type": "string", "pattern": "^$|^sha256:[0-9a-f]{64}$"},
            pullPolicy={"enum": ["Always", "IfNotPresent", "Never"]},
            pullSecrets=_list(_NAME),
        ),
        replicas=_COUNT,
        staticMembership=_BOOLEAN,
        kafka=_kafka(),
        settings=_map(**settings()),
        **_pod(),
        hostAliases=_list(_kubernetes("HostAlias")),
        dnsPolicy={"enum": ["", "ClusterFirst", "ClusterFirstWithHostNet", "Default", "None"]},
        dnsConfig=_kubernetes("PodDNSConfig"),
        schedulerName=_TEXT,
        runtimeClassName=_NAME,
        checksums=_map(enabled=_BOOLEAN),
        http=_map(host={"type": "string", "minLength": 1}, port=_PORT),
        persistence=_map(
            enabled=_BOOLEAN,
            size=_QUANTITY,
            storageClass=_NAME,
            accessModes=_ACCESS_MODES,
            annotations=_TEXTS,
            whenDeleted=_KEEP,
            whenScaled=_KEEP,
        ),
        minReadySeconds=_COUNT,
        updateStrategy=_map(type={"enum": ["RollingUpdate", "OnDelete"]}, partition=_COUNT),
        podDisruptionBudget=_budget(),
        topologySpread=_map(hosts=spread, zones=spread),
        serviceAccount=_service_account(),
        security=_map(runAsUser=_ID, runAsGroup=_ID, fsGroup=_ID),
        networkPolicy=_map(
            **{"from": _list(_kubernetes("NetworkPolicyPeer"))},
            enabled=_BOOLEAN,
            egress=_map(
                enabled=_BOOLEAN,
                brokers=_list(_kubernetes("NetworkPolicyPeer")),
                brokerPorts=_list(_PORT),
                further=_list(_kubernetes("NetworkPolicyEgressRule")),
            ),
        ),
        metrics=_map(
            annotations=_BOOLEAN,
            serviceMonitor=_monitor(),
            podMonitor=_monitor(),
            rules=_rules(),
            dashboards=_map(enabled=_BOOLEAN, labels=_TEXTS, annotations=_TEXTS),
        ),
        console=_console(),
        test=_map(enabled=_BOOLEAN, annotations=_TEXTS, labels=_TEXTS, **_placement()),
        strimzi=_map(
            cluster=_NAME,
            namespace=_NAME,
            topics=_map(enabled=_BOOLEAN, partitions=_POSITIVE, replicas=_POSITIVE),
            users=_map(enabled=_BOOLEAN, authentication={"enum": ["scram-sha-512", "tls"]}),
        ),
        keda=_map(
            enabled=_BOOLEAN,
            prometheusAddress={"type": "string", "pattern": "^$|^https?://"},
            minReplicas=_POSITIVE,
            maxReplicas=_POSITIVE,
            overdueSeconds={"type": "number", "exclusiveMinimum": 0},
            partitionsPerReplica={"type": "number", "exclusiveMinimum": 0},
            query=_TEXT,
            pollingInterval=_POSITIVE,
            stabilizationSeconds={"type": "integer", "minimum": 0, "maximum": 3600},
        ),
    )


def _global() -> Schema:
    """What all charts of a release share. Others' values are there, too; the templates refuse nobody's."""
    name = {"anyOf": [_NAME, {**_map(name=_NAME), "required": ["name"]}]}
    return {
        "type": "object",
        "properties": {
            "imageRegistry": {"type": ["string", "null"]},
            "imagePullSecrets": {"type": ["array", "null"], "items": name},
        },
    }


def _kafka() -> Schema:
    return _map(
        bootstrapServers={"type": "string", "pattern": "^$|^[^,\\s]+:[0-9]+(,\\s*[^,\\s]+:[0-9]+)*$"},
        protocol={"enum": ["PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL"]},
        tls=_map(authority=_map(existingSecret=_NAME, key=_SECRET_KEY), client=_client_certificate()),
        sasl=_map(
            **_password(),
            mechanism={"enum": ["PLAIN", "SCRAM-SHA-256", "SCRAM-SHA-512", "OAUTHBEARER"]},
            serviceAccountToken=_map(audience=_TEXT, expirationSeconds={"type": "integer", "minimum": 600}),
        ),
        properties=_map(**kafka_properties()),
    )


def _client_certificate() -> Schema:
    return _map(
        existingSecret=_NAME,
        certificateKey=_SECRET_KEY,
        keyKey=_SECRET_KEY,
        passwordKey={**_SECRET_KEY, "pattern": "^[-._a-zA-Z0-9]*$"},
    )


def _password() -> dict[str, Schema]:
    return {
        "username": _TEXT,
        "existingSecret": _NAME,
        "usernameKey": _SECRET_KEY,
        "passwordKey": _SECRET_KEY,
    }


def _placement() -> dict[str, Schema]:
    """Where a pod runs, and what gives way to it."""
    return {
        "nodeSelector": _TEXTS,
        "tolerations": _list(_kubernetes("Toleration")),
        "affinity": _kubernetes("Affinity"),
        "priorityClassName": _NAME,
    }


def _pod() -> dict[str, Schema]:
    """What the workers' pods and the consoles' pods have each for themselves."""
    probe = _map(periodSeconds=_POSITIVE, failureThreshold=_POSITIVE, timeoutSeconds=_POSITIVE)
    return {
        **_placement(),
        "resources": _kubernetes("ResourceRequirements"),
        "env": _ENVIRONMENT,
        "extraEnv": _list(_kubernetes("EnvVar")),
        "envFrom": _list(_kubernetes("EnvFromSource")),
        "extraVolumes": _list(_kubernetes("Volume")),
        "extraVolumeMounts": _list(_kubernetes("VolumeMount")),
        "extraContainers": _list(_kubernetes("Container")),
        "extraInitContainers": _list(_kubernetes("Container")),
        "lifecycle": _kubernetes("Lifecycle"),
        "terminationGracePeriodSeconds": {"type": "integer", "minimum": 10},
        "probes": _map(startup=probe, readiness=probe, liveness=probe),
        "podLabels": _TEXTS,
        "podAnnotations": _TEXTS,
    }


def _budget() -> Schema:
    return _map(
        enabled=_BOOLEAN,
        maxUnavailable=_COUNT_OR_PERCENTAGE,
        minAvailable=_COUNT_OR_PERCENTAGE,
        unhealthyPodEvictionPolicy={"enum": ["AlwaysAllow", "IfHealthyBudget"]},
    )


def _service_account() -> Schema:
    return _map(create=_BOOLEAN, name=_NAME, annotations=_TEXTS)


def _monitor(**further: Schema) -> Schema:
    return _map(
        enabled=_BOOLEAN,
        interval=_DURATION,
        scrapeTimeout={**_DURATION, "pattern": "^$|" + _DURATION["pattern"]},
        labels=_TEXTS,
        relabelings=_list(_RELABELING),
        metricRelabelings=_list(_RELABELING),
        **further,
    )


def _console() -> Schema:
    path = _map(path={"type": "string", "pattern": "^/"}, pathType=_PATH_TYPE)
    return _map(
        enabled=_BOOLEAN,
        replicas=_COUNT,
        authentication=_map(tokens=_map(existingSecret=_NAME, key=_SECRET_KEY), oidc=_oidc()),
        database=_map(existingSecret=_NAME, key=_SECRET_KEY),
        cursors=_map(existingSecret=_NAME, key=_SECRET_KEY),
        kafka=_map(tls=_map(client=_client_certificate()), sasl=_map(**_password())),
        http=_map(host={"type": "string", "minLength": 1}, port=_PORT),
        persistence=_map(
            enabled=_BOOLEAN,
            size=_QUANTITY,
            storageClass=_NAME,
            accessModes=_ACCESS_MODES,
            annotations=_TEXTS,
            whenDeleted=_KEEP,
        ),
        **_pod(),
        podDisruptionBudget=_budget(),
        serviceAccount=_service_account(),
        service=_map(
            type={"enum": ["ClusterIP", "NodePort", "LoadBalancer"]}, port=_PORT, annotations=_TEXTS
        ),
        ingress=_map(
            enabled=_BOOLEAN,
            className=_NAME,
            annotations=_TEXTS,
            hosts=_list({**_map(host=_HOST, paths=_list(path, least=1)), "required": ["host"]}),
            tls=_list({**_map(secretName=_NAME, hosts=_list(_HOST)), "required": ["hosts"]}),
        ),
        httpRoute=_map(
            enabled=_BOOLEAN,
            annotations=_TEXTS,
            parentRefs=_list(_kubernetes("ParentReference")),
            hostnames=_list(_HOST),
            matches=_list(_kubernetes("HTTPRouteMatch"), least=1),
            filters=_list(_kubernetes("HTTPRouteFilter")),
        ),
        networkPolicy=_map(
            **{"from": _list(_kubernetes("NetworkPolicyPeer"))},
            egress=_list(_kubernetes("NetworkPolicyEgressRule")),
        ),
        serviceMonitor=_monitor(token=_map(existingSecret=_NAME, key=_SECRET_KEY)),
    )


def _oidc() -> Schema:
    # The settings are lists with commas.
    word: Schema = {"type": "string", "pattern": "^[^,\\s]+$"}
    value: Schema = {"type": "string", "pattern": "^[^,]+$"}
    roles = "|".join(role.value for role in Role)
    return _map(
        issuer={"type": "string", "pattern": "^$|^https?://"},
        clientId=_TEXT,
        clientSecret=_map(existingSecret=_NAME, key=_SECRET_KEY),
        roles=_list({"type": "string", "pattern": f"^({roles}):[^=,]+=[^,]+$"}),
        rolesClaim={"type": "string", "minLength": 1},
        nameClaim={"type": "string", "minLength": 1},
        payload=_list(value),
        scopes=_list(word, least=1),
        audience=_TEXT,
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
