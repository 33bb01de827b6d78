"""Deciding on requests: what each one puts into the step. No await, no clock, no I/O."""

from __future__ import annotations

from typing import TypeAlias

import msgspec

from delaystream.codec.command import Report, attach
from delaystream.codec.envelope import encode, envelope_of
from delaystream.codec.keys import wheel_key
from delaystream.codec.outgoing import Outcome, anonymous_delivery_headers
from delaystream.core.identity import fire_id
from delaystream.core.partitioning import owner_partition
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Request
from delaystream.engine.bulk import Bulks
from delaystream.engine.control import Control
from delaystream.engine.deliveries import Deliveries
from delaystream.engine.events import Events
from delaystream.engine.letters import Letters
from delaystream.engine.ports import SourceBatch, SourceRecord
from delaystream.engine.quota import Quotas
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Route, Step, row_bytes
from delaystream.engine.tenants import Tenants

#: A record with what its headers say.
Parsed: TypeAlias = tuple[SourceRecord, Request | Report | Rejection]


class ParsedBatch(msgspec.Struct):
    """A batch, and what the headers of its records say."""

    batch: SourceBatch
    requests: list[Parsed]


def parse(
    tenants: Tenants, settings: EngineSettings, partition: int, batch: SourceBatch, now_ms: int
) -> ParsedBatch:
    """Read the headers of every record; what cannot be read is a rejection."""
    topic = batch.topic
    parse_one = tenants.parse_command if topic == settings.commands_topic else tenants.of(topic).parse
    unreadable = batch.unreadable
    requests: list[Parsed] = [
        (
            record,
            parse_one(
                topic,
                partition,
                record.offset,
                record.timestamp,
                record.key,
                record.value,
                record.headers,
                now_ms,
            )
            if record.offset not in unreadable
            else unreadable[record.offset],
        )
        for record in batch.records
    ]
    return ParsedBatch(batch, requests)


def topics_named(batch: ParsedBatch) -> set[str]:
    """Every topic that deciding on the batch may write to."""
    topics: set[str] = set()
    for _, request in batch.requests:
        if type(request) is Request:
            topics.add(request.destination)
        if request.reply_to is not None:
            topics.add(request.reply_to)
    topics.discard("")
    return topics


