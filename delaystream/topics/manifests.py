"""The topics, and the users with their ACLs, in the forms of Strimzi, Kafka's own scripts and Terraform.

Sources: Strimzi's KafkaTopic and KafkaUser (kafka.strimzi.io/v1), Kafka's AclCommand, the Terraform provider
Mongey/kafka.
"""

import hashlib
import json
import re
import shlex
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import msgspec

from delaystream.topics.access import Acl, Resource, User, by_resource
from delaystream.topics.specification import TopicSpec
from delaystream.topics.yaml_text import yaml_document

Authentication = Literal["scram-sha-512", "tls"]

TERRAFORM_PROVIDER = ("Mongey/kafka", "~> 0.13")

_STRIMZI = "kafka.strimzi.io/v1"
_STRIMZI_RESOURCES: dict[Resource, str] = {
    "topic": "topic",
    "group": "group",
    "transactional-id": "transactionalId",
}
_TERRAFORM_RESOURCES: dict[Resource, str] = {
    "topic": "Topic",
    "group": "Group",
    "transactional-id": "TransactionalID",
}


class StrimziTarget(msgspec.Struct, frozen=True):
    """The target of Strimzi's resources: the Kafka object's name, the namespace (None: that of kubectl)."""

    cluster: str = "kafka"
    namespace: str | None = None
    authentication: Authentication = "scram-sha-512"


def principal(user: User, authentication: Authentication) -> str:
    """Return Kafka's name for a user. For a certificate it is the whole subject."""
    return f"User:CN={user.name}" if authentication == "tls" else f"User:{user.name}"


# -- Strimzi ---------------------------------------------------------------------------------------------


def strimzi(specs: Sequence[TopicSpec], users: Sequence[User], target: StrimziTarget) -> str:
    """Return a KafkaTopic for each topic and a KafkaUser for each user."""
    documents = [_kafka_topic(spec, target) for spec in specs]
    documents += [_kafka_user(user, target) for user in users]
    return "\n".join(documents)


def _kafka_topic(spec: TopicSpec, target: StrimziTarget) -> str:
    return yaml_document(
        {
            "apiVersion": _STRIMZI,
            "kind": "KafkaTopic",
            "metadata": _metadata(spec.name, target),
            "spec": {
                "topicName": spec.name,
                "partitions": spec.partitions,
                "replicas": spec.replication_factor,
                "config": spec.config,
            },
        }
    )


def _kafka_user(user: User, target: StrimziTarget) -> str:
    acls: list[dict[str, Any]] = []
    remarks = []
    for acl, operations in by_resource(user.acls):
        remarks += [f"# {acl.resource} {acl.name}: {acl.remark}."] if acl.remark else []
        resource = {
            "type": _STRIMZI_RESOURCES[acl.resource],
            "name": acl.name,
            "patternType": "prefix" if acl.prefixed else "literal",
        }
        acls.append({"resource": resource, "operations": operations})
    document = yaml_document(
        {
            "apiVersion": _STRIMZI,
            "kind": "KafkaUser",
            "metadata": _metadata(user.name, target),
            "spec": {
                "authentication": {"type": target.authentication},
                "authorization": {"type": "simple", "acls": acls},
            },
        }
    )
    return "\n".join(
        [document.partition("\n")[0], f"# {user.purpose}.", *remarks, document.partition("\n")[2]]
    )


def _metadata(name: str, target: StrimziTarget) -> dict[str, Any]:
    found: dict[str, Any] = {"name": _kubernetes_name(name)}
    if target.namespace is not None:
        found["namespace"] = target.namespace
    return {**found, "labels": {"strimzi.io/cluster": target.cluster}}


def _kubernetes_name(name: str) -> str:
    """`name` if Kubernetes accepts it (RFC 1123), otherwise a similar name that is as unique."""
    if re.fullmatch(r"[a-z0-9]([a-z0-9.-]{0,251}[a-z0-9])?", name) and not re.search(r"\.[.-]|-\.", name):
        return name
    like = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:200]
    return f"{like or 'topic'}-{hashlib.sha256(name.encode()).hexdigest()[:8]}"


