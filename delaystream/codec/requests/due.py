"""When a one-time schedule is due: the headers `delay` or `at`, with the zone of local times."""

from typing import Final, TypeVar

from delaystream.codec.requests import values
from delaystream.codec.requests.names import PREFIX
from delaystream.codec.requests.refusals import no_schedule, not_applicable, two_schedules
from delaystream.codec.requests.timing import read_gap, read_overlap
from delaystream.codec.requests.values import RefusedError
from delaystream.core.durations import simple_duration
from delaystream.core.limits import Limits
from delaystream.core.recurrence import LocalClock, zone_refusal
from delaystream.core.rejection import Code

Value = TypeVar("Value")

_AT: Final = PREFIX + "at"
_DELAY: Final = PREFIX + "delay"

# Longer values are worked out anew each time: a memo stays below a few megabytes.
_MEMO_ENTRIES: Final = 4096
_MEMO_BYTES: Final = 256

CLOCK_DIFFERENCE_MS: Final = 24 * 60 * 60 * 1000
"""How far a record's timestamp may be ahead of our clock before that counts against the longest delay."""


class DueTimes:
    """Reads due times; for use by one thread. Parsed delays are remembered."""

    def __init__(self, limits: Limits) -> None:
        self._limits = limits
        self._delays: dict[bytes, tuple[int, ...]] = {}

    def read(self, control: dict[str, bytes], timestamp_ms: int, now_ms: int) -> tuple[int, ...]:
        """In the order of the header's list. Raises `RefusedError`, also where neither header is given."""
        if (content := control.get("delay")) is not None:
            if "at" in control:
                raise two_schedules(("delay", "at"))
            return self._after(content, timestamp_ms, now_ms)
        if (content := control.get("at")) is not None:
            if "timezone" in control:
                return self._local(control, content, now_ms)
            return values.due_times(_AT, content, self._limits, now_ms)
        raise no_schedule()

    def _local(self, control: dict[str, bytes], content: bytes, now_ms: int) -> tuple[int, ...]:
        zone = values.text(PREFIX + "timezone", control["timezone"])
        if (refused := zone_refusal(zone)) is not None:
            raise RefusedError(refused.code, refused.detail)
        clock = LocalClock(zone, read_gap(control), read_overlap(control))
        due_ms = values.local_due_times(_AT, content, clock, self._limits, now_ms)
        if due_ms is None:
            raise not_applicable(
                "timezone", f"{_AT}, whose times have offsets; expected it beside local times or cron"
            )
        return due_ms

    def _after(self, content: bytes, timestamp_ms: int, now_ms: int) -> tuple[int, ...]:
        delays = self._delays.get(content)
        if delays is None:
            simple_ms = simple_duration(content)
            if simple_ms is not None and simple_ms <= self._limits.max_delay_ms:
                delays = (simple_ms,)
            else:
                delays = values.delays(_DELAY, content, self._limits)
                remember(self._delays, content, delays)
        if timestamp_ms - now_ms > CLOCK_DIFFERENCE_MS and (
            timestamp_ms + max(delays) - now_ms > self._limits.max_delay_ms
        ):
            raise RefusedError(
                Code.DELAY_TOO_LONG,
                f"{_DELAY} counts from the record's timestamp {timestamp_ms}, which puts it further "
                "ahead than the worker accepts; expected one in epoch milliseconds, near the present.",
            )
        if len(delays) == 1:
            return (timestamp_ms + delays[0],)
        return tuple([timestamp_ms + delay for delay in delays])


def remember(memo: dict[bytes, Value], content: bytes, value: Value) -> None:
    """Note what a value parses to; all is forgotten when there are too many."""
    if len(content) <= _MEMO_BYTES:
        if len(memo) >= _MEMO_ENTRIES:
            memo.clear()
        memo[content] = value
