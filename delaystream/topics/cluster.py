"""The project's topics on a cluster: finds them, compares them, and creates or corrects them."""

import logging
import time
from collections.abc import Iterable, Mapping, Sequence
from concurrent.futures import Future
from typing import Any

from confluent_kafka import KafkaError, KafkaException, TopicCollection

# The package's types do not mark its public names as exported.
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    ConfigSource,
    NewTopic,
    ResourceType,
    TopicDescription,
)

from delaystream.topics.differences import Change, Difference, FoundTopic, common_partitions, differences
from delaystream.topics.specification import TopicSpec

REQUEST_TIMEOUT_S = 30.0
VISIBLE_TIMEOUT_S = 30.0
"""Longest time until the brokers show a created topic."""

_VISIBLE_POLL_S = 0.1
_FIRST_PATIENCE_S = 1.0
_REFUSED = {KafkaError._AUTHENTICATION, KafkaError._SSL, KafkaError.SASL_AUTHENTICATION_FAILED}
_FINAL = {
    KafkaError.TOPIC_AUTHORIZATION_FAILED,
    KafkaError.CLUSTER_AUTHORIZATION_FAILED,
    KafkaError.POLICY_VIOLATION,
    KafkaError.INVALID_CONFIG,
    KafkaError.INVALID_PARTITIONS,
    KafkaError.INVALID_REPLICATION_FACTOR,
}
"""Errors that will not pass."""
_NEVER_CHANGED = {"exists", "partitions", "replication.factor"}

_INHERITED = frozenset(
    {
        ConfigSource.DYNAMIC_BROKER_CONFIG,
        ConfigSource.DYNAMIC_DEFAULT_BROKER_CONFIG,
        ConfigSource.STATIC_BROKER_CONFIG,
        ConfigSource.DEFAULT_CONFIG,
    }
)

_log = logging.getLogger(__name__)


class TopicsError(Exception):
    """The cluster did not answer, or refused; the message is a sentence for people."""


class TopicsRefused(TopicsError):
    """The cluster refused, and will refuse again: a person has to act."""


class _Librdkafka:
    """Takes librdkafka's log lines. The errors of its calls say all that matters."""

    @staticmethod
    def log(_: int, message: str, *arguments: Any) -> None:
        """As `logging.Logger.log`."""
        _log.log(logging.DEBUG, message, *arguments)


class Admin(AdminClient):
    """An admin client that remembers why it could not connect."""

    def __init__(self, configuration: Mapping[str, Any]) -> None:
        self._trouble: list[KafkaError] = []
        settings: dict[str, Any] = {**configuration, "error_cb": self._trouble.append}
        super().__init__(settings, logger=_Librdkafka())

    def reach(self, timeout_s: float) -> Any:
        """Return the cluster's metadata. Raises `TopicsError` when it does not come in time. It does so at
        once when the cluster refuses the login, which another try would not change."""
        deadline = time.monotonic() + timeout_s
        patience_s = _FIRST_PATIENCE_S
        while True:
            left_s = deadline - time.monotonic()
            try:
                return self.list_topics(timeout=max(0.1, min(patience_s, left_s)))
            except KafkaException as error:
                self.poll(0)  # hands the errors so far to the callback
                refused = [trouble for trouble in self._trouble if trouble.code() in _REFUSED]
                if refused or time.monotonic() >= deadline:
                    told = [*self._trouble[-1:], *refused[:1]] or [error.args[0]]
                    raise TopicsError(f"Kafka does not answer: {told[-1].str()}.") from error
            patience_s *= 2


def connect(configuration: Mapping[str, Any]) -> Admin:
    """Return an admin client. Nothing is sent yet; connection trouble shows at the first call and in the
    log."""
    return Admin(configuration)


def check(admin: Admin, specs: Sequence[TopicSpec], *, exact_partitions: bool = False) -> list[Difference]:
    """Return how the cluster's topics differ from `specs`; see `differences`. Raises `TopicsError`."""
    return differences(specs, _find(admin, specs), exact_partitions=exact_partitions)


def apply(admin: Admin, specs: Sequence[TopicSpec], *, alter: bool = True) -> list[Change]:
    """Create the topics that are missing and, with `alter`, correct the settings that `check` would report.

    It never changes partition counts and replicas of existing topics. It never raises min.insync.replicas
    above the replicas that a topic has, because nothing could be written to the topic then. If the partitions
    of a missing topic belong together with those of an existing one, it gets the same number. `check`
    afterwards shows the remaining differences. Applying twice changes nothing. Raises `TopicsError`.
    """
    found = _find(admin, specs)
    existing = [spec for spec in specs if spec.name in found]
    missing = [spec for spec in specs if spec.name not in found]
    created = _create(admin, missing, common_partitions(specs, found)) if missing else []
    fixable = [d for d in differences(existing, found) if alter and _can_be_changed(d, found[d.topic])]
    altered = _alter(admin, fixable) if fixable else []
    if created or altered:
        _await_visible(admin, specs, fixable)
    return [*created, *altered]


def _can_be_changed(difference: Difference, found: FoundTopic) -> bool:
    if difference.setting == "min.insync.replicas":
        return int(difference.expected) <= found.replication_factor
    return difference.setting not in _NEVER_CHANGED


def topic_ids(admin: Admin, names: Iterable[str]) -> dict[str, str]:
    """Return the id (KIP-516, as Kafka prints it) of each topic; a missing topic is left out.

    A topic that is deleted and created again has another id. Raises `TopicsError`.
    """
    # librdkafka writes them in base64, Kafka in base64's form for URLs (org.apache.kafka.common.Uuid).
    url = str.maketrans("+/", "-_")
    return {name: str(topic.topic_id).translate(url) for name, topic in _describe(admin, names).items()}


