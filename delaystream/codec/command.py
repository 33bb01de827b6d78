"""The header of what workers send each other: a request re-routed to the partition that owns its id, a bulk
command on its way to every partition, and what a partition has to report of one.

What was known when the request was first seen goes with it: where it stood, its timestamp, its destination
(which may be the default of its topic) and its due times, so that the owner decides on the same facts however
much later it reads them.
"""

from collections.abc import Sequence
from typing import Final

import msgspec

from delaystream.core.recurrence import Recurrence
from delaystream.core.request import Coordinates, Header, Request

COMMAND_HEADER: Final = "delaystream-command"
"""Written by workers, on the commands topic only; elsewhere it is an unknown header."""

_VERSION: Final = 1


class Command(msgspec.Struct, frozen=True, gc=False):
    """What a re-routed request was when it was first seen."""

    source: Coordinates
    timestamp_ms: int
    destination: str
    """Empty for a command."""
    due_ms: tuple[int, ...]
    """In the order of the request's list; () for a recurring schedule, and where no time is set."""
    recurrence: Recurrence | None = None


class Report(msgspec.Struct, frozen=True, gc=False):
    """How many schedules one partition changed for a bulk command: that part of it is done."""

    source: Coordinates
    """Of the bulk command, whose partition gathers the reports."""
    partition: int
    count: int
    reply_to: str | None = None
    """Where the receipt of the bulk command goes."""


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
    )
    return [(COMMAND_HEADER, _encode(stored))]


def detach(headers: Sequence[Header]) -> tuple[Command | Report | None, list[Header]]:
    """The command and the request's own headers; no command when it is not one of a known version."""
    if not headers or headers[-1][0] != COMMAND_HEADER:
        return None, list(headers)
    own, value = list(headers[:-1]), headers[-1][1]
    try:
        stored = _decode(value or b"")
    except msgspec.DecodeError:
        return None, own
    if stored.version != _VERSION or not _storable(
        stored.partition, stored.offset, stored.timestamp_ms, *stored.due_ms
    ):
        return None, own
    source = Coordinates(stored.topic, stored.partition, stored.offset)
    if stored.reported is not None:
        partition, count, reply_to = stored.reported
        return (Report(source, partition, count, reply_to) if _storable(partition, count) else None), own
    return (
        Command(source, stored.timestamp_ms, stored.destination, stored.due_ms, stored.recurrence),
        own,
    )


def _storable(*numbers: int) -> bool:
    """Whether numbers fit the state's keys: what does not was not written by a worker."""
    return min(numbers) >= 0 and max(numbers) < 1 << 63
