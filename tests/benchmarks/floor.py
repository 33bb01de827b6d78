"""What a fire takes without any decision: `python -m tests.benchmarks.floor`.

A loop over due entries that only does what no fire can go without: it reads them, decodes what is stored,
encodes what is left of it, and writes. Everything in it is compiled code (RocksDB, msgspec, aiokafka's record
batches, murmur2), and what it encodes is the same object each time. So `tests.benchmarks.in_memory` less this
is what the engine's own Python takes. Processor time, the median of the rounds.
"""

from __future__ import annotations

import argparse
import gc
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from statistics import median
from typing import Final

from delaystream.adapters.storage.data_directory import DataDirectory
from delaystream.adapters.storage.rocksdb_store import RocksDbStore, RocksDbStores
from delaystream.adapters.transactions.batches import EncodedRows, Encoding, Identity
from delaystream.codec.envelope import (
    Envelope,
    Fire,
    Forget,
    Pointer,
    Schedule,
    Status,
    decode_entry,
    decode_envelope,
    decode_schedule,
    encode,
)
from delaystream.codec.event import SCHEMA_VERSION, EventType, FiredEvent, encode_event
from delaystream.codec.keys import HOUSEKEEPING, schedule_key, wheel_bound, wheel_key
from delaystream.codec.outgoing import FIRED_AT, Delivery, delivery_headers
from delaystream.core.partitioning import partition_for_key
from delaystream.engine.ports import Change, Marker, TopicPartition
from tests.benchmarks import records

_NOW_MS: Final = 1_700_000_000_000
_TOPIC: Final = "delay-requests"
_WHEEL: Final = 1
_STEP: Final = 8_000
_SCANNED: Final = 512
_READ_AHEAD: Final = 32
_MARKER: Final = Marker("id", 0, -1, b"")
_ENCODING: Final = Encoding(Identity(1, 0), limit_bytes=1_000_000, compression=0)


def _payload(number: int) -> Envelope:
    own: list[tuple[str, bytes | None]] = [("content-type", b"application/json")]
    return Envelope(records.key(number), records.value(_NOW_MS, number), own, _NOW_MS)


def _schedule(number: int) -> Schedule:
    return Schedule(
        Status.PENDING,
        number * 32_768 + 1,
        _TOPIC,
        0,
        number,
        _NOW_MS,
        "out",
        [wheel_key(_WHEEL, _NOW_MS, 0, number, 0)],
        payload=encode(_payload(number)),
        digest=bytes(16),
        version=number * 32_768 + 1,
        created_ms=_NOW_MS,
        updated_ms=_NOW_MS,
        key=b"job-%d" % number,
    )


def _fill(store: RocksDbStore, count: int, *, named: bool) -> None:
    """The rows of so many pending requests, in steps."""
    for first in range(0, count, _STEP):
        changes: list[Change] = []
        for number in range(first, min(first + _STEP, count)):
            id, key = f"job-{number}", wheel_key(_WHEEL, _NOW_MS, 0, number, 0)
            if named:
                schedule = _schedule(number)
                changes.append((schedule_key(_TOPIC, id), encode(schedule)))
                changes.append((key, encode(Pointer(_TOPIC, id, schedule.revision))))
            else:
                changes.append((key, encode(_payload(number))))
        store.write(changes, [], _MARKER)


def _headers(fire: str) -> list[tuple[str, bytes | None]]:
    delivery = Delivery("job-1", fire, _NOW_MS, f"{_TOPIC}/0/1", 1)
    return delivery_headers(_payload(1).headers, delivery, (FIRED_AT, b"%d" % _NOW_MS))


class _Step:
    """What one step writes, encoded as it comes."""

    def __init__(self) -> None:
        self.out, self.events, self.changelog = (
            EncodedRows(TopicPartition(topic, 0), _ENCODING, 0) for topic in ("out", "events", "changelog")
        )
        self.changes: list[Change] = []

    def commit(self, store: RocksDbStore) -> None:
        for rows in (self.out, self.events, self.changelog):
            rows.batches()
        store.write(self.changes, [], _MARKER)