def _find(admin: Admin, specs: Sequence[TopicSpec]) -> dict[str, FoundTopic]:
    described = _describe(admin, [spec.name for spec in specs])
    if not described:
        return {}
    resources = [ConfigResource(ResourceType.TOPIC, name) for name in described]
    answers = admin.describe_configs(resources, request_timeout=REQUEST_TIMEOUT_S)
    found = {}
    for resource, answer in answers.items():
        try:
            entries = _result(answer, f"The settings of {resource.name} cannot be read")
        except TopicsError as error:
            # Another broker answers than the one that described the topic, and it does not know the topic
            # yet.
            if _code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
            continue
        topic = described[resource.name]
        found[resource.name] = FoundTopic(
            partitions=len(topic.partitions),
            replication_factor=min(len(partition.replicas) for partition in topic.partitions),
            config={name: entry.value for name, entry in entries.items() if entry.value is not None},
            inherited=frozenset(name for name, entry in entries.items() if not _of_the_topic(entry)),
        )
    return found


def _of_the_topic(entry: Any) -> bool:
    """Whether a setting is set on the topic itself, as far as the brokers tell."""
    return ConfigSource(entry.source) not in _INHERITED


def _describe(admin: Admin, names: Iterable[str]) -> dict[str, TopicDescription]:
    unique = list(dict.fromkeys(names))
    if not unique:
        return {}
    admin.reach(REQUEST_TIMEOUT_S)
    answers = admin.describe_topics(TopicCollection(unique), request_timeout=REQUEST_TIMEOUT_S)
    described = {}
    for name, answer in answers.items():
        try:
            described[name] = _result(answer, f"The topic {name} cannot be described")
        except TopicsError as error:
            if _code(error) != KafkaError.UNKNOWN_TOPIC_OR_PART:
                raise
    return described


def _create(admin: AdminClient, specs: Sequence[TopicSpec], common: int | None) -> list[Change]:
    changes = []
    partitions = {
        spec.name: common if common is not None and spec.partitioned_alike else spec.partitions
        for spec in specs
    }
    answers = admin.create_topics(
        [
            NewTopic(spec.name, partitions[spec.name], spec.replication_factor, config=spec.config)
            for spec in specs
        ],
        operation_timeout=REQUEST_TIMEOUT_S,
        request_timeout=REQUEST_TIMEOUT_S,
    )
    for spec in specs:
        try:
            _result(answers[spec.name], f"The topic {spec.name} cannot be created")
        except TopicsError as error:
            # Somebody else created it first; `check` tells whether it is as it should be.
            code = _code(error)
            if code == KafkaError.TOPIC_ALREADY_EXISTS:
                continue
            if code == KafkaError.INVALID_REPLICATION_FACTOR:
                raise TopicsRefused(
                    f"{error} A cluster with fewer brokers than {spec.replication_factor} can have fewer "
                    "replicas, but loses more when a broker is lost: `--environment single-node` plans one "
                    "replica, `--replication-factor N` plans N."
                ) from error.__cause__
            raise
        sentence = (
            f"{spec.name} was created: {partitions[spec.name]} partitions, "
            f"replication factor {spec.replication_factor}."
        )
        changes.append(Change(spec.name, "created", sentence))
    return changes


def _await_visible(admin: Admin, specs: Sequence[TopicSpec], altered: Sequence[Difference]) -> None:
    """Wait until the cluster shows the changes: the controller answers before the brokers know them."""
    deadline = time.monotonic() + VISIBLE_TIMEOUT_S
    while True:
        found = _find(admin, specs)
        behind = {spec.name for spec in specs} - found.keys()
        behind |= {
            d.topic
            for d in altered
            if d.topic in found and found[d.topic].config.get(d.setting) != d.expected
        }
        if not behind:
            return
        if time.monotonic() > deadline:
            names = ", ".join(sorted(behind))
            raise TopicsError(
                f"After {VISIBLE_TIMEOUT_S:.0f} s the cluster does not show the change of {names}."
            )
        time.sleep(_VISIBLE_POLL_S)


def _alter(admin: AdminClient, fixable: Sequence[Difference]) -> list[Change]:
    resources = [
        ConfigResource(
            ResourceType.TOPIC,
            topic,
            incremental_configs=[
                ConfigEntry(d.setting, d.expected, incremental_operation=AlterConfigOpType.SET)
                for d in fixable
                if d.topic == topic
            ],
        )
        for topic in dict.fromkeys(d.topic for d in fixable)
    ]
    answers = admin.incremental_alter_configs(resources, request_timeout=REQUEST_TIMEOUT_S)
    for resource, answer in answers.items():
        _result(answer, f"The settings of {resource.name} cannot be changed")
    return [
        Change(d.topic, "altered", f"{d.topic}: {d.setting} was {d.actual} and is {d.expected} now.")
        for d in fixable
    ]


def _result(answer: "Future[Any]", failure: str) -> Any:
    try:
        return answer.result()
    except KafkaException as error:
        kind = TopicsRefused if error.args[0].code() in _FINAL else TopicsError
        raise kind(f"{failure}: {error.args[0].str().rstrip('.')}.") from error


def _code(error: TopicsError) -> int | None:
    cause = error.__cause__
    return cause.args[0].code() if isinstance(cause, KafkaException) else None
