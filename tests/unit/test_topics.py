"""What the topics should be, and what is said about those that differ. No broker needed."""

import json
import logging
import shlex
from dataclasses import dataclass

import msgspec
import pytest

from delaystream.topics import TopicsError, TopicSpec, connect, plan, render
from delaystream.topics.differences import FoundTopic, differences, summed_up


@dataclass(frozen=True)
class Names:
    """The part of the settings that concerns topics."""

    request_topics: tuple[str, ...] = ("delay-requests",)
    commands_topic: str = "delay-commands"
    changelog_topic: str = "delay-wheel-changelog"
    events_topic: str = "delay-events"
    dead_letters_topic: str = "delay-dead-letters"
    receipts_topic: str = "delay-receipts"
    max_message_bytes: int = 1_200_000


def found_as(specs: list[TopicSpec]) -> dict[str, FoundTopic]:
    """A cluster on which everything is as specified."""
    return {s.name: FoundTopic(s.partitions, s.replication_factor, dict(s.config)) for s in specs}


def altered(topic: FoundTopic, **config: str) -> FoundTopic:
    settings = {name.replace("_", "."): value for name, value in config.items()}
    return msgspec.structs.replace(topic, config={**topic.config, **settings})


def test_production_topics_keep_three_replicas_of_which_two_must_be_in_sync() -> None:
    specs = plan(Names())
    assert {spec.replication_factor for spec in specs} == {3}
    assert {spec.config["min.insync.replicas"] for spec in specs} == {"2"}


def test_a_single_node_gets_one_replica() -> None:
    specs = plan(Names(), environment="single-node", partitions=4)
    assert {(spec.replication_factor, spec.config["min.insync.replicas"]) for spec in specs} == {(1, "1")}


def test_fewer_replicas_than_usual_do_not_leave_a_topic_that_cannot_be_written_to() -> None:
    specs = plan(Names(), replication_factor=1)
    assert {spec.config["min.insync.replicas"] for spec in specs} == {"1"}


def test_all_topics_have_the_same_number_of_partitions_and_take_the_largest_record() -> None:
    specs = plan(Names(), partitions=6)
    assert {spec.partitions for spec in specs} == {6}
    assert {spec.config["max.message.bytes"] for spec in specs} == {"1200000"}


def test_only_the_changelog_is_compacted() -> None:
    policies = {spec.name: spec.config["cleanup.policy"] for spec in plan(Names())}
    assert policies.pop("delay-wheel-changelog") == "compact"
    assert set(policies.values()) == {"delete"}


def test_every_request_topic_is_planned_and_names_come_from_the_settings() -> None:
    names = Names(request_topics=("tenant-a", "tenant-b"), commands_topic="c", changelog_topic="l")
    assert [spec.name for spec in plan(names)] == [
        "tenant-a",
        "tenant-b",
        "c",
        "l",
        "delay-events",
        "delay-dead-letters",
        "delay-receipts",
    ]


@pytest.mark.parametrize("counts", [{"partitions": 0}, {"replication_factor": 0}])
def test_counts_below_one_are_refused(counts: dict[str, int]) -> None:
    with pytest.raises(ValueError, match="1 or more"):
        plan(Names(), environment="production", **counts)


def test_a_cluster_as_specified_has_no_differences() -> None:
    specs = plan(Names())
    assert differences(specs, found_as(specs)) == []


def test_a_missing_topic_is_an_error_that_names_it() -> None:
    specs = plan(Names())
    found = found_as(specs)
    del found["delay-commands"]
    [difference] = differences(specs, found)
    assert (difference.topic, difference.setting, difference.severity) == (
        "delay-commands",
        "exists",
        "error",
    )
    assert difference.sentence == "The topic delay-commands does not exist."


def test_unequal_partition_counts_are_an_error_on_the_topic_that_stands_out() -> None:
    specs = plan(Names(), partitions=8)
    found = found_as(specs)
    found["delay-wheel-changelog"] = msgspec.structs.replace(found["delay-wheel-changelog"], partitions=4)
    [difference] = differences(specs, found)
    assert (difference.topic, difference.setting) == ("delay-wheel-changelog", "partitions")
    assert (difference.expected, difference.actual) == ("8", "4")


def test_another_common_partition_count_is_fine_unless_a_number_was_asked_for() -> None:
    specs = plan(Names(), partitions=8)
    found = {name: msgspec.structs.replace(t, partitions=4) for name, t in found_as(specs).items()}
    assert differences(specs, found) == []
    exact = differences(specs, found, exact_partitions=True)
    assert [d.topic for d in exact] == ["delay-requests", "delay-commands", "delay-wheel-changelog"]


def test_events_and_dead_letters_may_have_any_number_of_partitions() -> None:
    specs = plan(Names(), partitions=8)
    found = found_as(specs)
    for name in ("delay-events", "delay-dead-letters"):
        found[name] = msgspec.structs.replace(found[name], partitions=1)
    assert differences(specs, found, exact_partitions=True) == []


