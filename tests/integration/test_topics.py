"""Topics as code against a real cluster."""

import time
from collections.abc import Callable
from concurrent.futures import Future
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import (
    AdminClient,
    AlterConfigOpType,
    ConfigEntry,
    ConfigResource,
    NewTopic,
    ResourceType,
)

from delaystream.dev.broker import EmbeddedBroker
from delaystream.topics import (
    Admin,
    TopicsError,
    TopicSpec,
    TopicsRefused,
    apply,
    check,
    connect,
    plan,
    topic_ids,
)


class Names:
    """Topic names of one test's own, as the settings would give them."""

    def __init__(self) -> None:
        suffix = uuid4().hex[:12]
        self.request_topics = (f"requests-a-{suffix}", f"requests-b-{suffix}")
        self.commands_topic = f"commands-{suffix}"
        self.changelog_topic = f"changelog-{suffix}"
        self.events_topic = f"events-{suffix}"
        self.dead_letters_topic = f"dead-letters-{suffix}"
        self.receipts_topic = f"receipts-{suffix}"
        self.max_message_bytes = 1_200_000


@pytest.fixture
def names() -> Names:
    return Names()


def specs_of(names: Names, partitions: int = 2) -> list[TopicSpec]:
    return plan(names, partitions=partitions, environment="single-node")


def await_differences(admin: Admin, specs: list[TopicSpec], expected: set[tuple[str, str]]) -> None:
    """Wait until exactly these settings of these topics differ: the controller answers before the broker."""
    deadline = time.monotonic() + 30
    while (found := {(d.topic, d.setting) for d in check(admin, specs)}) != expected:
        assert time.monotonic() < deadline, found ^ expected
        time.sleep(0.1)


def test_apply_creates_what_is_missing_and_then_nothing_differs(admin: Admin, names: Names) -> None:
    specs = specs_of(names)
    assert {d.setting for d in check(admin, specs)} == {"exists"}
    assert {change.action for change in apply(admin, specs)} == {"created"}
    assert check(admin, specs, exact_partitions=True) == []


def test_apply_asks_for_no_more_replicas_in_sync_than_a_topic_has(admin: Admin, names: Names) -> None:
    """Nothing could be written to it any more."""
    apply(admin, specs_of(names))
    production = plan(names, partitions=2, environment="production")
    assert apply(admin, production) == []
    assert {d.setting for d in check(admin, production)} == {"replication.factor", "min.insync.replicas"}


def test_more_replicas_than_there_are_brokers_are_refused_with_what_to_do(admin: Admin, names: Names) -> None:
    production = plan(names, partitions=2, environment="production")
    advice = r"[^.]\. A cluster with fewer brokers than 3 .*--environment single-node"
    with pytest.raises(TopicsRefused, match=advice):
        apply(admin, production)


def test_applying_twice_changes_nothing(admin: Admin, names: Names) -> None:
    specs = specs_of(names)
    apply(admin, specs)
    ids = topic_ids(admin, [spec.name for spec in specs])
    assert apply(admin, specs) == []
    assert topic_ids(admin, [spec.name for spec in specs]) == ids


def test_apply_corrects_dangerous_settings_and_tells_each(
    admin: Admin, names: Names, create_topic: Callable[..., str]
) -> None:
    create_topic(names.changelog_topic, partitions=2, config={"max.message.bytes": "1000"})
    specs = specs_of(names)
    found = [d.setting for d in check(admin, specs) if d.topic == names.changelog_topic]
    assert found == [
        "cleanup.policy",
        "max.message.bytes",
        "message.timestamp.type",
        "retention.ms",
    ]
    altered = [change.sentence for change in apply(admin, specs) if change.action == "altered"]
    assert altered == [
        f"{names.changelog_topic}: cleanup.policy was delete and is compact now.",
        f"{names.changelog_topic}: max.message.bytes was 1000 and is 1200000 now.",
        f"{names.changelog_topic}: message.timestamp.type was CreateTime and is LogAppendTime now.",
        f"{names.changelog_topic}: retention.ms was 604800000 and is -1 now.",
    ]
    assert check(admin, specs) == []


def test_apply_takes_back_what_would_delete_requests_unread(
    admin: Admin, names: Names, create_topic: Callable[..., str]
) -> None:
    specs = specs_of(names)
    apply(admin, specs)
    limited = {spec.name for spec in specs if spec.name != names.changelog_topic}
    for name in limited:
        change = ConfigEntry("retention.bytes", "1000", incremental_operation=AlterConfigOpType.SET)
        resource = ConfigResource(ResourceType.TOPIC, name, incremental_configs=[change])
        admin.incremental_alter_configs([resource])[resource].result(30)
    await_differences(admin, specs, {(name, "retention.bytes") for name in limited})
    assert all(difference.severity == "warning" for difference in check(admin, specs))
    assert {change.topic for change in apply(admin, specs)} == limited
    assert check(admin, specs) == []


