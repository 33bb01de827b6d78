"""What stands in the log at the end, as the ledger wants it; and the state, held against the changelog."""

from __future__ import annotations

import struct
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from delaystream.codec import keys
from delaystream.codec.envelope import decode_schedule, decode_source
from delaystream.engine.ports import TopicPartition
from delaystream.testing import Disk, MemoryLog
from tests.ledger import Asked, Delivered


def delivered(log: MemoryLog, topic: str) -> list[Delivered]:
    """Every record of a topic that a read_committed reader gets."""
    return [
        Delivered(topic, partition, r.offset, r.key, r.value, r.headers, r.timestamp, r.appended_ms)
        for partition, r in log.all(topic)
    ]


def accepted(commits: Mapping[TopicPartition, Sequence[tuple[int, int]]], request: Asked) -> int | None:
    """When the transaction that applied a request was committed."""
    topic, partition = request.partition
    found = commits.get(TopicPartition(topic, int(partition)), ())
    number = bisect_right(found, request.offset, key=lambda commit: commit[0])
    return found[number][1] if number < len(found) else None


def changelog_state(log: MemoryLog, at: TopicPartition) -> dict[bytes, bytes]:
    """What the committed records of a changelog partition add up to."""
    state: dict[bytes, bytes] = {}
    for record in log.read(at, log.bounds(at).start)[0]:
        assert record.key is not None
        if record.value is None:
            state.pop(record.key, None)
        else:
            state[record.key] = record.value
    return state


def differences(state: Mapping[bytes, bytes], disk: Disk) -> Iterator[str]:
    """Where a local store, but for what is only kept locally, is not what the changelog adds up to."""
    found = {key: value for key, value in disk.values.items() if key[:1] not in (b"l", b"q")}
    for key in sorted(state.keys() | found.keys()):
        if state.get(key) != found.get(key):
            yield f"{key!r}: the changelog says {state.get(key)!r}, the store {found.get(key)!r}"


def miscounts(disk: Disk) -> Iterator[str]:
    """Where the counters of pending entries are not what counting the entries gives."""
    counted: Counter[bytes] = Counter()
    stored: dict[bytes, int] = {}
    for key, value in disk.values.items():
        if key[:1] == b"w" and (split := keys.split_wheel_key(key))[0] != keys.HOUSEKEEPING:
            wheel, due_ms, source, _, _ = split
            counted[struct.pack(">cII", b"l", wheel, due_ms // 3_600_000)] += 1
            counted[b"q" + decode_source(disk.values[keys.source_key(source)]).topic.encode()] += 1
        elif key[:1] == b"s":
            counted[b"q" + key[1:].split(b"\0")[0]] += decode_schedule(value).withheld
        elif key[:1] in (b"l", b"q"):
            stored[key] = struct.unpack(">Q", value)[0]
    for key in sorted(counted.keys() | stored.keys()):
        if stored.get(key, 0) != counted[key]:
            yield f"{key!r} counts {stored.get(key, 0)}, and there are {counted[key]}"


def triggers(disk: Disk, tenant: str) -> int:
    """How many triggered fires of a tenant wait."""
    return sum(
        len(decode_schedule(value).triggers)
        for key, value in disk.values.items()
        if key.startswith(keys.schedule_key(tenant, ""))
    )
