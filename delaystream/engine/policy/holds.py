"""Holds: bulk pauses in force, which keep back matching requests without an id.

A schedule with an id is paused in its row; a request without an id has no such row. So the pause itself is a
row, and its begin touches no entry: each entry is compared when it comes due. If a hold meets it, it goes to
a wheel of the hold's own for its destination, which is not drained while the hold stands. When a resume ends
the hold, these wheels are drained like any others. Their entries keep their due times, so they may be late.

The rules of a resume for the late fires that its holds kept back are a row, too, as long as any of those
fires may be pending (*ended* holds).

A hold may end by itself: its row has the key of an entry in the wheel of housekeeping then.

With `match-new` a hold meets what is newer than itself too, and then schedules with an id when they arrive,
or are changed: they are stored paused, with its name and its end.

What two holds meet is kept back until both have ended: what has no id, by being looked at again; a schedule,
by passing from the one that ends to the one that stands (`Holds.keeping`).

A bulk command finds the holds as they were at its turn, however long its sweep takes: while others are at
work that came before, what a command changes of the holds is kept as it was (`Holds.as_of`).
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Container, Iterable, Sequence
from itertools import count
from typing import Final

from msgspec.structs import replace

from delaystream.codec.envelope import (
    Before,
    Bulk,
    Ended,
    Envelope,
    Hold,
    HoldEnd,
    Schedule,
    decode_before,
    decode_ended,
    decode_hold,
    delivered_key,
    encode,
)
from delaystream.codec.keys import (
    HOUSEKEEPING,
    before_key,
    begun_key,
    due_of,
    ended_key,
    hold_key,
    offset_of,
    source_of,
    wheel_key,
)
from delaystream.core.globs import matches_glob
from delaystream.core.order import Moment, newer
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Action, Lateness, Match, Request
from delaystream.engine.policy.lateness import for_once
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.state.step import Step
from delaystream.query.rows import everything

#: with these in it, a glob cannot be compared with another one as if that were a name
_NOT_COMPARED: Final = frozenset("?[]")


#: how long after its end, and after each look, it is looked whether anything is left of an ended hold
LOOK_MS: Final = 60_000


class PastHolds:
    """The holds as they were, before and after each of the commands that have changed them, by its number."""

    def __init__(self, numbers: Sequence[int], views: Sequence[Sequence[Hold]]) -> None:
        self._numbers, self._views = numbers, views

    def at(self, number: int) -> Sequence[Hold]:
        """As the command of that number has left them."""
        return self._views[bisect_right(self._numbers, number)]


class Holds:
    """The holds of one partition."""

    def __init__(self, settings: EngineSettings, state: PartitionState) -> None:
        self._settings = settings
        self._state = state
        #: by their keys, the latest last
        self._standing: dict[bytes, Hold] = {}
        found = [(key, decode_hold(value)) for key, value in everything(state.store, b"h", b"i")]
        for key, hold in sorted(found, key=_age):
            self._standing[key] = hold
            state.withhold(hold.name)
        #: by the key of a bulk command at work: those that it has ended or changed, as they were, by theirs
        self._before: dict[bytes, dict[bytes, Hold]] = {}
        for _, value in everything(state.store, b"u", b"v"):
            before = decode_before(value)
            self._before.setdefault(before.bulk, {})[before.key] = before.hold
        #: those that have ended, by their keys, the latest last
        self._ended: dict[bytes, Ended] = {}
        gone = [(key, decode_ended(value)) for key, value in everything(state.store, b"e", b"f")]
        for key, ended in sorted(gone, key=lambda item: item[1].ended_ms):
            self._ended[key] = ended

    @property
    def any(self) -> bool:
        """False: there is nothing to ask."""
        return bool(self._standing)

    # -- what is held -------------------------------------------------------------------------

    def of(self, topic: str) -> Sequence[Hold]:
        """The holds that may meet an entry without an id that is to be delivered to a topic."""
        return [
            hold
            for hold in self._standing.values()
            if hold.match.id_prefix is None and hold.match.fits_topic(topic)
        ]

    def matching(self, holds: Iterable[Hold], key: bytes, entry: Envelope) -> Hold | None:
        """The first of these that meets an entry; None for none of them."""
        if entry.released:
            return None
        moment = Moment(self._state.sources[source_of(key)], offset_of(key), entry.timestamp_ms)
        for hold in holds:
            if (
                hold.tenant == moment.source[0]
                and (hold.match.arriving or not newer(moment, hold.moment))
                and hold.match.fits(entry.tags, entry.delivered_key)
            ):
                return hold
        return None

    def matching_arrival(self, request: Request) -> Hold | None:
        """The hold that meets a request that schedules as it arrives; None for none.

        Of several it is the one that ends last: what has an id is paused once, for as long as that stands.
        """
        id, tenant, moment = request.id, request.source.topic, request.moment
        key = delivered_key(request)
        found: Hold | None = None
        for hold in self._standing.values():
            match = hold.match
            if hold.tenant != tenant or not match.fits_topic(request.destination):
                continue
            if id is None:
                concerned = match.id_prefix is None and (match.arriving or not newer(moment, hold.moment))
            else:
                # Existing schedules are paused one by one, as the sweep comes by.
                concerned = match.arriving and id.startswith(match.id_prefix or "")
            if concerned and match.fits(request.tags, key) and (found is None or _outlasts(hold, found)):
                found = hold
        return found

    def as_of(self, changing: dict[bytes, Bulk], passed: Container[bytes] = ()) -> PastHolds:
        """The holds as each of the bulk commands at work has left them.

        Changes by later commands are undone: their new holds are left out, and holds that they ended, renewed
        or gave another end are as before. Changes by `passed` commands stay. `changing` are the commands that
        have changed holds, in their order.
        """
        seen = dict(self._standing)
        view: Sequence[Hold] = [*seen.values()]
        numbers: list[int] = []
        views: list[Sequence[Hold]] = []
        for of, bulk in reversed(changing.items()):
            if of in passed:
                continue
            begun, before = begun_key(of), self._before.get(of, {})
            if before or begun in seen:
                numbers.append(bulk.number)
                views.append(view)
                seen.pop(begun, None)
                seen |= before
                view = [hold for _, hold in sorted(seen.items(), key=_age)]
        views.append(view)
        return PastHolds(numbers[::-1], views[::-1])

    def keeping(
        self,
        step: Step,
        id: str,
        schedule: Schedule,
        among: Iterable[Hold] | None = None,
        *,
        arriving: bool = False,
    ) -> Hold | None:
        """The hold that keeps a paused schedule back when what has paused it ends; None for none.

        Of several it is the one that ends last, `among` those that stand, or did at the turn of a command;
        with `arriving`, of those that meet what arrives. What was there before a pause stays under it when it
        is sent again: that resumes nothing.
        """
        found: Hold | None = None
        for hold in self._standing.values() if among is None else among:
            match, until_ms = hold.match, hold.until_ms
            if (
                hold.tenant == schedule.topic
                and (until_ms is None or until_ms > step.now_ms)
                and match.fits_topic(schedule.destination)
                and id.startswith(match.id_prefix or "")
                and (match.arriving or (not arriving and _knew(hold, schedule)))
                and match.fits_tags(schedule.tags)
                and (match.key is None or match.key == self._state.payload(step, id, schedule).delivered_key)
                and (found is None or _outlasts(hold, found))
            ):
                found = hold
        return found

    def keep(self, step: Step, hold: Hold, key: bytes, stored: bytes) -> bytes:
        """Put an entry that is out of its wheel in that of a hold; its new key."""
        return self._state.keep_back(step, key, stored, hold.tenant, hold.name)

    # -- what was held ------------------------------------------------------------------------

    @property
    def any_ended(self) -> bool:
        """False: whatever is late goes by its own word."""
        return bool(self._ended)

    def ended_ms(self, name: str) -> int | None:
        """When the hold of that name ended; None where that is not known any more."""
        return next((past.ended_ms for past in self._ended.values() if past.hold.name == name), None)

    def ended_of(self, topic: str) -> Sequence[Ended]:
        """The ended holds that may have kept back what is to be delivered to a topic, latest first."""
        return [ended for ended in reversed(self._ended.values()) if ended.hold.match.fits_topic(topic)]

    def for_once(self, ended: Iterable[Ended], wheel: int, key: bytes, entry: Envelope) -> Envelope:
        """An entry that is due, with what the last resume says that let it go."""
        held_by, due_ms = self._state.withheld_by[wheel], due_of(key)
        for past in ended:
            hold = past.hold
            if due_ms <= past.ended_ms and (hold.name == held_by or self.matching((hold,), key, entry)):
                return entry if past.once is None else for_once(entry, past.once)
        return entry

    def _remember(
        self, step: Step, key: bytes, hold: Hold, once: Lateness | None, request: Request | None
    ) -> None:
        """Keep what a resume says, if anything that the hold kept back is due.

        One that says nothing is kept where there are others, whose word it ends.
        """
        others = [(of, past) for of, past in self._ended.items() if past.hold.tenant == hold.tenant]
        if (once is None and not others) or not self._is_left(hold, step.now_ms):
            return
        if request is not None and hold.match.arriving:
            source = request.source
            hold = replace(
                hold,
                partition=source.partition,
                offset=source.offset,
                timestamp_ms=request.timestamp_ms,
                origin=source.origin,
                match=replace(hold.match, arriving=False),
            )
        for of, past in others:
            if _takes_over(hold, past.hold):
                self._forget(step, of)
                self._state.remove_pointer(step, past.entry)
        # Its end is told in the row: it needs none in the wheels.
        self._look_later(step, ended_key(key), Ended(replace(hold, until_key=None), step.now_ms, b"", once))

    def _look_later(self, step: Step, key: bytes, ended: Ended) -> None:
        state, hold, due_ms = self._state, ended.hold, step.now_ms + LOOK_MS
        number = state.source(step, hold.tenant, hold.partition, hold.origin)
        # Several holds may have ended by one resume: the index tells them apart.
        taken = {past.entry for of, past in self._ended.items() if of != key}
        indexes = (wheel_key(HOUSEKEEPING, due_ms, number, hold.offset, index) for index in count(3))
        entry = next(key for key in indexes if key not in taken)
        state.add_pointer(step, entry, encode(HoldEnd(key)), HOUSEKEEPING, due_ms, number)
        self._ended[key] = ended = replace(ended, entry=entry)
        step.changes[key] = encode(ended)

    def _forget(self, step: Step, key: bytes) -> None:
        del self._ended[key]
        step.changes[key] = None

    def _is_left(self, hold: Hold, ended_ms: int) -> bool:
        """Whether anything may be pending that was due when a hold ended, as far as the wheels can tell."""
        state = self._state
        for wheel, topic in enumerate(state.destinations):
            head = state.heads.head(wheel)
            if (
                topic
                and head is not None
                and head <= ended_ms
                and state.lanes[wheel] in ("", hold.tenant)
                and (state.withheld_by[wheel] == hold.name or hold.match.fits_topic(topic))
            ):
                return True
        return False

    def look(self, step: Step, entry: HoldEnd) -> None:
        """Forget a hold that has ended, if nothing is left of it; its entry is out of its wheel already."""
        ended = self._ended[entry.key]
        if self._is_left(ended.hold, ended.ended_ms):
            self._look_later(step, entry.key, ended)
        else:
            self._forget(step, entry.key)

    # -- their beginning and end --------------------------------------------------------------

    def refusal(self, request: Request) -> Rejection | None:
        """Why a pause cannot have a hold; None where it can, or needs none."""
        tenant, most = request.source.topic, self._settings.max_holds
        if request.action is not Action.PAUSE or not _needs_hold(request.match):
            return None
        standing = sum(hold.tenant == tenant for hold in self._standing.values())
        ended = sum(past.hold.tenant == tenant for past in self._ended.values())
        if standing + ended < most or self._same(request) is not None:
            return None
        left = f", and {ended} that were resumed have requests left to deliver" if ended else ""
        return Rejection(
            Code.TOO_MANY_HOLDS,
            f"{standing} bulk pauses of {tenant} hold requests back{left}; expected fewer than {most} "
            "(max_holds): end some of them with a resume",
            reply_to=request.reply_to,
        )

    def begin(self, step: Step, request: Request, bulk: bytes, *, alone: bool) -> list[str]:
        """Begin the hold of a pause, or renew one that is the same; its name, if the pause needs one.

        When it ends is when all holds end that it covers: by a resume alone, if it does not say. `bulk` is
        the key of its work, which is `alone` where no sweep is under way that came before it.
        """
        match, source = request.match, request.source
        if match is None or not _needs_hold(match):
            return []
        key = self._same(request) or hold_key(source.place, source.partition, source.offset)
        old = self._standing.get(key)
        if old is not None and not alone:
            self._note(step, bulk, key, old)
        name = source.text if old is None else old.name
        hold = Hold(
            source.topic,
            source.partition,
            source.offset,
            request.timestamp_ms,
            match,
            name,
            step.now_ms if old is None else old.since_ms,
            request.actor,
            request.terms.note,
            source.origin,
            None if old is None else old.until_key,
        )
        self._keep(step, key, hold)
        # A worker's clock may have been ahead.
        self._standing = dict(sorted(self._standing.items(), key=_age))
        self._state.withhold(name)
        for of, standing in [*self._standing.items()]:
            if standing.until_ms != request.until_ms and (of == key or _retimes(request, match, standing)):
                if of != key and not alone:
                    self._note(step, bulk, of, standing)
                self._end_at(step, of, standing, request.until_ms)
        return [name]

    def _note(self, step: Step, bulk: bytes, key: bytes, hold: Hold) -> None:
        """Keep a hold as it is, for the commands at work that came before the one that changes it."""
        self._before.setdefault(bulk, {})[key] = hold
        step.changes[before_key(bulk, key)] = encode(Before(bulk, key, hold))

    def swept(self, step: Step, bulk: bytes) -> None:
        """A bulk command is done: what came before it is past all that it was about, and needs no notes."""
        for key in self._before.pop(bulk, {}):
            step.changes[before_key(bulk, key)] = None

    def _keep(self, step: Step, key: bytes, hold: Hold) -> None:
        self._standing[key] = hold
        step.changes[key] = encode(hold)

    def _end_at(self, step: Step, key: bytes, hold: Hold, until_ms: int | None) -> None:
        """Have a hold end by itself; None: not any more."""
        if hold.until_key is not None:
            self._state.remove_pointer(step, hold.until_key)
        if until_ms is None:
            self._keep(step, key, replace(hold, until_key=None))
            return
        number = self._state.source(step, hold.tenant, hold.partition, hold.origin)
        # Index 0 is that of the sweep of the same command.
        until_key = wheel_key(HOUSEKEEPING, until_ms, number, hold.offset, 2)
        self._state.add_pointer(step, until_key, encode(HoldEnd(key)), HOUSEKEEPING, until_ms, number)
        self._keep(step, key, replace(hold, until_key=until_key))

    def _same(self, request: Request) -> bytes | None:
        """The key of a hold that asks for the same, of the same request partition and older."""
        source = request.source
        for key, hold in self._standing.items():
            if (
                (hold.tenant, hold.partition, hold.origin) == (source.topic, source.partition, source.origin)
                and hold.offset <= source.offset
                and hold.match == request.match
            ):
                return key
        return None

    def end(self, step: Step, request: Request, bulk: bytes, *, alone: bool) -> tuple[list[str], int]:
        """End the holds that a resume covers: their names, and how many fires they kept back.

        The rest as of `begin`.
        """
        match, tenant = request.match, request.source.topic
        assert match is not None
        ended, kept_back = [], 0
        for key, hold in [*self._standing.items()]:
            if hold.tenant == tenant and covers(match, hold.match):
                if not alone:
                    self._note(step, bulk, key, hold)
                if hold.until_key is not None:
                    self._state.remove_pointer(step, hold.until_key)
                kept_back += self._state.held(hold.name)
                self._release(step, key, hold, request.timestamp_ms)
                self._remember(step, key, hold, request.lateness, request)
                ended.append(hold.name)
        return ended, kept_back

    def expire(self, step: Step, key: bytes, entry: HoldEnd) -> Hold:
        """A hold ends by itself; its entry, under `key`, is out of its wheel already."""
        hold = self._standing[entry.key]
        assert hold.until_key == key, "there is one end of a hold"
        # A worker that was away finds out late: what was kept back could have gone out by then.
        self._release(step, entry.key, hold, due_of(key))
        self._remember(step, entry.key, hold, None, None)
        return hold

    def _release(self, step: Step, key: bytes, hold: Hold, over_ms: int) -> None:
        del self._standing[key]
        step.changes[key] = None
        self._state.release(step, hold.name, over_ms)


def covers(wide: Match, narrow: Match) -> bool:
    """Whether everything that meets the one match meets the other, as far as that can be told from them."""
    if not set(wide.tags) <= set(narrow.tags):
        return False
    if wide.key is not None and wide.key != narrow.key:
        return False
    if wide.id_prefix is not None and not (narrow.id_prefix or "").startswith(wide.id_prefix):
        return False
    glob = wide.destination
    if glob is None or glob == narrow.destination or not glob.strip("*"):
        return True
    if narrow.destination is None or not (_is_compared(glob) or _is_name(narrow.destination)):
        return False
    return matches_glob(narrow.destination, glob)


def _is_compared(glob: str) -> bool:
    return _NOT_COMPARED.isdisjoint(glob)


def _is_name(glob: str) -> bool:
    return "*" not in glob and _is_compared(glob)


def _takes_over(hold: Hold, other: Hold) -> bool:
    """Whether a hold has kept back all that one which ended before it has."""
    if hold.tenant != other.tenant or (other.match.arriving and not hold.match.arriving):
        return False
    return not newer(other.moment, hold.moment) and covers(hold.match, other.match)


def _age(item: tuple[bytes, Hold]) -> tuple[int, bytes]:
    """The order of holds, by their keys: the latest last."""
    key, hold = item
    return hold.since_ms, key


def _outlasts(hold: Hold, other: Hold) -> bool:
    """Whether a hold ends later than another one, as far as is known."""
    until_ms, its_ms = hold.until_ms, other.until_ms
    return its_ms is not None and (until_ms is None or until_ms > its_ms)


def _retimes(request: Request, match: Match, hold: Hold) -> bool:
    """Whether a pause is about all that a hold of an earlier one is about."""
    if hold.tenant != request.source.topic or (hold.match.arriving and not match.arriving):
        return False
    return not newer(hold.moment, request.moment) and covers(match, hold.match)


def _needs_hold(match: Match | None) -> bool:
    """Whether a pause is about anything that has no row of its own: ids that are there have theirs."""
    return match is not None and (match.arriving or match.id_prefix is None)


def _knew(hold: Hold, schedule: Schedule) -> bool:
    """Whether an id was scheduled before the pause, whatever was sent again since."""
    return 0 <= schedule.created_ms <= hold.timestamp_ms or not newer(schedule.moment, hold.moment)
