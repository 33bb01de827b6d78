"""The client against a broker and a worker: one contract, whether its calls block or not."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from uuid import uuid4
from zoneinfo import ZoneInfo

import pytest
from confluent_kafka import Producer
from confluent_kafka.admin import NewPartitions
from msgspec.structs import replace

from delaystream.client import (
    CLEAR,
    Changes,
    MissingPartitionError,
    MissingTopicError,
    ReceiptTimeout,
    RejectedError,
    ScheduleDescription,
    UnavailableError,
    UnknownIdError,
    cancel_request,
    schedule_request,
)
from delaystream.core.partitioning import owner_partition, partition_for_key
from tests.integration.client_sides import SIDES, Make, Side, client_of, sides
from tests.integration.harness import Deployment, wait

WAIT = timedelta(seconds=20)
FAR = timedelta(days=1)


@pytest.fixture(params=SIDES)
def make(request: pytest.FixtureRequest) -> Iterator[Make]:
    with sides(request.param) as make:
        yield make


@pytest.fixture
def client(make: Make, app: Deployment) -> Side:
    return client_of(make, app)


def new_id(name: str) -> str:
    return f"{name} ☂ {uuid4().hex}"


@dataclasses.dataclass(frozen=True)
class Reminder:
    customer: str
    after: timedelta


def test_what_is_scheduled_is_delivered_with_its_own_key(client: Side, app: Deployment) -> None:
    """A call returns where the request stands and when it is due; by number it goes to the id's owner."""
    out, id = app.destination(f"client-delivered-{uuid4().hex}"), new_id("order")
    before = datetime.now(UTC)
    accepted = client.schedule(
        out,
        {"to": "Zoë"},
        key="customer-17",
        headers={"trace": "7", "none": None},
        delay=timedelta(0),
        id=id,
    )
    (fired,) = app.kafka.read(out, 1)
    assert (fired.key, fired.value) == (b"customer-17", '{"to":"Zoë"}'.encode())
    assert fired.foreign == [("trace", b"7"), ("none", None)]
    assert fired.text("delaystream-source") == accepted.source.text
    assert accepted.source.partition == owner_partition(id, 4)
    assert accepted.schedule_id == fired.text("delaystream-schedule-id") == id
    (due_at,) = accepted.due_at
    assert due_at == datetime.fromtimestamp(int(fired.text("delaystream-due-at")) / 1000, UTC)
    assert before - timedelta(seconds=5) < due_at == accepted.timestamp
    assert (accepted.outcome, accepted.version, accepted.receipt) == (None, None, None)


def test_a_request_without_an_id_goes_where_its_key_belongs(client: Side, app: Deployment) -> None:
    """As the Java client's producer would have it, and not to the partition of anything else."""
    out = app.destination(f"client-keyed-{uuid4().hex}")
    for key in (b"a", b"b", b"c"):
        accepted = client.schedule(out, b"", key=key, delay=FAR)
        assert accepted.source.partition == partition_for_key(key, 4)
        assert accepted.schedule_id == accepted.source.text
        assert client.cancel(coordinates=accepted.source, wait=WAIT).outcome == "cancelled"


