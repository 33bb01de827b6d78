"""What the clients do with Kafka, without one: a test says when it acknowledges, and what is answered."""

from __future__ import annotations

import asyncio
import inspect
import threading
import time
from collections.abc import Callable, Sequence
from datetime import timedelta
from typing import Any

import pytest
from aiokafka import TopicPartition

from delaystream.client import (
    AsyncClient,
    Changes,
    Client,
    MissingTopicError,
    ReceiptTimeout,
    RejectedError,
    RequestRecord,
    ScheduleDescription,
    Sent,
    UnavailableError,
    schedule_request,
)
from delaystream.client.kafka import async_sending as async_sending_module
from delaystream.client.kafka import confluent_transport as confluent_transport_module
from delaystream.client.kafka import sending as sending_module
from delaystream.client.kafka.aiokafka_transport import (
    AiokafkaTransport,
    take_new_partitions,
    told_of_its_end,
)
from delaystream.client.kafka.async_sending import AsyncSending
from delaystream.client.kafka.confluent_transport import ConfluentTransport
from delaystream.client.kafka.partitions import PartitionCounts
from delaystream.client.kafka.promises import Promise
from delaystream.client.kafka.receipts import Receipts
from delaystream.client.kafka.sending import Sending
from delaystream.client.requests.checking import Checker
from delaystream.client.requests.composing import Composer
from delaystream.client.verbs import itself
from delaystream.codec.outgoing import Outcome
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.partitioning import owner_partition
from delaystream.core.request import Coordinates
from delaystream.testing.loop import DeadlockError
from tests.unit.client_kafka import HeldAsyncTransport, HeldTransport, Log

WAIT = timedelta(seconds=5)
KINDS = ("blocking", "async")


class Case:
    """A client of either kind on a log of the test's own; its calls block."""

    def __init__(self, kind: str, *, at_once: bool = True) -> None:
        self.log = Log(delay_requests=8, delay_receipts=1)
        self._runner = asyncio.Runner() if kind == "async" else None
        self.transport: Any
        if self._runner is None:
            self.transport = HeldTransport(self.log, at_once=at_once)
            self.client: Any = Client(transport=self.transport)
        else:
            self.transport = HeldAsyncTransport(self.log, at_once=at_once)
            self.client = self.run(self._made())

    async def _made(self) -> AsyncClient:
        return AsyncClient(transport=self.transport)

    def run(self, result: Any) -> Any:
        return self._runner.run(result) if self._runner and inspect.iscoroutine(result) else result

    def schedule(self, **named: Any) -> Any:
        return self.run(self.client.schedule("out", b"", delay="1h", **named))

    def soon(self, *events: Callable[[], None]) -> None:
        """What happens while somebody waits, in this order."""
        self.transport.events.extend(events)


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def test_partitions_are_asked_once_and_not_for_each_request(kind: str) -> None:
    case = Case(kind)
    for number in range(100):
        case.schedule(id=f"id-{number}")
    assert case.log.asked == {"delay-requests": 1}
    assert [record.partition for record in case.log.produced] == [
        owner_partition(f"id-{number}", 8) for number in range(100)
    ]


def test_a_topic_that_has_grown_is_asked_anew_once_sending_has_failed(kind: str) -> None:
    case = Case(kind)
    case.schedule(id="x")
    case.log.partitions["delay-requests"] = 12
    case.log.refusal = UnavailableError("no")
    with pytest.raises(UnavailableError):
        case.schedule(id="x")
    case.log.refusal = None
    case.schedule(id="x")
    owners = [owner_partition("x", count) for count in (8, 8, 12)]
    assert owners[1] != owners[2]
    assert [record.partition for record in case.log.produced] == owners


def test_what_was_heard_of_partitions_is_forgotten_after_a_while() -> None:
    counts = PartitionCounts(longest_s=0)
    counts.heard("t", 3)
    assert counts.known("t") is None
    counts = PartitionCounts()
    counts.heard("t", 3)
    assert counts.known("t") == 3


