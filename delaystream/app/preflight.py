"""The checks of a worker before it joins the group: the topics exist and are as they must be."""

from __future__ import annotations

import asyncio
from typing import NamedTuple

import structlog
from confluent_kafka import KafkaException

# The package's types do not mark its public names as exported.
from confluent_kafka.admin import (
    ConfigResource,
    ResourceType,
)

from delaystream.adapters.membership.group_rights import may_join
from delaystream.adapters.security.client_config import ClientConfig
from delaystream.adapters.security.oauth_tokens import TokenUnavailable
from delaystream.config import Settings
from delaystream.engine.failures import LogUnavailable, Misconfigured
from delaystream.topics import Admin, TopicsError, check, connect, missing_rights, plan, summed_up, users

logger = structlog.get_logger(__name__)

_TIMEOUT_S = 10.0


class Preflight:
    """The findings: ``partitions`` of the request topics, ``delete_retention_ms`` of the changelog."""

    def __init__(self, partitions: int, delete_retention_ms: int) -> None:
        self.partitions = partitions
        self.delete_retention_ms = delete_retention_ms


def preflight(settings: Settings, client: ClientConfig) -> Preflight:
    """Check the topics; blocks for some seconds at most.

    A fault that weakens delaystream's promises is logged as a warning. Raises Misconfigured when faults break
    them, with a sentence for each, and LogUnavailable when Kafka does not answer.
    """
    try:
        admin = connect(client.confluent())
    except TokenUnavailable as error:
        raise LogUnavailable(str(error)) from error
    partitions = _partitions(admin, settings.changelog_topic)
    hidden = _check_rights(admin, settings, client)
    specs = [spec for spec in plan(settings, partitions=partitions or None) if spec.name not in hidden]
    try:
        differences = check(admin, specs)
    except TopicsError as error:
        raise LogUnavailable(str(error)) from error
    if warnings := [difference for difference in differences if difference.severity == "warning"]:
        logger.warning(
            "topics are not as they should be",
            topics=list(dict.fromkeys(warning.topic for warning in warnings)),
            problem=" ".join(summed_up(warnings)),
        )
    if errors := [difference.sentence for difference in differences if difference.severity == "error"]:
        errors.append(
            "`delaystream topics apply` creates what is missing, `delaystream topics check` looks again."
        )
        raise Misconfigured("\n".join(errors))
    return Preflight(partitions, _delete_retention_ms(admin, settings.changelog_topic))


class Followed(NamedTuple):
    """What a reader of changelog, events and dead letters has to know of their topics."""

    partitions: int
    """Of the changelog."""
    delete_retention_ms: int
    """Of the changelog: for how long it keeps tombstones."""
    events_partitions: int
    dead_letters_partitions: int


def followed(settings: Settings, client: ClientConfig) -> Followed:
    """Look at what a console follows; blocks for some seconds at most.

    Raises LogUnavailable when Kafka does not answer, and Misconfigured for a topic that is not there.
    """
    try:
        admin = connect(client.confluent())
    except TokenUnavailable as error:
        raise LogUnavailable(str(error)) from error
    topics = (settings.changelog_topic, settings.events_topic, settings.dead_letters_topic)
    counts = {topic: _partitions(admin, topic) for topic in topics}
    if missing := [topic for topic, count in counts.items() if not count]:
        raise Misconfigured(f"there is no topic {missing[0]}: `delaystream topics apply` creates it")
    return Followed(
        counts[settings.changelog_topic],
        _delete_retention_ms(admin, settings.changelog_topic),
        counts[settings.events_topic],
        counts[settings.dead_letters_topic],
    )


def _check_rights(admin: Admin, settings: Settings, client: ClientConfig) -> set[str]:
    """Report all missing ACLs together, instead of failing at the first one, or much later.

    A missing right to a destination is only a warning, because the right may come tomorrow. So is one to the
    topic for receipts: a worker should start without receipts. Returns those of delaystream's topics that got
    a warning, because their settings cannot be read. A missing right to the transactional ids shows at the
    fence of the first partition.
    """
    needed = next(user.acls for user in users(settings) if user.role == "worker")
    own = set(settings.own_topics) - {settings.receipts_topic}
    try:
        missing = missing_rights(admin, needed)
    except TopicsError as error:
        raise LogUnavailable(str(error)) from error
    group = [acl for acl in needed if acl.resource == "group"]
    if not asyncio.run(may_join(client.aiokafka(), settings.app_id)):
        missing += group
    for acl in missing:
        if acl.resource == "topic" and acl.name not in own:
            problem = f"missing ACL: {acl}"
            if acl.name == settings.receipts_topic:
                logger.warning(
                    "a right to the topic for receipts is missing", topic=acl.name, problem=problem
                )
            elif acl.operation == "DescribeConfigs":
                logger.warning(
                    "cannot check whether transactions can end in a destination",
                    topic=acl.name,
                    problem=problem,
                )
            else:
                logger.warning("a destination cannot be written to", topic=acl.name, problem=problem)
    if errors := [acl for acl in missing if acl.resource != "topic" or acl.name in own]:
        sentences = [f"missing ACL: {acl}" for acl in errors]
        sentences.append("`delaystream topics print --output kafka-acls` prints all that a worker needs.")
        raise Misconfigured("\n".join(sentences))
    return {acl.name for acl in missing} & {settings.receipts_topic}


def _partitions(admin: Admin, topic: str) -> int:
    """Partition count; 0 for a missing topic."""
    try:
        found = admin.reach(_TIMEOUT_S).topics.get(topic)
    except TopicsError as error:
        raise LogUnavailable(str(error)) from error
    return 0 if found is None or found.error is not None else len(found.partitions)


def _delete_retention_ms(admin: Admin, topic: str) -> int:
    resource = ConfigResource(ResourceType.TOPIC, topic)
    try:
        entries = admin.describe_configs([resource], request_timeout=_TIMEOUT_S)[resource].result()
    except KafkaException as error:
        raise LogUnavailable(f"the settings of {topic} cannot be read: {error.args[0]}") from error
    return int(entries["delete.retention.ms"].value)
