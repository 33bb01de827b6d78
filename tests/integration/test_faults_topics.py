"""The project's own topics missing or wrong, requests lost: a clear message, and a decided exit."""

from __future__ import annotations

import pytest
from confluent_kafka import KafkaError, KafkaException
from confluent_kafka.admin import NewPartitions, NewTopic

from delaystream.exit_codes import ExitCode
from tests.integration.harness import Deployment, wait
from tests.integration.harness_fixtures import Deploy


def _refuses(app: Deployment, *words: str) -> None:
    """The worker says what is wrong and ends; restarting would not help."""
    worker = app.worker()
    assert worker.wait_exit(30) == ExitCode.CONFIGURATION, worker.output()[-4000:]
    for word in words:
        assert word in worker.reason


def test_a_worker_refuses_wrong_topics(deploy: Deploy) -> None:
    """Missing, wrong cleanup policy, wrong partition count: all that is wrong is told at once."""
    app = deploy(partitions=2)
    kafka, changelog, letters = app.kafka, app.changelog, app.dead_letters
    missing = [f"{topic} does not exist" for topic in (app.requests, app.commands, changelog, letters)]
    _refuses(app, *missing)
    app.apply_topics()
    kafka.delete(changelog, letters)
    kafka.create(changelog, 3, cleanup_policy="delete")
    _refuses(
        app,
        f"{letters} does not exist",
        f"{changelog} has 3 partitions",
        f"{changelog} has cleanup.policy=delete",
    )
    kafka.delete(changelog)
    app.apply_topics().worker().wait_ready()


def test_a_worker_without_destinations_says_what_to_set(deploy: Deploy) -> None:
    """There is no default for what may be delivered to."""
    app = deploy(DELAYSTREAM_DESTINATIONS_ALLOW="")
    _refuses(app, "DELAYSTREAM_DESTINATIONS_ALLOW")


def test_a_changelog_deleted_in_use_ends_the_worker(deploy: Deploy) -> None:
    """Carrying on without its changelog, a worker would look alive and lose events."""
    app = deploy(partitions=1).apply_topics()
    out = app.destination()
    worker = app.worker().wait_ready()
    app.request(b"v", {"destination": out, "delay": "1h"})
    app.kafka.delete(app.changelog)
    app.request(b"v", {"destination": out, "delay": "1h"})
    assert worker.wait_exit(60) != 0
    assert app.changelog in worker.reason


@pytest.mark.parametrize("kind", ["requests", "commands", "changelog"])
def test_a_topic_that_grows_in_use_ends_the_worker(deploy: Deploy, kind: str) -> None:
    """One alone is enough: nobody would read what is acknowledged on a partition that is not whole."""
    app = deploy(partitions=2).apply_topics()
    app.destination()
    worker = app.worker().wait_ready()
    topic: str = getattr(app, kind)
    for grown in app.kafka.admin.create_partitions([NewPartitions(topic, 3)]).values():
        grown.result(30)
    assert worker.wait_exit(60) == ExitCode.CONFIGURATION, worker.output()[-4000:]
    assert f"{topic} has at least 3 partitions" in worker.reason
    _refuses(app, "must have the same number")


def test_trimmed_requests_stop_the_worker_unless_told_otherwise(deploy: Deploy) -> None:
    """Retention took requests before they were read: how many, and a person decides."""
    app = deploy(partitions=1).apply_topics()
    out = app.destination()
    worker = app.worker().wait_ready()
    app.request(b"before", {"destination": out, "delay": "0"})
    app.kafka.read(out, 1)
    assert worker.terminate() == 0
    for number in range(10):
        _, offset = app.request(b"%d" % number, {"destination": out, "delay": "0"})
    app.kafka.trim(app.requests, 0, offset - 2)
    _refuses(app, app.requests, "7 requests")
    app.settings["DELAYSTREAM_ON_REQUESTS_LOST"] = "continue"
    app.worker().wait_ready()
    values = [delivery.value for delivery in app.kafka.read(out, 4)]
    assert values == [b"before", b"7", b"8", b"9"]


def test_a_request_topic_made_anew_stops_the_worker(deploy: Deploy) -> None:
    """Offsets of the topic that had this name before mean nothing in the new one."""
    app = deploy(partitions=1).apply_topics()
    out = app.destination()
    worker = app.worker().wait_ready()
    for _ in range(3):
        app.request(b"v", {"destination": out, "delay": "0"})
    app.kafka.read(out, 3)
    assert worker.terminate() == 0
    app.kafka.delete(app.requests)
    app.apply_topics()
    _refuses(app, app.requests)


def _with_another_request_topic(deploy: Deploy) -> tuple[Deployment, str]:
    """Two request topics, because a partition needs them all."""
    app = deploy(partitions=2)
    other = app.topic("more")
    app.settings["DELAYSTREAM_REQUEST_TOPICS"] = f"{app.requests},{other}"
    return app.apply_topics(), other


def test_a_request_topic_made_anew_in_use_ends_the_worker(deploy: Deploy) -> None:
    """While it is gone the worker is not ready and says why; soon after it is back, that it is another."""
    app, other = _with_another_request_topic(deploy)
    out = app.destination()
    worker = app.worker().wait_ready()
    app.request(b"v", {"destination": out, "delay": "0"}, topic=other)
    app.kafka.read(out, 1)
    app.kafka.delete(other)
    wait(lambda: worker.alive and not worker.ready, "the worker not to be ready", 10)
    wait(lambda: f"do not know {other}" in worker.get("/health/ready")[1], "it to say why", 10)
    app.apply_topics()
    assert worker.wait_exit(20) == ExitCode.CONFIGURATION, worker.output()[-4000:]
    assert f"{other}-" in worker.reason
    assert "deleted and created anew" in worker.reason


@pytest.mark.parametrize("kind", ["requests", "changelog"])
def test_a_topic_made_anew_too_fast_to_be_missed_ends_the_worker(deploy: Deploy, kind: str) -> None:
    """Where nobody found it missing, and its log is as long as the old one's was, only its id tells."""
    app = deploy(partitions=1).apply_topics()
    out = app.destination()
    worker = app.worker().wait_ready()
    app.request(b"v", {"destination": out, "delay": "0"})
    app.kafka.read(out, 1)
    topic: str = getattr(app, kind)
    config = {"cleanup.policy": "compact"} if kind == "changelog" else {}
    (deleted,) = app.kafka.admin.delete_topics([topic]).values()
    deleted.result(30)
    wait(lambda: _created(app, NewTopic(topic, 1, 1, config=config)), f"{topic} to be made anew", every=0.001)
    for _ in range(20):
        app.kafka.produce(topic, [(b"k", b"v", [])])
    assert worker.wait_exit(20) == ExitCode.CONFIGURATION, worker.output()[-4000:]
    assert topic in worker.reason
    assert "deleted and created anew" in worker.reason


def _created(app: Deployment, topic: NewTopic) -> bool:
    (future,) = app.kafka.admin.create_topics([topic]).values()
    try:
        future.result(30)
    except KafkaException as error:
        if error.args[0].code() != KafkaError.TOPIC_ALREADY_EXISTS:
            raise
        return False
    return True
