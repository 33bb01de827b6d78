"""Finds the rights of a role that a client lacks, as the brokers themselves report them (KIP-430)."""

from collections.abc import Iterable

from confluent_kafka import KafkaError, KafkaException, TopicCollection
from confluent_kafka.admin import (
    AclOperation,
    AdminClient,
)

from delaystream.topics.access import Acl
from delaystream.topics.cluster import REQUEST_TIMEOUT_S, TopicsError

_INCLUDE_DESCRIBE = frozenset({"Read", "Write", "Describe"})


def missing_rights(admin: AdminClient, acls: Iterable[Acl]) -> list[Acl]:
    """Return those `acls` that this client does not have, for topics that exist.

    ACLs for prefixes, for all topics and for other resources are ignored. Raises `TopicsError` when the
    cluster does not answer.
    """
    wanted: dict[str, list[Acl]] = {}
    for acl in acls:
        if acl.resource == "topic" and not acl.prefixed and acl.name != "*":
            wanted.setdefault(acl.name, []).append(acl)
    if not wanted:
        return []
    answers = admin.describe_topics(
        TopicCollection(list(wanted)), request_timeout=REQUEST_TIMEOUT_S, include_authorized_operations=True
    )
    missing: list[Acl] = []
    for topic, answer in answers.items():
        try:
            # A topic that may be described has Describe among its operations. No operation at all means that
            # the broker did not report them.
            allowed = answer.result().authorized_operations or list(AclOperation)
        except KafkaException as error:
            missing += _unless_absent(topic, wanted[topic], error)
        else:
            names = {_name(operation) for operation in allowed}
            missing += [acl for acl in wanted[topic] if acl.operation not in names]
    return missing


def _unless_absent(topic: str, wanted: list[Acl], error: KafkaException) -> list[Acl]:
    """The missing ACLs of a topic that may not even be described; none if the topic does not exist."""
    code = error.args[0].code()
    if code == KafkaError.UNKNOWN_TOPIC_OR_PART:
        return []
    if code == KafkaError.TOPIC_AUTHORIZATION_FAILED:
        return [acl for acl in wanted if acl.operation in _INCLUDE_DESCRIBE]
    raise TopicsError(f"The topic {topic} cannot be described: {error.args[0].str()}.") from error


def _name(operation: AclOperation) -> str:
    """`DESCRIBE_CONFIGS` as DescribeConfigs."""
    return "".join(word.capitalize() for word in operation.name.split("_"))
