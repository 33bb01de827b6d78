"""When a recurring schedule fires: the headers `every` or `cron` and those that bound them."""

from functools import partial
from typing import Final, get_args

from msgspec import UNSET, UnsetType

from delaystream.codec.requests import values
from delaystream.codec.requests.given import given, given_or_cleared
from delaystream.codec.requests.names import PREFIX
from delaystream.codec.requests.refusals import not_applicable, two_schedules
from delaystream.codec.requests.values import RefusedError
from delaystream.core.durations import format_duration
from delaystream.core.instants import format_instant
from delaystream.core.limits import Limits
from delaystream.core.recurrence import (
    NO_TIMING,
    DstGap,
    DstOverlap,
    Recurrence,
    Timing,
    check,
    next_after,
    retimed,
    zone_refusal,
)
from delaystream.core.rejection import Code, Rejection, shown

ONE_TIME: Final = ("delay", "at")
RECURRING: Final = ("every", "cron")
SCHEDULES: Final = (*ONE_TIME, *RECURRING)
#: what only a recurring schedule has
BOUNDS: Final = frozenset({"start", "end", "max-fires", "jitter"})
#: what only a cron expression has, and local times in `at`
CALENDAR: Final = frozenset({"timezone", "dst-gap", "dst-overlap"})

_EXPECTED_CALENDAR: Final = "expected it beside cron, or beside at with local times"
_END: Final = partial(values.instant, invalid=Code.INVALID_END, latest_ms=None)
_JITTER: Final = partial(values.duration, invalid=Code.INVALID_JITTER)
_DST_GAPS: Final[tuple[DstGap, ...]] = get_args(DstGap)
_DST_OVERLAPS: Final[tuple[DstOverlap, ...]] = get_args(DstOverlap)

TIMING: Final = frozenset({*SCHEDULES, *BOUNDS, *CALENDAR})
"""Every header that says when."""


def read_recurrence(
    control: dict[str, bytes], timestamp_ms: int, now_ms: int, limits: Limits, default_zone: str
) -> Recurrence | None:
    """The recurrence among the control headers of a schedule; None when it is not a recurring one.

    Without `start` an interval is anchored at `timestamp_ms`, the request's own. Raises `RefusedError`, also
    for a header that means nothing beside the others.
    """
    if not control.keys() & {"every", "cron"}:
        _check_one_time(control)
        return None
    return _begun(_read(control, now_ms, limits, clears=False), timestamp_ms, limits, default_zone)


def read_changes(control: dict[str, bytes], timestamp_ms: int, now_ms: int, limits: Limits) -> Timing:
    """The changes of a command to a recurrence; none when it gives one-time due times.

    Raises `RefusedError` for values that are wrong for every schedule.
    """
    if control.keys() & {"delay", "at"}:
        if len(kinds := [kind for kind in SCHEDULES if kind in control]) > 1:
            raise two_schedules(kinds)
        _check_one_time(control)
        return NO_TIMING
    timing = _read(control, now_ms, limits, clears=True)
    if timing.recurs:
        # Whether an interval ends before its first time, only the start that is kept can tell.
        _raise(_refusal(retimed(None, timing, timestamp_ms), limits))
    elif timing.timezone is not UNSET and timing.timezone is not None:
        _raise(zone_refusal(timing.timezone))
    return timing


def _begun(timing: Timing, timestamp_ms: int, limits: Limits, default_zone: str) -> Recurrence:
    """The recurrence of a schedule that begins with a request. Raises `RefusedError`."""
    recurrence = retimed(None, timing, timestamp_ms, default_zone)
    _raise(_refusal(recurrence, limits))
    if first_after(recurrence, timestamp_ms) is None:
        end = "" if recurrence.end_ms is None else f" before its end {format_instant(recurrence.end_ms)}"
        raise RefusedError(
            Code.NEVER_FIRES,
            f"The schedule has no time to fire after {format_instant(timestamp_ms)}{end}; expected one.",
        )
    return recurrence


def first_after(recurrence: Recurrence, timestamp_ms: int) -> int | None:
    """The first scheduled time of a schedule that was asked for at `timestamp_ms`.

    A `start` ahead may be such a time itself; one that lies in the past anchors the interval and calls for
    nothing before the request was made.
    """
    return next_after(recurrence, timestamp_ms)


def read_gap(control: dict[str, bytes]) -> DstGap:
    """The rule for a local time that does not exist; the default when it is not given."""
    return values.word(PREFIX + "dst-gap", control.get("dst-gap"), _DST_GAPS, Code.INVALID_DST)


def read_overlap(control: dict[str, bytes]) -> DstOverlap:
    """Which instants a local time means that comes twice; the default when it is not given."""
    return values.word(PREFIX + "dst-overlap", control.get("dst-overlap"), _DST_OVERLAPS, Code.INVALID_DST)


def _read(control: dict[str, bytes], now_ms: int, limits: Limits, *, clears: bool) -> Timing:
    """The headers of a recurrence, each alone; with `clears`, `none` is a value where that is allowed."""
    if len(kinds := [kind for kind in SCHEDULES if kind in control]) > 1:
        raise two_schedules(kinds)
    if "every" in control:
        for kind in sorted(control.keys() & CALENDAR):
            raise not_applicable(kind, f"an interval; {_EXPECTED_CALENDAR}")
    read = given_or_cleared if clears else given
    return Timing(
        _interval(control, limits),
        given(control, "cron", values.text),
        read(control, "timezone", values.text),
        read_gap(control) if "dst-gap" in control else UNSET,
        read_overlap(control) if "dst-overlap" in control else UNSET,
        _start(control, now_ms + limits.max_delay_ms),
        read(control, "end", _END),
        read(control, "max-fires", _max_fires),
        read(control, "jitter", _JITTER),
    )


def _interval(control: dict[str, bytes], limits: Limits) -> int | UnsetType:
    content = control.get("every")
    if content is None:
        return UNSET
    every_ms = values.interval(PREFIX + "every", content, Code.INVALID_EVERY)
    if 0 < every_ms <= limits.max_delay_ms:
        return every_ms
    raise RefusedError(
        Code.INVALID_EVERY,
        f"{PREFIX}every is {shown(content)}; expected an interval of "
        f"{format_duration(limits.min_interval_ms)} to {format_duration(limits.max_delay_ms)}.",
    )


def _start(control: dict[str, bytes], latest_ms: int) -> int | UnsetType:
    content = control.get("start")
    if content is None:
        return UNSET
    return values.instant(PREFIX + "start", content, Code.INVALID_START, latest_ms)


def _max_fires(name: str, content: bytes) -> int:
    if content.isdigit() and len(content) <= 10 and (count := int(content)) > 0:
        return count
    raise RefusedError(
        Code.INVALID_MAX_FIRES,
        f"{name} is {shown(content)}; expected a whole number from 1 to 9999999999.",
    )


def _refusal(recurrence: Recurrence, limits: Limits) -> Rejection | None:
    return check(
        recurrence, min_interval_ms=limits.min_interval_ms, max_expression=limits.max_cron_characters
    )


def _raise(refused: Rejection | None) -> None:
    if refused is not None:
        raise RefusedError(refused.code, refused.detail)


def _check_one_time(control: dict[str, bytes]) -> None:
    """Refuse what only a recurring schedule has; a zone may belong to the local times of `at`."""
    local = "at" in control and "timezone" in control
    for kind in sorted(control.keys() & (BOUNDS if local else BOUNDS | CALENDAR)):
        expected = _EXPECTED_CALENDAR if kind in CALENDAR else "expected it beside every or cron"
        raise not_applicable(kind, f"a one-time schedule; {expected}")
