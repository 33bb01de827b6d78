"""Deciding on requests: what each one puts into the step. No await, no clock, no I/O."""

from __future__ import annotations

from typing import Final

from msgspec.structs import replace

from delaystream.codec.command import Report, attach
from delaystream.codec.envelope import Hold, encode, envelope_of
from delaystream.codec.keys import wheel_key
from delaystream.codec.outgoing import Answer, Outcome, anonymous_delivery_headers
from delaystream.core.identity import fire_id
from delaystream.core.partitioning import owner_partition
from delaystream.core.record import Record
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Action, Coordinates, Request
from delaystream.engine.accept.bulk import Bulks
from delaystream.engine.accept.rate_commands import RateCommands
from delaystream.engine.accept.reading import ParsedBatch, Said
from delaystream.engine.failures import Undecided, about_the_record
from delaystream.engine.output.events import Events
from delaystream.engine.output.letters import Letters
from delaystream.engine.pace import AT_ONCE
from delaystream.engine.policy.context import Context
from delaystream.engine.schedules.schedules import Schedules
from delaystream.engine.state.step import Route, Step, row_bytes
from delaystream.engine.suspects import Stage
from delaystream.query.view import PendingFire

# Naming a member through its class is slow (Python 3.11).
_SCHEDULE: Final = Action.SCHEDULE
_RATE: Final = Action.RATE


