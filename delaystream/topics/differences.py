"""How a topic can differ from its specification, and which differences matter. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from delaystream.topics.specification import TopicSpec

Severity = Literal["error", "warning"]


class Difference(msgspec.Struct, frozen=True):
    """One way in which a topic is not as specified.

    An `error` breaks what delaystream promises, or stops it; a `warning` weakens it. `setting` is a Kafka
    topic setting, or one of `exists`, `partitions`, `replication.factor`. `sentence` is for people.
    """

    topic: str
    setting: str
    severity: Severity
    expected: str
    actual: str
    sentence: str


class Change(msgspec.Struct, frozen=True):
    """One thing that was done to a topic."""

    topic: str
    action: Literal["created", "altered"]
    sentence: str


class FoundTopic(msgspec.Struct, frozen=True):
    """What a topic is on a cluster; `config` holds all its settings, defaults included."""

    partitions: int
    replication_factor: int
    config: dict[str, str]


def differences(
    specs: Sequence[TopicSpec], found: Mapping[str, FoundTopic], *, exact_partitions: bool = False
) -> list[Difference]:
    """Compare topics with their specifications; in the order of `specs`, a topic's errors first.

    Topics whose partitions belong together must agree with one another; that they have the specified number
    is asked only with `exact_partitions`. Settings that tune (segment sizes, for one) are not compared, and
    neither are values on the safe side: more replicas, longer retention, larger records.
    """
    common = common_partitions(specs, found)
    every: list[Difference] = []
    for spec in specs:
        topic = found.get(spec.name)
        if topic is None:
            sentence = f"The topic {spec.name} does not exist."
            every.append(Difference(spec.name, "exists", "error", "yes", "no", sentence))
            continue
        own = [
            *_of_partitions(spec, topic, common, exact_partitions=exact_partitions),
            *_of_replicas(spec, topic),
            *_of_settings(spec, topic),
        ]
        every += sorted(own, key=lambda difference: difference.severity)
    return every


def common_partitions(specs: Sequence[TopicSpec], found: Mapping[str, FoundTopic]) -> int | None:
    """Return the partition count that the first existing topic of those partitioned alike has."""
    alike = (found[spec.name] for spec in specs if spec.partitioned_alike and spec.name in found)
    return next((topic.partitions for topic in alike), None)


def _of_partitions(
    spec: TopicSpec, topic: FoundTopic, common: int | None, *, exact_partitions: bool
) -> Iterator[Difference]:
    if not spec.partitioned_alike:
        return
    if topic.partitions != common:
        sentence = (
            f"{spec.name} has {topic.partitions} partitions where the request topic has {common}; request "
            f"topics, commands and changelog must have the same number."
        )
        yield Difference(spec.name, "partitions", "error", str(common), str(topic.partitions), sentence)
    elif exact_partitions and topic.partitions != spec.partitions:
        sentence = (
            f"{spec.name} has {topic.partitions} partitions, not {spec.partitions}; the number of an "
            f"existing topic is never changed, because it decides which partition owns a schedule."
        )
        expected, actual = str(spec.partitions), str(topic.partitions)
        yield Difference(spec.name, "partitions", "error", expected, actual, sentence)


def _of_replicas(spec: TopicSpec, topic: FoundTopic) -> Iterator[Difference]:
    replicas = topic.replication_factor
    if replicas < spec.replication_factor:
        sentence = (
            f"{spec.name} has replication factor {replicas} instead of {spec.replication_factor}; what is "
            f"stored there is lost with fewer brokers."
        )
        expected, actual = str(spec.replication_factor), str(replicas)
        yield Difference(spec.name, "replication.factor", "warning", expected, actual, sentence)
    in_sync = int(topic.config.get("min.insync.replicas", "1"))
    if in_sync > replicas:
        sentence = (
            f"{spec.name} needs {in_sync} replicas in sync (min.insync.replicas) but has {replicas}; nothing "
            f"can be written to it."
        )
        expected = spec.config.get("min.insync.replicas", str(replicas))
        yield Difference(spec.name, "min.insync.replicas", "error", expected, str(in_sync), sentence)


def _of_settings(spec: TopicSpec, topic: FoundTopic) -> Iterator[Difference]:
    for setting, expected in spec.config.items():
        actual = topic.config.get(setting)
        if actual is None or setting not in _RULES:
            continue
        is_right, severity, reason = _RULES[setting]
        if not is_right(expected, actual):
            sentence = f"{spec.name} has {setting}={actual} instead of {expected}; {reason}."
            yield Difference(spec.name, setting, severity, expected, actual, sentence)


def _same_set(expected: str, actual: str) -> bool:
    return {part.strip() for part in expected.split(",")} == {part.strip() for part in actual.split(",")}


def _at_least(expected: str, actual: str) -> bool:
    # Kafka writes "without limit" as -1.
    return int(actual) == -1 or int(actual) >= int(expected)


_RULES: dict[str, tuple[Callable[[str, str], bool], Severity, str]] = {
    "cleanup.policy": (
        _same_set,
        "error",
        "deletion by age would drop pending schedules from the changelog, and compaction drops records from "
        "every other topic",
    ),
    "max.message.bytes": (_at_least, "error", "a large request could be accepted and then not be stored"),
    "delete.retention.ms": (
        _at_least,
        "error",
        "a worker that was away could miss a tombstone and fire a schedule again",
    ),
    "min.insync.replicas": (
        _at_least,
        "warning",
        "a record counts as written before a second broker has it, and can be lost",
    ),
    "unclean.leader.election.enable": (
        str.__eq__,
        "warning",
        "a replica that has missed records may become the leader, and they are lost",
    ),
    "message.timestamp.type": (
        str.__eq__,
        "warning",
        "a worker's clock cannot be compared with the brokers', and a wrong one fires early or late unseen; "
        "and local state that has missed anything is rebuilt, because its age is unknown",
    ),
    "retention.ms": (_at_least, "warning", "records are deleted sooner than intended, read or not"),
}
