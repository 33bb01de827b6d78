"""Commands: the headers that each action takes, and the subject of the command."""

from collections.abc import Mapping
from functools import partial
from typing import Final

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from delaystream.codec.command import Command
from delaystream.codec.requests import values
from delaystream.codec.requests.due import DueTimes
from delaystream.codec.requests.given import CLEARED, given
from delaystream.codec.requests.names import PREFIX
from delaystream.codec.requests.options import MATCHES, REACHES
from delaystream.codec.requests.refusals import id_required, no_schedule, not_applicable
from delaystream.codec.requests.terms import OF_A_SET, OF_AN_ID, read_terms
from delaystream.codec.requests.timing import ONE_TIME, SCHEDULES, TIMING, read_changes
from delaystream.codec.requests.update import CHANGES, read_update
from delaystream.codec.requests.values import RefusedError
from delaystream.core.defaults import Defaults
from delaystream.core.destinations import DestinationFilter
from delaystream.core.globs import MOST_CHARACTERS
from delaystream.core.instants import format_instant
from delaystream.core.limits import Limits
from delaystream.core.rates import RateError, parse_count
from delaystream.core.record import Record
from delaystream.core.recurrence import NO_TIMING, Timing
from delaystream.core.rejection import Code, shown
from delaystream.core.request import (
    ON_LATE_FIRE,
    Action,
    CatchUp,
    Coordinates,
    Header,
    IfExists,
    Lateness,
    Match,
    Request,
)

# Naming a member through its class is slow (Python 3.11).
_REPLACE: Final = IfExists.REPLACE
_LATEST: Final = CatchUp.LATEST

_ALONE: Final = (Action.CANCEL, Action.PAUSE, Action.RESUME, Action.TRIGGER)
"""Actions for which an id is enough."""
_PLAIN: Final = frozenset({"id", "action", "reply-to", "actor"})
_BULK: Final = (Action.CANCEL, Action.PAUSE, Action.RESUME)
_BY_COORDINATES: Final = (Action.CANCEL, Action.RESCHEDULE, Action.TRIGGER, Action.DESCRIBE)
RETIMING: Final = (Action.RESCHEDULE, Action.UPDATE)
"""Headers that change when something fires."""
_LATENESS: Final = frozenset({"catch-up", "on-late", "grace"})

_ANY: Final = frozenset({"action", "reply-to", "actor", "note"})
_NAMED: Final = _ANY | OF_AN_ID | {"id"}
_SELECTED: Final = _NAMED | MATCHES | REACHES
_TAKES: Final[Mapping[Action, frozenset[str]]] = {
    Action.PAUSE: _SELECTED | {"until", "coordinates"},
    Action.RESUME: _SELECTED | _LATENESS | {"coordinates"},
    Action.TRIGGER: _SELECTED | {"coordinates"},
    Action.RESCHEDULE: _SELECTED | TIMING | {"coordinates"},
    Action.UPDATE: _SELECTED | TIMING | CHANGES | OF_A_SET | {"coordinates"},
    Action.DESCRIBE: _SELECTED | {"coordinates"},
    Action.RATE: _ANY | {"destination", "rate"},
}
"""The headers that each action reads, or refuses with a sentence of its own."""
_NOT_ON_CANCEL: Final = frozenset({"until", "rate"})
"""Headers that belong to no schedule, update or cancel."""


class Sorted(msgspec.Struct, frozen=True, gc=False):
    """A record as it was produced, its headers sorted, and what any request says whatever it asks for."""

    record: Record
    """Its timestamp is not negative."""
    foreign: list[Header]
    control: dict[str, bytes]
    """By kind, the name without the prefix."""
    id: str | None
    reply_to: str | None
    no_receipt: str | None
    defaults: Defaults


