"""Which of two things was asked for first."""

from __future__ import annotations

from typing import Any

import pytest

from delaystream.codec.envelope import Bulk, Hold, Rate, Schedule, Status
from delaystream.core.order import Moment, newer
from delaystream.core.request import Action, Match

HERE, THERE, MOVED = ("orders", 0, ""), ("orders", 1, ""), ("orders", 0, "w2WxZ0kXSyGk1zvVnXbVhA")


@pytest.mark.parametrize(
    ("one", "other", "is_newer"),
    [
        (Moment(HERE, 8, 1), Moment(HERE, 7, 2), True),
        (Moment(HERE, 7, 2), Moment(HERE, 8, 1), False),
        (Moment(HERE, 7, 1), Moment(HERE, 7, 1), False),
        (Moment(HERE, 1, 9), Moment(THERE, 5, 8), True),
        (Moment(HERE, 5, 8), Moment(THERE, 1, 9), False),
        (Moment(HERE, 5, 8), Moment(THERE, 1, 8), False),
        (Moment(HERE, 1, 9), Moment(MOVED, 5, 8), True),
        (Moment(MOVED, 9, 8), Moment(HERE, 1, 8), False),
    ],
)
def test_offsets_tell_within_a_request_partition_and_timestamps_across(
    one: Moment, other: Moment, is_newer: bool
) -> None:
    assert newer(one, other) is is_newer


@pytest.mark.parametrize(
    "row",
    [
        Schedule(Status.PENDING, 1, "orders", 1, 7, 8, "mails", origin="o"),
        Bulk("orders", 1, 7, 8, Action.PAUSE, Match(), b"", b"", origin="o"),
        Hold("orders", 1, 7, 8, Match(), "orders/1/7", 0, origin="o"),
        Rate("orders", "mails", 1.0, 1, 7, 8, origin="o"),
    ],
    ids=lambda row: type(row).__name__,
)
def test_each_row_knows_when_it_was_asked_for(row: Any) -> None:
    assert row.moment == Moment(("orders", 1, "o"), 7, 8)