class Intake:
    """Puts requests into steps."""

    def __init__(
        self,
        partition: int,
        settings: EngineSettings,
        state: PartitionState,
        deliveries: Deliveries,
        letters: Letters,
        events: Events,
        control: Control,
        bulks: Bulks,
        quotas: Quotas,
    ) -> None:
        self._partition = partition
        self._settings = settings
        self._state = state
        self._deliveries = deliveries
        self._letters = letters
        self._events = events
        self._control = control
        self._bulks = bulks
        self._quotas = quotas

    def take(self, step: Step, parsed: ParsedBatch, applied: int) -> int:
        """Decide on the records from offset ``applied`` on; how many of the batch's there was room for."""
        topic = parsed.batch.topic
        is_command = topic == self._settings.commands_topic
        max_records = step.max_records
        max_partitions = self._settings.transaction_max_partitions
        max_bytes = step.max_bytes
        written = step.written
        accepted = taken = 0
        for record, request in parsed.requests:
            if step.records >= max_records or step.size_bytes >= max_bytes or len(written) >= max_partitions:
                break
            taken += 1
            if record.offset < applied:
                continue
            step.records += 1
            if type(request) is Request:
                if request.id is None and request.match is None:
                    rejection = self._schedule(step, request)
                else:
                    rejection = self._addressed(step, record, request, is_command=is_command)
            else:
                rejection = self._not_a_request(step, record, request)
            if rejection is None:
                accepted += 1
            else:
                self._letters.refuse(step, topic, self._partition, record, request, rejection)
        if accepted and not is_command:
            step.accepted[topic] += accepted
        if taken == len(parsed.requests):
            step.positions[topic] = parsed.batch.stop
        elif taken:
            step.positions[topic] = parsed.requests[taken - 1][0].offset + 1
        return taken

    def _not_a_request(
        self, step: Step, record: SourceRecord, request: Request | Report | Rejection
    ) -> Rejection | None:
        step.size_bytes += row_bytes(record.key, record.value, record.headers)
        if type(request) is Report:
            self._bulks.gather(step, request)
            return None
        assert type(request) is Rejection
        return request

    def _schedule(self, step: Step, request: Request) -> Rejection | None:
        if request.destination_partition is not None and (
            rejection := self._deliveries.out_of_range(request)
        ):
            return rejection
        times = request.due_ms
        if len(times) > 1:
            if rejection := self._too_heavy(request):
                return rejection
            step.records += len(times) - 1
        if self._quotas.any and (rejection := self._quotas.refusal(step, request)):
            return rejection
        if self._events.anonymous:
            self._events.accepted(step, request)
        state = self._state
        now_ms = step.now_ms
        source = request.source
        stored: bytes | None = None
        wheel = number = 0
        for index, due_ms in enumerate(times):
            if due_ms <= now_ms and (route := self._deliveries.route(step, request, due_ms)) is not None:
                self._deliver(step, route, request, index, due_ms)
                continue
            if stored is None:
                stored = encode(envelope_of(request))
                wheel = state.destination(step, request.destination, source.topic)
                number = state.source(step, source.topic, source.partition)
            key = wheel_key(wheel, due_ms, number, source.offset, index)
            state.add_entry(step, key, stored, wheel, due_ms, number)
            step.size_bytes += len(stored)
        if request.reply_to is not None:
            self._letters.receipt(step, request, Outcome.SCHEDULED, times, self._fire_ids(request))
        return None

    def _too_heavy(self, request: Request) -> Rejection | None:
        """Refuse what one transaction may not be able to hold: each due time stores the record anew."""
        count = len(request.due_ms)
        size_bytes = row_bytes(request.key, request.value, request.headers) * count
        if size_bytes <= self._settings.list_max_bytes:
            return None
        return Rejection(
            Code.LIST_TOO_LONG,
            f"the record is to be delivered {count} times, which makes {size_bytes} bytes; expected at most "
            f"{self._settings.list_max_bytes}, or an id, with which it is stored once",
            reply_to=request.reply_to,
        )

    def _deliver(self, step: Step, route: Route, request: Request, index: int, due_ms: int) -> None:
        source = request.source
        coordinates = b"%b%d" % (self._state.source_text(source.topic, source.partition), source.offset)
        headers = anonymous_delivery_headers([*request.headers], coordinates, index, due_ms, step.fired_at)
        partition = self._deliveries.write(step, route, request, headers, due_ms)
        if self._events.anonymous:
            self._events.fired_anonymous(step, source, index, due_ms, request.destination, partition)

    @staticmethod
    def _fire_ids(request: Request) -> list[str]:
        source = request.source
        return [
            fire_id(source.topic, source.partition, source.offset, index, due_ms)
            for index, due_ms in enumerate(request.due_ms)
        ]

    def _addressed(
        self, step: Step, record: SourceRecord, request: Request, *, is_command: bool
    ) -> Rejection | None:
        """Apply a request with an id here, or hand it to its owner; a bulk command to every partition."""
        if request.id is None:
            step.size_bytes += row_bytes(record.key, None, record.headers)
            if is_command:
                self._bulks.begin(step, request)
            else:
                self._bulks.spread(step, record, request)
            return None
        settings = self._settings
        step.size_bytes += row_bytes(record.key, record.value, record.headers)
        owner = owner_partition(request.source.topic, request.id, settings.partitions)
        if owner == self._partition:
            return self._control.apply(step, request)
        if is_command:
            return Rejection(
                Code.INVALID_COMMAND,
                f"partition {owner} owns the id, and the command is on partition {self._partition}: "
                "only workers may write to the commands topic",
            )
        step.outlet(settings.commands_topic, settings.partitions).write(
            record.key, record.value, attach(record.headers, request), step.now_ms, owner
        )
        return None
