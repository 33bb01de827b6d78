"""The header of what workers send each other: a request re-routed to the partition that owns its id, a bulk
command on its way to every partition, and a partition's report about one.

The header has the facts of the moment when the request was first seen: its coordinates, its timestamp, its
destination (which may be the default of its topic), its times and its topic's other defaults. So the owner
decides on the same facts, however much later it reads them. It reads the request's own headers again for all
the rest.
"""

import re
from collections.abc import Callable, Sequence
from typing import Final

import msgspec
from msgspec.structs import replace

from delaystream.codec.envelope import UNREADABLE
from delaystream.core.defaults import Defaults
from delaystream.core.destinations import is_topic_name
from delaystream.core.instants import LATEST_MS
from delaystream.core.recurrence import Recurrence, Timing, check, next_after, retimed, zone_refusal
from delaystream.core.rejection import Rejection
from delaystream.core.request import Coordinates, Header, Request

COMMAND_HEADER: Final = "delaystream-command"
"""Written by workers, on the commands topic only; elsewhere it is an unknown header."""

_VERSION: Final = 2

#: The largest number that fits Kafka and the state's keys: no worker writes a larger one.
_LAST_PARTITION: Final = (1 << 31) - 1
#: so that a revision (offset times 32,768, and the partition) fits an integer of 63 bits; a thousand years of
#: 4,000 records a second
_LAST_OFFSET: Final = (1 << 47) - 2
_MOST_TIMES: Final = 1 << 16
#: of one partition; those of all together still fit an integer of 64 bits
_MOST_SCHEDULES: Final = 1 << 48
#: of a cron expression; a setting bounds it where it is accepted
_MOST_CHARACTERS: Final = 1 << 16
#: Kafka's topic ids have 22 characters
_ORIGIN: Final = re.compile(r"[A-Za-z0-9_-]{1,32}")


class Command(msgspec.Struct, frozen=True, gc=False):
    """A re-routed request as it was when it was first seen."""

    source: Coordinates
    timestamp_ms: int
    destination: str
    """Empty for a command."""
    due_ms: tuple[int, ...]
    """In the order of the request's list; () for a recurring schedule, and where no such time is set."""
    recurrence: Recurrence | None = None
    """Of a schedule."""
    timing: Timing | None = None
    """Of a reschedule or an update."""
    defaults: Defaults | None = None
    """Of its topic; None: it was written by a worker that did not send them along."""


class Report(msgspec.Struct, frozen=True, gc=False):
    """How many schedules one partition changed for a bulk command: that part of it is done."""

    source: Coordinates
    """Of the bulk command, whose partition gathers the reports."""
    partition: int
    count: int
    reply_to: str | None = None
    """Where the receipt of the bulk command goes."""
    matched: int = 0
    """Schedules with an id that it was about, changed or not."""
    anonymous: int = 0
    """Fires without an id that it was about."""
    holds: int = 0
    """Holds that it has begun, or ended."""
    at_once: int = 0
    """Of a resume: fires that were due when it was carried out."""


class _Stored(msgspec.Struct, frozen=True, array_like=True, gc=False):
    """The msgpack array in the header; new fields go to the end, and a new meaning gets a new version."""

    version: int
    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    destination: str
    due_ms: tuple[int, ...]
    recurrence: Recurrence | None = None
    reported: tuple[int, int, str | None] | None = None
    """Of a report alone: the partition, its count, and the topic for the receipt."""
    timing: Timing | None = None
    origin: str = ""
    """Of the coordinates: set by an import, on what was on its way."""
    counted: tuple[int, int, int] = (0, 0, 0)
    """Of a report alone: what it counts beside what was changed."""
    at_once: int = 0
    """Of the report of a resume alone."""
    defaults: tuple[str | None, int | None] | None = None
    """Of a command alone: the time zone, and the grace in ms."""


_encode = msgspec.msgpack.Encoder().encode
_decode = msgspec.msgpack.Decoder(_Stored).decode


def attach(headers: Sequence[Header], request: Request) -> list[Header]:
    """`headers`, the request's own as they arrived, with the command header of `request` at the end."""
    source = request.source
    stored = _Stored(
        _VERSION,
        source.topic,
        source.partition,
        source.offset,
        request.timestamp_ms,
        request.destination,
        request.due_ms,
        request.recurrence,
        None,
        request.timing,
        source.origin,
        defaults=(request.defaults.timezone, request.defaults.grace_ms),
    )
    return [*headers, (COMMAND_HEADER, _encode(stored))]