class Actions:
    """Reads commands."""

    def __init__(self, destinations: DestinationFilter, limits: Limits, due: DueTimes) -> None:
        self._destinations = destinations
        self._limits = limits
        self._due = due

    def read(self, action: Action, asked: Sorted, now_ms: int, carried: Command | None) -> Request:
        """The command of a record; its times are those that are `carried`, if any. Raises `RefusedError`."""
        record, control, id = asked.record, asked.control, asked.id
        if id is not None and action in _ALONE and control.keys() <= _PLAIN:
            # The usual command, without the cost of looking for anything else.
            return Request(
                record.source, record.timestamp_ms, record.key, record.value, asked.foreign, action, id,
                "", (), None, None, False, _REPLACE, ON_LATE_FIRE, None, asked.reply_to, None, None, (),
                None, _LATEST, _actor(control), None, asked.no_receipt,
            )  # fmt: skip
        _check_taken(control, action)
        subject = _subject(control, action, id, record.source)
        match = None if subject is not None else _match(control, action, id)
        instead = None
        if subject is not None:
            instead = "coordinates"
        elif match is not None:
            instead = min(control.keys() & MATCHES)
        if action is Action.DESCRIBE and asked.reply_to is None:
            raise _nobody_to_tell(asked.no_receipt)
        if carried is None:
            due_ms, timing = self._times(action, asked, subject, now_ms)
        else:
            due_ms, timing = _carried(action, carried)
        return Request(
            record.source, record.timestamp_ms, record.key, record.value, asked.foreign, action, id,
            self._destination(control, action), due_ms,
            None, None, False, _REPLACE, ON_LATE_FIRE, None, asked.reply_to, None, None, (), None,
            actor=_actor(control),
            match=match,
            no_receipt=asked.no_receipt,
            terms=read_terms(control, id, instead),
            subject=subject,
            until_ms=self._until(asked, now_ms) if action is Action.PAUSE else None,
            lateness=self._lateness(asked) if action is Action.RESUME else None,
            timing=timing,
            update=(
                read_update(control, record.value, self._destinations) if action is Action.UPDATE else None
            ),
            rate=_rate(control) if action is Action.RATE else None,
            defaults=asked.defaults,
        )  # fmt: skip

    def _times(
        self, action: Action, asked: Sorted, subject: Coordinates | None, now_ms: int
    ) -> tuple[tuple[int, ...], Timing | None]:
        """One-time due times, and the changes of a recurrence."""
        if action not in RETIMING:
            return (), None
        control, timestamp_ms = asked.control, asked.record.timestamp_ms
        one_time = not control.keys().isdisjoint(ONE_TIME)
        if action is Action.RESCHEDULE and control.keys().isdisjoint(TIMING):
            raise no_schedule((*SCHEDULES, *sorted(TIMING - {*SCHEDULES})))
        if subject is not None and not one_time:
            raise id_required(f"{PREFIX}{min(control.keys() & TIMING)} is given")
        timing = read_changes(control, timestamp_ms, now_ms, self._limits)
        due_ms = self._due.read(control, timestamp_ms, now_ms) if one_time else ()
        if subject is not None and len(due_ms) > 1:
            raise _one_time_only(len(due_ms))
        return due_ms, timing

    def _destination(self, control: dict[str, bytes], action: Action) -> str:
        """Of a rate; an update has its own, if any, among the changes."""
        if action is not Action.RATE:
            return ""
        content = control.get("destination")
        if content is None:
            detail = f"{PREFIX}destination is missing; expected the topic that the rate is for."
            raise RefusedError(Code.MISSING_DESTINATION, detail)
        return values.topic(PREFIX + "destination", content, Code.INVALID_DESTINATION, self._destinations)

    def _until(self, asked: Sorted, now_ms: int) -> int | None:
        content = asked.control.get("until")
        if content is None or content == CLEARED:
            return None
        name = PREFIX + "until"
        latest_ms = now_ms + self._limits.max_delay_ms
        until_ms = values.instant(name, content, Code.INVALID_UNTIL, latest_ms)
        timestamp_ms = asked.record.timestamp_ms
        if until_ms > timestamp_ms:
            return until_ms
        raise RefusedError(
            Code.INVALID_UNTIL,
            f"{name} is {shown(content)}, and the record's timestamp is "
            f"{format_instant(timestamp_ms)}; expected a time after that.",
        )

    def _lateness(self, asked: Sorted) -> Lateness | None:
        control = asked.control
        if control.keys().isdisjoint(_LATENESS):
            return None
        catch_up = given(
            control, "catch-up", partial(values.choice, choices=CatchUp, invalid=Code.INVALID_CATCH_UP)
        )
        on_late = given(control, "on-late", partial(values.on_late, destinations=self._destinations))
        grace_ms = given(control, "grace", partial(values.duration, invalid=Code.INVALID_GRACE))
        return Lateness(
            None if catch_up is UNSET else catch_up,
            None if on_late is UNSET else on_late,
            None if grace_ms is UNSET else grace_ms,
            asked.defaults.grace_of(recurs=False, diverts=on_late not in (UNSET, ON_LATE_FIRE)),
        )


def _carried(action: Action, carried: Command) -> tuple[tuple[int, ...], Timing | None]:
    """The times of a command that was re-routed, as they were worked out when it was first seen."""
    return (carried.due_ms, carried.timing or NO_TIMING) if action in RETIMING else ((), None)


def _actor(control: dict[str, bytes]) -> str | None:
    content = control.get("actor")
    return None if content is None else values.text(PREFIX + "actor", content)


def _check_taken(control: dict[str, bytes], action: Action) -> None:
    """Refuse what an action would not look at.

    A cancel may carry nearly anything: it often is the schedule's request with another action.
    """
    ignored = control.keys() & _NOT_ON_CANCEL if action is Action.CANCEL else control.keys() - _TAKES[action]
    for kind in sorted(ignored):
        raise not_applicable(kind, f"the action '{action}', which does not look at it; expected it without")