@pytest.mark.parametrize(
    ("topic", "setting", "value", "severity"),
    [
        ("delay-wheel-changelog", "cleanup.policy", "compact,delete", "error"),
        ("delay-wheel-changelog", "cleanup.policy", "delete", "error"),
        ("delay-wheel-changelog", "delete.retention.ms", "1000", "error"),
        ("delay-wheel-changelog", "max.message.bytes", "1048588", "error"),
        ("delay-wheel-changelog", "min.insync.replicas", "1", "warning"),
        ("delay-wheel-changelog", "min.insync.replicas", "4", "error"),
        ("delay-wheel-changelog", "unclean.leader.election.enable", "true", "warning"),
        ("delay-requests", "cleanup.policy", "compact", "error"),
        ("delay-wheel-changelog", "message.timestamp.type", "CreateTime", "warning"),
        ("delay-commands", "message.timestamp.type", "CreateTime", "warning"),
        ("delay-requests", "retention.ms", "1000", "warning"),
        ("delay-requests", "retention.bytes", "1000", "warning"),
        ("delay-commands", "retention.bytes", "1000", "warning"),
        ("delay-events", "retention.bytes", "1000000000000", "warning"),
        ("delay-dead-letters", "retention.bytes", "0", "warning"),
        ("delay-receipts", "retention.bytes", "1000", "warning"),
    ],
)
def test_a_dangerous_setting_is_reported_with_both_values_in_one_sentence(
    topic: str, setting: str, value: str, severity: str
) -> None:
    specs = plan(Names())
    found = found_as(specs)
    found[topic] = altered(found[topic], **{setting.replace(".", "_"): value})
    [difference] = differences(specs, found)
    assert (difference.topic, difference.setting) == (topic, setting)
    assert (difference.severity, difference.actual) == (severity, value)
    assert difference.sentence.startswith(topic)
    assert value in difference.sentence
    assert difference.sentence.endswith(".")


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("retention.ms", "-1"),
        ("cleanup.policy", ""),
        ("max.message.bytes", "5000000"),
        ("min.insync.replicas", "3"),
        ("segment.bytes", "1"),
        ("message.timestamp.before.max.ms", "0"),
    ],
)
def test_values_on_the_safe_side_and_tuning_are_no_difference(setting: str, value: str) -> None:
    specs = plan(Names())
    found = found_as(specs)
    found["delay-requests"] = altered(found["delay-requests"], **{setting.replace(".", "_"): value})
    assert differences(specs, found) == []


@pytest.mark.parametrize(
    ("topic", "setting", "value", "severity"),
    [
        ("delay-events", "message.timestamp.before.max.ms", "9999", "error"),
        ("delay-dead-letters", "message.timestamp.before.max.ms", "10000", "warning"),
        ("delay-commands", "message.timestamp.after.max.ms", "0", "warning"),
    ],
)
def test_limits_on_timestamps_matter_where_the_producer_sets_them(
    topic: str, setting: str, value: str, severity: str
) -> None:
    """That the producer does is a difference of its own."""
    specs = plan(Names())
    found = found_as(specs)
    found[topic] = altered(
        found[topic], message_timestamp_type="CreateTime", **{setting.replace(".", "_"): value}
    )
    [of_type, of_limit] = sorted(differences(specs, found), key=lambda found: found.setting == setting)
    assert of_type.setting == "message.timestamp.type"
    assert (of_limit.topic, of_limit.severity, of_limit.actual) == (topic, severity, value)
    assert value in of_limit.sentence


def test_limits_on_timestamps_do_not_concern_a_topic_whose_broker_sets_them() -> None:
    specs = plan(Names())
    found = found_as(specs)
    narrow = {"message_timestamp_before_max_ms": "0", "message_timestamp_after_max_ms": "3599999"}
    found["delay-wheel-changelog"] = altered(found["delay-wheel-changelog"], **narrow)
    assert differences(specs, found) == []


def test_every_topic_states_whatever_could_delete_from_it() -> None:
    """What is not stated is the cluster's, which somebody may change for all topics at once."""
    for spec in plan(Names()):
        assert {"cleanup.policy", "retention.bytes", "retention.ms"} <= spec.config.keys()
        assert spec.config["retention.bytes"] == "-1"
        if spec.config["cleanup.policy"] == "compact":
            assert spec.config["retention.ms"] == "-1"
            assert "delete.retention.ms" in spec.config
        else:
            assert int(spec.config["retention.ms"]) >= 86_400_000


def test_delaystreams_own_topics_have_the_brokers_time() -> None:
    """What a worker with a wrong clock writes there must not be deleted sooner than intended, or refused."""
    types = {spec.name: spec.config.get("message.timestamp.type") for spec in plan(Names())}
    assert types.pop("delay-requests") is None, "a delay counts from the producer's timestamp"
    assert set(types.values()) == {"LogAppendTime"}


