"""Bulk commands: one command for every schedule of a tenant that matches, on every partition.

1. The partition that reads the command sends a copy to each partition, itself included, over the commands
   topic, and begins to gather reports.
2. Each partition goes through its schedules of the tenant a slice at a time: an entry of the housekeeping
   wheel that is due at once, in every step, until the last one is behind it. How far it has got is in the
   state.
3. It then reports how many it changed, over the commands topic.
4. When all have reported, the gathering partition sends the one receipt and the one event.

A schedule that was asked for after the command is left alone, by the same order that holds for a cancel.
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
from delaystream.core.request import Action, Coordinates, Match, Request
from delaystream.engine.answers import Answers
from delaystream.engine.commands import Commands
from delaystream.engine.failures import Undecided, about_the_record
from delaystream.engine.letters import Letters
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

    def spread(self, step: Step, record: SourceRecord, request: Request) -> None:
        """Send a command that was just read to every partition, and expect their reports here."""
        settings = self._settings
        source = request.source
        outlet = step.outlet(settings.commands_topic, settings.partitions)
        headers = attach(record.headers, request)
        for partition in range(settings.partitions):
            outlet.write(None, None, headers, step.now_ms, partition)
        gathering = Gathering(request.action, [], 0, request.actor, request.no_receipt)
        step.changes[gathering_key(source.place, source.partition, source.offset)] = encode(gathering)

    def begin(self, step: Step, request: Request) -> None:
        """Take up a command that was sent to this partition."""
        source = request.source
        match = request.match
        assert match is not None
        bulk = Bulk(
            source.topic,
            source.partition,
            source.offset,
            request.timestamp_ms,
            request.action,
            match,
            schedule_key(source.topic, match.id_prefix or ""),
            reply_to=request.reply_to,
            actor=request.actor,
            origin=source.origin,
        )
        key = bulk_key(source.place, source.partition, source.offset)
        if self._state.get(step, key) is not None:
            return  # a copy that no worker wrote: one sweep is at work
        step.changes[key] = encode(bulk)
        number = self._state.source(step, source.topic, source.partition, source.origin)
        entry = wheel_key(HOUSEKEEPING, step.now_ms, number, source.offset, 0)
        self._state.add_entry(step, entry, encode(Sweep(key)), HOUSEKEEPING, step.now_ms, number)

    def sweep(self, step: Step, entry_key: bytes, entry: Sweep) -> None:
        """Go on for one slice; with the last of them done, report."""
        stored = self._state.get(step, entry.key)
        assert stored is not None, "a sweep has its command"
        bulk = decode_bulk(stored)
        source = Coordinates(bulk.tenant, bulk.partition, bulk.offset, bulk.origin)
        stop = after_prefix(schedule_key(bulk.tenant, bulk.match.id_prefix or ""))
        scanned = self._state.store.scan(bulk.cursor, stop, self._settings.bulk_slice)
        changed = 0
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
                switched = self._switch(step, bulk, key, current)
            except Exception as failure:
                if about_the_record(failure):
                    raise Undecided(key) from failure
                raise
            if switched:
                changed += 1
                step.size_bytes += len(value)
        step.records += changed
        bulk = replace(bulk, cursor=cursor, count=bulk.count + changed)
        if len(scanned) == self._settings.bulk_slice or (scanned and cursor != scanned[-1][0] + b"\0"):
            step.changes[entry.key] = encode(bulk)
            due_ms = due_of(entry_key)
            self._state.add_entry(step, entry_key, encode(entry), HOUSEKEEPING, due_ms)
            return
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

    def _switch(self, step: Step, bulk: Bulk, key: bytes, stored: bytes) -> bool:
        """Carry the command out on one schedule; whether that changed it."""
        schedule = decode_schedule(stored)
        if not _concerned(bulk, schedule):
            return False
        _, id = split_schedule_key(key)
        after = self._commands.switch(step, id, schedule, bulk.action)
        if after is None:
            return False
        source = Coordinates(bulk.tenant, bulk.partition, bulk.offset, bulk.origin)
        self._answers.events.changed(step, source, id, bulk.actor, _EVENTS[bulk.action], after)
        return True

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
