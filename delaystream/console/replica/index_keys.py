"""Keys of the index: local rows beside those of the changelog, with capital letters for their kinds.

==== ============================================================== ==========================================
kind rest of the key                                                what it is for
==== ============================================================== ==========================================
``A`` status (1), next due time (8), sign (4), tenant, NUL, id       named schedules by their next fire
``B`` status (1), last fired (8), sign (4), tenant, NUL, id          by their last fire, latest first
``C`` status (1), created (8), sign (4), tenant, NUL, id             by when they were made, latest first
``E`` due time (8), sign (4), tenant, NUL, id                         further fires of a list of due times
``I`` status (1), id, NUL, tenant                                    by id
``D`` destination, NUL, status (1), reference                        named schedules of a destination
``H`` length of the id (2), id, status (1), reference                what has a correlation id
``K`` length of the key (2), key, status (1), reference              what delivers with a key
``T`` length of the tag (2), tag, status (1), reference              what has a tag
``W`` word, NUL, status (1), reference                               words of an id, a name, a description
``X`` source number (4), offset (8), rest of wheel key               entries of one request without an id
``N`` tenant, NUL, destination, NUL, status (1)                      number of named schedules (8 bytes)
``M`` wheel number (4), source number (4)                            number of entries without an id (8 bytes)
==== ============================================================== ==========================================

Values are empty but for the two counters. A reference is the key of the row that is meant: ``s`` or ``w``.
Times are ms, big-endian; what has none stands behind everything that has one. Where the latest comes first,
it is the time that is left until 2^63 ms. An id may hold NUL, and so may a tag; topic names do not. A
sign is a checksum of the destination: most of what is for another one is passed over unread.
"""

from __future__ import annotations

from struct import Struct
from typing import Final
from zlib import crc32

from delaystream.codec.envelope import Status

STATUSES: Final = tuple(Status)
_CODES: Final = {status: bytes((number,)) for number, status in enumerate(STATUSES)}

CORRELATION_BYTES: Final = 256
"""Of a correlation id, so many are kept."""
NO_TIME: Final = 2**64 - 1
_FAR: Final = 2**63
_time = Struct(">Q").pack
_count = Struct(">q")
_place = Struct(">IQ").pack


def code(status: Status) -> bytes:
    """A status as one byte."""
    return _CODES[status]


def time_bytes(time_ms: int | None) -> bytes:
    """A time as it stands in keys; None behind all others."""
    return _time(NO_TIME if time_ms is None or time_ms < 0 else time_ms)


def latest_first(time_ms: int | None) -> bytes:
    """A time as it stands in keys of which the latest comes first; None behind all others."""
    return _time(NO_TIME if time_ms is None or time_ms < 0 else _FAR - time_ms)


def sign(destination: str) -> bytes:
    """Four bytes that another destination most likely does not have."""
    return crc32(destination.encode()).to_bytes(4)


def by_next(status: Status, time_ms: int | None, sign: bytes, row_key: bytes) -> bytes:
    """Key of kind ``A``; ``row_key`` is that of the schedule."""
    return b"A" + _CODES[status] + time_bytes(time_ms) + sign + row_key[1:]


def by_due(time_ms: int, sign: bytes, row_key: bytes) -> bytes:
    """Key of kind ``E``: a fire that is not the next one."""
    return b"E" + time_bytes(time_ms) + sign + row_key[1:]


def by_last(status: Status, time_ms: int | None, sign: bytes, row_key: bytes) -> bytes:
    """Key of kind ``B``."""
    return b"B" + _CODES[status] + latest_first(time_ms) + sign + row_key[1:]


def by_created(status: Status, time_ms: int | None, sign: bytes, row_key: bytes) -> bytes:
    """Key of kind ``C``."""
    return b"C" + _CODES[status] + latest_first(time_ms) + sign + row_key[1:]


def by_id(status: Status, tenant: str, id: str) -> bytes:
    """Key of kind ``I``."""
    return b"I" + _CODES[status] + f"{id}\0{tenant}".encode()


def destination_prefix(destination: str) -> bytes:
    """What every ``D`` row of a destination begins with."""
    return b"D" + destination.encode() + b"\0"


def key_prefix(key: bytes) -> bytes:
    """What every ``K`` row of a key begins with."""
    return b"K" + len(key).to_bytes(2) + key


def correlation_prefix(id: bytes) -> bytes:
    """What every ``H`` row of a correlation id begins with; up to `CORRELATION_BYTES` of it tell."""
    kept = id[:CORRELATION_BYTES]
    return b"H" + len(kept).to_bytes(2) + kept


def tag_prefix(tag: str) -> bytes:
    """What every ``T`` row of a tag begins with."""
    text = tag.encode()
    return b"T" + len(text).to_bytes(2) + text


def word_prefix(word: str) -> bytes:
    """What every ``W`` row of a word begins with."""
    return b"W" + word.encode() + b"\0"


def place_prefix(source: int, offset: int) -> bytes:
    """What every ``X`` row of one request begins with."""
    return b"X" + _place(source, offset)


def by_place(wheel_key: bytes) -> bytes:
    """Key of kind ``X``, of an entry of a wheel."""
    # Source and offset stand behind wheel and due time there.
    return b"X" + wheel_key[13:25] + wheel_key[1:13] + wheel_key[25:]


def wheel_key_of(place: bytes) -> bytes:
    """The wheel key that a key of kind ``X`` stands for."""
    return b"w" + place[13:25] + place[1:13] + place[25:]


def named_counter(tenant: str, destination: str, status: Status) -> bytes:
    """Key of kind ``N``."""
    return f"N{tenant}\0{destination}\0".encode() + _CODES[status]


def split_named_counter(key: bytes) -> tuple[str, str, Status]:
    """(tenant, destination, status) of a key of kind ``N``."""
    tenant, destination, status = key[1:].split(b"\0", 2)
    return tenant.decode(), destination.decode(), STATUSES[status[0]]


def entry_counter(wheel_key: bytes) -> bytes:
    """Key of kind ``M`` that counts an entry of a wheel."""
    return b"M" + wheel_key[1:5] + wheel_key[13:17]


def split_entry_counter(key: bytes) -> tuple[int, int]:
    """(wheel number, source number) of a key of kind ``M``."""
    return int.from_bytes(key[1:5]), int.from_bytes(key[5:9])


def count_bytes(count: int) -> bytes:
    """A counter as it is stored."""
    return _count.pack(count)


def count_of(stored: bytes) -> int:
    """The number in a counter."""
    return int(_count.unpack(stored)[0])