def test_every_verb_has_its_outcome(client: Side, app: Deployment) -> None:
    out, id = app.destination(f"client-verbs-{uuid4().hex}"), new_id("verbs")
    every = {"every": timedelta(hours=2), "jitter": timedelta(minutes=1), "tags": ["a", "b"], "actor": "me"}
    made = client.schedule(out, Reminder("x", timedelta(0)).customer, id=id, wait=WAIT, **every)
    assert made.outcome == "scheduled"
    assert made.receipt.status == "pending"
    assert abs(made.due_at[0] - made.timestamp - timedelta(hours=2)) < timedelta(minutes=2)
    handle = client.handle(id)
    until = datetime.now(UTC).replace(microsecond=0) + FAR
    paused = handle.pause(note="why not", until=until, wait=WAIT)
    assert (paused.outcome, paused.receipt.until) == ("paused", until)
    assert handle.pause(until=until, wait=WAIT).outcome == "unchanged"
    assert handle.resume(catch_up="none", wait=WAIT).outcome == "resumed"
    assert handle.trigger(wait=WAIT).outcome == "triggered"
    (fired,) = app.kafka.read(out, 1)
    assert fired.value == b"x"
    assert handle.reschedule(max_fires=7, jitter=CLEAR, wait=WAIT).outcome == "rescheduled"
    updated = client.update(id, value={"new": 1}, key=b"k", tags=["c"], wait=WAIT)
    assert updated.outcome == "updated"
    assert updated.version > made.version
    told = handle.describe()
    assert isinstance(told, ScheduleDescription)
    assert (told.id, told.status, told.version) == (id, "pending", updated.version)
    definition = told.definition
    assert (definition.destination, definition.every, definition.max_fires) == (out, timedelta(hours=2), 7)
    assert (definition.tags, definition.jitter, definition.cron) == (("c",), None, None)
    assert told.next_at == told.upcoming_at[0]
    assert [past.kind for past in told.history] == ["triggered"]
    assert told.history[0].fire_id == fired.text("delaystream-fire-id")
    assert handle.cancel(wait=WAIT).outcome == "cancelled"
    assert handle.pause(wait=WAIT).outcome == "too-late"
    assert client.cancel(new_id("nobody"), wait=WAIT).outcome == "unknown"
    assert client.describe(new_id("nobody")) is None
    rated = client.rate(out, "600/m", wait=WAIT)
    assert rated.outcome == "rate-set"
    assert client.rate(out, None, wait=WAIT).outcome == "rate-set"


def test_many_are_chosen_by_what_they_are(client: Side, app: Deployment) -> None:
    out, tag = app.destination(f"client-many-{uuid4().hex}"), uuid4().hex
    with client.batch() as batch:
        for number in range(3):
            batch.schedule(out, b"", delay=FAR, id=f"{tag}-{number}", tags=[tag, "x"], wait=WAIT)
        batch.schedule(out, b"", delay=FAR, key=tag)
    paused = client.pause(match_tags=[tag], match_new=True, wait=WAIT)
    assert (paused.outcome, paused.receipt.count) == ("paused", 3)
    assert client.describe(f"{tag}-0").status == "paused"
    assert client.resume(match_tags=tag, wait=WAIT).receipt.count == 3
    assert client.cancel(match_key=tag, match_anonymous=True, wait=WAIT).receipt.anonymous == 1
    assert client.cancel(match_id_prefix=tag, wait=WAIT).receipt.count == 3
    assert client.cancel(match_id_prefix=tag, wait=WAIT).outcome == "no-match"


def test_a_refusal_has_its_code_before_sending_and_after(client: Side, app: Deployment) -> None:
    out, id = app.destination(f"client-refused-{uuid4().hex}"), new_id("taken")
    end = app.kafka.end_offsets(app.requests)
    for code, asked in (
        ("invalid-delay", {"delay": "soon"}),
        ("invalid-delay", {"delay": timedelta(seconds=-1)}),
        ("id-required", {"cron": "@daily"}),
        ("not-applicable", {"delay": "1s", "timezone": "Europe/Berlin"}),
        ("no-schedule", {}),
    ):
        with pytest.raises(RejectedError) as refused:
            client.schedule(out, b"", **asked)
        assert (refused.value.code, refused.value.receipt) == (code, None)
    with pytest.raises(ValueError, match="local time without a time zone"):
        client.schedule(out, b"", at=datetime(2040, 1, 1))  # noqa: DTZ001
    assert app.kafka.end_offsets(app.requests) == end
    client.schedule(out, b"", id=id, delay=FAR, wait=WAIT)
    with pytest.raises(RejectedError) as refused:
        client.schedule(out, b"", id=id, delay=FAR, if_exists="reject", wait=WAIT)
    assert refused.value.code == "already-exists"
    assert refused.value.receipt is not None
    assert refused.value.receipt.source.startswith(f"{app.requests}/")
    client.cancel(id, wait=WAIT)


def test_times_are_those_of_the_place_that_is_named(client: Side, app: Deployment) -> None:
    out = app.destination(f"client-places-{uuid4().hex}")
    local = datetime(2030, 7, 1, 9, 30)  # noqa: DTZ001
    at = [local, datetime(2030, 7, 2, 7, tzinfo=UTC), "2030-07-03T09:00:00+02:00"]
    accepted = client.schedule(out, b"", at=at, timezone=ZoneInfo("Europe/Berlin"), wait=WAIT)
    assert accepted.due_at == (
        datetime(2030, 7, 1, 7, 30, tzinfo=UTC),
        datetime(2030, 7, 2, 7, tzinfo=UTC),
        datetime(2030, 7, 3, 7, tzinfo=UTC),
    )
    assert client.cancel(coordinates=accepted.source, wait=WAIT).receipt.count == 3


