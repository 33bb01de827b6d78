"""What goes in comes out: where and when it was asked for, and byte for byte."""

from __future__ import annotations

import asyncio
import os
import time
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from delaystream.client.kafka.deliveries import NO_HEADERS
from delaystream.core.partitioning import partition_for_key
from tests.integration.harness import Deployment
from tests.integration.harness_kafka import Delivery, Headers

_MEGABYTE = 1024 * 1024

PAYLOADS: dict[str, tuple[bytes | None, bytes | None, Headers]] = {
    "text": (b"key", b"value", [("trace-id", b"abc")]),
    "binary": (bytes(range(256)), os.urandom(2_000), [("bytes", bytes(range(256)))]),
    "empty": (b"", b"", [("empty", b"")]),
    "null key": (None, b"value", []),
    "tombstone": (b"key", None, []),
    "nothing at all": (None, None, []),
    "1 MB": (b"key", os.urandom(_MEGABYTE), [("size", b"1048576")]),
    "repeated names": (b"k", b"v", [("a", b"1"), ("b", b"2"), ("a", b"3"), ("a", b"1")]),
    "null header": (b"k", b"v", [("null", None), ("empty", b""), ("null", None)]),
    "header not UTF-8": (b"k", b"v", [("latin", "é".encode("latin-1")), ("half", b"\xf0\x9f")]),
    "header names": (b"k", b"v", [("", b"no name"), ("Ünïcode ☂", b"1"), ("delay", b"not ours"), (" ", b"")]),
}


def _in(milliseconds: int) -> str:
    return f"{milliseconds}ms"


def _now_ms() -> int:
    return int(time.time() * 1000)


def test_payloads_arrive_byte_for_byte(app: Deployment) -> None:
    """Key, value and foreign headers of a delayed event arrive as they were sent, whatever they hold."""
    out = {
        name: app.destination(f"payload-{place}", max_message_bytes="2097152")
        for place, name in enumerate(PAYLOADS)
    }
    for name, (key, value, headers) in PAYLOADS.items():
        app.request(value, {"destination": out[name], "delay": "400ms"}, key=key, headers=headers)
    with app.reader(*out.values()) as reader:
        arrived = {delivery.topic: delivery for delivery in reader.take(len(PAYLOADS))}
    for name, (key, value, headers) in PAYLOADS.items():
        delivery = arrived[out[name]]
        assert (delivery.key, delivery.value) == (key, value), name
        assert delivery.foreign == list(headers), name


def test_payloads_of_named_schedules_survive_rerouting_and_storing(app: Deployment) -> None:
    """The same through the commands topic: a named request is re-routed to its owner with all its bytes."""
    out = {
        name: app.destination(f"named-{place}", max_message_bytes="2097152")
        for place, name in enumerate(PAYLOADS)
    }
    for place, (name, (key, value, headers)) in enumerate(PAYLOADS.items()):
        control = {"destination": out[name], "delay": "400ms", "id": f"{name} {uuid4()}"}
        app.request(value, control, key=key, headers=headers, partition=place % app.partitions)
    with app.reader(*out.values()) as reader:
        arrived = {delivery.topic: delivery for delivery in reader.take(len(PAYLOADS))}
    for name, (key, value, headers) in PAYLOADS.items():
        delivery = arrived[out[name]]
        assert (delivery.key, delivery.value, delivery.foreign) == (key, value, list(headers)), name


def test_control_headers_wrap_around_foreign_ones(app: Deployment) -> None:
    """Control headers, in any case and at any place, are taken out; the others keep their order."""
    out = app.destination("mixed")
    headers = [
        ("first", b"1"),
        ("Delaystream-DESTINATION", out.encode()),
        ("second", b"2"),
        ("DELAYSTREAM-DELAY", b"PT0.3S"),
        ("first", b"3"),
    ]
    app.kafka.produce(app.requests, [(b"k", b"v", headers)])
    (delivery,) = app.kafka.read(out, 1)
    assert delivery.foreign == [("first", b"1"), ("second", b"2"), ("first", b"3")]