class Intake:
    """Puts requests into steps."""

    def __init__(
        self, context: Context, schedules: Schedules, bulks: Bulks, letters: Letters, events: Events
    ) -> None:
        self._rate_commands = RateCommands(context)
        self._suspects = context.suspects
        self._holds = context.holds
        self._partition = context.partition
        self._settings = context.settings
        self._state = context.state
        self._deliveries = schedules.deliveries
        self._letters = letters
        self._events = events
        self._schedules = schedules
        self._bulks = bulks
        self._quotas = schedules.quotas

    def take(self, step: Step, parsed: ParsedBatch, applied: int) -> int:
        """Decide on the records from offset ``applied`` on; how many of the batch's there was room for."""
        topic = parsed.batch.topic
        is_command = topic == self._settings.commands_topic
        max_records, max_bytes, max_partitions = step.max_records, step.max_bytes, step.max_partitions
        written = step.written
        accepted = taken = 0
        suspects, turn_over = self._suspects, step.turn_over
        at: Record | None = None
        try:
            for record, request in parsed.requests:
                if (
                    step.records >= max_records
                    or step.size_bytes >= max_bytes
                    or len(written) >= max_partitions
                    or (taken and not taken % AT_ONCE and turn_over())
                ):
                    break
                offset = record.source.offset
                if suspects and (topic, offset) in suspects:
                    if not step.records:
                        at = record
                        self._decide_alone(step, record, request)
                        taken += 1
                    break
                taken += 1
                if offset < applied:
                    continue
                at = record
                step.records += 1
                if self._decide(step, record, request):
                    accepted += 1
        except Exception as failure:
            if at is not None and about_the_record(failure):
                raise Undecided((topic, at.source.offset)) from failure
            raise
        if accepted and not is_command:
            step.accepted[topic] += accepted
        if taken == len(parsed.batch.records):
            step.positions[topic] = parsed.batch.stop
        elif taken:
            step.positions[topic] = parsed.requests[taken - 1][0].source.offset + 1
        return taken

    def _decide(self, step: Step, record: Record, request: Said) -> bool:
        """Carry out one request, or refuse it; whether it was accepted."""
        if type(request) is Request:
            if request.id is None and request.action is _SCHEDULE:
                rejection = self._schedule(step, request)
            else:
                is_command = record.source.topic == self._settings.commands_topic
                rejection = self._addressed(step, record, request, is_command=is_command)
        else:
            rejection = self._not_a_request(step, record, request)
        if rejection is None:
            return True
        self._letters.refuse(step, record, request, rejection)
        return False

    def _decide_alone(self, step: Step, record: Record, request: Said) -> None:
        """Decide on a suspect, with nothing else in the step; or give it up, if that has failed before."""
        culprit = (record.source.topic, record.source.offset)
        stage = self._suspects.stage(culprit)
        step.alone = True
        step.records += 1
        step.cleared.append(culprit)
        if stage is Stage.ALONE:
            self._decide(step, record, request)
            return
        step.size_bytes += row_bytes(record.key, record.value, record.headers)
        rejection = self._suspects.rejection(culprit)
        if type(request) is Request:
            rejection = replace(rejection, id=request.id, reply_to=request.reply_to)
        if stage is Stage.AS_BYTES:
            self._letters.dead_letter(step, replace(record, headers=()), rejection)
        else:
            self._letters.refuse(step, record, request, rejection)

    def _not_a_request(self, step: Step, record: Record, request: Said) -> Rejection | None:
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
        no_receipt = None
        if request.reply_to is not None or request.no_receipt is not None:
            no_receipt = self._letters.receipt(step, request, Answer(Outcome.SCHEDULED, self._fires(request)))
        if self._events.anonymous:
            self._events.accepted(step, request, no_receipt)
        state = self._state
        now_ms = step.now_ms
        source = request.source
        stored: bytes | None = None
        hold: Hold | None = None
        wheel = number = 0
        for index, due_ms in enumerate(times):
            if due_ms <= now_ms and (route := self._deliveries.route(step, request, due_ms)) is not None:
                self._deliver(step, route, request, index, due_ms)
                continue
            if stored is None:
                stored = encode(envelope_of(request))
                wheel = state.wheel_number(step, request.destination, source.topic)
                number = state.source(step, source.topic, source.partition)
                hold = self._holds.matching_arrival(request) if self._holds.any else None
            into = wheel
            if hold is not None and due_ms <= now_ms:
                into = state.wheel_number(step, request.destination, source.topic, hold.name)
            key = wheel_key(into, due_ms, number, source.offset, index)
            state.add_entry(step, key, stored, into, due_ms, number)
            step.size_bytes += len(stored)
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
        coordinates = b"%b%d" % (self._state.source_text(source), source.offset)
        headers = anonymous_delivery_headers([*request.headers], coordinates, index, due_ms, step.fired_at)
        partition = self._deliveries.write(step, route, request, headers, due_ms)
        if self._events.anonymous:
            fire = PendingFire(request.destination, due_ms, source, index)
            self._events.fired_anonymous(step, fire, partition, request)

    @staticmethod
    def _fires(request: Request) -> list[tuple[int, str]]:
        where = request.source.text
        return [(due_ms, fire_id(where, index, due_ms)) for index, due_ms in enumerate(request.due_ms)]

    def _addressed(
        self, step: Step, record: Record, request: Request, *, is_command: bool
    ) -> Rejection | None:
        """Apply a request with an id here, or hand it to its owner; a bulk command to every partition."""
        if is_command and request.source.partition >= self._settings.partitions and not request.source.origin:
            # The reports of a bulk command go back there.
            return Rejection(
                Code.INVALID_COMMAND,
                f"the command claims to be of partition {request.source.partition}, and there are "
                f"{self._settings.partitions}: only workers may write to the commands topic",
            )
        if request.id is None:
            step.size_bytes += row_bytes(record.key, None, record.headers)
            return self._unnamed(step, record, request, is_command=is_command)
        settings = self._settings
        step.size_bytes += row_bytes(record.key, record.value, record.headers)
        owner = owner_partition(request.id, settings.partitions)
        if owner == self._partition:
            return self._about_an_id(step, request, request.id)
        if is_command:
            return Rejection(
                Code.INVALID_COMMAND,
                f"partition {owner} owns the id, and the command is on partition {self._partition}: "
                "only workers may write to the commands topic",
            )
        step.writes_to(settings.commands_topic, settings.partitions).write(
            record.key, record.value, attach(record.headers, request), step.now_ms, owner
        )
        return None

    def _about_an_id(self, step: Step, request: Request, id: str) -> Rejection | None:
        """Decide on a request about an id, after all that commands for many still have to do with that."""
        bulks, tenant = self._bulks, request.source.topic
        bulks.flush(step, tenant, id)
        rejection = self._schedules.apply(step, request)
        if bulks.busy and request.action is _SCHEDULE:
            bulks.arrived(step, tenant, id)
        elif bulks.busy and request.action is Action.UPDATE:
            # It alone changes what a command for many matches.
            bulks.decided(step, tenant, id)
        return rejection

    def _rate(self, step: Step, record: Record, request: Request, *, is_command: bool) -> Rejection | None:
        """Begin with a rate, or with this partition's part of it."""
        if not is_command:
            return self._rate_commands.spread(step, record, request)
        self._rate_commands.apply(step, request)
        return None

    def _unnamed(self, step: Step, record: Record, request: Request, *, is_command: bool) -> Rejection | None:
        """Apply a command that names no id: about a destination, many, or one request."""
        subject = request.subject
        if request.action is _RATE:
            return self._rate(step, record, request, is_command=is_command)
        if subject is None:
            if not is_command:
                return self._bulks.spread(step, record, request)
            self._bulks.begin(step, request)
            return None
        return self._about_one(step, record, request, subject, is_command=is_command)

    def _about_one(
        self, step: Step, record: Record, request: Request, subject: Coordinates, *, is_command: bool
    ) -> Rejection | None:
        """Apply a command about one request without an id, or hand it to where that is pending."""
        settings = self._settings
        if len(request.due_ms) > 1:
            return Rejection(
                Code.LIST_TOO_LONG,
                f"the command has {len(request.due_ms)} times for a request without an id; expected one",
                reply_to=request.reply_to,
            )
        holder = subject.partition % settings.partitions
        if holder == self._partition:
            return self._bulks.search(step, request, subject)
        if is_command:
            return Rejection(
                Code.INVALID_COMMAND,
                f"what stands at partition {subject.partition} is pending on partition {holder}, and the "
                f"command is on partition {self._partition}: only workers may write to the commands topic",
            )
        # With key and value, which a dead letter keeps: it may be refused there.
        step.size_bytes += len(record.value or b"")
        step.writes_to(settings.commands_topic, settings.partitions).write(
            record.key, record.value, attach(record.headers, request), step.now_ms, holder
        )
        return None
