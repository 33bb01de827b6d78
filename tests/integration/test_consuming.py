"""Consumers on a real broker, with a real worker between an attempt and the next."""

from __future__ import annotations

import asyncio
import json
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Set
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta
from queue import Empty, Queue
from threading import Thread
from typing import Any, Self

import pytest
from confluent_kafka import Producer

from delaystream.client import (
    AsyncClient,
    Client,
    Delivery,
    Events,
    RequestRecord,
    RetryPolicy,
    ScheduledEvent,
    UnknownEventError,
)
from tests.integration.harness import Deployment
from tests.integration.harness_kafka import Delivery as Read
from tests.integration.harness_kafka import Reader

MAX_ATTEMPTS = 3
Handler = Callable[[Any, Any], Any]


class InvoiceDue(ScheduledEvent, topic="invoices", key="customer"):
    customer: str
    cents: int


def take_blocking(
    app: Deployment, topic: str, count: int, handler: Handler, **options: Any
) -> list[Delivery]:
    """So many deliveries, each handled; `handler` is given the consumer and the delivery."""
    taken: list[Delivery] = []
    client = Client(app.kafka.bootstrap, request_topic=app.requests)
    with client.consumer(topic, **{"dead_letters": app.dead_letters, **options}) as consumer:
        while len(taken) < count:
            delivery = consumer.take(30)
            assert delivery is not None, f"{len(taken)} of {count} deliveries came"
            handler(consumer, delivery)
            taken.append(delivery)
    return taken


def take_asynchronous(
    app: Deployment, topic: str, count: int, handler: Handler, **options: Any
) -> list[Delivery]:
    async def take() -> list[Delivery]:
        taken: list[Delivery] = []
        client = AsyncClient(app.kafka.bootstrap, request_topic=app.requests)
        async with client.consumer(topic, **{"dead_letters": app.dead_letters, **options}) as consumer:
            while len(taken) < count:
                delivery = await consumer.take(30)
                assert delivery is not None, f"{len(taken)} of {count} deliveries came"
                if (answer := handler(consumer, delivery)) is not None:
                    await answer
                taken.append(delivery)
        return taken

    return asyncio.run(take())


Take = Callable[..., list[Delivery]]
both = pytest.mark.parametrize("take", [take_blocking, take_asynchronous], ids=["blocking", "async"])
settled = pytest.mark.parametrize("kind", [None, "billing"], ids=["at-least-once", "transactions"])


def names(topic: str, kind: str | None) -> dict[str, Any]:
    """A group, and a transactional id, of the topic's own."""
    return {"group": f"{topic}-group", "transactional_id": kind and f"{topic}-{kind}"}


def ignore(_consumer: Any, _delivery: Any) -> None:
    """All is well."""


def look(_consumer: Any, delivery: Delivery) -> None:
    """All that a handler may ask of a delivery."""
    for name in dir(delivery):
        if not name.startswith("_"):
            getattr(delivery, name)


@both
@settled
def test_a_delivery_tells_all_that_the_worker_wrote(app: Deployment, take: Take, kind: str | None) -> None:
    topic = app.destination(f"told-{take.__name__}-{kind}")
    partition, offset = app.request(
        b"v", {"destination": topic, "delay": "0"}, key=b"k", headers=[("a", b"1"), ("b", None)]
    )
    (delivery,) = take(app, topic, 1, ignore, **names(topic, kind))
    source = f"{app.requests}/{partition}/{offset}"
    assert (delivery.schedule_id, delivery.source, delivery.fire_count) == (source, source, 1)
    assert (delivery.key, delivery.value, delivery.foreign) == (b"k", b"v", [("a", b"1"), ("b", None)])
    assert delivery.due_at is not None
    assert delivery.fired_at is not None
    assert delivery.due_at <= delivery.fired_at
    assert delivery.lateness is not None
    assert app.kafka.committed(f"{topic}-group", topic)[0] >= 1