def test_deliveries_say_where_they_come_from(app: Deployment) -> None:
    """A delivery names its schedule, its fire, when it was due and fired, and the request."""
    out = app.destination("origin", message_timestamp_type="CreateTime")
    sent_ms = _now_ms()
    partition, offset = app.request(
        b"v", {"destination": out, "delay": "700ms"}, partition=2, timestamp_ms=sent_ms
    )
    (delivery,) = app.kafka.read(out, 1)
    source = f"{app.requests}/{partition}/{offset}"
    assert delivery.text("delaystream-source") == source
    assert delivery.text("delaystream-schedule-id") == source
    assert delivery.text("delaystream-due-at") == str(sent_ms + 700)
    assert delivery.text("delaystream-fire-id") == f"{source}/0/{sent_ms + 700}"
    assert delivery.text("delaystream-fire-count") == "1"
    fired_ms = int(delivery.text("delaystream-fired-at"))
    assert sent_ms + 700 <= fired_ms <= _now_ms()
    assert delivery.timestamp_ms == fired_ms


def test_a_delay_counts_from_the_requests_timestamp(app: Deployment) -> None:
    """A request that lay around for a while is not late by that time once more."""
    out = app.destination("since")
    sent_ms = _now_ms() - 3_600_000
    app.request(b"v", {"destination": out, "delay": "1h 500ms".replace(" ", "")}, timestamp_ms=sent_ms)
    (delivery,) = app.kafka.read(out, 1)
    assert sent_ms + 3_600_500 <= delivery.timestamp_ms < sent_ms + 3_605_500


@pytest.mark.parametrize("notation", ["epoch", "rfc3339"])
def test_at_names_the_instant(app: Deployment, notation: str) -> None:
    """`at` takes epoch milliseconds and RFC 3339 with an offset."""
    out = app.destination(f"at-{notation}")
    due_ms = _now_ms() + 900
    at = str(due_ms)
    if notation == "rfc3339":
        at = (
            time.strftime("%Y-%m-%dT%H:%M:%S", time.gmtime(due_ms / 1000 + 7_200))
            + f".{due_ms % 1000:03}+02:00"
        )
    app.request(b"v", {"destination": out, "at": at})
    (delivery,) = app.kafka.read(out, 1)
    assert delivery.text("delaystream-due-at") == str(due_ms)
    assert due_ms <= delivery.timestamp_ms < due_ms + 5_000


def test_a_list_delivers_once_for_each_time(app: Deployment) -> None:
    """A comma list is one request and as many deliveries, each with a fire id of its own."""
    out = app.destination("list")
    sent_ms = _now_ms()
    app.request(b"v", {"destination": out, "delay": "900ms,0,300ms,600ms"}, timestamp_ms=sent_ms)
    deliveries = app.kafka.read(out, 4)
    due = [int(delivery.text("delaystream-due-at")) - sent_ms for delivery in deliveries]
    assert due == [0, 300, 600, 900]
    assert len({delivery.text("delaystream-fire-id") for delivery in deliveries}) == 4
    assert {delivery.text("delaystream-fire-count") for delivery in deliveries} == {"1", "2", "3", "4"}
    assert all(d.timestamp_ms >= int(d.text("delaystream-due-at")) for d in deliveries)


def test_due_order_is_delivery_order(app: Deployment) -> None:
    """Requests of one partition for one destination partition come out in the order in which they are due."""
    out = app.destination("order")
    base_ms = _now_ms() + 1_500
    delays = [(place * 37) % 101 for place in range(101)]
    requests = [
        (
            None,
            b"%d" % d,
            [("delaystream-destination", out.encode()), ("delaystream-at", b"%d" % (base_ms + d))],
        )
        for d in delays
    ]
    app.kafka.produce(app.requests, requests, partition=1)
    values = [int(delivery.value or b"") for delivery in app.kafka.read(out, len(delays))]
    assert values == sorted(delays)


def test_the_destination_partition_is_the_java_clients(app: Deployment) -> None:
    """Without further words the key decides, by murmur2; null keys are spread."""
    out = app.destination("by-key", 5)
    keys = [f"customer-{number}".encode() for number in range(40)]
    control = [("delaystream-destination", out.encode()), ("delaystream-delay", b"200ms")]
    app.kafka.produce(app.requests, [(key, b"v", control) for key in keys])
    for delivery in app.kafka.read(out, len(keys)):
        assert delivery.key is not None
        assert delivery.partition == partition_for_key(delivery.key, 5)