def test_a_receipt_that_comes_before_the_acknowledgement_is_kept(kind: str) -> None:
    """A worker may be quicker than a broker's answer is."""
    case = Case(kind, at_once=False)
    case.soon(lambda: case.log.answer(0, Outcome.SCHEDULED), case.transport.acknowledge)
    assert case.schedule(id="x", wait=WAIT).outcome == "scheduled"


def test_a_receipt_is_waited_for_as_long_as_was_said(kind: str) -> None:
    """From the acknowledgement on, also where that was there before anybody waited."""
    case = Case(kind)
    with pytest.raises(ReceiptTimeout):
        case.schedule(wait=WAIT)
    assert 0 < case.transport.waited_s[-1] <= WAIT.total_seconds()


def test_receipts_of_others_and_what_is_none_are_passed_over(kind: str) -> None:
    case = Case(kind)
    mark: list[tuple[str, bytes | None]] = [("delaystream-receipt", b"scheduled")]
    other = Coordinates("delay-requests", 7, 1_000).text.encode()
    case.soon(
        lambda: case.log.tell(b'{"outcome":"cancelled","source":"%b"}' % other, mark),
        lambda: case.log.tell(b"not JSON", mark),
        lambda: case.log.tell(b'{"source": 7}', mark),
        lambda: case.log.tell(b'["source"]', mark),
        lambda: case.log.tell(b'{"source": "\xff"}', mark),
        lambda: case.log.tell(None, mark),
        lambda: case.log.tell(b'{"outcome":"cancelled","source":"delay-requests/0/0"}', []),
        lambda: case.log.answer(0, Outcome.KEPT),
    )
    assert case.schedule(wait=WAIT).outcome == "kept"


def test_a_receipt_that_does_not_come_is_its_own_error(kind: str) -> None:
    """And one that comes after that is nobody's."""
    case = Case(kind)
    with pytest.raises(ReceiptTimeout, match=r"No receipt on delay-receipts within 5 s.*stands at") as late:
        case.schedule(wait=WAIT)
    assert late.value.source == case.log.source(0)
    assert isinstance(late.value, TimeoutError)
    case.log.answer(0, Outcome.SCHEDULED)
    case.soon(lambda: case.log.answer(1, Outcome.SCHEDULED))
    assert case.schedule(wait=WAIT).outcome == "scheduled"


def test_a_topic_that_cannot_be_read_any_more_fails_whoever_waits_and_is_read_anew(kind: str) -> None:
    case = Case(kind)
    case.soon(lambda: case.log.followed["delay-receipts"][1](UnavailableError("gone")))
    with pytest.raises(UnavailableError, match="gone"):
        case.schedule(wait=WAIT)
    case.soon(lambda: case.log.answer(1, Outcome.SCHEDULED))
    assert case.schedule(wait=WAIT).outcome == "scheduled"
    assert case.log.asked["delay-receipts"] == 2


def test_nothing_is_sent_whose_receipt_cannot_be_read(kind: str) -> None:
    case = Case(kind)
    with pytest.raises(MissingTopicError) as missing:
        case.schedule(wait=WAIT, reply_to="nowhere")
    assert missing.value.topic == "nowhere"
    assert case.log.produced == []


def test_a_refusal_by_receipt_has_the_receipt(kind: str) -> None:
    case = Case(kind)
    mark: list[tuple[str, bytes | None]] = [("delaystream-receipt", b"rejected")]
    body = (
        b'{"outcome":"rejected","code":"quota-exceeded","detail":"Too many.","source":"delay-requests/0/0"}'
    )
    case.soon(lambda: case.log.tell(body, mark))
    with pytest.raises(RejectedError, match=r"quota-exceeded: Too many\.") as refused:
        case.schedule(wait=WAIT)
    assert refused.value.receipt is not None
    assert refused.value.receipt.source == "delay-requests/0/0"