@both
@settled
def test_what_fails_is_delivered_again_until_it_is_dead_lettered(
    app: Deployment, take: Take, kind: str | None
) -> None:
    topic = app.destination(f"failing-{take.__name__}-{kind}", 2)
    policy = RetryPolicy.of(backoff="20ms,30ms")
    app.request(b"v", {"destination": topic, "delay": "0"}, key=b"k", headers=[("a", b"\xff")])
    taken = take(
        app,
        topic,
        3,
        lambda _consumer, delivery: delivery.retry(error=ValueError("no amount")),
        retries=policy,
        **names(topic, kind),
    )
    assert [delivery.attempt for delivery in taken] == [1, 2, 3]
    assert {delivery.partition for delivery in taken} == {taken[0].partition}
    assert all(delivery.foreign == [("a", b"\xff")] for delivery in taken)
    assert len({delivery.fire_id for delivery in taken}) == 3
    last = taken[-1]
    (letter,) = letters(app, topic, 1)
    assert (letter.key, letter.value) == (b"k", b"v")
    assert letter.text("delaystream-error") == "attempts-exhausted"
    assert letter.text("delaystream-error-detail") == "Attempt 3 of 3 failed. ValueError: no amount"
    assert letter.text("delaystream-attempt") == "3"
    assert letter.text("delaystream-fire-id") == last.fire_id
    where = [letter.text(f"delaystream-error-{part}") for part in ("topic", "partition", "offset")]
    assert where == [topic, str(last.partition), str(last.offset)]


def letters(app: Deployment, topic: str, count: int) -> list[Read]:
    def wanted(letter: Read) -> bool:
        return ("delaystream-error-topic", topic.encode()) in letter.headers

    with app.reader(app.dead_letters) as reader:
        return reader.take(count, wanted=wanted)


@both
@settled
def test_tombstones_without_a_key_and_large_records_are_retried_and_dead_lettered_as_well(
    app: Deployment, take: Take, kind: str | None
) -> None:
    """What is too large for a topic is told without its payload, and never holds the reading up."""
    topic = app.destination(f"odd-{take.__name__}-{kind}")
    dead = app.destination(f"odd-dead-{take.__name__}-{kind}", max_message_bytes="30000")
    app.kafka.produce(topic, [(None, None, []), (b"k", b"x" * 50_000, []), (b"last", b"v", [])])

    def handler(_consumer: Any, delivery: Any) -> Any:
        if delivery.key == b"last":
            return None
        return delivery.retry(delay="1h", max_attempts=1 if delivery.key is None else 2)

    options = {**names(topic, kind), "dead_letters": dead, "largest_bytes": 20_000}
    taken = take(app, topic, 3, handler, **options)
    assert taken[-1].key == b"last"
    found = {(letter.text("delaystream-error-offset"), letter.value) for letter in app.kafka.read(dead, 2)}
    assert found == {("0", None), ("1", None)}


@both
@settled
def test_an_event_comes_back_as_an_object_of_its_class(app: Deployment, take: Take, kind: str | None) -> None:
    topic = app.destination(f"events-{take.__name__}-{kind}")

    class Due(InvoiceDue, topic=topic, key="customer", name="InvoiceDue"):
        pass

    events = Events([Due])
    app.kafka.produce(topic, [(None, b"no event", [])])
    with Client(app.kafka.bootstrap, request_topic=app.requests) as client:
        client.schedule_event(
            Due("acme", 700),
            delay=timedelta(milliseconds=1),
            correlation_id=f"order-{kind}",
            tags=["red"],
        )
    seen: list[Any] = []

    def handler(_consumer: Any, delivery: Any) -> Any:
        try:
            seen.append(events.of(delivery))
        except UnknownEventError as error:
            seen.append(error)
            return None
        return delivery.retry(delay="0") if delivery.attempt == 1 else None

    taken = take(app, topic, 3, handler, **names(topic, kind))
    assert isinstance(seen[0], UnknownEventError)
    assert seen[1:] == [Due("acme", 700)] * 2
    assert taken[1].key == taken[2].key == b"acme"
    assert taken[2].header("correlation_id") == f"order-{kind}".encode()


