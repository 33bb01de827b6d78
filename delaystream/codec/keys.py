"""Keys of the state, the same in RocksDB and in the changelog.

Every key begins with one byte for its kind; numbers are big-endian, so that byte order is due order.

==== ============================================================================= =====================
kind rest of the key                                                               value
==== ============================================================================= =====================
``b`` place, NUL, partition (4), offset (8)                                         a bulk command at work
``d`` destination number (4)                                                       name of a wheel
``e`` place, NUL, partition (4), offset (8)                                         a hold that has ended
``h`` place, NUL, partition (4), offset (8)                                         a hold, by its first pause
``n`` source number (4)                                                            topic, partition, origin
``o`` source topic's name                                                          next offset, topic id
``g`` place, NUL, partition (4), offset (8)                                         reports of a bulk command
``i``                                                                              who owns the partition
``m``                                                                              partition count, format
``s`` tenant, NUL, id                                                              the named schedule
``p`` tenant, NUL, id                                                              its payload, if large
``r``                                                                              when it was last recovered
``u`` a bulk command's key, then a hold's, each without its kind                   the hold before the command
``v`` tenant, NUL, destination                                                     a rate, by command
``w`` destination number (4), due ms (8), source number (4), offset (8), index (2) envelope or pointer
==== ============================================================================= =====================

Pointers are in the local store alone: they follow from the rows that they point to (`engine.state.pointers`).

A wheel's name is a topic; a tenant with a rate of its own for a destination has a wheel of its own there
(``topic NUL tenant``), and so has what a hold keeps back (``topic NUL [tenant] NUL hold``). Number 0 is the
wheel of housekeeping: its entries forget ids that are over, and go on with bulk commands, which are named by
where they stood in the tenant's topic: `delaystream.core.identity` says what a place is.
"""

from __future__ import annotations

from struct import Struct
from typing import Final

from delaystream.core import wheel

HOUSEKEEPING: Final = wheel.HOUSEKEEPING

_wheel = Struct(">cIQIQH")
_number = Struct(">cI")
_coordinates = Struct(">IQ")
_wheel_bound = Struct(">cIQ")
_due_ms = Struct(">Q")

_WHEEL_AT: Final = slice(1, 5)
_DUE_AT: Final = slice(5, 13)
_SOURCE_AT: Final = slice(13, 17)
_OFFSET_AT: Final = slice(17, 25)
_INDEX_AT: Final = slice(25, 27)

WHEEL_KEY_BYTES: Final = _wheel.size
META: Final = b"m"
RECOVERED: Final = b"r"
STATUS: Final = b"i"
#: first key behind every wheel key
WHEEL_END: Final = b"x"


def wheel_key(destination: int, due_ms: int, source: int, offset: int, index: int) -> bytes:
    """Key of one wheel entry; ``due_ms`` is not negative."""
    return _wheel.pack(b"w", destination, due_ms, source, offset, index)


def split_wheel_key(key: bytes) -> tuple[int, int, int, int, int]:
    """(destination, due_ms, source, offset, index) of a wheel key."""
    _, destination, due_ms, source, offset, index = _wheel.unpack(key)
    return destination, due_ms, source, offset, index


def due_at(key: bytes, due_ms: int) -> bytes:
    """The wheel key of the same schedule's entry for another due time."""
    return key[: _DUE_AT.start] + due_ms.to_bytes(8) + key[_DUE_AT.stop :]


def in_wheel(key: bytes, destination: int) -> bytes:
    """The wheel key of the same entry in another wheel."""
    return key[: _WHEEL_AT.start] + destination.to_bytes(4) + key[_WHEEL_AT.stop :]


def due_of(key: bytes) -> int:
    """The due time in a wheel key, ms."""
    due_ms: int = _due_ms.unpack_from(key, _DUE_AT.start)[0]
    return due_ms


def wheel_of(key: bytes) -> int:
    """The destination number in a wheel key."""
    return int.from_bytes(key[_WHEEL_AT])