def test_a_change_that_somebody_comes_before_is_made_anew(client: Side, app: Deployment) -> None:
    out, id = app.destination(f"client-changed-{uuid4().hex}"), new_id("changed")
    client.schedule(out, b"", id=id, cron="@daily", tags=["first"], wait=WAIT)
    seen: list[tuple[str, ...]] = []
    meanwhile = app.run

    def change(now: ScheduleDescription) -> Changes:
        seen.append(now.definition.tags)
        if len(seen) == 1:
            done = meanwhile("update", id, "--tags", "theirs")
            assert done.returncode == 0, done.stderr
        return {"tags": [*now.definition.tags, "ours"]}

    assert client.handle(id).update(change).outcome == "updated"
    assert seen == [("first",), ("theirs",)]
    assert client.describe(id).definition.tags == ("theirs", "ours")
    assert client.handle(id).update(lambda _: None).outcome == "described"
    with pytest.raises(UnknownIdError):
        client.handle(new_id("nobody")).update(change)
    client.cancel(id, wait=WAIT)


def test_a_thousand_receipts_find_their_requests(client: Side, app: Deployment) -> None:
    """All in flight at once, on one reader; each has its own, whatever else comes to the topic."""
    out, tag = app.destination(f"client-thousand-{uuid4().hex}"), uuid4().hex
    with client.batch() as batch:
        pending = [
            batch.schedule(out, b"", id=f"{tag}-{number}", delay=FAR, wait=WAIT) for number in range(1000)
        ]
    for number, one in enumerate(pending):
        told = one.result()
        assert (told.outcome, told.receipt.schedule_id) == ("scheduled", f"{tag}-{number}")
        assert told.receipt.source == told.source.text
    assert client.cancel(match_id_prefix=tag, wait=WAIT).receipt.count == 1000


def test_a_tombstone_without_a_key_is_scheduled(client: Side, app: Deployment) -> None:
    """Kafka allows a record that has neither; its producers do not all."""
    out = app.destination(f"client-nothing-{uuid4().hex}")
    client.schedule(out, None, delay=timedelta(0))
    (fired,) = app.kafka.read(out, 1)
    assert (fired.key, fired.value) == (None, None)


def test_receipts_come_after_a_record_with_a_name_that_is_not_utf8(make: Make, app: Deployment) -> None:
    """Whoever may write to their topic may write anything there; among others of one batch, too."""
    replies = app.destination(f"client-replies-{uuid4().hex}", 2)
    client = client_of(make, app, reply_to=replies)
    out, id = app.destination(f"client-names-{uuid4().hex}"), new_id("named")
    # The first one begins the reading.
    assert client.schedule(out, b"", delay=FAR, id=id, wait=WAIT).outcome == "scheduled"
    for partition in range(2):
        app.kafka.produce_names(replies, partition, [b"a", b"\xff", b"b", b"\xff\xfe"])
    with client.batch() as batch:
        pending = [batch.schedule(out, b"", delay=FAR, id=f"{id} {n}", wait=WAIT) for n in range(20)]
    assert {one.result().outcome for one in pending} == {"scheduled"}
    client.cancel(match_id_prefix=id, wait=WAIT)


def test_receipts_come_on_partitions_that_their_topic_got_meanwhile(make: Make, app: Deployment) -> None:
    """Whoever writes receipts hears of new partitions when it hears of them, and so does whoever waits."""
    replies = app.kafka.create(app.topic(f"client-grows-{uuid4().hex}"), 1)
    nobody = app.kafka.create(app.topic(f"nobody-{uuid4().hex}"), 1)
    client = client_of(make, app, request_topic=nobody, reply_to=replies)

    def answer(offset: int, partition: int) -> None:
        receipt = {"outcome": "scheduled", "source": f"{nobody}/0/{offset}"}
        headers: list[tuple[str, str | bytes | None]] = [("delaystream-receipt", b"scheduled")]
        producer = Producer({"bootstrap.servers": app.kafka.bootstrap})
        producer.produce(replies, json.dumps(receipt), None, partition, headers=headers)
        assert producer.flush(30) == 0

    batch = client.batch()
    pending = [batch.schedule("x", b"", delay=FAR, wait=timedelta(seconds=60)) for _ in range(2)]
    app.kafka.admin.create_partitions([NewPartitions(replies, 3)])[replies].result(30)
    wait(lambda: app.kafka.partitions(replies) == 3, "the topic has grown")
    answer(0, 2)
    answer(1, 0)
    assert [one.result().outcome for one in pending] == ["scheduled"] * 2