# -- Kafka's own scripts ---------------------------------------------------------------------------------


def kafka_acls(users: Sequence[User], authentication: Authentication, bootstrap_servers: str | None) -> str:
    """Return command lines of kafka-acls.sh; without servers they read the variable BOOTSTRAP_SERVERS."""
    servers = shlex.quote(bootstrap_servers) if bootstrap_servers else '"$BOOTSTRAP_SERVERS"'
    return "\n".join(line for user in users for line in _acl_lines(user, authentication, servers))


def _acl_lines(user: User, authentication: Authentication, servers: str) -> Iterator[str]:
    yield f"# {user.role}: {user.purpose}."
    name = shlex.quote(principal(user, authentication))
    for acl, operations in by_resource(user.acls):
        if acl.remark:
            yield f"# {acl.remark}."
        allowed = "".join(f" --operation {operation}" for operation in operations)
        pattern = " --resource-pattern-type prefixed" if acl.prefixed else ""
        yield (
            f"kafka-acls.sh --bootstrap-server {servers} --add --allow-principal {name}{allowed} "
            f"--{acl.resource} {shlex.quote(acl.name)}{pattern}"
        )


# -- Terraform -------------------------------------------------------------------------------------------


def terraform(specs: Sequence[TopicSpec], users: Sequence[User], authentication: Authentication) -> str:
    """Return resources for the provider Mongey/kafka. The reader adds the provider block with the brokers."""
    source, version = TERRAFORM_PROVIDER
    head = (
        "terraform {\n  required_providers {\n    kafka = {\n"
        f"      source  = {_hcl(source)}\n      version = {_hcl(version)}\n    }}\n  }}\n}}"
    )
    blocks = [head, *(_terraform_topic(spec) for spec in specs)]
    blocks += [_terraform_acl(user, acl, authentication) for user in users for acl in user.acls]
    return "\n\n".join(blocks)


def _terraform_topic(spec: TopicSpec) -> str:
    width = max(len(_hcl(name)) for name in spec.config)  # as `terraform fmt` aligns them
    settings = "\n".join(f"    {_hcl(name):<{width}} = {_hcl(value)}" for name, value in spec.config.items())
    return (
        f"# {spec.purpose}.\n"
        f'resource "kafka_topic" "{_label(spec.name)}" {{\n'
        f"  name               = {_hcl(spec.name)}\n"
        f"  partitions         = {spec.partitions}\n"
        f"  replication_factor = {spec.replication_factor}\n"
        f"  config = {{\n{settings}\n  }}\n"
        # Another partition count, or a new topic of the same name, would be another application.
        "  lifecycle {\n    prevent_destroy = true\n    ignore_changes  = [partitions]\n  }\n}"
    )


def _terraform_acl(user: User, acl: Acl, authentication: Authentication) -> str:
    remark = f"# {acl.remark}.\n" if acl.remark else ""
    kind = f"{acl.resource}s-with-prefix" if acl.prefixed else acl.resource
    label = _label("-".join([user.name, kind, acl.name, acl.operation]))
    return (
        f'{remark}resource "kafka_acl" "{label}" {{\n'
        f"  resource_type                = {_hcl(_TERRAFORM_RESOURCES[acl.resource])}\n"
        f"  resource_name                = {_hcl(acl.name)}\n"
        f"  resource_pattern_type_filter = {_hcl('Prefixed' if acl.prefixed else 'Literal')}\n"
        f"  acl_principal                = {_hcl(principal(user, authentication))}\n"
        '  acl_host                     = "*"\n'
        f"  acl_operation                = {_hcl(acl.operation)}\n"
        '  acl_permission_type          = "Allow"\n}'
    )


def _hcl(text: str) -> str:
    """A string of Terraform's language: JSON's, with its templates escaped."""
    return json.dumps(text, ensure_ascii=False).replace("${", "$${").replace("%{", "%%{")


def _label(text: str) -> str:
    """A resource's label, unique for the text."""
    like = re.sub(r"[^A-Za-z0-9_-]", "_", text)
    if like == text and not text[:1].isdigit():
        return text
    return f"t_{like}_{hashlib.sha256(text.encode()).hexdigest()[:6]}"
