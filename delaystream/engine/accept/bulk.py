"""Bulk commands: one command for every schedule of a tenant that matches, on every partition.

1. The partition that reads the command sends a copy to each partition, itself included, over the commands
   topic, and begins to gather reports.
2. Each partition goes through its schedules of the tenant a slice at a time: an entry of the housekeeping
   wheel that is due at once, in every step, until the last one is behind it. How far it has got is in the
   state.
3. It then reports how many it changed, over the commands topic.
4. When all have reported, the gathering partition sends the one receipt and the one event.

Requests without an id come after the schedules in the same sweep (`delaystream.engine.accept.unnamed`). A
pause keeps them back from its first step on, and a resume ends that in its first step
(`delaystream.engine.policy.holds`).

A schedule that was asked for after the command is left alone, by the same order that holds for a cancel.

Sweeps that are equally far go on together: a schedule is read once for all of them. Where two have to go the
same way, the older one is never behind: the younger one lends it the turn. All sweeps together look at a
bounded number of rows in one step (`_SLICES`). Comparisons for a later command, or for a fire, count as
records.

A sweep takes time, and the requests of one request partition about an id have one order. So the commands at
work are flushed: carried out on an id before any later command, and before a fire, decides on it
(`Bulks.flush`). The sweep then passes the id by. The partition that reads a command begins with its own part
in the same step. A sweep uses the holds as they were when it began. A schedule that came after a later
command finds the holds as that command has left them, whichever sweep comes by.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Collection, Sequence
from typing import Final, NamedTuple

from msgspec.structs import replace

from delaystream.codec.command import Report, attach, report_headers
from delaystream.codec.envelope import (
    LIVE,
    Bulk,
    Envelope,
    Gathering,
    Hold,
    HoldEnd,
    Schedule,
    Status,
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
    offset_of,
    place_of,
    schedule_key,
    source_of,
    split_schedule_key,
    wheel_key,
    wheel_of,
)
from delaystream.codec.outgoing import Answer, Outcome
from delaystream.core.identity import revision
from delaystream.core.order import Moment, newer
from delaystream.core.record import Record
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Action, Coordinates, Match, Request
from delaystream.engine.accept.at_work import AtWork
from delaystream.engine.accept.unnamed import FIRST_WHEEL, Unnamed, where
from delaystream.engine.failures import Undecided, about_the_record
from delaystream.engine.output.letters import Letters
from delaystream.engine.policy.context import Context
from delaystream.engine.policy.holds import PastHolds
from delaystream.engine.schedules import terms
from delaystream.engine.schedules.schedules import Schedules
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state.step import Step
from delaystream.engine.suspects import Stage
from delaystream.query.rows import everything

_OUTCOMES: Final = {
    Action.CANCEL: Outcome.CANCELLED,
    Action.PAUSE: Outcome.PAUSED,
    Action.RESUME: Outcome.RESUMED,
}
_EVENTS: Final = {action: EventType(outcome.value) for action, outcome in _OUTCOMES.items()}

#: Most slices that all sweeps together go through in one step.
_SLICES: Final = 4
#: So many commands are compared with a schedule in the time that it takes to read it, or to decide on a
#: record.
_COMPARED_AT_ONCE: Final = 8
#: Fewest schedules of a step, however many commands there are: where each has got to is written anew.
_FEWEST: Final = 16
_NONE: Final[frozenset[bytes]] = frozenset()
#: Most views of the holds that are kept. Schedules that came between the same two commands share one.
_MOST_VIEWS: Final = 64


class Passed(NamedTuple):
    """Commands at work that are done with a schedule, by their keys, and the number of the latest one."""

    commands: frozenset[bytes]
    latest: int


_NOBODY: Final = Passed(_NONE, 0)


class Bulks:
    """Carries out bulk commands on one partition."""

    def __init__(self, context: Context, schedules: Schedules, letters: Letters) -> None:
        self._holds = context.holds
        self._unnamed = Unnamed(context, schedules.answers, letters, schedules.descriptions)
        self._suspects = context.suspects
        self._partition = context.partition
        self._settings = context.settings
        self._state = context.state
        self._commands = schedules.commands
        self._answers = schedules.answers
        self._letters = letters
        #: the step that these are about: the commands that it has taken up, those whose sweeps have gone on
        #: in it, and how many schedules, or entries, it may still look at
        self._step = -1
        self._taken_up: set[bytes] = set()
        self._gone_on: set[bytes] = set()
        self._room = 0
        #: whose turns follow in it, and who has the first one in the next
        self._turns: list[bytes] | None = None
        self._next: bytes | None = None
        self._refused = False
        #: the step that has last carried out a command about one request
        self._decided = -1
        #: those whose sweeps have not ended, in their order, by their keys
        self._at_work = AtWork()
        #: the holds as each of them knows them, by those that a schedule has passed
        self._views: dict[frozenset[bytes], PastHolds] = {}
        found = [(key, decode_bulk(value)) for key, value in everything(context.state.store, b"b", b"c")]
        for key, bulk in sorted(found, key=lambda item: item[1].number):
            self._at_work[key] = bulk
            if bulk.subject is not None:
                context.state.withhold(where(bulk))
        #: the keys of those that were read here, until all partitions have reported
        self._gathering = {
            key
            for key, value in everything(context.state.store, b"g", b"h")
            if decode_gathering(value).action is not Action.RATE
        }

    @property
    def busy(self) -> bool:
        """Whether any sweep is under way: ids and entries are flushed before anything is decided on them."""
        return bool(self._at_work)

    @property
    def replies(self) -> set[str]:
        """The topics that what is decided here may write a receipt to: their commands are long read."""
        at_work = self._at_work.values()
        return {bulk.reply_to for bulk in at_work if bulk.subject is not None and bulk.reply_to is not None}

    def flush(self, step: Step, tenant: str, id: str) -> None:
        """Carry out on an id all that is still on its way to it, before anything else is decided on it."""
        if not self._at_work:
            return
        key = schedule_key(tenant, id)
        stored = self._state.get(step, key)
        if stored is not None:
            self._flush(step, key, stored)

    def flush_entry(self, step: Step, key: bytes, stored: bytes, entry: Envelope) -> bool:
        """Carry out on an entry without an id what is on its way to it; whether that took it out."""
        compared = self._about_entry(key, entry)
        step.records += len(compared) // _COMPARED_AT_ONCE
        for of in compared:
            bulk = self._at_work[of]
            flushed = self._unnamed.flush(step, bulk, key, stored, entry)
            if flushed is not None:
                self._keep(step, of, flushed)
                if bulk.subject is not None:
                    self.rekeyed(step, key, flushed.found[-1], entry)
                return True
        return False

    def _about_entry(self, key: bytes, entry: Envelope) -> list[bytes]:
        """The commands at work that may be about an entry without an id."""
        state = self._state
        moment = Moment(state.sources[source_of(key)], offset_of(key), entry.timestamp_ms)
        topic = state.destinations[wheel_of(key)]
        return self._at_work.about_entry(moment, topic, entry.tags, entry.delivered_key)

    def _about_schedule(self, step: Step, id: str, schedule: Schedule) -> list[bytes]:
        """The commands at work that may be about a schedule."""
        return self._at_work.about_schedule(
            id, schedule, lambda: self._state.payload(step, id, schedule).delivered_key
        )

    def with_swept(self, key: bytes, entry: Envelope) -> Envelope:
        """An entry without an id that goes to the topic for late ones, after `flush_entry`.

        It notes the commands at work that would be about it there.
        """
        new = [
            bulk.place
            for bulk in self._at_work.values()
            if bulk.sweeps_wheels and self._unnamed.meets_later(bulk, key, entry)
        ]
        return replace(entry, swept=[*entry.swept, *new]) if new else entry

    def rekeyed(self, step: Step, old: bytes, new: bytes, entry: Envelope) -> None:
        """A hold has given an entry without an id another key."""
        for of in self._about_entry(old, entry):
            bulk = self._at_work[of]
            if (counted := self._unnamed.rekeyed(bulk, old, new, entry)) is not bulk:
                self._keep(step, of, counted)

    def _flush(self, step: Step, key: bytes, stored: bytes, sweeping: Collection[bytes] | None = None) -> int:
        """Carry out the commands at work on one schedule, in order; how many bytes were written for that.

        With `sweeping`, only the commands under these keys, whose sweeps are passing by. A command that is
        carried out before its sweep comes by is noted in the schedule.
        """
        tenant, id = split_schedule_key(key)
        schedule = decode_schedule(stored)
        if schedule.status not in LIVE:
            return 0
        changed, passed = False, self._passed(schedule)
        swept = self._still_swept(schedule)
        compared = deque(self._about_schedule(step, id, schedule) if sweeping is None else sweeping)
        if sweeping is None:
            step.records += len(compared) // _COMPARED_AT_ONCE
        while compared:
            of = compared.popleft()
            bulk = self._at_work[of]
            if bulk.place in swept or not self._is_about(step, bulk, key, tenant, id, schedule):
                continue
            if sweeping is None:
                # Also where there is nothing to change: what comes after it may change that.
                swept = [*swept, bulk.place]
            after = self._carry_out(step, id, replace(schedule, swept=swept), of, self._known(of, passed))
            if after is None:
                continue
            schedule, changed = after, True
            if schedule.status not in LIVE:
                return len(stored)
            if sweeping is None:
                # Another hold may keep the schedule back now, so other commands may be about it.
                left = self._about_schedule(step, id, schedule)
                compared = deque(key for key in left if self._at_work[key].number > bulk.number)
        if not set(swept) <= {*schedule.swept}:
            step.changes[key] = encode(replace(schedule, swept=swept))
            changed = True
        return len(stored) if changed else 0

    def _carry_out(
        self, step: Step, id: str, schedule: Schedule, of: bytes, known: Sequence[Hold]
    ) -> Schedule | None:
        """Carry out one command on a schedule that it is about, tell of it, count it.

        None: there is nothing to change. `known` are the holds as the command knows them.
        """
        bulk = self._at_work[of]
        counted = replace(bulk, matched=bulk.matched + 1)
        after = self._commands.switch_one_of_many(step, id, _commanded(schedule, bulk), bulk, known)
        if after is not None:
            stays = after.status is Status.PAUSED
            told = EventType.PAUSED if stays else _EVENTS[bulk.action]
            self._answers.events.changed(step, id, told, after, bulk)
            if bulk.action is not Action.RESUME:
                counted = replace(counted, count=bulk.count + 1)
            elif not stays:
                at_once = bulk.at_once + self._commands.at_once(step, id, after)
                counted = replace(counted, count=bulk.count + 1, at_once=at_once)
        self._keep(step, of, counted)
        return after

    def _still_swept(self, schedule: Schedule) -> list[tuple[int, int, str]]:
        """The places of the commands at work that are done with a schedule."""
        has, tenant = self._at_work.has, schedule.topic
        return [place for place in schedule.swept if has(tenant, place)]

    def _known(self, of: bytes, passed: Passed) -> Sequence[Hold]:
        """The holds as a command at work knows them; by a schedule that others have `passed`."""
        number = self._at_work[of].number
        without = passed.commands if passed.latest > number else _NONE
        views = self._views.get(without)
        if views is None:
            if len(self._views) >= _MOST_VIEWS:
                self._views.clear()
            views = self._views[without] = self._holds.as_of(self._at_work.changing, without)
        return views.at(number)

    def _passed(self, schedule: Schedule) -> Passed:
        """The commands at work that have changed holds before a schedule came.

        One that is done with what the id was before may be newer than what it is now.
        """
        if not schedule.swept:
            return _NOBODY
        tenant, swept = schedule.topic, {*schedule.swept}
        passed = {
            key: bulk.number
            for key, bulk in self._at_work.changing.items()
            if bulk.tenant == tenant and bulk.place in swept and newer(schedule.moment, bulk.moment)
        }
        return Passed(frozenset(passed), max(passed.values(), default=0))

    def arrived(self, step: Step, tenant: str, id: str) -> None:
        """A schedule has come while commands are at work: those that it is newer than are done with it.

        So what they have done to holds was done before it came, also where an older command, from another
        request partition, has still to come by and is about it.
        """
        key = schedule_key(tenant, id)
        stored = step.changes.get(key)
        if stored is None:
            return
        schedule = decode_schedule(stored)
        if schedule.status not in LIVE:
            return
        swept = {*schedule.swept}
        new = [
            bulk.place
            for bulk in self._at_work.changing.values()
            if bulk.tenant == tenant and bulk.place not in swept and newer(schedule.moment, bulk.moment)
        ]
        if new:
            step.changes[key] = encode(replace(schedule, swept=[*schedule.swept, *new]))

    def decided(self, step: Step, tenant: str, id: str) -> None:
        """A command has changed what is matched of an id: the commands at work were flushed before it.

        So whatever is about the schedule by now, and was not before, is noted: its sweep passes it by.
        """
        if not self._at_work:
            return
        key = schedule_key(tenant, id)
        stored = step.changes.get(key)
        if stored is None:
            return
        schedule = decode_schedule(stored)
        if schedule.status not in LIVE:
            return
        new = [
            bulk.place
            for of in self._about_schedule(step, id, schedule)
            if (bulk := self._at_work[of]).place not in schedule.swept
            and self._is_about(step, bulk, key, tenant, id, schedule)
        ]
        if new:
            step.changes[key] = encode(replace(schedule, swept=[*schedule.swept, *new]))

    def _is_about(self, step: Step, bulk: Bulk, key: bytes, tenant: str, id: str, schedule: Schedule) -> bool:
        """Whether a command is still on its way to a schedule, and about it as it is now."""
        return (
            bulk.tenant == tenant
            and key >= bulk.cursor
            and id.startswith(bulk.match.id_prefix or "")
            and _concerned(bulk, schedule)
            and self._has_key(step, bulk, id, schedule)
        )

    def _has_key(self, step: Step, bulk: Bulk, id: str, schedule: Schedule) -> bool:
        """Whether a schedule delivers with the key that a command asks for; read only where it does."""
        key = bulk.match.key
        return key is None or self._state.payload(step, id, schedule).delivered_key == key

    def _keep(self, step: Step, key: bytes, bulk: Bulk) -> None:
        self._at_work[key] = bulk
        step.changes[key] = encode(bulk)

    def spread(self, step: Step, record: Record, request: Request) -> Rejection | None:
        """Begin with a command that was just read, and send it to all other partitions; all report here.

        A rejection changes nothing.
        """
        if rejection := self._refusal(request) or self._holds.refusal(request):
            return rejection
        gathering = Gathering(
            request.action,
            [],
            0,
            request.actor,
            request.no_receipt,
            until_ms=-1 if request.until_ms is None else request.until_ms,
            note=request.terms.note,
        )
        send_to_others(step, self._settings, self._partition, record, request, gathering)
        source = request.source
        self._gathering.add(gathering_key(source.place, source.partition, source.offset))
        self.begin(step, request)
        return None

    def _refusal(self, request: Request) -> Rejection | None:
        """Why a command has to wait until others are done; None where it need not.

        A copy of what another partition has taken never does: it is counted where it was read, until every
        partition is done with it.
        """
        tenant, most = request.source.topic, self._settings.max_commands_at_work
        at_work = {key[1:] for key, bulk in self._at_work.items() if bulk.tenant == tenant}
        at_work |= {key[1:] for key in self._gathering if place_of(key) == tenant}
        if len(at_work) < most:
            return None
        return Rejection(
            Code.TOO_MANY_COMMANDS,
            f"{len(at_work)} bulk commands, and commands by coordinates, of {tenant} are at work on "
            f"partition {self._partition}; expected fewer than {most} (max_commands_at_work): send it again "
            "when some of them are done",
            reply_to=request.reply_to,
        )

    def begin(self, step: Step, request: Request) -> None:
        """Take up a command that was sent to this partition."""
        source = request.source
        match = request.match
        assert match is not None
        key = bulk_key(source.place, source.partition, source.offset)
        if self._state.get(step, key) is not None:
            return  # a copy that no worker wrote: one sweep is at work
        holds: list[str] = []
        at_once = 0
        others = [bulk for bulk in self._at_work.values() if bulk.tenant == request.source.topic]
        alone = all(bulk.cursor >= FIRST_WHEEL for bulk in others)
        if request.action is Action.PAUSE:
            holds = self._holds.begin(step, request, key, alone=alone)
        elif request.action is Action.RESUME:
            holds, at_once = self._holds.end(step, request, key, alone=alone)
        bulk = self._begun(step, request, match, schedule_key(source.topic, match.id_prefix or ""))
        self._take_up(step, key, replace(bulk, holds=holds, at_once=at_once))

    def end_hold(self, step: Step, key: bytes, entry: HoldEnd) -> None:
        """The hold of a pause ends by itself; what it has paused has ends of its own.

        Or nothing is left of one that has ended, by now.
        """
        if entry.key[:1] == b"e":
            self._holds.look(step, entry)
            return
        hold = self._holds.expire(step, key, entry)
        self._views.clear()
        self._answers.events.hold_ended(step, hold, self._partition)

    def search(self, step: Step, request: Request, subject: Coordinates) -> Rejection | None:
        """Take up a command about one request without an id; a rejection changes nothing."""
        source = request.source
        key = bulk_key(source.place, source.partition, source.offset)
        if self._state.get(step, key) is not None:
            return None  # as above
        if rejection := self._refusal(request):
            return rejection
        bulk = self._begun(step, request, Match(), FIRST_WHEEL)
        bulk = replace(
            bulk,
            subject=(subject.partition, subject.offset, subject.origin),
            due_ms=request.due_ms[0] if request.due_ms else -1,
            no_receipt=request.no_receipt,
            read=self._unnamed.is_read(step, subject, source),
        )
        self._take_up(step, key, bulk)
        return None

    def _begun(self, step: Step, request: Request, match: Match, cursor: bytes) -> Bulk:
        source = request.source
        number = self._state.source(step, source.topic, source.partition, source.origin)
        return Bulk(
            source.topic,
            source.partition,
            source.offset,
            request.timestamp_ms,
            request.action,
            match,
            cursor,
            # Always due: a command at work goes on even if the clock steps back.
            wheel_key(HOUSEKEEPING, 0, number, source.offset, 0),
            next((bulk.number for bulk in reversed(self._at_work.values())), 0) + 1,
            reply_to=request.reply_to,
            actor=request.actor,
            origin=source.origin,
            note=request.terms.note,
            until_ms=-1 if request.until_ms is None else request.until_ms,
            once=request.lateness,
        )

    def _take_up(self, step: Step, key: bytes, bulk: Bulk) -> None:
        self._begin_step(step)
        self._taken_up.add(key)
        self._keep(step, key, bulk)
        self._views.clear()
        self._state.add_pointer(step, bulk.entry, encode(Sweep(key)), HOUSEKEEPING, 0)

    def _begin_step(self, step: Step) -> None:
        if self._step == step.number:
            return
        self._step = step.number
        self._taken_up.clear()
        self._gone_on.clear()
        self._room = _SLICES * self._settings.bulk_slice
        self._turns, self._refused = None, False

    def sweep(self, step: Step, entry_key: bytes, entry: Sweep) -> None:
        """Go on for one slice; with the last of them done, report."""
        self._begin_step(step)
        of = self._whose_turn(entry.key)
        done = self._is_done(step, of)
        if not done or of != entry.key:
            self._state.add_pointer(step, entry_key, encode(entry), HOUSEKEEPING, due_of(entry_key))
        if not done:
            return
        bulk = self._at_work.end(of)
        step.changes[of] = None
        self._holds.swept(step, of)
        self._views.clear()
        if of != entry.key:
            self._state.remove_pointer(step, bulk.entry)
        if bulk.subject is not None:
            self._unnamed.decide(step, bulk)
            self._decided = step.number
            return
        if bulk.origin:
            return  # it was imported on its way, and nobody here gathers what is reported of it
        source = bulk.source
        report = Report(
            source,
            self._partition,
            bulk.count,
            bulk.reply_to,
            bulk.matched,
            bulk.anonymous,
            len(bulk.holds),
            bulk.at_once,
        )
        settings = self._settings
        step.writes_to(settings.commands_topic, settings.partitions).write(
            None, None, report_headers(report), step.now_ms, source.partition
        )

    def _whose_turn(self, key: bytes) -> bytes:
        """The key of the command that goes on in place of this one, or its own.

        All have their turns, beginning with whoever had none in the last step: one may have room for few.
        One at a time goes through the wheels, in their order. A command that waits lends its turn.
        """
        key = self._turn() or key
        if self._at_work[key].cursor >= FIRST_WHEEL:
            key = next(of for of, bulk in self._at_work.items() if bulk.sweeps_wheels)
        while (older := self._older_behind(key)) is not None:
            key = older
        return key

    def _turn(self) -> bytes | None:
        """The next command; None when all have had their turns in this step."""
        if self._turns is None:
            turns = [of for of in self._at_work if of not in self._taken_up]
            first = turns.index(self._next) if self._next in turns else 0
            # Taken from its end.
            self._turns = [*turns[first:], *turns[:first]][::-1]
        while self._turns:
            of = self._turns.pop()
            if of in self._at_work:
                if not self._refused:
                    self._next = self._turns[-1] if self._turns else None
                return of
        return None

    def _older_behind(self, key: bytes) -> bytes | None:
        """The oldest command that has still to come to where this one is, of those that are older."""
        bulk = self._at_work[key]
        if bulk.cursor >= _stop(bulk) or key in self._gone_on or not self._any_room:
            return None
        self._room -= len(self._at_work) // _COMPARED_AT_ONCE
        for of, older in self._at_work.items():
            if of == key:
                break
            if older.tenant == bulk.tenant and older.cursor < bulk.cursor < _stop(older):
                return of
        return None

    def _is_done(self, step: Step, of: bytes) -> bool:
        """Go through one slice, of the schedules or of the wheels; whether nothing is left."""
        if of in self._taken_up:
            # Requests of this very step that came before it are not in the store yet.
            return False
        if self._at_work[of].cursor < FIRST_WHEEL:
            if not self._is_through(step, of):
                return False
            bulk = self._at_work[of]
            if not bulk.sweeps_wheels:
                return True
            self._keep(step, of, replace(bulk, cursor=FIRST_WHEEL))
            return False
        if self._decided == step.number or not self._has_room(of):
            # The decided command has put entries into the wheels that are not in the store yet.
            return False
        self._gone_on.add(of)
        self._room -= self._settings.bulk_slice
        bulk, done = self._unnamed.go_on(step, self._at_work[of])
        self._keep(step, of, bulk)
        return done

    def _is_through(self, step: Step, of: bytes) -> bool:
        """Whether the schedules are behind it, if need be after one more slice."""
        stop = _stop(self._at_work[of])
        if self._at_work[of].cursor < stop and of not in self._gone_on and self._has_room(of):
            self._go_through(step, of)
        return self._at_work[of].cursor >= stop

    @property
    def _any_room(self) -> bool:
        """Whether the step may look at anything more."""
        return self._room > 0 or not self._gone_on

    def _has_room(self, of: bytes) -> bool:
        """The same for one command; the first for which there is none comes first in the next step."""
        if not self._any_room and not self._refused:
            self._next, self._refused = of, True
        return self._any_room

    def _go_through(self, step: Step, of: bytes) -> None:
        """Go through one slice of the schedules, with all whose sweeps are as far in it."""
        leader, most = self._at_work[of], self._settings.bulk_slice
        source = Coordinates(leader.tenant, leader.partition, leader.offset, leader.origin)
        stop, cursor = _stop(leader), leader.cursor
        fewest = 0 if self._gone_on else _FEWEST
        self._gone_on.add(of)
        scanned = self._state.store.scan(cursor, stop, most)
        company = self._company(of, scanned[-1][0] if len(scanned) == most else stop)
        for number, (key, value) in enumerate(scanned):
            if step.size_bytes >= step.max_bytes or (self._room <= 0 and number >= fewest):
                break
            self._room -= 1 + len(company) // _COMPARED_AT_ONCE
            cursor = key + b"\0"
            current = step.changes.get(key, value)
            if current is None:
                continue
            if self._suspects and key in self._suspects:
                if self._left_out(step, source, key, current):
                    continue
                step.cleared.append(key)
            try:
                written = self._flush(step, key, current, company)
            except Exception as failure:
                if about_the_record(failure):
                    raise Undecided(key) from failure
                raise
            if written:
                step.records += 1
                step.size_bytes += written
        else:
            if len(scanned) < most:
                cursor = stop
        for other in company:
            bulk = self._at_work[other]
            if bulk.cursor < cursor:
                self._gone_on.add(other)
                self._keep(step, other, replace(bulk, cursor=cursor))

    def _company(self, of: bytes, end: bytes) -> list[bytes]:
        """The commands that go through the schedules with this one, up to an end, in their order.

        Of the younger ones only those before the first that has still to come to where it is.
        """
        leader, company, younger = self._at_work[of], list[bytes](), False
        for other, bulk in self._at_work.items():
            if other == of:
                younger = True
            elif bulk.tenant != leader.tenant or _stop(bulk) <= max(leader.cursor, bulk.cursor):
                continue
            elif younger and (bulk.cursor < leader.cursor or other in self._taken_up):
                break
            elif bulk.cursor > end:
                continue
            company.append(other)
        return company

    def _left_out(self, step: Step, source: Coordinates, key: bytes, stored: bytes) -> bool:
        """Whether a suspect is passed over; its record is a dead letter then."""
        if self._suspects.stage(key) is Stage.ALONE:
            return False
        row = Record(source, -1, key, stored, ())
        self._letters.dead_letter(step, row, self._suspects.rejection(key))
        step.cleared.append(key)
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
            matched=gathering.matched + report.matched,
            anonymous=gathering.anonymous + report.anonymous,
            holds=max(gathering.holds, report.holds),
            at_once=gathering.at_once + report.at_once,
        )
        if len(gathering.reported) < self._settings.partitions:
            step.changes[key] = encode(gathering)
            return
        step.changes[key] = None
        self._gathering.discard(key)
        if gathering.action is Action.RATE:
            no_receipt = self._letters.summary(
                step, source, report.reply_to, gathering.no_receipt, Answer(Outcome.RATE_SET)
            )
            self._answers.events.rate_set(step, source, gathering, no_receipt)
            return
        outcome = _OUTCOMES[gathering.action]
        ended = gathering.holds if gathering.action is Action.RESUME else 0
        if not (gathering.matched or gathering.anonymous or ended):
            outcome = Outcome.NO_MATCH
        counted = {
            "count": gathering.count,
            "matched": gathering.matched,
            "anonymous": gathering.anonymous,
            "holds": gathering.holds,
        }
        if gathering.action is Action.RESUME:
            counted["fires_at_once"] = gathering.at_once
        if gathering.until_ms >= 0:
            counted["until_ms"] = gathering.until_ms
        no_receipt = self._letters.summary(
            step, source, report.reply_to, gathering.no_receipt, Answer(outcome, counted=counted)
        )
        self._answers.events.bulk(step, source, gathering, no_receipt)


def _stop(bulk: Bulk) -> bytes:
    """Where the schedules end that a command may be about."""
    return after_prefix(schedule_key(bulk.tenant, bulk.match.id_prefix or ""))


def _commanded(schedule: Schedule, bulk: Bulk) -> Schedule:
    """A schedule as a command is about to find it: who has commanded it when, and with which words."""
    version = revision(bulk.partition, bulk.offset)
    commanded = replace(schedule, version=version, note=bulk.note)
    commanded = terms.touched(commanded, bulk.timestamp_ms, bulk.actor)
    if bulk.action is Action.CANCEL:
        # Like any cancel it refuses older requests. The coordinates stay: they name the entries.
        timestamp_ms = max(schedule.timestamp_ms, bulk.timestamp_ms)
        commanded = replace(commanded, timestamp_ms=timestamp_ms)
    return commanded


def _concerned(bulk: Bulk, schedule: Schedule) -> bool:
    """Whether a command is about a schedule: it matches, and was there before the command."""
    if schedule.status not in LIVE:
        return False
    if bulk.action is Action.RESUME and schedule.held_by and schedule.held_by in bulk.holds:
        # A resume that ends a hold resumes all that the hold has paused, even newer schedules.
        return True
    if newer(schedule.moment, bulk.moment):
        return False
    return bulk.match.fits_topic(schedule.destination) and bulk.match.fits_tags(schedule.tags)


def send_to_others(
    step: Step,
    settings: EngineSettings,
    partition: int,
    record: Record,
    request: Request,
    gathering: Gathering,
) -> None:
    """Send a command that was just read on a partition to all others; what all report is gathered here."""
    topic_writes = step.writes_to(settings.commands_topic, settings.partitions)
    headers = attach(record.headers, request)
    for other in range(settings.partitions):
        if other != partition:
            topic_writes.write(None, None, headers, step.now_ms, other)
    source = request.source
    step.changes[gathering_key(source.place, source.partition, source.offset)] = encode(gathering)
