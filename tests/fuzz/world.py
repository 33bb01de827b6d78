"""A script on a real engine in memory, and the account of every record and every fire at its end."""

from __future__ import annotations

import asyncio
import json
import re
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

from delaystream.codec import keys
from delaystream.codec.command import Command, Report, detach
from delaystream.codec.envelope import (
    Envelope,
    decode_entry,
    decode_hold,
    decode_position,
    decode_schedule,
    decode_source,
)
from delaystream.codec.event import Event, EventType, decode_event
from delaystream.codec.requests.headers import RequestParser
from delaystream.codec.requests.names import kind_of
from delaystream.codec.requests.values import RefusedError
from delaystream.core.destinations import DestinationFilter
from delaystream.core.identity import split_fire_id, split_schedule_id
from delaystream.core.limits import Limits
from delaystream.core.request import Coordinates, Header
from delaystream.dialects import by_name
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.engine.ports import TopicPartition
from delaystream.engine.state.step import row_bytes
from delaystream.testing import LogRecord, MemorySources, VirtualTimeLoop
from delaystream.testing.partition import Topic
from tests.fuzz.scripts import (
    COMMANDS,
    DESTINATIONS,
    DIALECTS,
    NARROW,
    REQUESTS,
    SECOND_MS,
    Away,
    ClockStep,
    Happening,
    Pass,
    Script,
    Send,
    Turn,
)
from tests.simulation.reckoning import differences, miscounts, whole_state
from tests.unit.engine import OWN, RECEIPTS, Engine, header

LETTERS, EVENTS, CHANGELOG = "delay-dead-letters", "delay-events", "delay-wheel-changelog"
REQUEST_TOPICS = (REQUESTS, NARROW, *(f"{dialect}-requests" for dialect in DIALECTS))
#: Own topics are as they should be again after so long: without them a worker ends, and that is right.
OWN_TROUBLE_S = 20
#: Longer than every backoff: what was due before it is gone by its end.
AFTERMATH_S = 90
LETTER_MAX_BYTES = 20_000

#: What a request comes to. Others are what a schedule comes to later.
OUTCOMES = frozenset(
    EventType(name)
    for name in (
        "scheduled", "replaced", "rescheduled", "paused", "resumed", "triggered", "cancelled", "rejected",
        "kept", "unchanged", "too-late", "unknown", "bulk", "updated", "repeated", "rate",
    )
)  # fmt: skip

Place = tuple[str, int, int]


