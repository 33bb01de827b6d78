"""Bulk commands: one command for every schedule of a tenant that matches, on every partition.

1. The partition that reads the command sends a copy to each partition, itself included, over the commands
   topic, and begins to gather reports.
2. Each partition goes through its schedules of the tenant a slice at a time: an entry of the housekeeping
   wheel that is due at once, in every step, until the last one is behind it. How far it has got is in the
   state.
3. It then reports how many it changed, over the commands topic.
4. When all have reported, the gathering partition sends the one receipt and the one event.

A schedule that was asked for after the command is left alone, by the same order that holds for a cancel.

A sweep takes time, and everything that one request partition says about an id has one order. So what is still
at work is carried out on an id before any later command, and before a fire, decides on it (`Bulks.settle`);
the sweep then passes it by. The partition that reads a command begins with its own part in the same step.
"""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import Final

from msgspec.structs import replace

from delaystream.codec.command import Report, attach, report_headers
from delaystream.codec.envelope import (
    LIVE,
    Bulk,
    Gathering,
    Schedule,
    Sweep,
    decode_bulk,
    decode_gathering,
    decode_schedule,
    encode,
)
from delaystream.codec.event import EventType
from delaystream.codec.keys import (
    HOUSEKEEPING,
    after_prefix,
    bulk_key,
    due_of,
    gathering_key,
    schedule_key,
    split_schedule_key,
    wheel_key,
)
from delaystream.codec.outgoing import Outcome
from delaystream.core.identity import revision
from delaystream.core.request import Action, Coordinates, Match, Request
from delaystream.engine import terms
from delaystream.engine.answers import Answers
from delaystream.engine.commands import Commands
from delaystream.engine.failures import Undecided, about_the_record
from delaystream.engine.letters import Letters
from delaystream.engine.pending import everything
from delaystream.engine.ports import SourceRecord
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Step
from delaystream.engine.suspects import Stage, Suspects

_OUTCOMES: Final = {
    Action.CANCEL: Outcome.CANCELLED,
    Action.PAUSE: Outcome.PAUSED,
    Action.RESUME: Outcome.RESUMED,
}
_EVENTS: Final = {action: EventType(outcome.value) for action, outcome in _OUTCOMES.items()}