def test_a_receipt_that_does_not_come_says_what_to_look_at(make: Make, app: Deployment) -> None:
    """Nobody reads the topic; another request of the same client is not held up by it."""
    nobody = app.kafka.create(app.topic(f"nobody-{uuid4().hex}"), 2)
    client = client_of(make, app, request_topic=nobody)
    with pytest.raises(ReceiptTimeout, match="Is a worker running") as late:
        client.schedule("client-late", b"", delay=FAR, wait=timedelta(seconds=0.5))
    assert (late.value.source.topic, late.value.reply_to) == (nobody, app.receipts)
    assert late.value.source.text in str(late.value)
    assert client.schedule("client-late", b"", delay=FAR).source.topic == nobody


def test_what_is_missing_is_told_and_nothing_is_sent(make: Make, client: Side, app: Deployment) -> None:
    nowhere = app.topic("client-nowhere")
    with pytest.raises(MissingTopicError) as missing:
        client_of(make, app, request_topic=nowhere).schedule("x", b"", delay="1s")
    assert missing.value.topic == nowhere
    end = app.kafka.end_offsets(app.requests)
    with pytest.raises(MissingTopicError) as missing:
        client.schedule("x", b"", delay="1s", reply_to=nowhere, wait=WAIT)
    assert missing.value.topic == nowhere
    misplaced = replace(schedule_request(app.requests, "x", delay="1s"), partition=4)
    with pytest.raises(MissingPartitionError, match="has no partition 4: it has 4"):
        client.send(misplaced)
    assert app.kafka.end_offsets(app.requests) == end
    assert app.kafka.partitions(nowhere) == 0


def test_requests_that_were_built_elsewhere_are_sent(client: Side, app: Deployment) -> None:
    out, id = app.destination(f"client-built-{uuid4().hex}"), new_id("built")
    made = client.send(schedule_request(app.requests, out, "v", delay=FAR, id=id), wait=WAIT)
    assert made.outcome == "scheduled"
    assert client.send(cancel_request(app.requests, id), wait=WAIT).outcome == "cancelled"


def test_a_batch_tells_of_what_failed_unless_it_was_looked_at(make: Make, app: Deployment) -> None:
    small = app.kafka.create(app.topic(f"small-{uuid4().hex}"), 1, max_message_bytes="2000")
    client = client_of(make, app, request_topic=small)
    with pytest.raises(UnavailableError) as failed, client.batch() as batch:  # noqa: PT012
        for size in (5_000, 6_000):
            batch.schedule("x", b"x" * size, delay="1h")
    assert failed.value.__notes__ == ["2 requests of the batch failed; this is the first."]
    with client.batch() as batch:
        large = batch.schedule("x", b"x" * 5_000, delay="1h")
        with pytest.raises(UnavailableError, match="took no record"):
            large.result()
    assert app.kafka.end_offsets(small) == [0]


def test_a_delay_is_published(client: Side, app: Deployment) -> None:
    out = app.destination(f"client-published-{uuid4().hex}")
    client.publish_with_delay(
        out, b"v", timedelta(milliseconds=5), key=b"k", headers=[("a", "b")], correlation_id="c-1"
    )
    (fired,) = app.kafka.read(out, 1)
    assert (fired.key, fired.foreign) == (b"k", [("a", b"b"), ("correlation_id", b"c-1")])


def test_what_was_sent_is_there_when_the_client_is_closed(make: Make, app: Deployment) -> None:
    topic = app.kafka.create(app.topic(f"closed-{uuid4().hex}"), 1)
    client = client_of(make, app, request_topic=topic)
    batch = client.batch()
    for number in range(300):
        batch.schedule("x", str(number), delay="1h")
    client.close()
    assert app.kafka.end_offsets(topic) == [300]
    with pytest.raises(RuntimeError, match="closed"):
        client.schedule("x", b"", delay="1h")