class World:
    """The engine, its topics and its tenants, and what was sent to them."""

    def __init__(self, loop: VirtualTimeLoop, script: Script) -> None:
        self.loop = loop
        self.script = script
        self.engine = Engine(
            loop,
            script.partitions,
            events_anonymous=True,
            transaction_max_records=script.step_records,
            idle_wait_max_ms=30_000,
            destination_backoff_max_ms=5_000,
            own_record_max_bytes=LETTER_MAX_BYTES,
            id_retention_ms=3_600_000,
            max_triggers=3,
            bulk_slice=2,
        )
        log = self.engine.log
        for topic in REQUEST_TOPICS:
            if topic != REQUESTS:
                log.create_topic(topic, script.partitions)
        log.create_topic("emails", 3)
        log.create_topic("tiny", 1, max_message_bytes=400)
        log.create_topic("closed", 1).refusal = "not authorized"
        #: topics that are not there now
        self.hidden: dict[str, Topic] = {}
        #: by where it stands, as it was sent
        self.sent: dict[Place, Send] = {}
        #: forged commands by where they claim to come from, and how many
        self.forged: Counter[Place] = Counter()
        self.policies = self.tenants()
        self.running = False

    @staticmethod
    def tenants() -> Tenants:
        """Of each request topic the policy; each dialect is spoken on a topic of its own."""

        def tenant(allow: Sequence[str], limits: Limits, default: str | None = None, **policy: Any) -> Tenant:
            destinations = DestinationFilter(allow, [*REQUEST_TOPICS, *OWN], RECEIPTS)
            return Tenant(RequestParser(destinations, limits, default), **policy)

        own = {
            NARROW: tenant(
                ("orders", "e*"),
                Limits(
                    max_value_bytes=1_000, max_headers=8, max_id_bytes=20, max_list=3, max_delay_ms=7_200_000
                ),
                "orders",
                max_pending=4,
            )
        } | {
            f"{name}-requests": tenant("*", Limits(), dialects=[by_name(name)], default="orders")
            for name in DIALECTS
        }
        return Tenants(tenant("*", Limits()), own)

    # -- what happens

    def start(self) -> None:
        topics = [*REQUEST_TOPICS, COMMANDS]
        self.engine.start(
            lambda partition: MemorySources(self.engine.log, topics, partition), tenants=self.policies
        )
        self.running = True

    async def stop(self) -> None:
        """Stop the worker. Raises what ended it, if anything did."""
        ended = [life.done() for life in self.engine.lives]
        await self.engine.stop()
        assert not any(ended), "the worker is alive until it is stopped"
        self.running = False

    async def meets(self, happening: Happening) -> None:
        match happening:
            case Send():
                self._send(happening)
            case Pass(ms):
                await asyncio.sleep(ms / 1000)
            case Away(ms, lost):
                await self.stop()
                self.engine.clock.step(ms)
                if lost:
                    self.engine.stores.disks.clear()
                    for partition in range(self.script.partitions):
                        self.engine.log.compact(TopicPartition(CHANGELOG, partition))
                self.start()
            case ClockStep(ms):
                self.engine.clock.step(ms)
            case Turn(topic, to):
                self._turn(topic, to)
                if topic in (LETTERS, EVENTS):
                    self.loop.call_later(OWN_TROUBLE_S, self._turn, topic, "there")

    def _send(self, send: Send) -> None:
        now_ms = self.engine.clock.now_ms()
        headers = tuple((name, _filled(value, now_ms)) for name, value in send.headers)
        timestamp_ms = now_ms + send.timestamp_ms if send.from_now else send.timestamp_ms
        at = TopicPartition(send.topic, send.partition)
        offset = self.engine.log.append(at, (send.key, send.value, headers, timestamp_ms))
        self.sent[send.topic, send.partition, offset] = send._replace(headers=headers)
        if send.topic == COMMANDS:
            command, _ = detach(headers)
            if isinstance(command, Command):
                self.forged[_place(command.source)] += 1

    def _turn(self, topic: str, to: str) -> None:
        log = self.engine.log
        if to == "missing":
            if topic in log.topics:
                self.hidden[topic] = log.topics.pop(topic)
            return
        if topic in self.hidden:
            log.topics[topic] = self.hidden.pop(topic)
        if topic in log.topics:
            log.topics[topic].refusal = "not authorized" if to == "refusing" else None

    async def heal(self) -> None:
        """Every topic is there and open, and there is time to make up for what was not."""
        if not self.running:
            self.start()
        self.engine.log.topics.setdefault("absent", Topic("absent", "topic-id-absent", 2))
        for topic in (*DESTINATIONS, RECEIPTS, LETTERS, EVENTS):
            self._turn(topic, "there")
        await asyncio.sleep(AFTERMATH_S)

    # -- the account

    def account(self) -> None:
        """Hold what stands in every topic, and in the state, against what was sent."""
        state = self._state()
        events = [decode_event(record.value or b"") for record in self.engine.read(EVENTS)]
        letters = self.engine.read(LETTERS)
        deliveries, receipts = self._written()
        outcomes = self._outcomes(events)
        rejected = self._letters(letters, events)
        self._every_record(outcomes, rejected)
        self._every_fire(deliveries, events, letters)
        self._every_anonymous_fire(state, deliveries, events, outcomes)
        self._nothing_overdue(state)
        for record in deliveries:
            self._delivered_as_asked(record, events)
        self._receipts(receipts, outcomes)

    def _state(self) -> dict[bytes, bytes]:
        """The state of all partitions; the stores hold what the changelog says, and all was read."""
        engine = self.engine
        together: dict[bytes, bytes] = {}
        self.sources: dict[bytes, Place] = {}
        self.wheels: dict[bytes, str] = {}
        for partition in range(self.script.partitions):
            state = whole_state(engine.log, TopicPartition(CHANGELOG, partition))
            disk = engine.stores.disks[partition]
            assert [*differences(state, disk)] == []
            assert [*miscounts(disk)] == []
            for topic in (*REQUEST_TOPICS, COMMANDS):
                last = [r.offset for r in engine.log.read(TopicPartition(topic, partition), 0)[0]][-1:]
                if last:
                    position = decode_position(state[keys.offset_key(topic)]).next_offset
                    assert position > last[0], f"{topic}-{partition} was read up to {position}"
            standing = {decode_hold(value).name for key, value in state.items() if key[:1] == b"h"}
            for key, value in state.items():
                if key[:1] == b"w":
                    number, offset = keys.source_of(key), keys.offset_of(key)
                    source = decode_source(state[keys.source_key(number)])
                    together[bytes((partition,)) + key] = value
                    self.sources[bytes((partition,)) + key] = (source.topic, source.partition, offset)
                    if number := keys.wheel_of(key):
                        wheel = state[keys.destination_key(number)].decode()
                        topic, _, withheld_by = keys.split_wheel_name(wheel)
                        # What a hold keeps back waits for a resume, and for nothing else.
                        self.wheels[bytes((partition,)) + key] = "" if withheld_by in standing else topic
                elif key[:1] == b"s":
                    together[key] = value
        return together

    def _written(self) -> tuple[list[LogRecord], list[LogRecord]]:
        """Deliveries, and receipts."""
        deliveries: list[LogRecord] = []
        receipts: list[LogRecord] = []
        own = {*REQUEST_TOPICS, *OWN, COMMANDS, LETTERS, EVENTS, CHANGELOG}
        for topic in self.engine.log.topics.keys() - own:
            for record in self.engine.read(topic):
                names = [name for name, _ in record.headers]
                if "delaystream-receipt" in names:
                    receipts.append(record)
                else:
                    assert topic != RECEIPTS, "nothing is delivered among the receipts"
                    assert names.count("delaystream-fire-id") == 1
                    deliveries.append(record)
        return deliveries, receipts

    def _outcomes(self, events: list[Event]) -> dict[Place, list[Event]]:
        """The events that tell what became of a request, by its place."""
        found: dict[Place, list[Event]] = defaultdict(list)
        for event in events:
            if event.type in OUTCOMES and event.source is not None and not self._is_an_end(event):
                found[_parsed(event.source)].append(event)
        for place, told in found.items():
            if any(event.type is EventType.BULK for event in told):
                # What it did to each schedule is told as well.
                found[place] = [event for event in told if event.type is EventType.BULK]
        return found

    def _is_an_end(self, event: Event) -> bool:
        """Whether it is of a fire without an id that was cancelled, or of a pause that is over by itself."""
        if event.type is EventType.CANCELLED:
            return event.id is None and event.fire_id is not None
        send = self.sent.get(_parsed(event.source or ""))
        if send is None or send.topic not in (REQUESTS, NARROW):
            return False
        return event.type is EventType.RESUMED and _control(send, "action") != b"resume"

    def _letters(self, letters: list[LogRecord], events: list[Event]) -> Counter[Place]:
        """Requests among the dead letters, each with its bytes."""
        found: Counter[Place] = Counter()
        for letter in letters:
            code = _last(letter.headers, "error")
            assert code != b"internal-error"
            if code == b"quarantined":
                continue
            place = (
                (_last(letter.headers, "error-topic") or b"").decode(),
                int(_last(letter.headers, "error-partition") or b""),
                int(_last(letter.headers, "error-offset") or b""),
            )
            found[place] += 1
            if place in self.sent:
                self._letter_holds(letter, self.sent[place])
        told = Counter(_parsed(event.source or "") for event in events if event.type is EventType.REJECTED)
        assert told == found, "each rejected request is told, and is a dead letter"
        return found

    @staticmethod
    def _letter_holds(letter: LogRecord, send: Send) -> None:
        own = [
            (name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace"), value)
            for name, value in send.headers
        ]
        if (letter.key, letter.value, list(letter.headers[:-6])) == (send.key, send.value, own):
            return
        size = row_bytes(send.key, send.value, letter.headers[-6:]) + row_bytes(None, None, own)
        assert size > LETTER_MAX_BYTES, "a dead letter has the record's bytes unless it would be too large"
        assert (letter.key, letter.value, len(letter.headers)) == (None, None, 6)

    def _every_record(self, outcomes: Mapping[Place, list[Event]], rejected: Counter[Place]) -> None:
        for place, send in self.sent.items():
            told = [event.type for event in outcomes.get(place, [])]
            if _describes(send) and not told:
                continue
            if send.topic != COMMANDS:
                assert len(told) == 1, f"{send} at {place} came to {told}"
                continue
            command, _ = detach(send.headers)
            if isinstance(command, Report):
                assert told == []
            elif command is None:
                assert told == [EventType.REJECTED], f"{send} at {place} came to {told}"
                assert rejected[place] == 1
            else:
                claimed = _place(command.source)
                told = [event.type for event in outcomes.get(claimed, [])]
                if claimed not in self.sent and not _is_bulk(send):
                    assert len(told) == self.forged[claimed], f"{send} at {place} came to {told}"
        strangers = rejected.keys() - self.sent.keys() - self.forged.keys()
        assert not strangers, f"dead letters of what was never sent: {strangers}"

    def _every_fire(self, deliveries: list[LogRecord], events: list[Event], letters: list[LogRecord]) -> None:
        for record in deliveries:
            assert int(header(record, "fired-at")) >= int(header(record, "due-at")), "never early"
        fires = Counter(header(record, "fire-id") for record in deliveries)
        if not self.forged:
            assert [fire for fire, times in fires.items() if times > 1] == []
        assert fires == Counter(event.fire_id for event in events if event.type is EventType.FIRED)
        quarantined = Counter(
            (_last(letter.headers, "fire-id") or b"").decode()
            for letter in letters
            if _last(letter.headers, "error") == b"quarantined" and len(letter.headers) > 6
        )
        assert not quarantined - Counter(
            event.fire_id or "" for event in events if event.type is EventType.QUARANTINED
        )
        assert sum(_last(letter.headers, "error") == b"quarantined" for letter in letters) == sum(
            event.type is EventType.QUARANTINED for event in events
        )

    def _every_anonymous_fire(
        self,
        state: Mapping[bytes, bytes],
        deliveries: list[LogRecord],
        events: list[Event],
        outcomes: Mapping[Place, list[Event]],
    ) -> None:
        """Each due time of an accepted request without an id is delivered, told to be given up, or stored."""
        found: dict[Place, list[int]] = defaultdict(list)
        fires = [header(record, "fire-id") for record in deliveries]
        given_up = (EventType.EXPIRED, EventType.QUARANTINED, EventType.CANCELLED)
        fires += [event.fire_id or "" for event in events if event.type in given_up]
        for fire in fires:
            if (name := split_fire_id(fire)) is not None and name.id is None:
                found[_parsed(name.of)].append(int(name.index))
        for key, value in state.items():
            if key[1:2] == b"w" and isinstance(decode_entry(value), Envelope):
                found[self.sources[key]].append(keys.index_of(key[1:]))
        for place, send in self.sent.items():
            told = outcomes.get(place, [])
            if send.topic == COMMANDS or not told or told[0].type is not EventType.SCHEDULED or told[0].id:
                continue
            assert sorted(found[place]) == [*range(_times(send))], f"{send} at {place}: {found[place]}"

    def _nothing_overdue(self, state: Mapping[bytes, bytes]) -> None:
        now_ms = self.engine.clock.now_ms()
        overdue = [
            (self.sources[key], self.wheels.get(key), value)
            for key, value in state.items()
            if key[1:2] == b"w" and keys.due_of(key[1:]) < now_ms - 10 * SECOND_MS
        ]
        there = {None, *self.engine.log.topics}
        assert [entry for entry in overdue if entry[1] in there] == []
        for key, value in state.items():
            if key[:1] == b"s":
                schedule = decode_schedule(value)
                assert not schedule.over or schedule.forget_key is not None

    def _delivered_as_asked(self, record: LogRecord, events: list[Event]) -> None:
        place = _parsed(header(record, "source"))
        if place not in self.sent or place[0] == COMMANDS or place in self.forged:
            return
        send = self.sent[place]
        assert record.value == send.value
        if place[0] not in (REQUESTS, NARROW):
            return
        asked = [item for item in send.headers if _kind(item[0]) == ""]
        got = [item for item in record.headers if _kind(item[0]) == ""]
        assert got == asked
        key = _control(send, "destination-key")
        assert record.key == (send.key if key is None else key)

    def _receipts(self, receipts: list[LogRecord], outcomes: Mapping[Place, list[Event]]) -> None:
        seen: Counter[Place] = Counter()
        for record in receipts:
            body = json.loads(record.value or b"")
            place = _parsed(body["source"])
            if place in self.forged or place not in self.sent:
                continue
            seen[place] += 1
            told = [event.type.value for event in outcomes[place]]
            if body.get("repeated"):
                assert told == ["repeated"]
            elif _describes(self.sent[place]) and body["outcome"] != "rejected":
                assert told == []
            elif told not in (["bulk"], ["rate"]):
                assert told == [body["outcome"]]
        assert all(times == 1 for times in seen.values()), "one receipt at most"


_FROM_NOW = re.compile(rb"\{now([+-]\d{1,15})\}")


def _filled(value: bytes | None, now_ms: int) -> bytes | None:
    if value is None or b"{" not in value:
        return value
    return _FROM_NOW.sub(lambda match: b"%d" % (now_ms + int(match[1])), value)


def _place(source: Any) -> Place:
    return source.topic, source.partition, source.offset


def _parsed(coordinates: str) -> Place:
    found = split_schedule_id(coordinates)
    assert found is not None, coordinates
    source = Coordinates(*found)
    return source.place, source.partition, source.offset


def _last(headers: Sequence[Header], name: str) -> bytes | None:
    return next((value for key, value in reversed(headers) if key == f"delaystream-{name}"), None)


def _kind(name: str) -> str | None:
    try:
        return kind_of(name)
    except RefusedError:
        return None


def _control(send: Send, kind: str) -> bytes | None:
    return next((value for name, value in send.headers if _kind(name) == kind), None)


def _describes(send: Send) -> bool:
    """Whether it asks for a description: that is no event."""
    return send.topic in (REQUESTS, NARROW) and _control(send, "action") == b"describe"


def _times(send: Send) -> int:
    """How many deliveries a request without an id asks for."""
    if send.topic not in (REQUESTS, NARROW):
        return 1 + max((value or b"").count(b",") for _, value in [*_timing(send), ("", b"")])
    (when,) = _timing(send)
    return 1 + (when[1] or b"").count(b",")


def _timing(send: Send) -> list[Header]:
    return [item for item in send.headers if _kind(item[0]) in ("delay", "at")]


def _is_bulk(send: Send) -> bool:
    return _control(send, "id") is None


def run(script: Script) -> None:
    """Carry a script out. Raises AssertionError for whatever is not accounted for."""
    with VirtualTimeLoop() as loop:

        async def live() -> None:
            world = World(loop, script)
            world.start()
            await asyncio.sleep(0.1)
            for happening in script.happenings:
                await world.meets(happening)
            await world.heal()
            await world.stop()
            world.account()

        loop.run_until_complete(live())
