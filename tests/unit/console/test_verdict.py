"""The sentence at the top of the first page: the worst that is true, with its cause and what to do."""

from __future__ import annotations

from typing import Any

import pytest

from delaystream.console.pages.bars import HEIGHT, by_lateness, stacked
from delaystream.console.pages.rendering import length, relative
from delaystream.console.pages.verdict import OLD_MS, SILENT_MS, Facts, Overdue, Tone, judge

NOW_MS = 1_700_000_000_000
WELL: dict[str, Any] = {
    "now_ms": NOW_MS,
    "lag_ms": 200,
    "missing": 0,
    "partitions": 4,
    "problems": [],
    "overdue": None,
    "parked": {},
    "limited": frozenset(),
    "told_at_ms": dict.fromkeys(range(4), NOW_MS - 1_000),
    "fired": 12_345,
    "within_1s": 0.9998,
}
LATE = Overdue(12, False, NOW_MS - 90_000, ["emails"], [2])


def facts(**changed: Any) -> Facts:
    return Facts(**{**WELL, **changed})


def test_all_is_well() -> None:
    verdict = judge(facts())
    assert (verdict.tone, verdict.headline) == (Tone.GOOD, "On time")
    assert verdict.detail.startswith("99.98 % of 12345 fires in the last hour came within 1 s")
    assert verdict.runbook is None


def test_nothing_fired() -> None:
    assert judge(facts(fired=0, within_1s=None)).tone is Tone.QUIET


def test_it_was_slow() -> None:
    verdict = judge(facts(within_1s=0.5))
    assert (verdict.tone, verdict.runbook) == (Tone.WARNING, "lateness-budget-burns")
    assert "50 % of" in verdict.detail


def test_a_destination_that_is_parked_is_the_cause() -> None:
    since_ms = NOW_MS - 3_600_000
    verdict = judge(facts(overdue=LATE, parked={"emails": (since_ms, "not authorized"), "other": (0, "x")}))
    assert (verdict.tone, verdict.headline) == (Tone.BAD, "12 events overdue")
    assert verdict.detail == "emails cannot be written to: not authorized. Other destinations go on."
    assert (verdict.since_ms, verdict.runbook) == (since_ms, "destination-parked")
    assert verdict.more == "/destinations?destination=emails"
    assert verdict.events == "/pending?due_to=2023-11-14T22%3A13%3A20.000Z"


@pytest.mark.parametrize("told_at_ms", [None, NOW_MS - SILENT_MS - 1])
def test_a_partition_of_which_nothing_is_heard_is_the_cause(told_at_ms: int | None) -> None:
    verdict = judge(facts(overdue=LATE, told_at_ms={**WELL["told_at_ms"], 2: told_at_ms}))
    assert "owner of partition 2" in verdict.detail
    assert (verdict.tone, verdict.runbook, verdict.since_ms) == (Tone.BAD, "partition-unowned", LATE.since_ms)


def test_an_owner_that_just_wrote_is_there() -> None:
    verdict = judge(facts(overdue=LATE, told_at_ms={**WELL["told_at_ms"], 2: NOW_MS - SILENT_MS}))
    assert verdict.runbook == "overdue-grows"


def test_a_rate_is_no_alarm() -> None:
    verdict = judge(facts(overdue=LATE, limited=frozenset({"emails"})))
    assert (verdict.tone, verdict.runbook) == (Tone.WARNING, None)
    assert "emails has a rate" in verdict.detail


def test_one_event_is_one_event_and_many_are_more() -> None:
    assert judge(facts(overdue=Overdue(1, False, 0, ["a"], [0]))).headline == "1 event overdue"
    assert judge(facts(overdue=Overdue(500, True, 0, ["a"], [0]))).headline == "500 or more events overdue"


def test_what_is_not_read_yet_comes_before_everything_else() -> None:
    verdict = judge(facts(missing=1, lag_ms=None, overdue=LATE, problems=["partition 3: no broker answers"]))
    assert (verdict.tone, verdict.headline) == (Tone.WARNING, "Still reading")
    assert verdict.detail.startswith("3 of 4 partitions can be asked")
    assert "no broker answers" in verdict.detail


def test_an_old_answer_is_said_to_be_old() -> None:
    assert judge(facts(lag_ms=OLD_MS)).tone is Tone.GOOD
    verdict = judge(facts(lag_ms=OLD_MS + 1, overdue=LATE))
    assert (verdict.tone, verdict.headline) == (Tone.WARNING, "This is 15 s old")
    assert verdict.since_ms == NOW_MS - OLD_MS - 1


def test_lengths_have_the_unit_that_fits() -> None:
    told = [
        length(ms)
        for ms in (0, 999, 1_000, 2_450, 10_000, 89_999, 90_000, 5_400_000, 172_799_999, 172_800_000)
    ]
    assert told == ["0 ms", "999 ms", "1.0 s", "2.5 s", "10 s", "89 s", "1 min", "1 h", "47 h", "2 d"]


def test_times_are_told_from_now() -> None:
    assert [relative(NOW_MS + ms, NOW_MS) for ms in (0, -999, 2_000, -61_000, 86_400_000 * 3)] == [
        "now",
        "now",
        "in 2 s",
        "61 s ago",
        "in 3 d",
    ]


def test_columns_share_a_scale_and_stay_inside() -> None:
    drawn = stacked([("a", {"fired": 10}), ("b", {}), ("c", {"fired": 1_000, "passed": 1})])
    assert [(bar.x, bar.kind) for bar in drawn.bars] == [(0, "fired"), (16, "fired"), (16, "passed")]
    assert (drawn.width, drawn.most) == (24, 1_001)
    for bar in drawn.bars:
        assert bar.height > 0 or bar.kind == "passed"
        assert bar.y >= 0
        assert bar.y + bar.height <= HEIGHT


def test_few_outcomes_stand_on_the_right_and_the_later_is_the_higher() -> None:
    drawn = by_lateness(
        [("fired", 0, ""), ("fired", 1_000, ""), ("late", 60_000, ""), ("late", 10**9, "")], 60
    )
    assert [bar.x for bar in drawn.bars] == [8 * place for place in range(56, 60)]
    heights = [bar.height for bar in drawn.bars]
    assert heights == sorted(heights)
    assert heights[-1] == HEIGHT
    assert drawn.width == 480