@both
@settled
def test_an_event_is_cancelled_by_its_name_and_correlation_id(
    app: Deployment, take: Take, kind: str | None
) -> None:
    topic = app.destination(f"found-{take.__name__}-{kind}")
    with Client(app.kafka.bootstrap, request_topic=app.requests, reply_to=app.receipts) as client:

        class Due(InvoiceDue, topic=topic, key="customer", name=topic):
            pass

        for customer in ("acme", "globex"):
            client.schedule_event(
                Due(customer, 1), delay="1h", correlation_id=f"{topic}/{customer}", id=customer
            )
        wait = timedelta(seconds=30)
        answer = client.cancel(match_tags=[topic, f"{topic}/acme"], wait=wait).receipt
        assert answer is not None
        assert answer.body["count"] == 1
        rest = client.cancel(match_tags=[topic], wait=wait).receipt
        assert rest is not None
        assert rest.body["count"] == 1


@both
@settled
def test_hostile_records_never_raise_out_of_the_loop(app: Deployment, take: Take, kind: str | None) -> None:
    """Headers that are no numbers, twice, null, huge; names that are not UTF-8, among others of a batch;
    timestamps of 1970 and of a year that no calendar has."""
    any_time = {"message_timestamp_type": "CreateTime", "message_timestamp_after_max_ms": str(2**63 - 1)}
    topic = app.destination(f"hostile-{take.__name__}-{kind}", 2, **any_time)
    ours = ("due-at", "fired-at", "fire-count", "attempt", "fire-id", "schedule-id", "next-at", "skipped")
    hostile: list[Any] = [
        [(f"delaystream-{name}", value) for name in ours]
        for value in (b"", b"-1", b"\xff\xfe", b"9" * 30_000, None, b"NaN")
    ]
    hostile += [[("delaystream-attempt", b"3"), ("delaystream-attempt", b"x")], [("event_type", b"\xff")]]
    for partition in range(2):
        records = [(b"%d" % number, b"v", headers) for number, headers in enumerate(hostile)]
        app.kafka.produce(topic, records, partition=partition, linger_ms=50)
        app.kafka.produce_names(topic, partition, [b"100", b"\xff", b"101", b"\xff\xfe", b"102"])
        for timestamp_ms in (1, 2**62):
            due = [(b"timed", b"v", [("delaystream-due-at", b"5")])]
            app.kafka.produce(topic, due, partition=partition, timestamp_ms=timestamp_ms)
        app.kafka.produce(topic, [(b"last", b"v", [])], partition=partition)
    each = len(hostile) + 5 + 2 + 1
    taken = take(app, topic, 2 * each, look, **names(topic, kind))
    for partition in range(2):
        found = [delivery for delivery in taken if delivery.partition == partition]
        assert [delivery.offset for delivery in found] == sorted({delivery.offset for delivery in found})
        assert len(found) == each
        assert found[-1].key == b"last"
        assert sum(not delivery.is_readable for delivery in found) in (2, 5)


@both
def test_a_copy_of_a_fire_is_dropped_where_what_is_uncommitted_is_read(app: Deployment, take: Take) -> None:
    topic = app.destination(f"copies-{take.__name__}")
    fires = ["a", "a", "b", "a", "c", "b"]
    app.kafka.produce(topic, [(None, b"v", [("delaystream-fire-id", fire.encode())]) for fire in fires])
    app.kafka.produce(topic, [(None, b"v", []), (None, b"v", [])])
    options = names(topic, None)
    taken = take(app, topic, 5, ignore, isolation="read_uncommitted", **options)
    assert [delivery.fire_id for delivery in taken] == ["a", "b", "c", None, None]
    assert app.kafka.committed(options["group"], topic) == [8]


def test_what_is_aborted_is_not_read_unless_one_asks_for_it(app: Deployment) -> None:
    topic = app.destination("aborted")
    producer = Producer({"bootstrap.servers": app.kafka.bootstrap, "transactional.id": topic})
    producer.init_transactions(30)
    for value, commits in ((b"aborted", False), (b"committed", True)):
        producer.begin_transaction()
        producer.produce(topic, value)
        producer.flush(30)
        producer.commit_transaction(30) if commits else producer.abort_transaction(30)
    for take in (take_blocking, take_asynchronous):
        (delivery,) = take(app, topic, 1, ignore, group=f"{topic}-{take.__name__}")
        assert delivery.value == b"committed"
        all_of_it = take(
            app, topic, 2, ignore, group=f"{topic}-{take.__name__}-all", isolation="read_uncommitted"
        )
        assert [delivery.value for delivery in all_of_it] == [b"aborted", b"committed"]


