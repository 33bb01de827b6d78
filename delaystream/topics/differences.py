"""The differences between a topic and its specification, and which of them matter. Pure."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Literal

import msgspec

from delaystream.core.limits import LEAST_MARKER_AGE_MS
from delaystream.topics.specification import TopicSpec

Severity = Literal["error", "warning"]

#: Kafka's own default of the limit on timestamps in the future
_HOUR_MS = 3_600_000


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
    """One change that was made to a topic."""

    topic: str
    action: Literal["created", "altered"]
    sentence: str


class FoundTopic(msgspec.Struct, frozen=True):
    """A topic as it is on a cluster; `config` has all its effective settings.

    `inherited` are the settings that are not set on the topic itself: they come from the brokers, or are
    Kafka's defaults.
    """

    partitions: int
    replication_factor: int
    config: dict[str, str]
    inherited: frozenset[str] = frozenset()


def differences(
    specs: Sequence[TopicSpec], found: Mapping[str, FoundTopic], *, exact_partitions: bool = False
) -> list[Difference]:
    """Compare topics with their specifications; in the order of `specs`, a topic's errors first.

    Topics whose partitions belong together must have the same number. Only `exact_partitions` requires the
    specified number. Tuning settings (segment sizes, for example) are not compared. Values on the safe side
    pass: more replicas, longer retention, larger records. A fault of a topic that workers can do without is a
    warning.
    """
    common = common_partitions(specs, found)
    every: list[Difference] = []
    for spec in specs:
        topic = found.get(spec.name)
        if topic is None:
            every.append(_missing(spec))
            continue
        own = [
            *_of_partitions(spec, topic, common, exact_partitions=exact_partitions),
            *_of_replicas(spec, topic),
            *_of_settings(spec, topic),
            *_of_timestamps(spec, topic),
        ]
        if not spec.required:
            own = [msgspec.structs.replace(difference, severity="warning") for difference in own]
        every += sorted(own, key=lambda difference: difference.severity)
    return every


def summed_up(found: Sequence[Difference]) -> list[str]:
    """The sentences. One that is true of several topics appears once, with all their names."""
    alike: dict[str, list[Difference]] = {}
    for difference in found:
        alike.setdefault(difference.sentence.removeprefix(f"{difference.topic} has "), []).append(difference)
    said = []
    for rest, of in alike.items():
        *others, last = [difference.topic for difference in of]
        several = f"{', '.join(others)} and {last} have {rest}"
        # A sentence with another beginning names its topic, and is about no other.
        said.append(several if others else of[0].sentence)
    return said


def _missing(spec: TopicSpec) -> Difference:
    sentence = f"The topic {spec.name} does not exist."
    if spec.required:
        return Difference(spec.name, "exists", "error", "yes", "no", sentence)
    sentence = f"{sentence[:-1]}: there will be no receipts there, and requests work without them."
    return Difference(spec.name, "exists", "warning", "yes", "no", sentence)


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
            f"{spec.name} has replication factor {replicas} instead of {spec.replication_factor}; records "
            f"there can be lost with a broker."
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
    policy = spec.config.get("cleanup.policy", "")
    # If nothing is deleted by age or size, the limits do not matter.
    deletes = "delete" in _parts(topic.config.get("cleanup.policy", "delete")) | _parts(policy)
    for setting, expected in spec.config.items():
        actual = topic.config.get(setting)
        if actual is None or setting not in _RULES or (setting.startswith("retention.") and not deletes):
            continue
        is_right, severity, reason = _RULES[setting]
        if is_right(expected, actual):
            continue
        if policy == "compact":
            reason = _REASONS_OF_THE_STATE.get(setting, reason)
        origin = " (not set on the topic: inherited from the brokers)" if setting in topic.inherited else ""
        sentence = f"{spec.name} has {setting}={actual}{origin} instead of {expected}; {reason}."
        yield Difference(spec.name, setting, severity, expected, actual, sentence)


def _of_timestamps(spec: TopicSpec, topic: FoundTopic) -> Iterator[Difference]:
    """Limits on timestamps that stop writers, such as workers, whose timestamp is the time of writing."""
    if not spec.written_by_workers or topic.config.get("message.timestamp.type") == "LogAppendTime":
        return
    for setting in ("message.timestamp.before.max.ms", "message.timestamp.after.max.ms"):
        actual = topic.config.get(setting)
        if actual is None or int(actual) >= _HOUR_MS:
            continue
        endless = "before" in setting and int(actual) < LEAST_MARKER_AGE_MS
        reason = (
            "the broker may refuse the marker that ends a transaction, and then it never ends"
            if endless
            else "a worker whose clock is off by more cannot write, and its partitions stand still"
        )
        sentence = f"{spec.name} has {setting}={actual} instead of {_HOUR_MS} or more; {reason}."
        severity: Severity = "error" if endless else "warning"
        yield Difference(spec.name, setting, severity, str(_HOUR_MS), actual, sentence)


def _parts(policy: str) -> set[str]:
    return {part.strip() for part in policy.split(",")} - {""}


def _same_policy(expected: str, actual: str) -> bool:
    # Without any policy everything is kept. That is safe, except for topics that must be compacted.
    return _parts(actual) == _parts(expected) or (not _parts(actual) and expected == "delete")


def _at_least(expected: str, actual: str) -> bool:
    # Kafka's -1 means "without limit".
    return int(actual) == -1 or (int(expected) != -1 and int(actual) >= int(expected))


_RULES: dict[str, tuple[Callable[[str, str], bool], Severity, str]] = {
    "cleanup.policy": (
        _same_policy,
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
        "records that a worker writes while its clock is wrong are refused, or deleted sooner than intended",
    ),
    "retention.ms": (_at_least, "warning", "records are deleted sooner than intended, read or not"),
    "retention.bytes": (
        _at_least,
        "warning",
        "the oldest records of a partition are deleted as soon as it is larger, read or not",
    ),
}

_REASONS_OF_THE_STATE = {
    "message.timestamp.type": (
        "local stores are rebuilt more often, because only the brokers' clock can tell how old they are, and "
        "a worker's wrong clock fires early or late unseen"
    ),
}
