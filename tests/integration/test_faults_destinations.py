"""A destination that cannot take a fire delays only itself."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from uuid import uuid4

import pytest

from tests.integration.harness import Deployment, wait
from tests.integration.harness_kafka import Delivery, Kafka

_TIMEOUT_MS = 8_000
#: how late the healthy may be while others are in trouble
_UNHARMED_MS = 2_000


@pytest.fixture(scope="module")
def patient(cluster: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One application for all troubles, so that each test also shows that the ones before did no harm."""
    settings = {
        "DELAYSTREAM_DESTINATION_TIMEOUT_MS": str(_TIMEOUT_MS),
        "DELAYSTREAM_DESTINATION_BACKOFF_MAX_MS": "1000",
    }
    with Deployment(cluster, tmp_path_factory.mktemp("patient"), partitions=1, **settings) as deployment:
        worker = deployment.apply_topics().worker().wait_ready()
        yield deployment
        assert worker.terminate() == 0, worker.output()[-6000:]


def _letter(app: Deployment, key: bytes, seconds: float) -> Delivery:
    with app.reader(app.dead_letters) as reader:
        return reader.take(1, seconds, wanted=lambda delivery: delivery.key == key)[0]


def _healthy(app: Deployment, count: int) -> None:
    """Others are delivered meanwhile, and on time."""
    out = app.destination(f"healthy-{uuid4().hex[:6]}")
    for number in range(count):
        app.request(b"v", {"destination": out, "delay": f"{300 + 200 * number}ms"})
    for delivery in app.kafka.read(out, count):
        late_ms = delivery.timestamp_ms - int(delivery.text("delaystream-due-at"))
        assert 0 <= late_ms <= _UNHARMED_MS, f"{late_ms} ms late"
    assert app.workers[0].alive


def test_a_missing_destination_waits_until_it_is_there(patient: Deployment) -> None:
    """Fires for a topic that does not exist wait; when it is created, each is delivered once."""
    missing = patient.topic("missing")
    for number in range(20):
        patient.request(b"%d" % number, {"destination": missing, "delay": f"{number * 20}ms"})
    _healthy(patient, 10)
    assert patient.kafka.partitions(missing) == 0, "a destination must not be created by delivering to it"
    patient.kafka.create(missing, 2)
    with patient.reader(missing) as reader:
        assert {delivery.value for delivery in reader.take(20)} == {b"%d" % number for number in range(20)}
        reader.quiet(1)


def test_a_destination_that_never_comes_is_quarantined(patient: Deployment) -> None:
    """After `destination-timeout` the event lies among the dead letters, with all its bytes."""
    key, value = uuid4().bytes, os.urandom(100)
    control = {"destination": patient.topic("never"), "delay": "200ms"}
    patient.request(value, control, key=key, headers=[("foreign", b"\xff"), ("null", None)])
    _healthy(patient, 5)
    letter = _letter(patient, key, _TIMEOUT_MS / 1000 + 10)
    assert letter.text("delaystream-error") == "quarantined"
    assert letter.value == value
    assert letter.headers[:2] == [("foreign", b"\xff"), ("null", None)]


def test_a_destination_deleted_in_use_waits_too(patient: Deployment) -> None:
    """A topic that was written to a moment ago is deleted, and comes back."""
    out = patient.destination("deleted")
    patient.request(b"before", {"destination": out, "delay": "0"})
    patient.kafka.read(out, 1)
    patient.kafka.delete(out)
    patient.request(b"after", {"destination": out, "delay": "200ms"})
    _healthy(patient, 10)
    patient.kafka.create(out)
    with patient.reader(out) as reader:
        assert [delivery.value for delivery in reader.take(1)] == [b"after"]
        reader.quiet(1)


@pytest.mark.parametrize("trouble", ["too large", "null key for a compacted topic"])
def test_a_record_at_fault_is_quarantined_at_once(patient: Deployment, trouble: str) -> None:
    """A record that its destination can never take is dead-lettered; its neighbours are delivered."""
    if trouble == "too large":
        out, key, value = (
            patient.destination("small", max_message_bytes="2000"),
            uuid4().bytes,
            os.urandom(4_000),
        )
    else:
        out, key, value = patient.destination("compacted", cleanup_policy="compact"), None, uuid4().bytes
    sent = time.monotonic()
    for number in range(10):
        patient.request(b"%d" % number, {"destination": out, "delay": "500ms"}, key=b"%d" % number)
        if number == 5:
            patient.request(value, {"destination": out, "delay": "500ms"}, key=key)
    assert {delivery.value for delivery in patient.kafka.read(out, 10)} == {b"%d" % n for n in range(10)}
    with patient.reader(patient.dead_letters) as reader:
        (letter,) = reader.take(1, 10, wanted=lambda delivery: delivery.value == value)
    assert letter.text("delaystream-error") == "quarantined"
    assert time.monotonic() - sent < _TIMEOUT_MS / 1000, "such a record is not tried until the timeout"
    _healthy(patient, 3)


def test_a_destination_without_enough_replicas_waits(patient: Deployment) -> None:
    """A topic that refuses writes for a while holds up nobody else, and gets its fires when it recovers."""
    out = patient.destination("insync", min_insync_replicas="2")
    for number in range(5):
        patient.request(b"%d" % number, {"destination": out, "delay": "200ms"}, key=b"k")
    _healthy(patient, 10)
    patient.kafka.configure(out, min_insync_replicas="1")
    with patient.reader(out) as reader:
        assert [delivery.value for delivery in reader.take(5)] == [b"%d" % number for number in range(5)]
        reader.quiet(1)


@pytest.mark.parametrize("trouble", ["a narrow clock", "no room for a marker"])
def test_a_destination_in_which_no_transaction_ends_holds_up_nobody(
    patient: Deployment, trouble: str
) -> None:
    """The broker refuses its own marker there, and would keep the partition's transactions for ever."""
    narrow = {"message_timestamp_before_max_ms": "0", "message_timestamp_after_max_ms": "0"}
    config = narrow if trouble == "a narrow clock" else {"max_message_bytes": "77"}
    out = patient.kafka.create(patient.topic(f"endless-{uuid4().hex[:6]}"), config=config)
    for number in range(20):
        patient.request(b"%d" % number, {"destination": out, "delay": f"{number * 100}ms"})
    _healthy(patient, 10)
    assert patient.kafka.end_offsets(out) == [0]
    assert f"{next(iter(config)).replace('_', '.')}=" in patient.workers[0].output()
    hour = {"message_timestamp_before_max_ms": "3600000", "message_timestamp_after_max_ms": "3600000"}
    patient.kafka.configure(out, **(hour if trouble == "a narrow clock" else {"max_message_bytes": "100000"}))
    with patient.reader(out) as reader:
        assert {delivery.value for delivery in reader.take(20)} == {b"%d" % number for number in range(20)}
        reader.quiet(1)


def test_a_receipt_that_cannot_be_delivered_blocks_nothing(patient: Deployment) -> None:
    """The schedule stands, and fires, though its receipt has nowhere to go."""
    out = patient.destination("no-receipt")
    control = {"destination": out, "delay": "500ms", "reply-to": patient.topic("no-replies")}
    patient.request(b"v", control)
    assert [delivery.value for delivery in patient.kafka.read(out, 1)] == [b"v"]
    wait(lambda: patient.workers[0].ready, "the worker to be ready")
