"""The broker restarts, crashes, freezes and forbids: the workers get over it by themselves."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from confluent_kafka.admin import (
    AclBinding,
    AclBindingFilter,
    AclOperation,
    AclPermissionType,
    ResourcePatternType,
    ResourceType,
)

from delaystream.dev import EmbeddedBroker
from tests.integration.harness import Deployment, wait
from tests.integration.harness_kafka import Kafka
from tests.integration.harness_traffic import Traffic

_AUTHORIZER = {
    "authorizer.class.name": "org.apache.kafka.metadata.authorizer.StandardAuthorizer",
    "allow.everyone.if.no.acl.found": "true",
}


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A broker of this module's own, that can be stopped, and that asks who may do what."""
    broker = EmbeddedBroker(tmp_path_factory.mktemp("broker"), properties=_AUTHORIZER)
    try:
        yield broker.start()
    finally:
        broker.kill()


@pytest.mark.timeout(240)
def test_a_broker_that_restarts_crashes_and_freezes_under_load(
    broker: EmbeddedBroker, tmp_path: Path
) -> None:
    """Through a clean restart, a crash and a pause past every timeout: lost 0, duplicated 0, early 0."""
    kafka = Kafka(broker.bootstrap_servers)
    with Deployment(kafka, tmp_path, partitions=2) as app:
        workers = [app.apply_topics().worker("-a"), app.worker("-b")]
        for worker in workers:
            worker.wait_ready()
        traffic = Traffic(app, rate=100, seed=1, longest_delay_ms=4_000).start()
        time.sleep(2)
        broker.restart()
        time.sleep(3)
        broker.kill()
        time.sleep(2)
        broker.start()
        time.sleep(3)
        broker.pause()
        time.sleep(12)
        broker.resume()
        time.sleep(3)
        report, _ = traffic.stop().outcome()
        assert report.ok, str(report)
        for worker in workers:
            assert worker.alive, f"exited with {worker.exit_code}:\n{worker.output()[-4000:]}"
            worker.wait_ready()
            assert worker.terminate() == 0


def test_a_worker_that_is_stopped_while_the_broker_is_away(tmp_path: Path) -> None:
    """It stops at once, in order, and without a traceback."""
    broker = EmbeddedBroker(tmp_path / "broker")
    with broker, Deployment(Kafka(broker.bootstrap_servers), tmp_path, partitions=2) as app:
        worker = app.apply_topics().worker().wait_ready()
        broker.kill()
        wait(lambda: "Unable connect to node" in worker.output(), "the worker to miss the broker")
        assert worker.terminate(30) == 0
        assert "Traceback" not in worker.output(), worker.output()[-4000:]


def test_a_destination_that_we_may_not_write_to(broker: EmbeddedBroker, tmp_path: Path) -> None:
    """Forbidden by an ACL: that destination waits, the others go on; once it is allowed, it is delivered."""
    kafka = Kafka(broker.bootstrap_servers)
    settings = {"DELAYSTREAM_DESTINATION_BACKOFF_MAX_MS": "1000"}
    with Deployment(kafka, tmp_path, partitions=1, **settings) as app:
        worker = app.apply_topics().worker().wait_ready()
        forbidden, allowed = app.destination("forbidden"), app.destination("allowed")
        rule = (
            *(ResourceType.TOPIC, forbidden, ResourcePatternType.LITERAL),
            *("User:*", "*", AclOperation.WRITE, AclPermissionType.DENY),
        )
        for future in kafka.admin.create_acls([AclBinding(*rule)]).values():
            future.result(30)
        time.sleep(1)
        for number in range(10):
            app.request(b"%d" % number, {"destination": forbidden, "delay": "300ms"})
            app.request(b"%d" % number, {"destination": allowed, "delay": f"{300 + 200 * number}ms"})
        for delivery in kafka.read(allowed, 10):
            assert 0 <= delivery.timestamp_ms - int(delivery.text("delaystream-due-at")) < 2_000
        assert sum(kafka.stable_offsets(forbidden)) == 0
        for removed in kafka.admin.delete_acls([AclBindingFilter(*rule)]).values():
            removed.result(30)
        # Nothing is left that speaks of the topic, so that everyone may write again.
        with app.reader(forbidden) as reader:
            assert {delivery.value for delivery in reader.take(10)} == {b"%d" % n for n in range(10)}
            reader.quiet(1)
        assert worker.alive