def report_headers(report: Report) -> list[Header]:
    """The headers of the record that carries a report; its key and value are null."""
    source = report.source
    stored = _Stored(
        _VERSION,
        source.topic,
        source.partition,
        source.offset,
        0,
        "",
        (),
        None,
        (report.partition, report.count, report.reply_to),
        None,
        source.origin,
        (report.matched, report.anonymous, report.holds),
        report.at_once,
    )
    return [(COMMAND_HEADER, _encode(stored))]


def detach(headers: Sequence[Header]) -> tuple[Command | Report | None, list[Header]]:
    """The command and the request's own headers; no command when it is not one of a known version."""
    if not headers or headers[-1][0] != COMMAND_HEADER:
        return None, list(headers)
    own, value = list(headers[:-1]), headers[-1][1]
    try:
        stored = _decode(value or b"")
    except UNREADABLE:
        return None, own
    if stored.version != _VERSION or not _possible(stored):
        return None, own
    source = Coordinates(stored.topic, stored.partition, stored.offset, stored.origin)
    if stored.reported is not None:
        return Report(source, *stored.reported, *stored.counted, stored.at_once), own
    command = Command(
        source,
        stored.timestamp_ms,
        stored.destination,
        stored.due_ms,
        stored.recurrence,
        stored.timing,
        None if stored.defaults is None else Defaults(*stored.defaults),
    )
    return command, own


def carried_over(headers: Sequence[Header], origin: Callable[[str, int, str], str]) -> list[Header]:
    """The headers of a command on its way, for another application: only its origin changes.

    `origin` makes the new origin from a topic, a partition and the origin so far. Headers of other records
    stay as they are.
    """
    if detach(headers)[0] is None:
        return list(headers)
    stored = _decode(headers[-1][1] or b"")
    stored = replace(stored, origin=origin(stored.topic, stored.partition, stored.origin))
    return [*headers[:-1], (COMMAND_HEADER, _encode(stored))]


def is_origin(text: str) -> bool:
    """Whether it can be a topic's id: what names are made of, and no separator of theirs."""
    return _ORIGIN.fullmatch(text) is not None


def _possible(stored: _Stored) -> bool:
    """Whether a worker can have written it: it fits Kafka, the calendar and the state's keys."""
    partitions, counts = [stored.partition], [*stored.counted, stored.at_once]
    if stored.reported is not None:
        partitions.append(stored.reported[0])
        counts.append(stored.reported[1])
    times_ms = (stored.timestamp_ms, *stored.due_ms)
    return (
        is_topic_name(stored.topic)
        and (not stored.origin or is_origin(stored.origin))
        and min(*partitions, stored.offset, *counts, *times_ms) >= 0
        and max(partitions) <= _LAST_PARTITION
        and stored.offset <= _LAST_OFFSET
        and max(counts) <= _MOST_SCHEDULES
        and max(times_ms) <= LATEST_MS
        and len(stored.due_ms) <= _MOST_TIMES
        and (stored.recurrence is None or _sound(stored.recurrence, stored.timestamp_ms))
        and (stored.timing is None or _sound_change(stored.timing, stored.timestamp_ms))
        and (stored.defaults is None or _sound_defaults(*stored.defaults))
    )


def _sound(recurrence: Recurrence, timestamp_ms: int) -> bool:
    """Whether a recurrence is one that a worker can have accepted; how often it may fire is not asked again.

    A release that reads less than the one that accepted it refuses the command, too.
    """
    end_ms = LATEST_MS if recurrence.end_ms is None else recurrence.end_ms
    numbers = (recurrence.every_ms, recurrence.start_ms, end_ms, recurrence.max_fires, recurrence.jitter_ms)
    if min(numbers) < 0 or max(numbers) > LATEST_MS:
        return False
    if _check(recurrence) is not None:
        return False
    return next_after(recurrence, timestamp_ms) is not None


def _sound_change(timing: Timing, timestamp_ms: int) -> bool:
    """Whether a change is one that a worker can have accepted, as far as it can be told from it alone."""
    numbers = (timing.every_ms, timing.start_ms, timing.end_ms, timing.max_fires, timing.jitter_ms)
    if any(isinstance(number, int) and not 0 <= number <= LATEST_MS for number in numbers):
        return False
    if timing.recurs:
        return _check(retimed(None, timing, timestamp_ms)) is None
    return not isinstance(timing.timezone, str) or zone_refusal(timing.timezone) is None


def _sound_defaults(timezone: str | None, grace_ms: int | None) -> bool:
    """Whether defaults are such as settings may hold."""
    return (timezone is None or zone_refusal(timezone) is None) and 0 <= (grace_ms or 0) <= LATEST_MS


def _check(recurrence: Recurrence) -> Rejection | None:
    return check(recurrence, min_interval_ms=1, max_expression=_MOST_CHARACTERS)
