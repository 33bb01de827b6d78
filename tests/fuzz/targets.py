"""What `make fuzz` throws bytes at: each target takes any bytes, and whatever it raises is a fault.

Coverage leads: a target is small, and goes straight to the code that it is about.
"""

from __future__ import annotations

import logging
import struct
import tracemalloc
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka.errors import CorruptRecordException
from aiokafka.record.util import calc_crc32c
from hypothesis import HealthCheck, given, settings

from delaystream.codec import envelope
from delaystream.codec.command import COMMAND_HEADER, attach
from delaystream.codec.envelope import UNREADABLE
from delaystream.core.record import Record
from delaystream.core.recurrence import CronError, Recurrence, check, due_ms, misses, next_after
from delaystream.core.recurrence.expression import parse_cron
from delaystream.core.rejection import Rejection
from delaystream.core.request import Action, Coordinates, Header, Request
from tests.fuzz.scripts import COMMANDS, NARROW, REQUESTS, SPOKEN, VALUES, YEAR_MS, Script, scripts
from tests.fuzz.world import World, run

NOW_MS: Final = 1_700_000_000_000
#: What reading one fetch response may take, bytes: a decompressed batch (2 MiB here) and its records.
MOST_BYTES: Final = 256 * 1024 * 1024


class Target(NamedTuple):
    """A function that takes any bytes, and bytes to begin with."""

    run: Callable[[bytes], Any]
    seeds: Callable[[], Iterator[bytes]]