def test_what_is_not_set_on_the_topic_counts_as_well_and_is_said_to_be_inherited() -> None:
    specs = plan(Names())
    found = found_as(specs)
    requests = altered(found["delay-requests"], retention_bytes="1000")
    found["delay-requests"] = msgspec.structs.replace(requests, inherited=frozenset({"retention.bytes"}))
    [difference] = differences(specs, found)
    assert difference.sentence == (
        "delay-requests has retention.bytes=1000 (not set on the topic: inherited from the brokers) instead "
        "of -1; the oldest records of a partition are deleted as soon as it is larger, read or not."
    )


def test_retention_of_a_changelog_that_is_only_compacted_means_nothing() -> None:
    """An older changelog has the cluster's; where deletion is switched on, it counts."""
    specs = plan(Names())
    found = found_as(specs)
    cluster = {"retention_ms": "604800000", "retention_bytes": "1000"}
    found["delay-wheel-changelog"] = altered(found["delay-wheel-changelog"], **cluster)
    assert differences(specs, found) == []
    found["delay-wheel-changelog"] = altered(found["delay-wheel-changelog"], cleanup_policy="compact,delete")
    settings = [difference.setting for difference in differences(specs, found)]
    assert settings == ["cleanup.policy", "retention.bytes", "retention.ms"]


def test_a_changelog_without_append_times_is_told_what_that_costs() -> None:
    specs = plan(Names())
    found = found_as(specs)
    name = "delay-wheel-changelog"
    found[name] = altered(found[name], message_timestamp_type="CreateTime")
    [difference] = differences(specs, found)
    assert "local stores are rebuilt more often" in difference.sentence


def test_nothing_about_the_topic_for_receipts_keeps_a_worker_from_starting() -> None:
    """An upgrade goes on without it; whoever looks is told."""
    specs = plan(Names())
    found = found_as(specs)
    receipts = found.pop("delay-receipts")
    [difference] = differences(specs, found)
    assert (difference.topic, difference.setting, difference.severity) == (
        "delay-receipts", "exists", "warning",
    )  # fmt: skip
    assert "requests work without them" in difference.sentence
    wrong = altered(receipts, cleanup_policy="compact", max_message_bytes="1", min_insync_replicas="9")
    found["delay-receipts"] = wrong
    assert {difference.severity for difference in differences(specs, found)} == {"warning"}


def test_fewer_replicas_are_a_warning() -> None:
    specs = plan(Names())
    found = found_as(specs)
    found["delay-events"] = msgspec.structs.replace(found["delay-events"], replication_factor=2)
    [difference] = differences(specs, found)
    assert (difference.setting, difference.severity) == ("replication.factor", "warning")


def test_what_holds_of_several_topics_is_said_once() -> None:
    specs = plan(Names())
    found = {
        name: altered(msgspec.structs.replace(topic, replication_factor=1), min_insync_replicas="1")
        for name, topic in found_as(specs).items()
        if name != "delay-receipts"
    }
    replicas, in_sync, missing = summed_up(differences(specs, found))
    *others, last = found
    assert replicas.startswith(f"{', '.join(others)} and {last} have replication factor 1 instead of 3; ")
    assert in_sync.startswith(f"{', '.join(others)} and {last} have min.insync.replicas=1 instead of 2; ")
    assert missing == differences(specs, found)[-1].sentence
    assert summed_up([]) == []


def test_what_librdkafka_logs_is_told_by_its_errors_alone(caplog: pytest.LogCaptureFixture) -> None:
    """A person at a terminal sees one sentence; the rest is for who looks for it."""
    caplog.set_level(logging.DEBUG)
    admin = connect({"bootstrap.servers": "127.0.0.1:1"})
    with pytest.raises(TopicsError, match="Kafka does not answer"):
        admin.reach(0.5)
    assert {record.levelname for record in caplog.records if "rdkafka" in record.getMessage()} == {"DEBUG"}


def test_the_table_names_every_topic_and_setting() -> None:
    table = render(plan(Names()))
    for spec in plan(Names()):
        assert spec.name in table
    assert "cleanup.policy=compact" in table


def test_the_command_lines_are_those_of_kafkas_own_tool() -> None:
    specs = plan(Names(request_topics=("a.b",)))
    lines = render(specs, "kafka-topics", bootstrap_servers="h:9092").splitlines()
    words = shlex.split(lines[0])
    assert words[:5] == ["kafka-topics.sh", "--bootstrap-server", "h:9092", "--create", "--if-not-exists"]
    assert words[words.index("--topic") + 1] == "a.b"
    assert "cleanup.policy=delete" in words
    assert len(lines) == len(specs)


def test_json_holds_all_of_it() -> None:
    topics = json.loads(render(plan(Names(), partitions=3), "json"))
    assert [topic["partitions"] for topic in topics] == [3] * 6
    assert topics[2]["config"]["cleanup.policy"] == "compact"