def test_null_keys_are_spread(app: Deployment) -> None:
    """Records without a key do not all end on one partition."""
    out = app.destination("no-key", 4)
    control = [("delaystream-destination", out.encode()), ("delaystream-delay", b"200ms")]
    app.kafka.produce(app.requests, [(None, b"v", control)] * 200, partition=0)
    with app.reader(out) as reader:
        assert len({delivery.partition for delivery in reader.take(200)}) > 1


def test_destination_partition_and_key_can_be_chosen(app: Deployment) -> None:
    """`destination-partition` and `destination-key` override; a partition that is not there is refused."""
    out = app.destination("chosen", 3)
    app.request(b"a", {"destination": out, "delay": "0", "destination-partition": "2"}, key=b"k")
    app.request(b"b", {"destination": out, "delay": "300ms", "destination-key": "other"}, key=b"k")
    by_value = {delivery.value: delivery for delivery in app.kafka.read(out, 2)}
    assert (by_value[b"a"].partition, by_value[b"a"].key) == (2, b"k")
    assert (by_value[b"b"].partition, by_value[b"b"].key) == (partition_for_key(b"other", 3), b"other")
    app.request(
        b"c", {"destination": out, "delay": "300ms", "destination-partition": "3"}, key=b"out of range"
    )
    letter = dead_letter(app, b"out of range")
    assert letter.text("delaystream-error") == "destination-partition-out-of-range"


def test_late_fires_are_fired_dropped_or_routed(app: Deployment) -> None:
    """Later than `grace`, `on-late` decides; within it, the fire goes where it was meant to."""
    out, late = app.destination("grace"), app.destination("late")
    an_hour_ago = _now_ms() - 3_600_000
    for value, control in {
        b"no grace given": {},
        b"within": {"grace": "2h", "on-late": "drop"},
        b"fire": {"grace": "1m", "on-late": "fire"},
        b"drop": {"grace": "1m", "on-late": "drop"},
        b"route": {"grace": "1m", "on-late": late},
    }.items():
        app.request(value, {"destination": out, "at": str(an_hour_ago), **control})
    assert {delivery.value for delivery in app.kafka.read(out, 3)} == {b"no grace given", b"within", b"fire"}
    (routed,) = app.kafka.read(late, 1)
    assert routed.value == b"route"
    assert app.kafka.stable_offsets(out)[0] <= 3 + 4, "a dropped fire must not be delivered"


def test_a_delivery_can_be_sent_again_as_a_request(app: Deployment) -> None:
    """Retry later: what a delivery carries of ours is dropped on the way in."""
    out = app.destination("again")
    app.request(b"v", {"destination": out, "delay": "0"}, headers=[("attempt", b"1")])
    (first,) = app.kafka.read(out, 1)
    again = [
        *first.headers,
        ("delaystream-destination", out.encode()),
        ("delaystream-delay", _in(200).encode()),
    ]
    app.kafka.produce(app.requests, [(first.key, first.value, again)])
    second = app.kafka.read(out, 2)[1]
    assert second.foreign == [("attempt", b"1")]
    assert second.text("delaystream-source") != first.text("delaystream-source")
    assert len(second.headers) == len(first.headers)


REFUSED: dict[str, tuple[Headers, str]] = {
    "no time": ([], "no-schedule"),
    "no unit": ([("delaystream-delay", b"30")], "invalid-delay"),
    "both": ([("delaystream-delay", b"1s"), ("delaystream-at", b"2999-01-01T00:00:00Z")], "delay-and-at"),
    "twice": ([("delaystream-delay", b"1s"), ("Delaystream-Delay", b"1s")], "duplicate-header"),
    "null": ([("delaystream-delay", None)], "null-header"),
    "typo": ([("delaystream-dely", b"1s")], "unknown-header"),
    "not UTF-8": ([("delaystream-delay", b"\xff")], "not-utf8"),
    "seconds": ([("delaystream-at", b"1763712000")], "at-not-milliseconds"),
    "recurring without id": ([("delaystream-cron", b"* * * * *")], "id-required"),
    "out of place": ([("delaystream-delay", b"1s"), ("delaystream-timezone", b"UTC")], "not-applicable"),
    "internal topic": (
        [("delaystream-delay", b"1s"), ("delaystream-on-late", b"__x")],
        "destination-denied",
    ),
    "keep without id": ([("delaystream-delay", b"1s"), ("delaystream-if-exists", b"keep")], "id-required"),
}