class Bytes:
    """Bytes taken one field after the other; what is missing is zero."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    def number(self, size: int = 1) -> int:
        part = self._data[self._at : self._at + size]
        self._at += size
        return int.from_bytes(part, "big")

    def content(self) -> bytes | None:
        """A length in one byte, 255 for null, and so many bytes."""
        length = self.number()
        if length == 255:
            return None
        part = self._data[self._at : self._at + length]
        self._at += length
        return part

    def headers(self) -> list[Header]:
        found: list[Header] = []
        while self._at < len(self._data) and len(found) < 200:
            name = (self.content() or b"").decode("utf-8", "surrogateescape")
            found.append((name, self.content()))
        return found


def written(*contents: bytes | None) -> bytes:
    """As `Bytes.content` reads them."""
    return b"".join(b"\xff" if part is None else bytes((len(part[:254]),)) + part[:254] for part in contents)


# -- headers ---------------------------------------------------------------------------------------------

_TOPICS: Final = (REQUESTS, NARROW, *(f"{dialect}-requests" for dialect in SPOKEN))
_policies = cache(World.tenants)


def headers(data: bytes) -> None:
    """Any headers of a request, in every language."""
    given_ = Bytes(data)
    topic = _TOPICS[given_.number() % len(_TOPICS)]
    stamp_ms = given_.number(8) - (1 << 63)
    key, value = given_.content(), given_.content()
    read = (
        _policies()
        .of(topic)
        .parse(Record(Coordinates(topic, 0, 7), stamp_ms, key, value, given_.headers()), NOW_MS)
    )
    assert isinstance(read, Request | Rejection)


def _header_seeds() -> Iterator[bytes]:
    start = struct.pack(">Q", (1 << 63) + NOW_MS) + written(b"key", b"value")
    for kind, values in VALUES.items():
        for value in values:
            pairs = [b"delaystream-" + kind.encode(), value]
            yield b"\0" + start + written(*pairs)
            yield (
                b"\0"
                + start
                + written(*pairs, b"delaystream-destination", b"orders", b"delaystream-id", b"a")
            )
    for number, shapes in enumerate(SPOKEN.values(), start=2):
        for shape in shapes:
            pairs = [part for name, values in shape.items() for part in (name.encode(), values[0])]
            yield bytes((number,)) + start + written(*pairs)


# -- commands --------------------------------------------------------------------------------------------


def command(data: bytes) -> None:
    """Any command header, behind the headers of a request."""
    given_ = Bytes(data)
    own = _OWN[given_.number() % len(_OWN)]
    header: Header = (COMMAND_HEADER, data[1:])
    read = _policies().parse_command(
        Record(Coordinates(COMMANDS, 0, 7), NOW_MS, b"key", b"value", [*own, header]), NOW_MS
    )
    if isinstance(read, Request):
        named = read.id is not None or read.match is not None or read.subject is not None
        assert named or read.action is Action.RATE
        assert read.recurrence is None or next_after(read.recurrence, read.timestamp_ms) is not None


_OWN: Final[list[list[Header]]] = [
    [],
    [("delaystream-id", b"a"), ("delaystream-destination", b"orders"), ("delaystream-delay", b"5s")],
    [("delaystream-id", b"a"), ("delaystream-destination", b"orders"), ("delaystream-every", b"5s")],
    [("delaystream-id", b"a"), ("delaystream-action", b"cancel")],
    [("delaystream-action", b"pause"), ("delaystream-match-destination", b"*")],
    [("delaystream-id", b"a"), ("delaystream-action", b"reschedule"), ("delaystream-cron", b"* * * * *")],
    [("delaystream-id", b"a"), ("delaystream-action", b"update"), ("delaystream-payload", b"replace")],
    [("delaystream-action", b"trigger"), ("delaystream-coordinates", b"delay-requests/0/7")],
]


def _command_seeds() -> Iterator[bytes]:
    for number, own in enumerate(_OWN[1:], start=1):
        request = (
            _policies()
            .of(REQUESTS)
            .parse(Record(Coordinates(REQUESTS, 0, 7), NOW_MS, b"key", b"value", own), NOW_MS)
        )
        assert isinstance(request, Request)
        yield bytes((number,)) + (attach([], request)[-1][1] or b"")
    yield b"\0" + msgspec.msgpack.encode([2, REQUESTS, 0, 7, 0, "", [], None, [0, 3, "replies"]])


# -- cron expressions --------------------------------------------------------------------------------------

_ZONES: Final = ("UTC", "America/St_Johns", "Pacific/Apia", "Australia/Lord_Howe", "Africa/Casablanca")


def cron(data: bytes) -> None:
    """Any text as an expression; what is accepted has times, in order, and counting them ends."""
    given_ = Bytes(data)
    zone = _ZONES[given_.number() % len(_ZONES)]
    now_ms = given_.number(6) % 253_402_300_800_000
    text = data[7:263].decode("utf-8", "replace")
    with suppress(CronError):
        parse_cron(text)
    recurrence = Recurrence(text, 0, zone, start_ms=now_ms)
    if check(recurrence, min_interval_ms=1_000, max_expression=256) is not None:
        return
    first_ms = next_after(recurrence, now_ms)
    assert first_ms is None or first_ms > now_ms
    missed = misses(recurrence, now_ms, now_ms + 5 * YEAR_MS)
    assert (missed.first_ms is None) == (missed.number == 0)
    if first_ms is not None:
        assert due_ms(recurrence, first_ms, "fire") == first_ms


def _cron_seeds() -> Iterator[bytes]:
    for number, text in enumerate(VALUES["cron"]):
        yield bytes((number,)) + NOW_MS.to_bytes(6, "big") + text


# -- what is stored ----------------------------------------------------------------------------------------

_DECODERS: Final = [getattr(envelope, name) for name in sorted(dir(envelope)) if name.startswith("decode_")]


def stored(data: bytes) -> None:
    """Any bytes as each kind of stored value; what can be read is written so that it reads the same."""
    for decode in _DECODERS:
        try:
            value = decode(data)
        except UNREADABLE:
            continue
        assert decode(envelope.encode(value)) == value


def _stored_seeds() -> Iterator[bytes]:
    from tests.unit.test_envelope import MEANT

    for value in MEANT.values():
        yield msgspec.msgpack.encode(value)


# -- record batches ----------------------------------------------------------------------------------------


def batches(data: bytes) -> None:
    """Any bytes as a fetch response; from the first byte on whether lengths and checksums are put right."""
    from tests.unit.record_batches import pieces, reader

    response = bytes(_put_right(bytearray(data[1:]))) if data[:1] != b"\0" else data[1:]
    tracemalloc.start()
    try:
        with suppress(CorruptRecordException):
            # The markers of producer 7 matter; nothing depends on those of others.
            pieces(reader(response, aborted=[(7, 0)]))
        _, most = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert most < MOST_BYTES, f"reading {len(response)} bytes took {most}"


def _put_right(response: bytearray) -> bytearray:
    """Give the batch a length and a checksum that fit, so that what is in it is read."""
    if len(response) > 61:
        response[8:12] = (len(response) - 12).to_bytes(4, "big")
        response[16] = 2
        response[17:21] = calc_crc32c(bytes(response[21:])).to_bytes(4, "big")
    return response


def _batch_seeds() -> Iterator[bytes]:
    from tests.unit.record_batches import CODECS, batch, bomb, legacy, marker, record

    for compression in CODECS:
        good = batch(0, [(b"k", b"v" * 20, [("trace", b"1")]), (None, None, [])], compression)
        yield b"\1" + good
        yield b"\0" + good + batch(2, [(b"k", b"v", [])], compression)
        if compression != "none":
            yield b"\1" + bomb(0, 4, compression)[:16_000]
    yield b"\0" + legacy(0, 0, b"v") + legacy(1, 1, None)
    for compression, (number, compress) in CODECS.items():
        end = marker(0, bytes(compress(record(0, b"\0\0\0\0", b""))), codec_number=number)
        yield b"\1" + end
        yield b"\0" + end + batch(1, [(b"k", b"v", [])], compression)


# -- the engine --------------------------------------------------------------------------------------------


@settings(database=None, deadline=None, suppress_health_check=list(HealthCheck))
@given(scripts())
def _lives(script: Script) -> None:
    run(script)


def engine(data: bytes) -> None:
    """A life of a worker, drawn from the bytes as `tests/unit/test_fuzz.py` draws it at random."""
    _lives.hypothesis.fuzz_one_input(data)  # type: ignore[attr-defined]


def _engine_seeds() -> Iterator[bytes]:
    from random import Random

    random = Random(0)
    for size in (200, 2_000, 2_000, 8_000):
        yield random.randbytes(size)


TARGETS: Final[dict[str, Target]] = {
    "headers": Target(headers, _header_seeds),
    "command": Target(command, _command_seeds),
    "cron": Target(cron, _cron_seeds),
    "stored": Target(stored, _stored_seeds),
    "batches": Target(batches, _batch_seeds),
    "engine": Target(engine, _engine_seeds),
}

logging.disable(logging.CRITICAL)