@pytest.mark.timeout(240)
def test_what_a_cluster_sets_for_all_its_topics_is_seen_on_those_that_do_not_say_otherwise(
    names: Names, tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Somebody else's topic inherits it: it is told of, corrected on the topic, and then stays."""
    with EmbeddedBroker(tmp_path_factory.mktemp("limited")) as broker:
        admin = connect({"bootstrap.servers": broker.bootstrap_servers})
        created = NewTopic(names.request_topics[0], 2, 1)
        admin.create_topics([created])[created.topic].result(30)
        specs = specs_of(names)
        apply(admin, specs)
        assert check(admin, specs) == []
        limits = {
            "log.retention.bytes": "1000",
            "log.retention.ms": "60000",
            "log.cleanup.policy": "compact",
            "unclean.leader.election.enable": "true",
        }
        changes = [
            ConfigEntry(name, value, incremental_operation=AlterConfigOpType.SET)
            for name, value in limits.items()
        ]
        # Of its one broker: librdkafka knows no name for all of them.
        (node,) = admin.list_topics(timeout=30).brokers
        everywhere = ConfigResource(ResourceType.BROKER, str(node), incremental_configs=changes)
        admin.incremental_alter_configs([everywhere])[everywhere].result(30)
        theirs = names.request_topics[0]
        await_differences(admin, specs, {(theirs, name.removeprefix("log.")) for name in limits})
        assert all("inherited from the brokers" in found.sentence for found in check(admin, specs))
        assert {change.topic for change in apply(admin, specs)} == {theirs}
        assert check(admin, specs) == []


def test_what_is_missing_gets_as_many_partitions_as_the_topics_that_it_belongs_to(
    admin: Admin, names: Names, create_topic: Callable[..., str]
) -> None:
    create_topic(names.request_topics[0], partitions=3)
    specs = specs_of(names, partitions=2)
    apply(admin, specs)
    assert check(admin, specs) == []
    partitions = {name: len(topic.partitions) for name, topic in admin.list_topics(timeout=30).topics.items()}
    assert partitions[names.commands_topic] == partitions[names.changelog_topic] == 3


def test_partition_counts_are_never_changed_and_stay_reported(
    admin: Admin, names: Names, create_topic: Callable[..., str]
) -> None:
    create_topic(names.commands_topic, partitions=5)
    create_topic(names.request_topics[0], partitions=2)
    apply(admin, specs_of(names))
    [difference] = check(admin, specs_of(names))
    assert (difference.topic, difference.setting) == (names.commands_topic, "partitions")
    assert (difference.expected, difference.actual, difference.severity) == ("2", "5", "error")


def test_more_replicas_than_there_are_brokers_are_refused_in_a_sentence(admin: Admin, names: Names) -> None:
    with pytest.raises(TopicsError, match=r"cannot be created: .*replication") as caught:
        apply(admin, plan(names, replication_factor=100))
    assert caught.value.__cause__ is not None
    assert caught.value.__cause__.args[0].code() == KafkaError.INVALID_REPLICATION_FACTOR


def test_a_topic_made_again_has_another_id_and_a_missing_one_has_none(
    admin: Admin, make_topic: Callable[..., str], create_topic: Callable[..., str]
) -> None:
    name = make_topic()
    before = topic_ids(admin, [name, "no-such-topic"])
    assert list(before) == [name]
    admin.delete_topics([name])[name].result(30)
    while topic_ids(admin, [name]):
        pass
    create_topic(name)
    assert topic_ids(admin, [name])[name] != before[name]


def test_a_cluster_that_is_not_there_is_an_error_and_not_a_missing_topic(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("delaystream.topics.cluster.REQUEST_TIMEOUT_S", 1.0)
    admin = connect({"bootstrap.servers": "127.0.0.1:1"})
    assert isinstance(admin, AdminClient)
    with pytest.raises(TopicsError, match="Kafka does not answer"):
        topic_ids(admin, ["any"])


def test_a_broker_that_has_not_heard_of_a_topic_yet_is_asked_again(
    admin: Admin, names: Names, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One broker describes the topics, another one their settings: it may be behind the first."""
    original = admin.describe_configs
    refusals: list[ConfigResource] = []

    def describe_configs(
        resources: list[ConfigResource], **options: float
    ) -> dict[ConfigResource, Future[Any]]:
        answers = dict(original(resources, **options))
        if not refusals:
            refusals.append(resources[0])
            answers[resources[0]] = Future()
            unknown = KafkaError(KafkaError.UNKNOWN_TOPIC_OR_PART)
            answers[resources[0]].set_exception(KafkaException(unknown))
        return answers

    monkeypatch.setattr(admin, "describe_configs", describe_configs)
    specs = specs_of(names)
    assert {change.action for change in apply(admin, specs)} == {"created"}
    assert refusals
    assert not check(admin, specs)