@both
@settled
def test_a_delivery_in_hand_is_read_again_when_its_handler_raises(
    app: Deployment, take: Take, kind: str | None
) -> None:
    """And with transactions nothing that it wrote is there."""
    topic = app.destination(f"raising-{take.__name__}-{kind}")
    out = app.destination(f"raising-out-{take.__name__}-{kind}")
    app.kafka.produce(topic, [(None, b"%d" % number, []) for number in range(3)])
    seen: list[bytes | None] = []

    def handler(consumer: Any, delivery: Delivery) -> Any:
        seen.append(delivery.value)
        written = consumer.send(RequestRecord(out, b"k", delivery.value, []))
        if written is not None:
            return then(written)
        check()
        return None

    def check() -> None:
        if seen == [b"0", b"1"]:
            raise KeyError("broken")

    async def then(written: Any) -> None:
        await written
        check()

    options = names(topic, kind)
    with pytest.raises(KeyError, match="broken"):
        take(app, topic, 3, handler, **options)
    # A transaction that held the first one, too, is aborted with it.
    again = 3 - max(0, app.kafka.committed(options["group"], topic)[0])
    assert again in ((2, 3) if kind else (2,))
    taken = take(app, topic, again, handler, **options)
    assert [delivery.value for delivery in taken] == [b"0", b"1", b"2"][3 - again :]
    if kind is not None:
        written = [record.value for record in app.kafka.read(out, 3)]
        assert written == [b"0", b"1", b"2"]


def test_the_callers_own_producer_carries_retries_in_its_transactions(app: Deployment) -> None:
    topic = app.destination("own-producer")
    producer = Producer({"bootstrap.servers": app.kafka.bootstrap, "transactional.id": f"{topic}-own"})
    producer.init_transactions(30)
    app.request(b"v", {"destination": topic, "delay": "0"})
    out = app.destination("own-producer-out")

    def handler(consumer: Any, delivery: Any) -> None:
        producer.produce(out, delivery.value)
        delivery.retry(delay="10ms", max_attempts=2)

    taken = take_blocking(app, topic, 2, handler, group=topic, producer=producer)
    assert [delivery.attempt for delivery in taken] == [1, 2]
    assert len(app.kafka.read(out, 2)) == 2
    assert len(letters(app, topic, 1)) == 1


# -- killed at random ------------------------------------------------------------------------------

KINDS = ["blocking-transactions", "async-transactions", "own", "blocking-offsets", "async-offsets"]
RECORDS, KILLS = 30, 4
PARTITIONS = 2
WAIT_S = 60


@dataclass(frozen=True)
class Attempt:
    """What a member has taken, or has decided and not settled."""

    member: str
    process: subprocess.Popen[str]
    stage: str
    partition: int
    key: bytes
    number: int
    fails: bool


