"""Records whose timestamps are none: whoever produces may say any number that 64 bits hold."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import timedelta

import pytest

from delaystream.engine.ports import TopicPartition
from delaystream.testing import environment

NO_TIMESTAMPS = [-1, -2, -315_619_200_000, -(2**62), -(2**63)]
"""-1 is what a record without one has; a broker takes the others, too."""
FAR = [0, 1, 31_535_999_999, 253_402_300_799_999, 253_402_300_800_000, 2**62, 2**63 - 1]

KINDS: list[Mapping[str, str]] = [
    {"destination": "out", "delay": "1h"},
    {"destination": "out", "delay": "1h,2h"},
    {"destination": "out", "at": "2030-01-01T01:00:00Z"},
    {"destination": "out", "delay": "1h", "id": "a"},
    {"destination": "out", "delay": "1h", "id": "b", "reply-to": "delay-receipts", "request-id": "r"},
    {"destination": "out", "every": "1h", "id": "c", "jitter": "1m"},
    {"destination": "out", "cron": "@hourly", "id": "d"},
    {"destination": "out", "delay": "5s", "grace": "1s", "on-late": "drop"},
    {"action": "cancel", "id": "unknown"},
    {"action": "update", "id": "c", "tags": "x"},
    {"action": "reschedule", "id": "c", "every": "2h"},
    {"action": "pause", "id": "c", "until": "2030-01-02T00:00:00Z"},
    {"action": "resume", "id": "c"},
    {"action": "describe", "id": "c", "reply-to": "delay-receipts"},
    {"action": "trigger", "id": "c"},
    {"action": "trigger", "coordinates": "delay-requests/0/0"},
    {"action": "cancel", "coordinates": "delay-requests/0/1"},
    {"action": "pause", "match-id-prefix": "x", "match-new": "true"},
    {"action": "cancel", "match-id-prefix": "a"},
    {"action": "rate", "destination": "out", "rate": "5"},
    {"destination": "out", "delay": "wrong"},
]


@pytest.mark.parametrize("timestamp_ms", [*NO_TIMESTAMPS, *FAR])
def test_no_timestamp_stops_a_worker(timestamp_ms: int) -> None:
    """Less than none counts as the present; what cannot be the present is refused. Every request has an end,
    also where it is passed on to another partition, and the next one is served."""
    with environment(partitions=3) as env:
        for number, kind in enumerate(KINDS):
            headers = [(f"delaystream-{name}", text.encode()) for name, text in kind.items()]
            row = b"k", b"v", headers, timestamp_ms
            env.log.append(TopicPartition("delay-requests", number % 3), row)
            env.advance(timedelta(seconds=1))
        env.advance(timedelta(days=2))
        letters = env.dead_letters()
        if timestamp_ms < 0:
            assert "invalid-timestamp" not in {letter.code for letter in letters}
            assert env.deliveries("out")
        else:
            assert [letter.code for letter in letters] == ["invalid-timestamp"] * len(KINDS)
            assert not env.deliveries("out")
        env.client.schedule("after", b"", delay=timedelta(hours=1), id="after")
        env.advance(timedelta(hours=1))
        env.assert_delivered("after", count=1)


@pytest.mark.parametrize(
    "at", ["-315619200000", "-1", "0", "1960-01-01T00:00:00Z", "253402300800000", "9" * 30]
)
def test_no_due_time_stops_a_worker(at: str) -> None:
    with environment() as env:
        headers = [("delaystream-destination", b"out"), ("delaystream-at", at.encode())]
        env.log.append(TopicPartition("delay-requests", 0), (None, b"", headers, 1_893_456_000_000))
        env.advance(timedelta(days=1))
        [letter] = env.dead_letters()
        assert letter.code in ("at-not-milliseconds", "invalid-at", "delay-too-long")
