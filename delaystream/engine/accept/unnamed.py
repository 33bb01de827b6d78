"""Commands that reach requests without an id: they have no rows by which they are found.

So each goes through the wheels, a slice at a time, once it has gone through the schedules:

- a cancel with `match-anonymous` takes out what it is about;
- a pause counts it: its hold keeps it back when it comes due (`delaystream.engine.policy.holds`);
- a command about one request without an id (its *subject*) gathers its entries, and when all wheels are
  behind it is carried out on them together.

One at a time does so, in their order. What comes due meanwhile is looked at first: a cancel takes it out
then, and an entry of a subject is set aside, in a wheel that nobody drains until the command is carried out.
So an entry may change its wheel while another command counts: `Unnamed.rekeyed` keeps the count.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from itertools import islice
from typing import Final

from msgspec.structs import replace

from delaystream.codec.envelope import Bulk, Envelope, decode_entry, encode
from delaystream.codec.event import EventType
from delaystream.codec.keys import (
    HOUSEKEEPING,
    due_at,
    due_of,
    in_wheel,
    index_of,
    offset_of,
    source_of,
    wheel_bound,
    wheel_of,
)
from delaystream.codec.outgoing import Answer, Outcome, ScheduleStatus
from delaystream.core.identity import fire_id
from delaystream.core.order import Moment, newer
from delaystream.core.request import Action, Coordinates
from delaystream.engine.failures import Undecided, about_the_record
from delaystream.engine.output.letters import Letters
from delaystream.engine.policy.context import Context
from delaystream.engine.schedules.answers import Answers
from delaystream.engine.schedules.describe import Descriptions
from delaystream.engine.state.step import Step
from delaystream.query.rows import CHUNK_BYTES, is_cut

#: A key without its value costs so much less to pass.
_KEYS_PER_ENTRY: Final = 10
#: Where a sweep through the wheels begins: behind that of housekeeping.
FIRST_WHEEL: Final = wheel_bound(HOUSEKEEPING + 1)

_DONE: Final = {
    Action.CANCEL: Outcome.CANCELLED,
    Action.RESCHEDULE: Outcome.RESCHEDULED,
    Action.TRIGGER: Outcome.TRIGGERED,
    Action.DESCRIBE: Outcome.DESCRIBED,
}


class Unnamed:
    """Carries out such commands on the entries of one partition.

    Where a method takes a command and returns one, the caller stores what it returns.
    """

    def __init__(
        self, context: Context, answers: Answers, letters: Letters, descriptions: Descriptions
    ) -> None:
        self._holds = context.holds
        self._descriptions = descriptions
        self._partition = context.partition
        self._settings = context.settings
        self._state = context.state
        self._answers = answers
        self._letters = letters
        self._suspects = context.suspects

    # -- what comes due before it is gone through ---------------------------------------------

    def flush(self, step: Step, bulk: Bulk, key: bytes, stored: bytes, entry: Envelope) -> Bulk | None:
        """Take an entry that came due out of its wheel, if a command is about it; None where it is not."""
        if bulk.subject is not None:
            if not self._is_of(bulk, key):
                return None
            self._state.remove_entry(step, key)
            aside = self._set_aside(step, bulk, key, stored)
            return replace(bulk, found=[*[other for other in bulk.found if other != key], aside])
        if bulk.action is not Action.CANCEL or not self._is_about(bulk, key, entry):
            return None
        self._cancel(step, bulk, key, stored)
        return replace(bulk, anonymous=bulk.anonymous + 1)

    def _set_aside(self, step: Step, bulk: Bulk, key: bytes, stored: bytes) -> bytes:
        name = where(bulk)
        self._state.withhold(name)
        return self._state.keep_back(step, key, stored, bulk.tenant, name)

    def rekeyed(self, bulk: Bulk, old: bytes, new: bytes, entry: Envelope) -> Bulk:
        """An entry has another key: what was counted is not counted again, what was not, still is."""
        if (
            bulk.subject is not None
            or bulk.action is not Action.PAUSE
            or not self._is_about(bulk, old, entry)
        ):
            return bulk
        difference = (new < bulk.cursor) - (old < bulk.cursor)
        return replace(bulk, anonymous=bulk.anonymous + difference) if difference else bulk

    def _is_of(self, bulk: Bulk, key: bytes) -> bool:
        """Whether an entry is one of the subject's, if it is of a request without an id."""
        assert bulk.subject is not None
        partition, offset, origin = bulk.subject
        return offset_of(key) == offset and self._state.sources[source_of(key)] == (
            bulk.tenant,
            partition,
            origin,
        )

    def _is_about(self, bulk: Bulk, key: bytes, entry: Envelope) -> bool:
        """Whether a command for many is about an entry: it matches, and was there before the command."""
        return self._is_of_those(bulk, key, entry, self._state.destinations[wheel_of(key)])

    def meets_later(self, bulk: Bulk, key: bytes, entry: Envelope) -> bool:
        """Whether a cancel would be about an entry if that were to be delivered to its topic for late ones.

        A pause would too, and is right: its hold keeps back what goes there while it stands.
        """
        return (
            bulk.subject is None
            and bulk.action is Action.CANCEL
            and self._is_of_those(bulk, key, entry, entry.on_late)
        )

    def _is_of_those(self, bulk: Bulk, key: bytes, entry: Envelope, topic: str) -> bool:
        source = self._state.sources[source_of(key)]
        if source[0] != bulk.tenant or bulk.place in entry.swept:
            return False
        if newer(Moment(source, offset_of(key), entry.timestamp_ms), bulk.moment):
            return False
        return bulk.match.fits_topic(topic) and bulk.match.fits(entry.tags, entry.delivered_key)

    # -- slice by slice -----------------------------------------------------------------------

    def go_on(self, step: Step, bulk: Bulk) -> tuple[Bulk, bool]:
        """Go through one slice of entries; whether none is left."""
        if bulk.subject is not None:
            return self._gather(step, bulk, self._settings.bulk_slice * _KEYS_PER_ENTRY)
        return self._go_through(step, bulk, self._settings.bulk_slice)

    def _wheels(self, bulk: Bulk) -> Iterator[tuple[bytes, bytes]]:
        """From where to where there may be what a command is about, wheel by wheel."""
        state = self._state
        for wheel in range(max(wheel_of(bulk.cursor), HOUSEKEEPING + 1), len(state.destinations)):
            topic, lane = state.destinations[wheel], state.lanes[wheel]
            if topic and lane in ("", bulk.tenant) and bulk.match.fits_topic(topic):
                yield max(bulk.cursor, state.first_key(wheel)), wheel_bound(wheel + 1)

    def _go_through(self, step: Step, bulk: Bulk, left: int) -> tuple[Bulk, bool]:
        state, cursor, count = self._state, bulk.cursor, 0
        for start, stop in self._wheels(bulk):
            scanned = state.store.scan(start, stop, left, CHUNK_BYTES)
            left -= len(scanned)
            for key, stored in scanned:
                if step.size_bytes >= step.max_bytes:
                    return replace(bulk, cursor=cursor, anonymous=bulk.anonymous + count), False
                cursor = key + b"\0"
                # Out of its wheel by now; or one that cannot be decided on: its turn is when it is due.
                if key in step.changes or key in step.local or key in self._suspects:
                    continue
                if state.sources[source_of(key)][0] != bulk.tenant:
                    continue
                count += self._pass(step, bulk, key, stored)
            if not left or is_cut(scanned, CHUNK_BYTES):
                return replace(bulk, cursor=cursor, anonymous=bulk.anonymous + count), False
        return replace(bulk, cursor=cursor, anonymous=bulk.anonymous + count), True

    def _pass(self, step: Step, bulk: Bulk, key: bytes, stored: bytes) -> bool:
        """Carry a command out on one entry, or count it; whether it is about it."""
        try:
            entry = decode_entry(stored)
            if type(entry) is not Envelope or not self._is_about(bulk, key, entry):
                return False
            if bulk.action is Action.CANCEL:
                self._cancel(step, bulk, key, stored)
                step.records += 1
        except Exception as failure:
            if about_the_record(failure):
                raise Undecided(key) from failure
            raise
        return True

    def _cancel(self, step: Step, bulk: Bulk, key: bytes, stored: bytes) -> None:
        self._state.remove_entry(step, key)
        step.size_bytes += len(stored)
        self._answers.events.cancelled_anonymous(step, self._state.fire(key), bulk)

    # -- one request --------------------------------------------------------------------------

    def _gather(self, step: Step, bulk: Bulk, left: int) -> tuple[Bulk, bool]:
        """Go through one slice of keys, and note those of the subject."""
        assert bulk.subject is not None
        state, cursor, found = self._state, bulk.cursor, bulk.found
        number = state.source_number((bulk.tenant, bulk.subject[0], bulk.subject[2]))
        if number is None:
            return bulk, True
        offset = bulk.subject[1]
        for start, stop in self._wheels(bulk):
            passed = 0
            for key in islice(state.store.keys(start, stop), left):
                passed += 1
                cursor = key + b"\0"
                if source_of(key) == number and offset_of(key) == offset and self._is_unnamed(step, key):
                    found = [*[other for other in found if other != key], key]
            left -= passed
            if not left:
                return replace(bulk, cursor=cursor, found=found), False
        return replace(bulk, cursor=cursor, found=found), True

    def _is_unnamed(self, step: Step, key: bytes) -> bool:
        """Whether an entry is still there, and of a request without an id."""
        if key in self._suspects:
            return False
        stored = self._state.get(step, key)
        return stored is not None and type(decode_entry(stored)) is Envelope

    def decide(self, step: Step, bulk: Bulk) -> None:
        """Carry out a command about one request on all that was found of it, and tell its outcome."""
        assert bulk.subject is not None
        found = [
            (key, stored)
            for key in bulk.found
            if key not in self._suspects and (stored := self._state.get(step, key)) is not None
        ]
        if bulk.action is Action.DESCRIBE:
            self._describe(step, bulk, found)
            self._state.release(step, where(bulk))
            return
        fires = self._carry_out(step, bulk, found)
        partition, offset, origin = bulk.subject
        subject = Coordinates(bulk.tenant, partition, offset, origin)
        outcome = _DONE[bulk.action] if found else self._why_not(bulk)
        named = [(due, fire_id(subject.text, index, due)) for due, index in fires]
        answer = Answer(outcome, named, counted={"count": len(found)}, about=subject.text)
        no_receipt = self._letters.summary(step, bulk.source, bulk.reply_to, bulk.no_receipt, answer)
        self._answers.events.about_one(
            step,
            bulk,
            EventType(outcome.value),
            count=len(found),
            next_at_ms=min([due for due, _ in fires], default=None),
            no_receipt=no_receipt,
        )
        self._state.release(step, where(bulk))

    def _describe(self, step: Step, bulk: Bulk, found: Sequence[tuple[bytes, bytes]]) -> None:
        """Tell what is pending of a request to whoever asked; nothing changes, and nobody else is told."""
        assert bulk.subject is not None
        partition, offset, origin = bulk.subject
        subject = Coordinates(bulk.tenant, partition, offset, origin)
        entries: list[tuple[bytes, Envelope]] = []
        for key, stored in sorted(found, key=lambda item: (due_of(item[0]), index_of(item[0]))):
            entry = decode_entry(stored)
            assert type(entry) is Envelope
            entries.append((key, entry))
        described = status = None
        outcome = self._why_not(bulk)
        fires = [self._state.fire(key) for key, _ in entries]
        if entries:
            held_by = next((name for key, entry in entries if (name := self._held_by(key, entry))), None)
            outcome = Outcome.DESCRIBED
            status, described = self._descriptions.of_unnamed(fires, entries[0][1], held_by)
        answer = Answer(
            outcome,
            [(fire.due_at_ms, fire.fire_id) for fire in fires],
            schedule=None if status is None else ScheduleStatus(status),
            described=described,
            counted={"count": len(entries)},
            about=subject.text,
        )
        self._letters.summary(step, bulk.source, bulk.reply_to, bulk.no_receipt, answer)

    def _held_by(self, key: bytes, entry: Envelope) -> str | None:
        """The hold that keeps an entry back, or will when it is due; None for none."""
        if not self._holds.any:
            return None
        holds = self._holds.of(self._state.destinations[wheel_of(key)])
        within = self._state.withheld_by[wheel_of(key)]
        hold = next((hold for hold in holds if hold.name == within), None) or self._holds.matching(
            holds, key, entry
        )
        return None if hold is None else hold.name

    def _carry_out(
        self, step: Step, bulk: Bulk, found: Iterable[tuple[bytes, bytes]]
    ) -> list[tuple[int, int]]:
        """Take the entries out, and put back what the command asks for: (due_ms, list index) of each."""
        fires: list[tuple[int, int]] = []
        for key, stored in sorted(found, key=lambda item: index_of(item[0])):
            step.records += 1
            if bulk.action is Action.CANCEL:
                self._cancel(step, bulk, key, stored)
                continue
            self._state.remove_entry(step, key)
            step.size_bytes += len(stored)
            entry = decode_entry(stored)
            assert type(entry) is Envelope
            due_ms = step.now_ms
            if bulk.action is Action.RESCHEDULE:
                if fires:
                    continue  # one time takes the place of all
                due_ms = bulk.due_ms
            # A time that is given anew is held as any other, whatever a trigger asked for before.
            entry = replace(entry, released=bulk.action is Action.TRIGGER)
            into = self._state.wheel_number(step, self._state.destinations[wheel_of(key)], bulk.tenant)
            anew = due_at(in_wheel(key, into), due_ms)
            self._state.add_entry(step, anew, encode(entry), into, due_ms)
            fires.append((due_ms, index_of(key)))
        return fires

    @staticmethod
    def _why_not(bulk: Bulk) -> Outcome:
        """Nothing of the subject is pending: it is over, if it was read here before the command was."""
        return Outcome.TOO_LATE if bulk.read else Outcome.UNKNOWN

    def is_read(self, step: Step, subject: Coordinates, command: Coordinates) -> bool:
        """Whether a request was read here before a command about it, as far as can be told.

        The step in hand included: what stands before the command on its own partition was read before it.
        """
        if (subject.partition, subject.origin) == (command.partition, command.origin):
            return subject.offset < command.offset
        if subject.origin or subject.partition != self._partition:
            return self._state.source_number((subject.topic, subject.partition, subject.origin)) is not None
        position = self._state.positions.get(subject.topic)
        read = step.positions.get(subject.topic, 0 if position is None else position.next_offset)
        return subject.offset < read


def where(bulk: Bulk) -> str:
    """The coordinates of a command, which name the wheels of what is set aside for it."""
    return bulk.source.text
