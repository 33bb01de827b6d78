"""Traffic for the tests with faults: requests of every kind from one seed, held against the ledger."""

from __future__ import annotations

import random
import threading
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import replace

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from delaystream.core.identity import revision
from tests.integration.harness import Deployment
from tests.integration.harness_kafka import Delivery
from tests.ledger import Asked, Beat, Circumstances, Delivered, Report, Selector, audit, sent_again

_TICK_SECONDS = 0.02
_DESTINATIONS = {"soak-a": 1, "soak-b": 3}
_LATE = "soak-late"

#: a pause after which all may be there, seconds
_STANDSTILL_S = 3.0


class Traffic:
    """Sends requests evenly from a thread of its own, until told to stop.

    Most are anonymous, some are lists, some are to be dropped or moved when they are late, some name an id
    and are replaced or cancelled later, some recur a few times, a few are to be refused. Some are commands:
    about an id, about all that matches, about one request without an id, about a destination's rate. Some
    pauses end by themselves. Some requests are sent again by their name, are for one version, or say whose
    they are. The producer is idempotent. Even so librdkafka may write a request twice when its broker is
    killed (under a new epoch), and one that it gives up may stand there all the same: what was asked for is
    what stands on the topic, by its coordinates. Two records are two requests.

    Without ``holding`` nothing is paused, and no rate is set: what fires is late by the worker's doing alone,
    so that lateness may be measured.
    """

    def __init__(
        self,
        app: Deployment,
        *,
        rate: int,
        seed: int,
        longest_delay_ms: int = 6_000,
        holding: bool = True,
    ) -> None:
        self._app = app
        self._rate = rate
        self._random = random.Random(seed)
        self._longest = longest_delay_ms
        self._holding = ("pause", "resume", "resume") if holding else ()
        self._partitions = {app.destination(name, count): count for name, count in _DESTINATIONS.items()}
        self._late = app.destination(_LATE)
        self._replies = app.destination("soak-replies")
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)
        self._failure: BaseException | None = None
        self._ids: deque[tuple[str, int]] = deque(maxlen=200)
        self._beats: deque[tuple[str, int]] = deque(maxlen=50)
        #: of each id, the version that the last request about it may have given it
        self._versions: dict[str, int] = {}
        #: requests that name themselves, with their control headers
        self._named: deque[tuple[Asked, dict[str, str]]] = deque(maxlen=20)
        self._paced: set[str] = set()
        self._sent = 0
        #: every request that was sent, by the number in its header
        self._requests: dict[str, Asked] = {}
        self.asked: list[Asked] = []
        #: acknowledged, at an offset that nobody told
        self._unplaced: list[Asked] = []
        #: how many were given up by the producer; were written again; were given up and stand there
        self.unacknowledged, self.doubled, self.unconfirmed = 0, 0, 0
        self.last_due_ms = 0
        self._producer = Producer(
            {
                "bootstrap.servers": app.kafka.bootstrap,
                "enable.idempotence": True,
                "delivery.timeout.ms": 120_000,
                "linger.ms": 5,
                "topic.metadata.refresh.interval.ms": 2_000,
                "reconnect.backoff.max.ms": 500,
                "log_level": 0,
            }
        )

    @property
    def topics(self) -> Sequence[str]:
        """Every topic that something may come out on."""
        return [*self._partitions, self._late, self._replies, self._app.dead_letters, self._app.events]

    def start(self) -> Traffic:
        """Begin to send."""
        self._thread.start()
        return self

    def stop(self) -> Traffic:
        """Send no more, and wait until everything sent is acknowledged or given up."""
        self._stop.set()
        self._thread.join()
        left = self._producer.flush(120)
        if self._failure is not None:
            raise self._failure
        assert left == 0, f"{left} requests were neither acknowledged nor given up"
        self.wake()
        self._compare()
        return self

    def _compare(self) -> None:
        """Take as asked for what stands on the topic. AssertionError where Kafka lost what it had
        acknowledged: no fault of ours, and nothing can be said then."""
        topic = self._app.requests
        acknowledged = {asked.source: asked for asked in self.asked}
        with self._app.reader(topic) as reader:
            written = reader.take(sum(self._app.kafka.end_offsets(topic)), 300)
        numbers = {
            f"{record.topic}/{record.partition}/{record.offset}": record.text("number")
            for record in written
            if any(name == "number" for name, _ in record.headers)
        }
        gone = [
            source
            for source, asked in acknowledged.items()
            if self._requests.get(numbers.get(source, "")) is not asked
        ]
        there = {id(self._requests[number]) for number in numbers.values()}
        gone += [f"{asked.headers}" for asked in self._unplaced if id(asked) not in there]
        assert not gone, f"Kafka lost {len(gone)} acknowledged requests: {gone[:10]}"
        confirmed = {numbers[source] for source in acknowledged}
        for source in numbers.keys() - acknowledged.keys():
            again = replace(self._requests[numbers[source]], source=source)
            self._note(again)
            if numbers[source] in confirmed:
                self.doubled += 1
            else:
                self.unconfirmed += 1

    def _run(self) -> None:
        start = time.monotonic()
        while not self._stop.is_set():
            try:
                while self._sent < (time.monotonic() - start) * self._rate:
                    self._send()
                    self._sent += 1
                self._producer.poll(0)
            except (KafkaException, BufferError) as failure:
                self._failure = failure
                return
            time.sleep(_TICK_SECONDS)

    def _send(self) -> None:
        dice, now_ms = self._random, int(time.time() * 1000)
        kind = dice.random()
        if self._named and dice.random() < 0.01:
            self._send_again(now_ms)
            return
        key = None if kind < 0.1 else b"customer-%d" % dice.randrange(40)
        value = b"%d " % self._sent + dice.randbytes(dice.randrange(200))
        destination = dice.choice(list(self._partitions))
        foreign: list[tuple[str, bytes | None]] = [("number", b"%d" % self._sent)]
        delays = [dice.randrange(self._longest) for _ in range(3 if kind > 0.95 else 1)]
        if dice.random() < 0.05:
            delays[0] = 0
        control = {
            "destination": destination,
            "delay": ",".join(f"{delay}ms" if delay else "0" for delay in delays),
        }
        asked = Asked("", key, value, foreign, destination, tuple(now_ms + delay for delay in delays), now_ms)
        asked.relative = True
        self._requests[str(self._sent)] = asked
        partition = dice.randrange(self._app.partitions)
        if kind <= 0.08:
            partition = self._command(asked, control)
        elif 0.50 < kind <= 0.60:
            self._expire(asked, control)
        elif 0.60 < kind <= 0.65:
            self._recur(asked, control)
            partition = self._home(asked.id)
        elif 0.70 < kind <= 0.92:
            self._name(asked, control)
            partition = self._home(asked.id)
        elif kind > 0.99:
            control["delay"] = "soon"
            asked.due_ms, asked.errors = (), frozenset({"invalid-delay"})
        if asked.action == "schedule" and dice.random() < 0.1:
            asked.tags = ("urgent",)
            control["tags"] = "urgent"
        if asked.id is not None:
            self._say_more(asked, control)
        self._produce(asked, control, partition)

    def _say_more(self, asked: Asked, control: dict[str, str]) -> None:
        """What a request about an id says beside what it asks for, of some."""
        dice = self._random
        if dice.random() < 0.1:
            versions = (0, self._versions.get(str(asked.id), 7), 7)
            asked.if_version = dice.choice(versions)
            control["if-version"] = str(asked.if_version)
            asked.errors |= {"version-changed"}
        if asked.action == "describe":
            return
        if dice.random() < 0.1:
            asked.request_id = control["request-id"] = f"request {self._sent}"
            self._named.append((asked, control))
        if asked.action in ("schedule", "update", "cancel") and dice.random() < 0.15:
            asked.declared_by = control["declared-by"] = dice.choice(("team a", "team b"))
            if dice.random() < 0.8:
                asked.deploy = dice.randrange(4)
                control["deploy"] = str(asked.deploy)
                asked.errors |= {"deploy-superseded"}

    def _send_again(self, now_ms: int) -> None:
        """A request that names itself once more, as by a client that has not seen the answer."""
        first, control = self._random.choice(self._named)
        asked = sent_again(first, now_ms)
        asked.headers = [("number", b"%d" % self._sent)]
        self._requests[str(self._sent)] = asked
        self._produce(asked, control, self._home(asked.id))

    def _home(self, id: str | None) -> int:
        """One id stays on one partition: only then is an order promised, and checked."""
        return int((id or "0").rsplit("-", 1)[1]) % self._app.partitions

    def _produce(self, asked: Asked, control: dict[str, str], partition: int) -> None:
        headers: list[tuple[str, str | bytes | None]] = [
            *asked.headers,
            *((f"delaystream-{name}", text.encode()) for name, text in control.items()),
        ]
        self._producer.produce(
            self._app.requests,
            asked.value,
            asked.key,
            partition,
            on_delivery=lambda error, message: self._delivered(asked, error, message),
            timestamp=asked.timestamp_ms,
            headers=headers,
        )

    # -- commands -----------------------------------------------------------------------------

    def _command(self, asked: Asked, control: dict[str, str]) -> int:
        """Make it a command; the partition that it goes to."""
        dice = self._random
        control.clear()
        asked.destination, asked.due_ms, asked.receipt_expected, asked.relative = "", (), True, False
        control["reply-to"] = self._replies
        choice = dice.random()
        if choice < 0.08:
            self._select(asked, control)
            control["action"] = asked.action
            return dice.randrange(self._app.partitions)
        if self._holding and 0.08 <= choice < 0.1:
            return self._pace(asked, control, dice.choice((150, 300, None)))
        subjects = [one for one in self.asked[-200:] if self._is_plain(one)] if choice < 0.25 else []
        if subjects:
            actions = ("cancel", "reschedule", "trigger", "describe")
            asked.action, subject = dice.choice(actions), dice.choice(subjects)
            asked.subject = control["coordinates"] = subject.source
            if asked.action == "reschedule":
                control["delay"] = f"{dice.randrange(1, self._longest)}ms"
        else:
            asked.id = control["id"] = self._some_id()
            asked.errors = frozenset({"cancelled-earlier", "never-fires"})
            asked.action = dice.choice((*self._holding, "trigger", "reschedule", "cancel", "describe"))
            if asked.action == "reschedule":
                self._anew(asked, control)
            self._end(asked, control)
        control["action"] = asked.action
        return self._home(asked.id) if asked.id else dice.randrange(self._app.partitions)

    def _end(self, asked: Asked, control: dict[str, str]) -> None:
        """When a pause ends by itself, of some."""
        if asked.action == "pause" and self._random.random() < 0.5:
            asked.until_ms = asked.timestamp_ms + self._random.randrange(500, self._longest)
            control["until"] = str(asked.until_ms)

    def _pace(self, asked: Asked, control: dict[str, str], rate: int | None) -> int:
        """How many records a second a destination gets, until that is said anew."""
        asked.action, asked.rate = "rate", rate
        control["action"] = "rate"
        asked.destination = control["destination"] = self._random.choice(list(self._partitions))
        control["rate"] = "none" if rate is None else str(rate)
        self._paced.add(asked.destination)
        return self._random.randrange(self._app.partitions)

    @staticmethod
    def _is_plain(asked: Asked) -> bool:
        """Whether a command by coordinates finds it where it was asked for."""
        return (
            asked.id is None and asked.action == "schedule" and bool(asked.due_ms) and asked.on_late == "fire"
        )

    def _some_id(self) -> str:
        dice = self._random
        return dice.choice(
            self._beats if self._beats and dice.random() < 0.5 else self._ids or [("id-0", 0)]
        )[0]

    def _anew(self, asked: Asked, control: dict[str, str]) -> None:
        """Other times: of a recurring schedule recurring ones, else other due times."""
        dice, now_ms = self._random, asked.timestamp_ms
        if str(asked.id).startswith("beat"):
            asked.beat = Beat(2_000, now_ms, now_ms, now_ms + self._longest)
            control |= {"every": "2s", "end": str(asked.beat.end_ms)}
        else:
            asked.due_ms = (now_ms + dice.randrange(self._longest),)
            control["at"] = str(asked.due_ms[0])
        if dice.random() < 0.4:
            asked.action, control["payload"] = "update", "keep"

    def _select(self, asked: Asked, control: dict[str, str]) -> None:
        """Hold, let go or cancel what matches."""
        dice = self._random
        asked.action = dice.choice((*self._holding, "cancel"))
        destination = key = tag = None
        kind = dice.choice(
            ("key", "tag", "both") if asked.action == "cancel" else ("destination", "key", "tag")
        )
        if kind == "destination":
            destination = control["match-destination"] = dice.choice([*self._partitions, "*"])
        if kind in ("key", "both"):
            key = b"customer-%d" % dice.randrange(40)
            control["match-key"] = key.decode()
        if kind in ("tag", "both"):
            tag = control["match-tags"] = "urgent"
        arriving = asked.action == "pause" and dice.random() < 0.5
        anonymous = asked.action == "cancel" and dice.random() < 0.7
        if arriving:
            control["match-new"] = "true"
        if anonymous:
            control["match-anonymous"] = "true"
        asked.selector = Selector(destination, key, tag, arriving, anonymous)
        # Workers that are far behind have many of them at work.
        asked.errors = frozenset({"too-many-commands"})
        self._end(asked, control)

    def wake(self) -> None:
        """Resume what commands have left paused, on every partition after all that was sent; lift rates."""
        for partition in range(self._app.partitions):
            for prefix in ("id-", "beat-", None):
                now_ms = int(time.time() * 1000)
                number = [("number", b"%d" % self._sent)]
                asked = Asked("", None, None, number, "", (), now_ms, action="resume", prefix=prefix)
                control = {"action": "resume"}
                if prefix is not None:
                    control["match-id-prefix"] = prefix
                else:
                    asked.selector, control["match-destination"] = Selector("*"), "*"
                self._requests[str(self._sent)] = asked
                self._sent += 1
                self._produce(asked, control, partition)
        for destination in sorted(self._paced):
            asked = Asked("", None, None, [("number", b"%d" % self._sent)], destination, ())
            asked.timestamp_ms, asked.action = int(time.time() * 1000), "rate"
            self._requests[str(self._sent)] = asked
            self._sent += 1
            self._produce(asked, {"action": "rate", "destination": destination, "rate": "none"}, 0)
        left = self._producer.flush(120)
        assert left == 0, f"{left} commands were neither acknowledged nor given up"

    def _expire(self, asked: Asked, control: dict[str, str]) -> None:
        """Have it dropped, or moved, when nobody was there to deliver it in time."""
        asked.grace_ms = self._random.choice((0, 500, 5_000))
        asked.on_late = self._random.choice(("drop", self._late))
        control |= {"grace": f"{asked.grace_ms}ms" if asked.grace_ms else "0", "on-late": asked.on_late}

    def _recur(self, asked: Asked, control: dict[str, str]) -> None:
        """Give it an id of its own, and a few times."""
        dice, now_ms = self._random, asked.timestamp_ms
        asked.id, asked.receipt_expected, asked.due_ms = f"beat-{self._sent}", True, ()
        asked.catch_up = dice.choice(("latest", "all", "none"))
        asked.grace_ms = dice.choice((500, 5_000, None))
        asked.beat = Beat(1_000, now_ms, now_ms, now_ms + self._longest, jitter_ms=dice.choice((0, 200)))
        self._beats.append((asked.id, self._sent))
        asked.relative = False
        del control["delay"]
        control |= {"id": asked.id, "reply-to": self._replies, "catch-up": asked.catch_up, "every": "1s"}
        control |= {"end": str(asked.beat.end_ms), "jitter": f"{asked.beat.jitter_ms}ms"}
        if not asked.beat.jitter_ms:
            del control["jitter"]
        if asked.grace_ms is not None:
            control["grace"] = f"{asked.grace_ms}ms"

    def _name(self, asked: Asked, control: dict[str, str]) -> None:
        """Give it an id: a new one, or one that is to be replaced or cancelled."""
        dice = self._random
        choice = dice.random()
        if self._ids and choice < 0.5:
            name, _ = dice.choice(self._ids)
        else:
            name = f"id-{self._sent}"
            self._ids.append((name, self._sent))
        asked.id, asked.receipt_expected = name, True
        control |= {"id": name, "reply-to": self._replies}
        if choice < 0.25:
            asked.action, asked.due_ms = "cancel", ()
            control["action"] = "cancel"
        elif choice < 0.35:
            asked.if_exists = control["if-exists"] = dice.choice(["keep", "reject"])
            asked.errors = frozenset({"already-exists"})

    def _delivered(self, asked: Asked, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            self.unacknowledged += 1
            if error.fatal():
                self._failure = KafkaException(error)
            return
        if message.offset() is None:
            # The broker knew the batch from an earlier attempt, and says no more than that.
            self._unplaced.append(asked)
            return
        asked.source = f"{message.topic()}/{message.partition()}/{message.offset()}"
        self._note(asked)

    def _note(self, asked: Asked) -> None:
        """It stands on the topic."""
        end_ms = asked.beat.end_ms if asked.beat is not None else None
        self.last_due_ms = max(self.last_due_ms, *asked.due_ms, end_ms or 0, asked.until_ms or 0)
        if asked.id is not None:
            self._versions[asked.id] = revision(asked.partition[1], asked.offset)
        self.asked.append(asked)

    def audit(self, records: Sequence[Delivery]) -> Report:
        """Hold all that came out against all that was asked for."""
        of: dict[str, list[Delivered]] = {topic: [] for topic in self.topics}
        for record in records:
            of[record.topic].append(_record(record))
        # These two have the producer's time, not the broker's.
        letters, events = of.pop(self._app.dead_letters), of.pop(self._app.events)
        for told in (*letters, *events):
            told.appended_ms = None
        receipts = of.pop(self._replies)
        deliveries = [record for records in of.values() for record in records]
        circumstances = Circumstances(
            partitions=self._partitions,
            request_partitions=self._app.partitions,
            receipts_hindered=True,
            drained=True,
            # Brokers die: any topic may be out of reach at any time, that of events included.
            troubled=lambda *_: True,
        )
        return audit(
            self.asked,
            deliveries,
            events=events,
            dead_letters=letters,
            receipts=receipts,
            circumstances=circumstances,
        )

    def lateness_ms(self, records: Sequence[Delivery]) -> list[int]:
        """Of every delivery by the broker's append time, sorted."""
        return sorted(
            record.timestamp_ms - int(record.text("delaystream-due-at"))
            for record in records
            if record.topic in self._partitions
        )

    def outcome(self, seconds: float = 60.0) -> tuple[Report, list[Delivery]]:
        """Read all that is there, until nothing is missing, or nothing more has come for so long.

        So workers on a slow machine may take their time, and this reader too.
        """
        records: list[Delivery] = []
        audited = 0
        with self._app.reader(*self.topics) as reader:
            came = time.monotonic()
            while True:
                if arrived := reader.poll(1.0):
                    records += arrived
                    came = time.monotonic()
                    continue
                stood_s = time.monotonic() - came
                if not reader.at_end or stood_s < _STANDSTILL_S or time.time() * 1000 <= self.last_due_ms:
                    continue
                # An audit takes a minute where there are a million records.
                if len(records) != audited and not self.audit(records).lost:
                    break
                audited = len(records)
                if stood_s > seconds:
                    break
            records += reader.poll(1.0)
        return self.audit(records), records


class Onlooker:
    """A read_committed reader that reads along while faults happen, from a thread of its own.

    What it was shown as committed must still be there in the end, at the same place.
    """

    def __init__(self, app: Deployment, topics: Sequence[str]) -> None:
        self._app = app
        self._topics = topics
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="onlooker", daemon=True)
        self._failure: BaseException | None = None
        self.seen: list[Delivery] = []

    def start(self) -> Onlooker:
        """Begin to read."""
        self._thread.start()
        return self

    def stop(self) -> Onlooker:
        """Read no more."""
        self._stop.set()
        self._thread.join()
        if self._failure is not None:
            raise self._failure
        return self

    def _run(self) -> None:
        try:
            with self._app.reader(*self._topics) as reader:
                while not self._stop.is_set():
                    self.seen += reader.poll(0.2)
        except (KafkaException, AssertionError) as failure:
            self._failure = failure

    def gone(self, records: Sequence[Delivery]) -> list[str]:
        """What was shown as committed, and is not among these."""
        there = {record[:3]: record for record in records}
        return [
            f"{record.topic}-{record.partition}@{record.offset}: {record.headers}"
            for record in self.seen
            if (found := there.get(record[:3])) is None
            or (found.value, found.headers) != (record.value, record.headers)
        ]


def _record(record: Delivery) -> Delivered:
    # Destinations stamp the append time; what the worker gave as the timestamp is in its own header.
    fired = next((value for name, value in record.headers if name == "delaystream-fired-at"), None)
    given_ms = int(fired) if fired is not None else record.timestamp_ms
    return Delivered(
        record.topic,
        record.partition,
        record.offset,
        record.key,
        record.value,
        record.headers,
        given_ms,
        record.timestamp_ms,
    )