def test_as_many_receipts_are_waited_for_as_may_be(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Who asks for one more waits for the oldest, and not for ever."""
    case = Case(kind)
    monkeypatch.setattr(sending_module.Sending.__init__, "__defaults__", (2,))
    monkeypatch.setattr(async_sending_module.AsyncSending.__init__, "__defaults__", (2,))
    case = Case(kind)
    batch = case.client.batch()

    def schedule() -> Any:
        return case.run(batch.schedule("out", b"", delay="1h", wait=WAIT))

    first, second = schedule(), schedule()
    case.soon(lambda: case.log.answer(0, Outcome.SCHEDULED))
    third = schedule()
    assert (first.done(), second.done(), third.done()) == (True, False, False)
    schedule()
    assert second.done()
    with pytest.raises(ReceiptTimeout):
        case.run(second.result())


def test_many_tasks_at_once_do_not_pass_the_bound_of_receipts() -> None:
    """Each sends only once it has a place; also where all of them ask before any of them is on its way."""
    log = Log(delay_requests=8, delay_receipts=1)
    transport = HeldAsyncTransport(log)
    produce, most, answered = transport.produce, 0, 0

    async def slowly(record: RequestRecord) -> asyncio.Future[Sent]:
        nonlocal most
        await asyncio.sleep(0.001)
        sent = await produce(record)
        most = max(most, len(log.produced) - answered)
        return sent

    async def run() -> None:
        nonlocal answered
        transport.produce = slowly  # type: ignore[method-assign]
        sending = AsyncSending(lambda: transport, waiting=5)
        composer = Composer("delay-requests", None)
        record = schedule_request(composer.place, "out", delay="1s")

        async def one() -> None:
            request = composer.composed(record, waits=True)
            assert (await (await sending.begin(request, 60, itself)).result()).outcome == "scheduled"

        async def worker() -> None:
            nonlocal answered
            while answered < 40:
                await asyncio.sleep(0.002)
                if len(log.produced) > answered:
                    log.answer(answered, Outcome.SCHEDULED)
                    answered += 1

        transport.wait = waits  # type: ignore[method-assign]
        await asyncio.gather(worker(), *(one() for _ in range(40)))

    async def waits(future: asyncio.Future[Any], timeout_s: float | None) -> Any:
        return await asyncio.wait_for(asyncio.shield(future), timeout_s)

    asyncio.run(asyncio.wait_for(run(), 60))
    assert len(log.produced) == 40
    assert most == 5


class PatientTransport(HeldTransport):
    """Whoever waits sleeps until another thread tells it."""

    def wait(self, promise: Promise[Any], timeout_s: float | None) -> Any:
        return promise.result(60 if timeout_s is None else timeout_s)


def test_many_threads_at_once_do_not_pass_the_bound_of_receipts() -> None:
    """As many tasks do not: who sees that there is room takes it."""
    log = Log(delay_requests=8, delay_receipts=1)
    transport = PatientTransport(log)
    sending = Sending(lambda: transport, waiting=3)
    composer = Composer("delay-requests", None)
    request = composer.composed(schedule_request(composer.place, "out", delay="1s"), waits=True)
    all_there = threading.Barrier(3)
    produce, counts = transport.produce, list[int]()

    def together(record: RequestRecord, done: Any) -> None:
        all_there.wait(60)
        counts.append(len(sending._waiting))
        produce(record, done)

    def slowly(topic: str, each: Any, fail: Any) -> None:
        time.sleep(0.1)  # all of them have looked for room by then
        follow(topic, each, fail)

    follow = transport.follow
    transport.produce, transport.follow = together, slowly  # type: ignore[method-assign]
    threads = [threading.Thread(target=sending.begin, args=(request, 0.001, itself)) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    assert len(counts) == 6
    assert max(counts) == 3


def test_who_was_interrupted_behind_an_answer_does_not_hold_up_who_wants_room() -> None:
    """Its result is there, and nobody has taken it from among those that are waited for."""
    log = Log(delay_requests=8, delay_receipts=1)
    sending: Any = Sending(lambda: HeldTransport(log), waiting=1)
    composer = Composer("delay-requests", None)
    request = composer.composed(schedule_request(composer.place, "out", delay="1s"), waits=True)
    pending = sending.begin(request, 0.001, itself)
    settled = sending.settled

    def interrupted(_pending: Any) -> None:
        raise KeyboardInterrupt

    sending.settled = interrupted
    with pytest.raises(KeyboardInterrupt):
        pending.result()
    sending.settled = settled
    waiting = threading.Thread(target=sending.begin, args=(request, 0.001, itself), daemon=True)
    waiting.start()
    waiting.join(60)
    assert not waiting.is_alive()
    assert len(log.produced) == 2


def test_who_waits_for_room_is_told_that_the_oldest_was_not_sent() -> None:
    """Its thread was interrupted, or Kafka is not there: nobody will ever acknowledge it."""
    log = Log(delay_requests=8, delay_receipts=1)
    transport: Any = PatientTransport(log)
    sending = Sending(lambda: transport, waiting=1)
    composer = Composer("delay-requests", None)
    request = composer.composed(schedule_request(composer.place, "out", delay="1s"), waits=True)
    produce, wait = transport.produce, transport.wait
    waits = threading.Event()

    def interrupted(_record: RequestRecord, _done: Any) -> None:
        transport.produce = produce
        other.start()
        assert waits.wait(60)
        raise KeyboardInterrupt

    def patiently(promise: Promise[Any], timeout_s: float | None) -> Any:
        waits.set()
        return wait(promise, timeout_s)

    transport.produce, transport.wait = interrupted, patiently
    other = threading.Thread(target=sending.begin, args=(request, 0.001, itself), daemon=True)
    with pytest.raises(KeyboardInterrupt):
        sending.begin(request, 60, itself)
    other.join(30)
    assert not other.is_alive()
    assert len(log.produced) == 1


def test_a_task_that_is_cancelled_while_it_sends_leaves_its_place() -> None:
    """And so does one whose topic of receipts is not there."""
    log = Log(delay_requests=8, delay_receipts=1)
    transport: Any = HeldAsyncTransport(log)
    held = asyncio.Event()

    async def never(_record: RequestRecord) -> asyncio.Future[Sent]:
        held.set()
        return await asyncio.Future[asyncio.Future[Sent]]()

    async def run() -> None:
        produce = transport.produce
        sending = AsyncSending(lambda: transport, waiting=1)
        composer = Composer("delay-requests", None)
        record = schedule_request(composer.place, "out", delay="1s")
        request = composer.composed(record, waits=True)
        nowhere = schedule_request(composer.place, "out", delay="1s", reply_to="nowhere")
        with pytest.raises(MissingTopicError):
            await sending.begin(composer.composed(nowhere, waits=True), 60, itself)
        transport.produce = never
        first = asyncio.create_task(sending.begin(request, 60, itself))
        await held.wait()
        transport.produce = produce
        second = asyncio.create_task(sending.begin(request, 60, itself))
        await asyncio.sleep(0)
        assert log.produced == []
        first.cancel()
        await asyncio.wait_for(second, 60)
        assert len(log.produced) == 1

    asyncio.run(run())


def test_a_batch_waits_for_all_and_raises_what_nobody_has_looked_at(kind: str) -> None:
    case = Case(kind, at_once=False)

    def finish(batch: Any) -> Any:
        return case.run(batch.finish())

    batch = case.client.batch()
    pending = [case.run(batch.schedule("out", b"", delay="1h")) for _ in range(3)]
    assert not any(one.done() for one in pending)
    case.soon(case.transport.acknowledge)
    finish(batch)
    assert all(one.done() for one in pending)
    assert case.run(pending[2].result()).source == case.log.source(2)
    case.log.refusal = UnavailableError("no room")
    looked_at, _ = (case.run(batch.schedule("out", b"", delay="1h")) for _ in range(2))
    case.transport.acknowledge()
    with pytest.raises(UnavailableError):
        case.run(looked_at.result())
    with pytest.raises(UnavailableError, match="no room") as failed:
        finish(batch)
    assert not hasattr(failed.value, "__notes__")
    finish(batch)  # told once


def test_a_refusal_before_sending_takes_nothing_with_it(kind: str) -> None:
    case = Case(kind)
    with pytest.raises(RejectedError):
        case.schedule(id="")
    with pytest.raises(ValueError, match="There would be no receipt"):
        case.schedule(reply_to="__consumer_offsets", wait=WAIT)
    assert case.log.produced == []


def test_a_change_gives_up_after_ten_times(kind: str) -> None:
    case = Case(kind)
    mark: list[tuple[str, bytes | None]] = [("delaystream-receipt", b"described")]
    changes: list[int | None] = []

    def change(now: ScheduleDescription) -> Changes:
        changes.append(now.version)
        return {"tags": ["a"]}

    def describe() -> None:
        at = len(case.log.produced) - 1
        source = case.log.source(at).text.encode()
        body = b'{"outcome":"described","schedule_id":"x","id":"x","version":5,"schedule":{},"source":"%b"}'
        case.log.tell(body % source, mark)

    def refuse() -> None:
        source = case.log.source(len(case.log.produced) - 1).text.encode()
        body = b'{"outcome":"rejected","code":"version-changed","detail":"It has another.","source":"%b"}'
        case.log.tell(body % source, mark)

    for _ in range(10):
        case.soon(describe, refuse)
    with pytest.raises(RejectedError, match="version-changed"):
        case.run(case.client.handle("x").update(change))
    assert changes == [5] * 10
    updates = [record for record in case.log.produced if ("delaystream-if-version", b"5") in record.headers]
    assert len(updates) == 10


def test_whoever_waits_is_told_that_the_reading_has_ended_whatever_ended_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Broken:
        def __init__(self, *_settings: Any) -> None:
            """Like a reader."""

        def start(self) -> None:
            told.append("started")

        def read(self, timeout_s: float) -> list[Any]:
            raise ValueError("no record")

        def close(self) -> None:
            told.append("closed")

        async def getmany(self, timeout_ms: int) -> dict[Any, Any]:
            raise ValueError("no record")

    told: list[Any] = []
    kafka: Any = Broken()
    nowhere = {"bootstrap.servers": "127.0.0.1:9"}
    monkeypatch.setattr(confluent_transport_module, "Reader", Broken)
    blocking = ConfluentTransport(nowhere, nowhere)
    blocking.follow("replies", told.append, told.append)
    blocking.close(1)
    reading = AiokafkaTransport({}, {}, {})._read(kafka, {}, told.append)
    asyncio.run(told_of_its_end(reading, "replies", told.append))
    assert [str(one) for one in told] == [
        "started",
        "Topic replies cannot be read: ValueError: no record.",
        "closed",
        "Topic replies cannot be read: ValueError: no record.",
    ]


def test_a_topic_that_cannot_be_followed_says_so_to_whoever_asks(monkeypatch: pytest.MonkeyPatch) -> None:
    """The reading begins in a thread of its own, and what is in its way is raised here all the same."""

    class Missing:
        def __init__(self, *_settings: Any) -> None:
            if refused_at == "made":
                raise ValueError("no setting")

        def start(self) -> None:
            raise MissingTopicError("replies")

        def close(self) -> None:
            closed.append(True)

    closed: list[Any] = []
    nowhere = {"bootstrap.servers": "127.0.0.1:9"}
    monkeypatch.setattr(confluent_transport_module, "Reader", Missing)
    transport = ConfluentTransport(nowhere, nowhere)
    refused_at = "started"
    with pytest.raises(MissingTopicError):
        transport.follow("replies", closed.append, closed.append)
    refused_at = "made"
    with pytest.raises(ValueError, match="no setting"):
        transport.follow("replies", closed.append, closed.append)
    transport.close(1)
    assert closed == [True]


def test_early_receipts_have_a_bound() -> None:
    """On a topic that many write to, what is kept for acknowledgements that are slow does not grow."""
    receipts, told = Receipts(early=2), list[Any]()
    log = Log(delay_receipts=1)
    log.followed["delay-receipts"] = (receipts.take, receipts.fail)
    log.produced = [schedule_request("delay-requests", "out", delay="1s") for _ in range(4)]
    log.answer(3, Outcome.SCHEDULED)  # nobody has announced anything
    receipts.announce("first")
    receipts.announce("second")
    for number in range(3):
        log.answer(number, Outcome.SCHEDULED)
    receipts.expect("first", log.source(0), told.append)
    receipts.expect("second", log.source(3), told.append)
    assert told == []
    receipts.announce("third")
    log.answer(2, Outcome.SCHEDULED)
    receipts.expect("third", log.source(2), told.append)
    assert [one.source for one in told] == [log.source(2).text]


def test_early_receipts_have_a_bound_in_bytes() -> None:
    """A receipt may be as large as its topic takes; what goes is the oldest."""
    receipts, told = Receipts(early_bytes=1_000), list[Any]()
    log = Log(delay_receipts=1)
    log.followed["delay-receipts"] = (receipts.take, receipts.fail)
    mark: list[tuple[str, bytes | None]] = [("delaystream-receipt", b"scheduled")]
    for number in range(4):
        receipts.announce(number)
    for number in (0, 1, 2):
        log.tell(b'{"source":"t/0/%d","detail":"%b"}' % (number, b"x" * 350), mark)
    log.tell(b'{"source":"t/0/9","detail":"%b"}' % (b"x" * 2_000), mark)  # larger than may be: none is left
    log.tell(b'{"source":"t/0/3"}', mark)
    for number in range(4):
        receipts.expect(number, Coordinates("t", 0, number), told.append)
    assert [one.source for one in told] == ["t/0/3"]
    receipts.announce(4)
    for number in (5, 5, 6):  # one that comes twice counts once
        log.tell(b'{"source":"t/0/%d","detail":"%b"}' % (number, b"x" * 350), mark)
    receipts.expect(4, Coordinates("t", 0, 5), told.append)
    assert [one.source for one in told] == ["t/0/3", "t/0/5"]


def test_a_receipt_is_kept_for_who_was_interrupted_while_waiting(kind: str) -> None:
    """Cancelled, or by Ctrl-C: `result()` can be asked again, and has it."""
    case = Case(kind)
    pending = case.run(case.client.batch().schedule("out", b"", delay="1h", wait=WAIT))

    def interrupt() -> None:
        raise asyncio.CancelledError if kind == "async" else KeyboardInterrupt

    case.soon(interrupt)
    with pytest.raises((asyncio.CancelledError, KeyboardInterrupt)):
        case.run(pending.result())
    case.log.answer(0, Outcome.SCHEDULED)
    assert case.run(pending.result()).outcome == "scheduled"


def test_room_is_made_without_the_errors_of_others(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever went wrong with the oldest request is raised by its own `result()`."""
    monkeypatch.setattr(sending_module.Sending.__init__, "__defaults__", (1,))
    monkeypatch.setattr(async_sending_module.AsyncSending.__init__, "__defaults__", (1,))
    case = Case(kind)
    batch = case.client.batch()

    def fail() -> None:
        raise DeadlockError("nothing comes")

    first = case.run(batch.schedule("out", b"", delay="1h", wait=WAIT))
    case.soon(fail)
    case.run(batch.schedule("out", b"", delay="1h", wait=WAIT))
    with pytest.raises(DeadlockError):
        case.run(first.result())


def test_an_asynchronous_client_says_that_it_is_in_another_event_loop() -> None:
    """At once: its connections, and whoever brings receipts, are of the first one."""
    log = Log(delay_requests=1, delay_receipts=1)
    client = AsyncClient(transport=HeldAsyncTransport(log))

    async def first() -> Any:
        batch = client.batch()
        await client.schedule("out", b"", delay="1h")
        return await batch.schedule("out", b"", delay="1h", wait=WAIT)

    pending = asyncio.run(first())
    calls: list[Callable[[], Any]] = [
        lambda: client.schedule("out", b"", delay="1h"),
        lambda: client.describe("x"),
        pending.result,
        pending.sent,
        client.close,
    ]
    for call in calls:
        with pytest.raises(RuntimeError, match="An AsyncClient belongs to the event loop"):
            asyncio.run(called(call))
    assert len(log.produced) == 2


async def called(call: Callable[[], Any]) -> Any:
    return await call()


def test_partitions_that_a_followed_topic_gets_are_read_from_their_beginning() -> None:
    """And those before them from where they were."""

    class Consumer:
        assigned: Sequence[TopicPartition] = ()

        def __init__(self) -> None:
            self.sought: dict[int, int] = {}

        def partitions_for_topic(self, topic: str) -> set[int]:
            assert topic == "replies"
            return {0, 1, 2}

        def assign(self, places: Sequence[TopicPartition]) -> None:
            self.assigned = places

        def seek(self, place: TopicPartition, offset: int) -> None:
            self.sought[place.partition] = offset

    consumer: Any = Consumer()
    positions = {("replies", 0): 17}
    take_new_partitions(consumer, positions)
    assert sorted(place.partition for place in consumer.assigned) == [0, 1, 2]
    assert consumer.sought == {0: 17, 1: 0, 2: 0}
    assert positions == {("replies", 0): 17, ("replies", 1): 0, ("replies", 2): 0}
    consumer.assigned = ()
    take_new_partitions(consumer, positions)
    assert consumer.assigned == ()


def test_a_closed_client_sends_nothing_more(kind: str) -> None:
    case = Case(kind)
    case.schedule()
    case.run(case.client.close(timedelta(seconds=3)))
    with pytest.raises(RuntimeError, match="closed"):
        case.schedule()


def test_two_threads_that_wait_for_one_acknowledgement_are_both_told() -> None:
    """Whoever asks first makes what is waited for, and the second does not replace it."""
    log = Log(delay_requests=1)
    transport = HeldTransport(log, at_once=False)
    waited: list[Promise[Any]] = []
    wait = transport.wait

    def second(promise: Promise[Any], timeout_s: float | None) -> Any:
        waited.append(promise)
        if len(waited) == 1:
            transport.events.append(transport.acknowledge)
            pending.sent()
        return wait(promise, timeout_s)

    transport.wait = second  # type: ignore[method-assign]
    composer = Composer("delay-requests", None)
    request = composer.composed(schedule_request(composer.place, "out", delay="1s"), waits=False)
    pending = Sending(lambda: transport).begin(request, None, lambda accepted: accepted)
    assert pending.sent().source == log.source(0)
    assert len(waited) == 2
    assert waited[0] is waited[1]


def test_a_client_is_made_from_something() -> None:
    with pytest.raises(TypeError, match="takes bootstrap servers"):
        Client()
    with pytest.raises(Exception, match=r"setting acks is not supported"):
        Client({"bootstrap.servers": "a:1", "acks": "0"})


def test_a_client_by_settings_holds_requests_against_their_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    """Those of the environment, as the command line has them; nothing is connected for that."""
    monkeypatch.setenv("DELAYSTREAM_MAX_LIST", "2")
    monkeypatch.setenv("DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS", "localhost:1")
    for client in (Client.from_settings(), AsyncClient.from_settings()):
        with pytest.raises(RejectedError, match="list-too-long"):
            client.schedule("out", b"", delay=["1s", "2s", "3s"])


def test_each_thread_checks_with_a_parser_of_its_own() -> None:
    """What a parser remembers is for one thread; and no lock can be left held by a fork."""
    made: list[int] = []
    topic = "delay-requests"

    def make() -> RequestParser:
        made.append(threading.get_ident())
        return RequestParser(DestinationFilter(["*"]), Limits())

    checker = Checker(make)
    request = schedule_request(topic, "out", delay="1s")
    threads = [threading.Thread(target=checker.check, args=(request,)) for _ in range(2)]
    for thread in threads:
        thread.start()
        thread.join()
    checker.check(request)
    checker.check(request)
    assert len(made) == 3
