"""Stored values: what any released version has written still reads; `golden/values.json` holds them.

`python -m tests.unit.test_envelope NAME` prints a line for a new one. Lines are only ever added.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from delaystream.codec import envelope
from delaystream.codec.envelope import (
    Before,
    Bound,
    Bulk,
    Ended,
    Envelope,
    Fire,
    Forget,
    Gathering,
    Hold,
    HoldEnd,
    Meta,
    Parked,
    PartitionStatus,
    Past,
    Pointer,
    Rate,
    Schedule,
    SourceName,
    SourcePosition,
    Status,
    Sweep,
    Trigger,
    Triggered,
    Wake,
    decode_before,
    decode_bulk,
    decode_ended,
    decode_entry,
    decode_gathering,
    decode_hold,
    decode_meta,
    decode_position,
    decode_rate,
    decode_schedule,
    decode_source,
    decode_status,
    encode,
)
from delaystream.core.recurrence import Recurrence
from delaystream.core.request import Action, CatchUp, Lateness, Match

GOLDEN = Path(__file__).with_name("golden") / "values.json"
KEY = bytes(range(27))
ORIGIN = "w2WxZ0kXSyGk1zvVnXbVhA"
BASE = ("delay-requests", 3, 42, 1_700_000_000_000, "orders")

HOLD = Hold("delay-requests", 1, 9, 10, Match(), "delay-requests/1/9", 1_700_000_000_000)

#: what each golden value says, by its name
MEANT: dict[str, Any] = {
    "envelope-1": Envelope(
        b"k", b"v", [("a", b"\xff"), ("a", None)], 1_700_000_000_000, 2, True, b"", "late", 5
    ),
    "pointer-1": Pointer("delay-requests", "order-7", 43),
    "forget-1": Forget("delay-requests", "order-7", 43),
    "schedule-1": Schedule(Status.PENDING, 43, *BASE, [KEY], 2, "f", None, "name", "text", ["a", "b"]),
    "trigger-1": Trigger("delay-requests", "order-7", 43, 1, 9),
    "wake-1": Wake("delay-requests", "order-7"),
    "sweep-1": Sweep(b"bdelay-requests\0key"),
    "schedule-2": Schedule(
        Status.PAUSED,
        43,
        *BASE,
        [],
        2,
        "f",
        None,
        "name",
        "text",
        ["a"],
        Recurrence("0 9 * * *", 0, "Europe/Berlin", "skip", "both", 1, 2, 3, 4),
        1_700_000_100_000,
        CatchUp.ALL,
        60_000,
        2,
        5,
        1,
        [(1_700_000_200_000, 1)],
        [Triggered(KEY, 43, 1)],
        7,
        8,
        [Fire(1, 2, 43, 0), Fire(3, 4, 43, "t1.9")],
        "ada",
        b"payload",
    ),
    "bulk-1": Bulk(
        "delay-requests", 1, 9, 10, Action.PAUSE, Match(("a",), "o*", "x"), b"s", KEY, 2, 3, "replies", "ada"
    ),
    "gathering-1": Gathering(Action.CANCEL, [0, 2], 17, "ada"),
    "gathering-2": Gathering(Action.RATE, [0], 0, "ada", None, "orders", 0.5),
    "rate-1": Rate("delay-requests", "orders", 12.5, 3, 42, 1_700_000_000_000, "ada", ORIGIN),
    "rate-2": Rate("delay-requests", "orders", None, 3, 42, 1_700_000_000_000),
    "rate-3": Rate("delay-requests", "orders", 12.5, 3, 42, 1_700_000_000_000, "ada", ORIGIN, "incident 12"),
    "status-1": PartitionStatus(
        "worker-0",
        "host-7",
        1_700_000_000_000,
        [Parked("orders", "it does not exist", 1_600_000_000_000)],
        2,
        [Bound("delay-requests", "o*", 0.5)],
    ),
    "position-1": SourcePosition(42, ORIGIN),
    "source-1": SourceName("delay-requests", 3),
    "source-2": SourceName("delay-requests", 3, ORIGIN),
    "meta-1": Meta(16, 1, "delaystream", "a-transfer", "imported"),
    "trigger-2": Trigger("delay-requests", "order-7", 43, 1, 9, ORIGIN, "another"),
    "schedule-3": Schedule(
        Status.CANCELLED,
        43,
        *BASE,
        history=[Fire(1, 2, 43, 0, ORIGIN)],
        origin=ORIGIN,
        revision_origin="another",
    ),
    "schedule-4": Schedule(
        Status.PENDING,
        43,
        *BASE,
        history=[
            Fire(1, 2, 43, "t1.9", "", Past.TRIGGERED),
            Fire(3, 9, 43, 0, "", Past.MISSED, 5, 3),
            Fire(6, 9, 43, 0, "", Past.SKIPPED, 6, 1),
        ],
        created_ms=7,
        created_by="ada",
        updated_ms=8,
        updated_by="bob",
        key=b"customer\xff",
        last_fired_ms=2,
    ),
    "bulk-2": Bulk("delay-requests", 1, 9, 10, Action.RESUME, Match(), b"s", KEY, origin=ORIGIN),
    "envelope-2": Envelope(b"k", None, [], 1_700_000_000_000, tags=["a", "b"], released=True),
    "envelope-3": Envelope(b"k", None, [], 1_700_000_000_000, swept=[(1, 9, ORIGIN)]),
    "hold-1": Hold(
        "delay-requests",
        1,
        9,
        10,
        Match(("a",), "o*", None, b"k", True),
        "delay-requests/1/8",
        1_700_000_000_000,
        "ada",
        "the provider is down",
        ORIGIN,
    ),
    "schedule-5": Schedule(Status.PAUSED, 43, *BASE, held=[(1, 0)], held_by="delay-requests/1/8"),
    "bulk-3": Bulk(
        "delay-requests",
        1,
        9,
        10,
        Action.RESCHEDULE,
        Match(),
        b"w",
        KEY,
        matched=1,
        anonymous=2,
        holds=["delay-requests/1/8"],
        subject=(3, 42, ORIGIN),
        due_ms=1_700_000_000_000,
        found=[KEY],
        no_receipt="denied",
    ),
    "release-1": HoldEnd(b"hdelay-requests\0key"),
    "hold-2": Hold(
        "delay-requests", 1, 9, 10, Match(), "delay-requests/1/9", 1_700_000_000_000, until_key=KEY
    ),
    "gathering-4": Gathering(Action.PAUSE, [0, 2], holds=1, until_ms=1_700_000_000_000),
    "ended-1": Ended(HOLD, 1_700_000_000_000, KEY, Lateness(CatchUp.ALL, "drop", 5)),
    "bulk-4": Bulk("delay-requests", 1, 9, 10, Action.RESUME, Match(), b"s", KEY, at_once=3),
    "bulk-5": Bulk(
        "delay-requests", 1, 9, 10, Action.CANCEL, Match(), b"w", KEY, subject=(0, 7, ""), read=False
    ),
    "gathering-5": Gathering(Action.RESUME, [0, 2], at_once=3),
    "gathering-6": Gathering(Action.CANCEL, [0, 2], 17, "ada", note="incident 12"),
    "before-1": Before(b"bdelay-requests\0key", b"hdelay-requests\0key", HOLD),
    "gathering-3": Gathering(Action.PAUSE, [0, 2], 17, "ada", None, matched=18, anonymous=19, holds=1),
}
DECODERS = {
    "schedule": decode_schedule,
    "bulk": decode_bulk,
    "gathering": decode_gathering,
    "rate": decode_rate,
    "status": decode_status,
    "hold": decode_hold,
    "before": decode_before,
    "ended": decode_ended,
    "position": decode_position,
    "source": decode_source,
    "meta": decode_meta,
}


def golden() -> dict[str, str]:
    values: dict[str, str] = json.loads(GOLDEN.read_text("utf-8"))
    return values


@pytest.mark.parametrize("name", MEANT)
def test_what_was_written_once_still_reads(name: str) -> None:
    decode: Any = DECODERS.get(name.partition("-")[0], decode_entry)
    assert decode(bytes.fromhex(golden()[name])) == MEANT[name]


def test_every_golden_value_has_its_meaning_here() -> None:
    assert golden().keys() == MEANT.keys()


def test_a_value_of_the_first_release_is_filled_in() -> None:
    """It knows of no recurrence: the fields that came later have their defaults."""
    schedule = decode_schedule(bytes.fromhex(golden()["schedule-1"]))
    assert (schedule.recurrence, schedule.next_ms, schedule.history, schedule.held) == (None, -1, [], [])
    assert not schedule.over


if __name__ == "__main__":
    print(json.dumps({name: encode(MEANT[name]).hex() for name in sys.argv[1:] or MEANT}, indent=2))


def test_every_kind_of_value_has_a_tag_of_its_own() -> None:
    """A value that is read as another kind is refused, and not taken for one."""
    tagged = [
        kind
        for kind in vars(envelope).values()
        if isinstance(kind, type)
        and issubclass(kind, msgspec.Struct)
        and kind.__struct_config__.tag is not None
    ]
    tags = [kind.__struct_config__.tag for kind in tagged]
    assert len(tags) > 10
    assert sorted(tags) == sorted(set(tags))  # type: ignore[type-var]