def source_of(key: bytes) -> int:
    """The source number in a wheel key."""
    return int.from_bytes(key[_SOURCE_AT])


def offset_of(key: bytes) -> int:
    """The offset in a wheel key."""
    return int.from_bytes(key[_OFFSET_AT])


def index_of(key: bytes) -> int:
    """The list index in a wheel key."""
    return int.from_bytes(key[_INDEX_AT])


def wheel_bound(destination: int, due_ms: int = 0) -> bytes:
    """The least key of a destination's wheel that is due at ``due_ms`` or later."""
    return _wheel_bound.pack(b"w", destination, due_ms)


def destination_key(number: int) -> bytes:
    """Key of an interned destination name."""
    return _number.pack(b"d", number)


def wheel_name(topic: str, lane: str, hold: str = "") -> str:
    """The name under a destination number: a topic, and the tenant or hold whose own wheel it is."""
    if hold:
        return f"{topic}\0{lane}\0{hold}"
    return f"{topic}\0{lane}" if lane else topic


def split_wheel_name(name: str) -> tuple[str, str, str]:
    """(topic, tenant or '', hold or '') of a wheel's name."""
    topic, _, rest = name.partition("\0")
    lane, _, hold = rest.partition("\0")
    return topic, lane, hold


def source_key(number: int) -> bytes:
    """Key of an interned source partition."""
    return _number.pack(b"n", number)


def split_number(key: bytes) -> int:
    """The number in a ``d`` or ``n`` key."""
    return int(_number.unpack(key)[1])


def offset_key(topic: str) -> bytes:
    """Key of the next offset to apply from a source topic."""
    return b"o" + topic.encode()


def split_offset_key(key: bytes) -> str:
    """The source topic of an offset's key."""
    return key[1:].decode()


def schedule_key(tenant: str, id: str) -> bytes:
    """Key of a named schedule."""
    return f"s{tenant}\0{id}".encode()


def payload_key(tenant: str, id: str) -> bytes:
    """Key of a named schedule's payload."""
    return f"p{tenant}\0{id}".encode()


def rate_key(tenant: str, destination: str) -> bytes:
    """Key of a tenant's rate for a destination."""
    return f"v{tenant}\0{destination}".encode()


def after_prefix(key: bytes) -> bytes:
    """The first key behind every key that begins with `key`, which begins with a letter."""
    stripped = key.rstrip(b"\xff")
    return stripped[:-1] + bytes((stripped[-1] + 1,))


def split_schedule_key(key: bytes) -> tuple[str, str]:
    """(tenant, id) of a schedule's key."""
    tenant, _, id = key[1:].partition(b"\0")
    return tenant.decode(), id.decode()


def bulk_key(place: str, partition: int, offset: int) -> bytes:
    """Key of a bulk command's work on a partition."""
    return _by_coordinates(b"b", place, partition, offset)


def gathering_key(place: str, partition: int, offset: int) -> bytes:
    """Key of what is gathered of a bulk command."""
    return _by_coordinates(b"g", place, partition, offset)


def place_of(key: bytes) -> str:
    """The place in the key of a bulk command, a gathering or a hold."""
    return key[1:].partition(b"\0")[0].decode()


def hold_key(place: str, partition: int, offset: int) -> bytes:
    """Key of a hold, by the coordinates of the pause that asked for it first."""
    return _by_coordinates(b"h", place, partition, offset)


def begun_key(bulk: bytes) -> bytes:
    """Key of the hold that a pause begins, by the key of its work."""
    return b"h" + bulk[1:]


def before_key(bulk: bytes, hold: bytes) -> bytes:
    """Key of a hold as it was before a bulk command, by the keys of both."""
    return b"u" + bulk[1:] + hold[1:]


def ended_key(hold: bytes) -> bytes:
    """Key of what is known of a hold that has ended, by the key that it had."""
    return b"e" + hold[1:]


def _by_coordinates(kind: bytes, place: str, partition: int, offset: int) -> bytes:
    return kind + place.encode() + b"\0" + _coordinates.pack(partition, offset)