class Members:
    """Consumers of a group as processes: each waits twice with every attempt, until it may go on."""

    def __init__(self, kind: str, app: Deployment, topics: dict[str, str]) -> None:
        self._command = [sys.executable, "-m", "tests.integration.consuming_member", kind]
        self._command.append(app.kafka.bootstrap)
        self._topics = json.dumps(topics)
        self._said: Queue[tuple[str, subprocess.Popen[str], str]] = Queue()
        self._running: dict[str, subprocess.Popen[str]] = {}
        #: those whose end is no fault
        self.may_end: set[str] = set()
        self._threads: list[Thread] = []

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exception: object) -> None:
        for member in list(self._running):
            self.kill(member)
        for thread in self._threads:
            thread.join()

    def start(self, member: str) -> None:
        process = subprocess.Popen(
            [*self._command, member, self._topics],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        self._running[member] = process
        self._threads.append(Thread(target=self._listen, args=(member, process), daemon=True))
        self._threads[-1].start()

    def kill(self, member: str) -> None:
        process = self._running.pop(member)
        process.kill()
        process.wait()

    def freeze(self, member: str) -> None:
        self._running[member].send_signal(signal.SIGSTOP)

    def thaw(self, member: str) -> None:
        self._running[member].send_signal(signal.SIGCONT)

    def next(self, seconds: float = WAIT_S) -> Attempt | None:
        """Where a running member stands next; None when none says it in time.

        A member that ended is started again if it may end. AssertionError if it may not.
        """
        deadline = time.monotonic() + seconds
        while (left_s := deadline - time.monotonic()) > 0:
            try:
                member, process, line = self._said.get(timeout=left_s)
            except Empty:
                return None
            if self._running.get(member) is not process:
                continue  # it was killed
            if line:
                stage, partition, key, number, fails = json.loads(line)
                return Attempt(member, process, stage, partition, key.encode(), number, fails)
            why = process.stderr.read()[-4000:] if process.stderr is not None else ""
            assert member in self.may_end, f"{member} ended: {why}"
            self.kill(member)
            self.start(member)
        return None

    def until(self, wanted: Callable[[Attempt], bool]) -> Attempt:
        """The first attempt that is wanted, in hand; those before it are settled."""
        while (attempt := self.next()) is not None:
            if wanted(attempt):
                return attempt
            self.go_on(attempt)
        raise AssertionError("no such attempt came")

    def serve(self, reader: Reader, keys: Set[bytes]) -> None:
        """Let them all go on, until a reader has seen these keys."""
        seen: set[bytes | None] = set()
        deadline = time.monotonic() + WAIT_S
        while not keys <= seen:
            assert time.monotonic() < deadline, f"{sorted(keys - seen)} did not come"
            seen |= {record.key for record in reader.poll(0)}
            if (attempt := self.next(0.02)) is not None:
                self.go_on(attempt)

    @staticmethod
    def go_on(attempt: Attempt) -> None:
        """Have it decide that one, or settle it when it likes."""
        assert attempt.process.stdin is not None
        with suppress(BrokenPipeError):
            attempt.process.stdin.write("\n")
            attempt.process.stdin.flush()

    def _listen(self, member: str, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            self._said.put((member, process, line))
        self._said.put((member, process, ""))


class Ledger:
    """What must have come of the requests in the end, and what has."""

    def __init__(self, app: Deployment, kind: str) -> None:
        self._app = app
        self.topics = {
            "requests": app.requests,
            "source": app.destination(f"killed-{kind}", PARTITIONS),
            "tried": app.destination(f"killed-tried-{kind}"),
            "handled": app.destination(f"killed-handled-{kind}"),
            "dead_letters": app.destination(f"killed-dead-{kind}"),
        }
        #: how often each record fails, by its key
        self.fails: dict[bytes, int] = {}

    def request(self, key: bytes, fails: int, partition: int = -1, **control: str) -> None:
        self.fails[key] = fails
        headers = {"destination": self.topics["source"], "delay": "0", **control}
        self._app.request(b"%d" % fails, headers, key=key, partition=partition)

    def request_the_last(self) -> set[bytes]:
        """Behind all else, from wherever to wherever: once they are handled, nothing more comes."""
        keys = set()
        for source in range(self._app.kafka.partitions(self._app.requests)):
            for partition in range(PARTITIONS):
                key = b"last %d %d" % (source, partition)
                self.request(key, 0, source, delay="100ms", **{"destination-partition": str(partition)})
                keys.add(key)
        return keys

    @property
    def attempts(self) -> Counter[tuple[bytes | None, int]]:
        return Counter((key, attempt) for key, last in self.lasts.items() for attempt in range(1, last + 1))

    @property
    def lasts(self) -> dict[bytes, int]:
        return {key: min(times + 1, MAX_ATTEMPTS) for key, times in self.fails.items()}

    def check(self, *, once: bool) -> None:
        """Of `once` every attempt is exactly once; else what was not settled may be tried again."""
        ends = self._read("handled", "dead_letters", enough=lambda found: self.fails.keys() <= found.keys())
        handled = [record for record in ends if record.topic == self.topics["handled"]]
        dead = [record for record in ends if record.topic == self.topics["dead_letters"]]
        assert {record.key: int(record.value or b"0") for record in handled} == {
            key: self.lasts[key] for key, times in self.fails.items() if times < MAX_ATTEMPTS
        }
        assert {record.key: int(record.text("delaystream-attempt")) for record in dead} == {
            key: MAX_ATTEMPTS for key, times in self.fails.items() if times >= MAX_ATTEMPTS
        }
        assert {record.text("delaystream-error") for record in dead} == {"attempts-exhausted"}
        # Each attempt was delivered once, whoever was killed when: no retry was lost, none asked for twice.
        fires = self._read("source", enough=lambda found: found.total() >= self.attempts.total())
        assert Counter((fire.key, attempt_of(fire)) for fire in fires) == self.attempts
        tried = self._read("tried", enough=lambda found: found.total() >= self.attempts.total())
        tries = Counter((record.key, int(record.value or b"0")) for record in tried)
        if once:
            assert tries == self.attempts
            assert len(ends) == len(self.fails)
        else:
            assert tries.keys() == self.attempts.keys()

    def _read(self, *topics: str, enough: Callable[[Counter[bytes | None]], bool]) -> list[Read]:
        """All that stands in topics, once that is enough."""
        found: list[Read] = []
        deadline = time.monotonic() + WAIT_S
        with self._app.reader(*(self.topics[topic] for topic in topics)) as reader:
            while not enough(Counter(record.key for record in found)):
                assert time.monotonic() < deadline, f"{topics}: {found}"
                found += reader.poll(0.2)
        return found


def attempt_of(fire: Read) -> int:
    return Delivery.of(("", 0, 0), 0, None, None, fire.headers).attempt


def is_taken(attempt: Attempt) -> bool:
    return attempt.stage == "taken"


def asks_for_a_retry(attempt: Attempt) -> bool:
    return attempt.stage == "decided" and attempt.fails and attempt.number < MAX_ATTEMPTS


def wait_for_its_retry(asked: Reader, attempt: Attempt, topic: str) -> None:
    """Until Kafka has the request for the next attempt, committed or not."""

    def wanted(request: Read) -> bool:
        of_it = request.key == attempt.key and attempt_of(request) == attempt.number + 1
        return of_it and request.header("delaystream-destination") == topic.encode()

    deadline = time.monotonic() + WAIT_S
    while not any(wanted(request) for request in asked.poll(0.2)):
        assert time.monotonic() < deadline, f"{attempt} did not ask for its retry"


@pytest.mark.parametrize("kind", KINDS)
def test_consumers_that_are_killed_at_random_handle_or_dead_letter_each_record_once(
    app: Deployment, kind: str
) -> None:
    """With a delivery in hand: before it wrote, when Kafka has that; and one that is thought to be dead."""
    dice = random.Random(kind)
    ledger = Ledger(app, kind)
    for number in range(RECORDS):
        ledger.request(b"%d" % number, number % (MAX_ATTEMPTS + 2))
    with Members(kind, app, ledger.topics) as members:
        members.start("one")
        members.start("two")
        if kind == "own":
            members.may_end = {"one", "two"}  # whose loop leaves errors to who starts it again
        for kill in range(KILLS):
            for _ in range(dice.randrange(6)):
                members.go_on(members.until(is_taken))
            hand = members.until(asks_for_a_retry if kill % 2 else is_taken)
            if kill % 2:
                with app.reader(app.requests, isolation="read_uncommitted") as asked:
                    wait_for_its_retry(asked, hand, ledger.topics["source"])
            members.kill(hand.member)
            members.start(hand.member)
        if "offsets" not in kind:
            outlive_one_that_is_thought_to_be_dead(members)
        with app.reader(ledger.topics["handled"], ledger.topics["dead_letters"]) as ends:
            members.serve(ends, ledger.fails.keys())
            members.serve(ends, ledger.request_the_last())
    ledger.check(once="offsets" not in kind)


def outlive_one_that_is_thought_to_be_dead(members: Members) -> None:
    """It is frozen with a delivery in hand; the other has its partition when it goes on."""
    hand = members.until(asks_for_a_retry)
    members.freeze(hand.member)
    again = members.until(lambda attempt: attempt.member != hand.member and attempt.key == hand.key)
    assert (again.partition, again.number) == (hand.partition, hand.number)
    members.may_end.add(hand.member)  # it may say so, and be started again
    members.go_on(again)
    members.thaw(hand.member)
    members.go_on(hand)