def _plain(step: _Step, store: RocksDbStore, entries: list[tuple[bytes, bytes]]) -> None:
    headers, out, gone = _headers(f"{_TOPIC}/0/1/0/{_NOW_MS}"), step.out.append, step.changelog.append
    for key, stored in entries:
        envelope = decode_entry(stored)
        assert type(envelope) is Envelope
        partition_for_key(envelope.key or b"", 4)
        out((envelope.key, envelope.value, headers, _NOW_MS))
        gone((key, None, (), _NOW_MS))
        step.changes.append((key, None))


def _named(step: _Step, store: RocksDbStore, entries: list[tuple[bytes, bytes]]) -> None:
    fire = f"{_TOPIC}/r123456/0/{_NOW_MS}/job-123456"
    headers, left = _headers(fire), _left(fire)
    event = FiredEvent(
        SCHEMA_VERSION, EventType.FIRED, _NOW_MS, _TOPIC, "job-123456", f"{_TOPIC}/0/123456", "job-123456",
        "fired", 123456, "job-123456", None, _NOW_MS, None, _NOW_MS, None, None, _NOW_MS, _NOW_MS, 0, fire, 1,
        0, "out", 1,
    )  # fmt: skip
    forget = Forget(_TOPIC, "job-123456", 123456)
    out, told, row = step.out.append, step.events.append, step.changelog.append
    for first in range(0, len(entries), _READ_AHEAD):
        some = entries[first : first + _READ_AHEAD]
        pointers = [decode_entry(stored) for _, stored in some]
        keys = [schedule_key(each.tenant, each.id) for each in pointers if type(each) is Pointer]
        for (key, _), at, stored in zip(some, keys, store.get_many(keys), strict=True):
            schedule = decode_schedule(stored or b"")
            envelope = decode_envelope(schedule.payload or b"")
            partition_for_key(envelope.key or b"", 4)
            out((envelope.key, envelope.value, headers, _NOW_MS))
            partition_for_key(at, 4)
            told((at, encode_event(event), (), _NOW_MS))
            changed = encode(left)
            row((at, changed, (), _NOW_MS))
            forgotten = wheel_key(HOUSEKEEPING, _NOW_MS, 0, schedule.offset, 0)
            step.changes += ((at, changed), (key, None), (forgotten, encode(forget)))


def _left(fire: str) -> Schedule:
    """The row of a schedule that has fired."""
    return Schedule(
        Status.FIRED,
        123456,
        _TOPIC,
        0,
        123456,
        _NOW_MS,
        "out",
        [],
        1,
        fire,
        wheel_key(HOUSEKEEPING, _NOW_MS, 0, 123456, 0),
        history=[Fire(_NOW_MS, _NOW_MS, 123456)],
        digest=bytes(16),
        version=123456,
        created_ms=_NOW_MS,
        updated_ms=_NOW_MS,
        key=b"job-123456",
        last_fired_ms=_NOW_MS,
    )


def measured(fire: Callable[[_Step, RocksDbStore, list[tuple[bytes, bytes]]], None], count: int) -> float:
    """Microseconds of processor time a fire."""
    with tempfile.TemporaryDirectory(prefix="delaystream-bench-") as temporary:
        directory = DataDirectory.acquire(Path(temporary), "bench")
        store = RocksDbStores(directory).open(0)
        _fill(store, count, named=fire is _named)
        gc.collect()
        began = time.process_time()
        start, stop, left = wheel_bound(_WHEEL), wheel_bound(_WHEEL + 1), count
        while left:
            step, room = _Step(), min(_STEP, left)
            while room:
                entries = store.scan(start, stop, min(_SCANNED, room))
                fire(step, store, entries)
                start = entries[-1][0] + b"\0"
                room -= len(entries)
                left -= len(entries)
            step.commit(store)
        seconds = time.process_time() - began
        store.close()
        directory.release()
        return seconds * 1e6 / count


def main() -> None:
    """Print both floors."""
    parser = argparse.ArgumentParser(prog="python -m tests.benchmarks.floor", description=__doc__)
    parser.add_argument("--count", type=int, default=50_000, help="fires of each kind")
    parser.add_argument("--rounds", type=int, default=5, help="how often each is measured")
    arguments = parser.parse_args()
    rounds = [
        (measured(_plain, arguments.count), measured(_named, arguments.count))
        for _ in range(arguments.rounds)
    ]
    for name, times in (
        ("without an id", [plain for plain, _ in rounds]),
        ("named", [it for _, it in rounds]),
    ):
        print(f"fire {name}: {median(times):.2f} us")


if __name__ == "__main__":
    main()