class Bulks:
    """Carries out bulk commands on one partition."""

    def __init__(
        self,
        partition: int,
        settings: EngineSettings,
        state: PartitionState,
        commands: Commands,
        answers: Answers,
        letters: Letters,
        suspects: Suspects,
    ) -> None:
        self._suspects = suspects
        self._partition = partition
        self._settings = settings
        self._state = state
        self._commands = commands
        self._answers = answers
        self._letters = letters
        #: those whose sweeps have not ended, in their order, by their keys
        self._at_work: dict[bytes, Bulk] = {}
        found = [(key, decode_bulk(value)) for key, value in everything(state.store, b"b", b"c")]
        for key, bulk in sorted(found, key=lambda item: item[1].number):
            self._at_work[key] = bulk

    @property
    def busy(self) -> bool:
        """Whether any sweep is under way: a schedule may have to be settled before it is decided on."""
        return bool(self._at_work)

    def settle(self, step: Step, tenant: str, id: str) -> None:
        """Carry out on an id all that is still on its way to it, before anything else is decided on it."""
        if not self._at_work:
            return
        key = schedule_key(tenant, id)
        stored = self._state.get(step, key)
        if stored is not None:
            self._settle(step, key, stored)

    def _settle(self, step: Step, key: bytes, stored: bytes, sweeping: bytes | None = None) -> int:
        """Carry out what is at work on one schedule, in order; how many bytes were written for that.

        What was carried out is noted, but of the sweep that is just passing by, under the key `sweeping`.
        """
        tenant, id = split_schedule_key(key)
        schedule = decode_schedule(stored)
        if schedule.status not in LIVE:
            return 0
        changed = False
        at_work = {(bulk.partition, bulk.offset, bulk.origin) for bulk in self._at_work.values()}
        swept = [place for place in schedule.swept if place in at_work]
        for of, bulk in [*self._at_work.items()]:
            place = (bulk.partition, bulk.offset, bulk.origin)
            if (
                bulk.tenant != tenant
                or key < bulk.cursor
                or place in swept
                or not id.startswith(bulk.match.id_prefix or "")
                or not _concerned(bulk, schedule)
            ):
                continue
            if of != sweeping:
                # Also where there is nothing to change: what comes after it may change that.
                swept = [*swept, place]
            version = revision(bulk.partition, bulk.offset)
            before_it = replace(schedule, swept=swept, version=version, note=bulk.note)
            before_it = terms.touched(before_it, bulk.timestamp_ms, bulk.actor)
            if bulk.action is Action.CANCEL:
                # Like any cancel it refuses what is older; the coordinates stay, for they name the entries.
                timestamp_ms = max(schedule.timestamp_ms, bulk.timestamp_ms)
                before_it = replace(before_it, timestamp_ms=timestamp_ms)
            until_ms = None if bulk.until_ms < 0 else bulk.until_ms
            after = self._commands.switch(step, id, before_it, bulk.action, until_ms, bulk.once)
            if after is None:
                continue
            schedule, changed = after, True
            source = Coordinates(bulk.tenant, bulk.partition, bulk.offset, bulk.origin)
            self._answers.events.changed(step, source, id, bulk.actor, _EVENTS[bulk.action], after)
            self._keep(step, of, replace(bulk, count=bulk.count + 1))
            if schedule.status not in LIVE:
                return len(stored)
        if not set(swept) <= {*schedule.swept}:
            step.changes[key] = encode(replace(schedule, swept=swept))
            changed = True
        return len(stored) if changed else 0

    def _keep(self, step: Step, key: bytes, bulk: Bulk) -> None:
        self._at_work[key] = bulk
        step.changes[key] = encode(bulk)

    def spread(self, step: Step, record: SourceRecord, request: Request) -> None:
        """Begin with a command that was just read, and send it to all other partitions; all report here."""
        settings = self._settings
        source = request.source
        outlet = step.outlet(settings.commands_topic, settings.partitions)
        headers = attach(record.headers, request)
        for partition in range(settings.partitions):
            if partition != self._partition:
                outlet.write(None, None, headers, step.now_ms, partition)
        gathering = Gathering(request.action, [], 0, request.actor, request.no_receipt)
        step.changes[gathering_key(source.place, source.partition, source.offset)] = encode(gathering)
        self.begin(step, request)

    def begin(self, step: Step, request: Request) -> None:
        """Take up a command that was sent to this partition."""
        source = request.source
        match = request.match
        assert match is not None
        number = self._state.source(step, source.topic, source.partition, source.origin)
        entry = wheel_key(HOUSEKEEPING, step.now_ms, number, source.offset, 0)
        bulk = Bulk(
            source.topic,
            source.partition,
            source.offset,
            request.timestamp_ms,
            request.action,
            match,
            schedule_key(source.topic, match.id_prefix or ""),
            entry,
            max([bulk.number for bulk in self._at_work.values()], default=0) + 1,
            reply_to=request.reply_to,
            actor=request.actor,
            origin=source.origin,
            note=request.terms.note,
            until_ms=-1 if request.until_ms is None else request.until_ms,
            once=request.lateness,
        )
        key = bulk_key(source.place, source.partition, source.offset)
        if self._state.get(step, key) is not None:
            return  # a copy that no worker wrote: one sweep is at work
        self._keep(step, key, bulk)
        self._state.add_pointer(step, entry, encode(Sweep(key)), HOUSEKEEPING, step.now_ms, number)

    def sweep(self, step: Step, entry_key: bytes, entry: Sweep) -> None:
        """Go on for one slice; with the last of them done, report."""
        bulk = self._at_work[entry.key]
        source = Coordinates(bulk.tenant, bulk.partition, bulk.offset, bulk.origin)
        stop = after_prefix(schedule_key(bulk.tenant, bulk.match.id_prefix or ""))
        scanned = self._state.store.scan(bulk.cursor, stop, self._settings.bulk_slice)
        cursor = bulk.cursor
        for key, value in scanned:
            if step.size_bytes >= step.max_bytes:
                break
            cursor = key + b"\0"
            current = step.changes.get(key, value)
            if current is None:
                continue
            if self._suspects and key in self._suspects:
                if self._left_out(step, source, key, current):
                    continue
                step.settled.append(key)
            try:
                written = self._settle(step, key, current, sweeping=entry.key)
            except Exception as failure:
                if about_the_record(failure):
                    raise Undecided(key) from failure
                raise
            if written:
                step.records += 1
                step.size_bytes += written
        bulk = replace(self._at_work[entry.key], cursor=cursor)
        if len(scanned) == self._settings.bulk_slice or (scanned and cursor != scanned[-1][0] + b"\0"):
            self._keep(step, entry.key, bulk)
            due_ms = due_of(entry_key)
            self._state.add_pointer(step, entry_key, encode(entry), HOUSEKEEPING, due_ms)
            return
        del self._at_work[entry.key]
        step.changes[entry.key] = None
        if bulk.origin:
            return  # it was imported on its way, and nobody here gathers what is reported of it
        settings = self._settings
        step.outlet(settings.commands_topic, settings.partitions).write(
            None,
            None,
            report_headers(Report(source, self._partition, bulk.count, bulk.reply_to)),
            step.now_ms,
            source.partition,
        )

    def _left_out(self, step: Step, source: Coordinates, key: bytes, stored: bytes) -> bool:
        """Whether a suspect is passed over; its record is a dead letter then."""
        if self._suspects.stage(key) is Stage.ALONE:
            return False
        self._letters.bury(step, key, stored, (), -1, source, self._suspects.rejection(key))
        step.settled.append(key)
        return True

    def gather(self, step: Step, report: Report) -> None:
        """Note what a partition has to report; when it was the last one, tell the outcome."""
        source = report.source
        key = gathering_key(source.place, source.partition, source.offset)
        stored = self._state.get(step, key)
        if stored is None:
            return
        gathering = decode_gathering(stored)
        if report.partition in gathering.reported:
            return
        gathering = replace(
            gathering,
            reported=[*gathering.reported, report.partition],
            count=gathering.count + report.count,
        )
        if len(gathering.reported) < self._settings.partitions:
            step.changes[key] = encode(gathering)
            return
        step.changes[key] = None
        if gathering.action is Action.RATE:
            no_receipt = self._letters.summary(
                step, source, report.reply_to, gathering.no_receipt, Outcome.RATE_SET, None
            )
            self._answers.events.rate_set(step, source, gathering, no_receipt)
            return
        outcome = _OUTCOMES[gathering.action]
        no_receipt = self._letters.summary(
            step, source, report.reply_to, gathering.no_receipt, outcome, gathering.count
        )
        self._answers.events.bulk(step, source, gathering, no_receipt)


def _concerned(bulk: Bulk, schedule: Schedule) -> bool:
    """Whether a command is about a schedule: it matches, and was there before the command."""
    if schedule.status not in LIVE:
        return False
    if (schedule.topic, schedule.partition, schedule.origin) == (bulk.tenant, bulk.partition, bulk.origin):
        if schedule.offset > bulk.offset:
            return False
    elif schedule.timestamp_ms > bulk.timestamp_ms:
        return False
    return matches(bulk.match, schedule.destination, schedule.tags)


def matches(match: Match, destination: str, tags: Sequence[str]) -> bool:
    """Whether a schedule meets the conditions on its destination and tags."""
    if match.destination is not None and not fnmatchcase(destination, match.destination):
        return False
    return all(tag in tags for tag in match.tags)