def test_refused_requests_go_to_dead_letters_with_their_bytes(app: Deployment) -> None:
    """A refused request keeps key, value and every header, and gains the reason and its coordinates."""
    value = os.urandom(64)
    sent: dict[bytes, tuple[str, Headers, tuple[int, int]]] = {}
    for name, (control, code) in REFUSED.items():
        key = f"{name} {uuid4()}".encode()
        headers: Headers = [("foreign", b"\xff\x00"), ("delaystream-destination", b"anywhere"), *control]
        sent[key] = (code, headers, app.kafka.produce(app.requests, [(key, value, headers)])[0])
    with app.reader(app.dead_letters) as reader:
        letters = reader.take(len(sent), wanted=lambda delivery: delivery.key in sent)
    for letter in letters:
        assert letter.key is not None
        code, headers, (partition, offset) = sent[letter.key]
        assert letter.value == value
        assert letter.headers[: len(headers)] == headers
        assert letter.text("delaystream-error") == code
        assert len(letter.text("delaystream-error-detail")) > 10
        assert letter.text("delaystream-error-topic") == app.requests
        assert letter.text("delaystream-error-partition") == str(partition)
        assert letter.text("delaystream-error-offset") == str(offset)
    rejected = app.workers[0].metrics()
    counted = [labels for name, samples in rejected.items() if "reject" in name for labels, _ in samples]
    assert any("unknown-header" in labels for labels in counted), "rejections are counted by code"


def test_own_and_internal_topics_are_no_destinations(app: Deployment) -> None:
    """`*` in the allow-list opens neither Kafka's own topics nor ours."""
    denied = ["__consumer_offsets", app.requests, app.commands, app.changelog, app.dead_letters, app.receipts]
    for topic in denied:
        app.request(b"v", {"destination": topic, "delay": "0"}, key=topic.encode())
    for topic in denied:
        assert dead_letter(app, topic.encode()).text("delaystream-error") == "destination-denied"


class _RawName(str):
    """A header name that no client lets one send, though Kafka takes it."""

    __slots__ = ()

    def encode(self, *_: str) -> bytes:
        return b"\xff\xfe"


async def _send_raw_name(app: Deployment, key: bytes, value: bytes) -> None:
    producer = AIOKafkaProducer(bootstrap_servers=app.kafka.bootstrap)
    async with producer:
        batch = producer.create_batch()
        # The builder in C takes strings only; the one in Python asks them to encode themselves.
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, 0, 16_384)
        batch.append(timestamp=_now_ms(), key=key, value=value, headers=[(_RawName("x"), b"1")])
        await (await producer.send_batch(batch, app.requests, partition=0))


def test_a_header_name_that_is_not_utf8_stops_nobody(app: Deployment) -> None:
    """Such a record is dead-lettered with its key and value, and those behind it are delivered."""
    out, key, value = app.destination("behind"), uuid4().bytes, os.urandom(50)
    asyncio.run(_send_raw_name(app, key, value))
    app.request(b"behind", {"destination": out, "delay": "200ms"}, partition=0)
    assert [delivery.value for delivery in app.kafka.read(out, 1)] == [b"behind"]
    letter = dead_letter(app, key)
    assert letter.value == value
    if letter.headers != list(NO_HEADERS):
        assert letter.text("delaystream-error") == "undecodable-record"


def dead_letter(app: Deployment, key: bytes) -> Delivery:
    """The one dead letter with this key."""
    with app.reader(app.dead_letters) as reader:
        return reader.take(1, wanted=lambda delivery: delivery.key == key)[0]
