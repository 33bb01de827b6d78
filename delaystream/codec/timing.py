"""When a recurring schedule fires: the headers `every` or `cron` and those that bound them."""

from collections.abc import Sequence
from typing import Final, get_args

from delaystream.codec import values
from delaystream.codec.names import PREFIX
from delaystream.codec.values import RefusedError
from delaystream.core.durations import format_duration
from delaystream.core.instants import format_instant
from delaystream.core.limits import Limits
from delaystream.core.recurrence import DstGap, DstOverlap, Recurrence, check, next_after
from delaystream.core.rejection import Code, shown

ONE_TIME: Final = ("delay", "at")
RECURRING: Final = ("every", "cron")
SCHEDULES: Final = (*ONE_TIME, *RECURRING)
#: what only a recurring schedule has
BOUNDS: Final = frozenset({"start", "end", "max-fires", "jitter"})
#: what only a cron expression has
CALENDAR: Final = frozenset({"timezone", "dst-gap", "dst-overlap"})

_DST_GAPS: Final[tuple[DstGap, ...]] = get_args(DstGap)
_DST_OVERLAPS: Final[tuple[DstOverlap, ...]] = get_args(DstOverlap)

TIMING: Final = frozenset({*SCHEDULES, *BOUNDS, *CALENDAR})
"""Every header that says when."""


def read_recurrence(
    control: dict[str, bytes], timestamp_ms: int, now_ms: int, limits: Limits
) -> Recurrence | None:
    """The recurrence among the control headers; None when the request is not for a recurring schedule.

    Without `start` an interval is anchored at `timestamp_ms`, the request's own. Raises `RefusedError`, also
    for a header that means nothing beside the others.
    """
    if not control.keys() & {"every", "cron"}:
        for kind in sorted(control.keys() & (BOUNDS | CALENDAR)):
            raise not_applicable(kind, "a one-time schedule; expected it beside every or cron only")
        return None
    if len(kinds := [kind for kind in SCHEDULES if kind in control]) > 1:
        raise two_schedules(kinds)
    every_ms, cron = 0, None
    if (content := control.get("every")) is not None:
        for kind in sorted(control.keys() & CALENDAR):
            raise not_applicable(kind, "an interval; expected it beside cron only")
        every_ms = values.duration(PREFIX + "every", content, Code.INVALID_EVERY)
        if not 0 < every_ms <= limits.max_delay_ms:
            raise RefusedError(
                Code.INVALID_EVERY,
                f"{PREFIX}every is {shown(content)}; expected an interval of "
                f"{format_duration(limits.min_interval_ms)} to {format_duration(limits.max_delay_ms)}.",
            )
    else:
        cron = values.text(PREFIX + "cron", control["cron"])
    recurrence = Recurrence(
        cron=cron,
        every_ms=every_ms,
        timezone=_text(control, "timezone", "UTC"),
        dst_gap=values.word(PREFIX + "dst-gap", control.get("dst-gap"), _DST_GAPS, Code.INVALID_DST),
        dst_overlap=values.word(
            PREFIX + "dst-overlap", control.get("dst-overlap"), _DST_OVERLAPS, Code.INVALID_DST
        ),
        start_ms=_instant(control, "start", Code.INVALID_START, now_ms + limits.max_delay_ms) or timestamp_ms,
        end_ms=_instant(control, "end", Code.INVALID_END, None),
        max_fires=_max_fires(control),
        jitter_ms=_jitter(control),
    )
    refused = check(
        recurrence, min_interval_ms=limits.min_interval_ms, max_expression=limits.max_cron_characters
    )
    if refused is not None:
        raise RefusedError(refused.code, refused.detail)
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


def two_schedules(kinds: Sequence[str]) -> RefusedError:
    """More than one header says when."""
    names = " and ".join(PREFIX + kind for kind in kinds)
    return RefusedError(Code.DELAY_AND_AT, f"{names} are given together; expected one of them.")


def not_applicable(kind: str, what: str) -> RefusedError:
    """A header that means nothing where it stands."""
    return RefusedError(Code.NOT_APPLICABLE, f"{PREFIX}{kind} is given with {what}.")


def _text(control: dict[str, bytes], kind: str, default: str) -> str:
    content = control.get(kind)
    return default if content is None else values.text(PREFIX + kind, content)


def _instant(control: dict[str, bytes], kind: str, invalid: Code, latest_ms: int | None) -> int | None:
    content = control.get(kind)
    return None if content is None else values.instant(PREFIX + kind, content, invalid, latest_ms)


def _max_fires(control: dict[str, bytes]) -> int:
    content = control.get("max-fires")
    if content is None:
        return 0
    if content.isdigit() and len(content) <= 10 and (count := int(content)) > 0:
        return count
    raise RefusedError(
        Code.INVALID_MAX_FIRES,
        f"{PREFIX}max-fires is {shown(content)}; expected a whole number from 1 to 9999999999.",
    )


def _jitter(control: dict[str, bytes]) -> int:
    content = control.get("jitter")
    if content is None:
        return 0
    return values.duration(PREFIX + "jitter", content, Code.INVALID_JITTER)
