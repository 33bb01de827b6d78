"""Checks whether a recurrence can be accepted: returns a rejection with its code, or None."""

from functools import lru_cache

from delaystream.core.durations import format_duration
from delaystream.core.instants import format_instant
from delaystream.core.recurrence.expression import parse_cron
from delaystream.core.recurrence.fields import CronError
from delaystream.core.recurrence.fires import next_after
from delaystream.core.recurrence.recurrence import Recurrence
from delaystream.core.recurrence.scheduled import calendar_ends
from delaystream.core.recurrence.zones import zone_advice, zone_names
from delaystream.core.rejection import Code, Rejection, shown


def check(recurrence: Recurrence, *, min_interval_ms: int, max_expression: int) -> Rejection | None:
    """Why a worker refuses `recurrence`; None if it accepts it. Call this before anything else.

    `min_interval_ms`, up to a day, is the shortest distance of two fires in its pattern, by the local clock.
    On the day on which clocks are put forward, two fires may be closer. `max_expression` is in characters.
    """
    try:
        shortest_ms = _shortest_gap_ms(recurrence, max_expression)
    except CronError as error:
        return Rejection(error.code, f"delaystream-cron is {shown(recurrence.cron or '')}: {error}.")
    if (refused := zone_refusal(recurrence.timezone)) is not None:
        return refused
    if shortest_ms < min_interval_ms:
        return Rejection(
            Code.TOO_FREQUENT,
            f"{_named(recurrence)} fires {_apart(shortest_ms)}; expected at least "
            f"{format_duration(min_interval_ms)} from one fire to the next.",
        )
    if recurrence.jitter_ms >= shortest_ms:
        return Rejection(
            Code.JITTER_TOO_LONG,
            f"delaystream-jitter is {format_duration(recurrence.jitter_ms)}, and {_named(recurrence)} fires "
            f"{_apart(shortest_ms)}; expected less than that.",
        )
    if next_after(recurrence, recurrence.start_ms - 1) is None:
        return Rejection(Code.NEVER_FIRES, _never(recurrence))
    return None


def zone_refusal(name: str) -> Rejection | None:
    """Why a worker refuses a time zone of that name; None if it accepts it."""
    problem = zone_problem(name)
    if problem is None:
        return None
    return Rejection(
        Code.INVALID_TIMEZONE,
        f"delaystream-timezone is {shown(name)}, which {problem}" + ("" if problem[-1] == "?" else "."),
    )


def zone_problem(name: str) -> str | None:
    """The fault of a time zone's name, and what to write instead; worded to follow the name."""
    return None if name in zone_names() else f"is no name of a time zone; {zone_advice(name)}"


def _shortest_gap_ms(recurrence: Recurrence, max_expression: int) -> int:
    """Raises CronError."""
    if recurrence.cron is None:
        return recurrence.every_ms
    if len(recurrence.cron) > max_expression:
        raise CronError(
            Code.CRON_TOO_LONG, f"it has {len(recurrence.cron)} characters; expected at most {max_expression}"
        )
    return _shortest_cron_gap_s(recurrence.cron) * 1000


@lru_cache(maxsize=16_384)
def _shortest_cron_gap_s(cron: str) -> int:
    return parse_cron(cron).shortest_gap_s()


def _named(recurrence: Recurrence) -> str:
    if recurrence.cron is None:
        return f"delaystream-every {format_duration(recurrence.every_ms)}"
    return f"delaystream-cron {shown(recurrence.cron)}"


def _apart(shortest_ms: int) -> str:
    return f"as little as {format_duration(shortest_ms)} apart"


def _never(recurrence: Recurrence) -> str:
    start = format_instant(recurrence.start_ms)
    if recurrence.end_ms is None and calendar_ends(recurrence.start_ms):
        return (
            f"{_named(recurrence)} has no time from its start, {start}, on: none is worked out from the year "
            "9999 on."
        )
    if recurrence.end_ms is None:
        return f"{_named(recurrence)} has no time within a century of its start, {start}."
    end = format_instant(recurrence.end_ms)
    return f"{_named(recurrence)} has no time from its start, {start}, to its end, {end}."