def _subject(
    control: dict[str, bytes], action: Action, id: str | None, source: Coordinates
) -> Coordinates | None:
    """The request that a command names by where it stands."""
    content = control.get("coordinates")
    if content is None:
        return None
    if action not in _BY_COORDINATES:
        expected = "expected it on cancel, reschedule, trigger and describe"
        raise not_applicable("coordinates", f"the action '{action}'; {expected}")
    if id is not None:
        raise not_applicable("coordinates", "an id; expected one of them")
    for kind in sorted(control.keys() & (MATCHES | REACHES)):
        raise not_applicable(kind, f"{PREFIX}coordinates; expected one of them")
    subject = values.coordinates(PREFIX + "coordinates", content, source.topic)
    # A command that was imported on its way means what stood on the topic that it was sent to.
    return subject if subject.origin else replace(subject, origin=source.origin)


def _match(control: dict[str, bytes], action: Action, id: str | None) -> Match | None:
    """The match of a command that names no subject; None when its id does."""
    matches = sorted(control.keys() & (MATCHES | REACHES))
    if matches and (id is not None or action not in _BULK):
        expected = "expected it on cancel, pause and resume without id"
        what = "an id" if id is not None else f"the action '{action}'"
        raise not_applicable(matches[0], f"{what}; {expected}")
    if id is not None or action is Action.RATE:
        return None
    if control.keys().isdisjoint(MATCHES):
        others = ["coordinates"] if action in _BY_COORDINATES else []
        if action in _BULK:
            others += ["match-tags", "match-destination", "match-id-prefix", "match-key"]
        instead = f" (or {', '.join(others)})" if others else ""
        raise id_required(f"{PREFIX}action is '{action}'{instead}")
    for kind, expected_on in (("match-new", Action.PAUSE), ("match-anonymous", Action.CANCEL)):
        if kind in control and action is not expected_on:
            raise not_applicable(kind, f"the action '{action}'; expected it on {expected_on} only")
    return Match(
        _tags(control),
        _destination(control),
        _id_prefix(control),
        control.get("match-key"),
        values.flag(PREFIX + "match-new", control.get("match-new"), Code.INVALID_MATCH),
        values.flag(PREFIX + "match-anonymous", control.get("match-anonymous"), Code.INVALID_MATCH),
    )


def _tags(control: dict[str, bytes]) -> tuple[str, ...]:
    content = control.get("match-tags")
    if content is None:
        return ()
    tags = values.tags(PREFIX + "match-tags", content, Code.INVALID_MATCH)
    if not tags:
        raise RefusedError(
            Code.INVALID_MATCH, f"{PREFIX}match-tags is {shown(content)}; expected tags, comma-separated."
        )
    return tags


def _destination(control: dict[str, bytes]) -> str | None:
    content = control.get("match-destination")
    if content is None:
        return None
    if not content:
        raise RefusedError(
            Code.INVALID_MATCH, f"{PREFIX}match-destination is empty; expected a topic name or a glob."
        )
    glob = values.text(PREFIX + "match-destination", content)
    if len(glob) > MOST_CHARACTERS:
        raise RefusedError(
            Code.INVALID_MATCH,
            f"{PREFIX}match-destination has {len(glob)} characters; expected at most {MOST_CHARACTERS}, as a "
            "topic name has.",
        )
    return glob


def _id_prefix(control: dict[str, bytes]) -> str | None:
    content = control.get("match-id-prefix")
    if content is None:
        return None
    if not content:
        raise RefusedError(
            Code.INVALID_MATCH,
            f"{PREFIX}match-id-prefix is empty; expected the beginning of ids, or "
            f"{PREFIX}match-destination '*' for every schedule.",
        )
    return values.text(PREFIX + "match-id-prefix", content)


def _rate(control: dict[str, bytes]) -> float | None:
    """Records a second; None for what the settings say."""
    name, content = PREFIX + "rate", control.get("rate")
    if content is None:
        raise RefusedError(
            Code.INVALID_RATE, f"{name} is missing; expected a number of records, such as '600/m', or 'none'."
        )
    if content == CLEARED:
        return None
    written = values.text(name, content)
    try:
        return parse_count(written)
    except RateError as error:
        raise RefusedError(Code.INVALID_RATE, f"{name}: {shown(written)} {error}, or 'none'.") from None


def _one_time_only(times: int) -> RefusedError:
    """A request without an id would be due more than once."""
    return RefusedError(
        Code.LIST_TOO_LONG, f"{PREFIX}coordinates is given with {times} times; expected one of them."
    )


def _nobody_to_tell(no_receipt: str | None) -> RefusedError:
    """A description is asked for, and there is no topic to write it to."""
    why = f"{PREFIX}reply-to is missing" if no_receipt is None else no_receipt
    return RefusedError(
        Code.REPLY_TO_REQUIRED,
        f"{PREFIX}action is 'describe', and {why}; expected a topic for the description.",
    )
