"""What becomes of scheduled times that passed: each fires, or lies in exactly one run."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.misfire import MisfirePolicy, Run, Verdict, decide_passed, run_until
from delaystream.core.recurrence import Recurrence, jittered_ms, next_after
from delaystream.core.request import CatchUp

MINUTE_MS = 60_000
EVERY_MINUTE = Recurrence(None, MINUTE_MS)


def at(minutes: float) -> int:
    return int(minutes * MINUTE_MS)


def decide(catch_up: CatchUp, now: float, grace: float = 15, scheduled: float = 1) -> Verdict:
    return decide_passed(
        EVERY_MINUTE, at(scheduled), at(now), MisfirePolicy(catch_up, at(grace)), lambda ms: ms
    )


@pytest.mark.parametrize("catch_up", CatchUp)
def test_a_fire_in_time_is_a_fire(catch_up: CatchUp) -> None:
    assert decide(catch_up, now=1.2) == Verdict(at(1), at(2))


@pytest.mark.parametrize("catch_up", CatchUp)
def test_one_that_outlived_its_grace_alone_is_missed(catch_up: CatchUp) -> None:
    assert decide(catch_up, now=1.5, grace=0.4) == Verdict(None, at(2), missed=Run(at(1), at(1), 1))
    assert decide(catch_up, now=1.5, grace=0.5) == Verdict(at(1), at(2))


def test_latest_stands_for_those_before_it() -> None:
    assert decide(CatchUp.LATEST, now=5.5) == Verdict(at(5), at(6), skipped=Run(at(1), at(4), 4))
    assert decide(CatchUp.LATEST, now=2) == Verdict(at(2), at(3), skipped=Run(at(1), at(1), 1))


def test_latest_fires_nothing_beyond_its_grace() -> None:
    verdict = decide(CatchUp.LATEST, now=5.5, grace=0.2)
    assert verdict == Verdict(None, at(6), missed=Run(at(1), at(5), 5))


def test_all_fires_what_is_inside_its_grace_and_no_more() -> None:
    """Exactly as late as the grace is not too late."""
    assert decide(CatchUp.ALL, now=20, grace=15) == Verdict(None, at(5), missed=Run(at(1), at(4), 4))
    assert decide(CatchUp.ALL, now=20, grace=15, scheduled=5) == Verdict(at(5), at(6))


def test_lateness_counts_from_the_end_of_the_jitter() -> None:
    spread = Recurrence(None, MINUTE_MS, jitter_ms=30_000)
    late = decide_passed(
        spread, at(1), at(1.9), MisfirePolicy(CatchUp.LATEST, 20_000), lambda ms: ms + 10_000
    )
    assert late == Verdict(None, at(2), missed=Run(at(1), at(1), 1))
    in_time = decide_passed(
        spread, at(1), at(1.9), MisfirePolicy(CatchUp.LATEST, 24_000), lambda ms: ms + 10_000
    )
    assert in_time == Verdict(at(1), at(2))


def test_what_its_jitter_holds_back_is_not_due() -> None:
    spread = Recurrence(None, MINUTE_MS, jitter_ms=30_000)
    verdict = decide_passed(
        spread, at(1), at(4.2), MisfirePolicy(CatchUp.LATEST, at(15)), lambda ms: ms + 20_000
    )
    assert verdict == Verdict(at(3), at(4), skipped=Run(at(1), at(2), 2))


@given(
    every_ms=st.integers(1_000, 100_000),
    jitter=st.floats(0, 0.99),
    end=st.one_of(st.none(), st.integers(1, 200)),
    catch_up=st.sampled_from(CatchUp),
    grace_ms=st.integers(0, 300_000),
    looks_ms=st.lists(st.integers(1, 500_000), min_size=1, max_size=12),
)
def test_every_scheduled_time_is_decided_once_and_in_order(
    every_ms: int,
    jitter: float,
    end: int | None,
    catch_up: CatchUp,
    grace_ms: int,
    looks_ms: list[int],
) -> None:
    end_ms = None if end is None else end * every_ms
    recurrence = Recurrence(None, every_ms, end_ms=end_ms, jitter_ms=int(jitter * every_ms))

    def due(scheduled_ms: int) -> int:
        return jittered_ms(scheduled_ms, str(scheduled_ms), recurrence.jitter_ms)

    decided: list[int] = []
    next_ms = next_after(recurrence, 0)
    now_ms = 0
    for wait_ms in looks_ms:
        now_ms += wait_ms
        while next_ms is not None and due(next_ms) <= now_ms:
            verdict = decide_passed(recurrence, next_ms, now_ms, MisfirePolicy(catch_up, grace_ms), due)
            for run in (verdict.missed, verdict.skipped):
                if run is not None:
                    assert (run.to_ms - run.from_ms) // every_ms + 1 == run.number
                    decided += range(run.from_ms, run.to_ms + 1, every_ms)
            if verdict.fire_ms is not None:
                assert due(verdict.fire_ms) <= now_ms <= verdict.fire_ms + recurrence.jitter_ms + grace_ms
                decided.append(verdict.fire_ms)
            next_ms = verdict.next_ms
    last_ms = decided[-1] if decided else 0
    assert decided == list(range(every_ms, last_ms + 1, every_ms))
    assert next_ms == next_after(recurrence, last_ms)


def test_what_jitter_holds_back_is_not_fired_where_several_times_lie_close_together() -> None:
    """New York, 2026-03-08: 01:59 and 02:59, moved to 03:00, are a minute apart, and both are ahead."""
    recurrence = Recurrence("59 1,2 * * *", 0, "America/New_York", jitter_ms=59 * MINUTE_MS)
    first_ms, second_ms, third_ms = 1_772_866_740_000, 1_772_870_340_000, 1_772_953_140_000
    now_ms = 1_772_953_230_000

    def due(scheduled_ms: int) -> int:
        return scheduled_ms + 30 * MINUTE_MS if scheduled_ms >= third_ms else scheduled_ms

    late = decide_passed(recurrence, first_ms, now_ms, MisfirePolicy(CatchUp.LATEST, 900_000), due)
    assert late == Verdict(None, third_ms, missed=Run(first_ms, second_ms, 2))
    patient = decide_passed(recurrence, first_ms, now_ms, MisfirePolicy(CatchUp.LATEST, 2 * 86_400_000), due)
    assert patient == Verdict(second_ms, third_ms, skipped=Run(first_ms, first_ms, 1))


def test_nothing_is_decided_before_an_earlier_time_that_is_still_ahead() -> None:
    """Though it is due itself: order is kept, whatever the jitter."""
    close = Recurrence(None, MINUTE_MS, jitter_ms=5 * MINUTE_MS)

    def due(scheduled_ms: int) -> int:
        return at(9) if scheduled_ms == at(4) else scheduled_ms

    verdict = decide_passed(close, at(1), at(6.5), MisfirePolicy(CatchUp.LATEST, at(15)), due)
    assert verdict == Verdict(at(3), at(4), skipped=Run(at(1), at(2), 2))


@pytest.mark.parametrize("most", [1, 2, 19, 20, 21])
@pytest.mark.parametrize("cron", [None, "* * * * *"])
def test_all_fires_no_more_than_the_last_of_what_has_passed(most: int, cron: str | None) -> None:
    """Those before them are missed, each of them in one run."""
    recurrence = EVERY_MINUTE if cron is None else Recurrence(cron, 0)
    verdict = decide_passed(
        recurrence, at(1), at(20.5), MisfirePolicy(CatchUp.ALL, at(1_000)), lambda ms: ms, most
    )
    if most >= 20:
        assert verdict == Verdict(at(1), at(2))
    else:
        first = 21 - most
        assert verdict == Verdict(None, at(first), missed=Run(at(1), at(first - 1), first - 1))
    others = [
        decide_passed(recurrence, at(1), at(20.5), MisfirePolicy(other, at(1_000)), lambda ms: ms, most)
        for other in CatchUp
    ]
    assert others == [
        decide_passed(
            recurrence,
            at(1),
            at(20.5),
            MisfirePolicy(other, at(1_000)),
            lambda ms: ms,
            most if other == "all" else None,
        )
        for other in CatchUp
    ]


@given(
    cron=st.sampled_from(
        ["* * * * * *", "*/7 3 * * *", "0 9 * * MON", "30 2 29 2 *", "59 1,2 * * *", "0 0 1 1 *"]
    ),
    years=st.floats(0.01, 50),
    most=st.integers(1, 400),
)
def test_however_long_ago_a_schedule_began_its_last_times_fire(cron: str, years: float, most: int) -> None:
    recurrence = Recurrence(cron, 0, "America/New_York")
    now_ms = 1_800_000_000_123
    first_ms = next_after(recurrence, now_ms - int(years * 365 * 86_400_000))
    assert first_ms is not None
    if first_ms > now_ms or (next_after(recurrence, first_ms) or now_ms) > now_ms:
        return
    number = run_until(recurrence, first_ms, now_ms).number
    verdict = decide_passed(
        recurrence, first_ms, now_ms, MisfirePolicy(CatchUp.ALL, 10**14), lambda ms: ms, most
    )
    if number <= most:
        assert (verdict.fire_ms, verdict.missed) == (first_ms, None)
        return
    assert verdict.missed is not None
    assert verdict.next_ms is not None
    assert (verdict.fire_ms, verdict.missed.from_ms, verdict.missed.number) == (None, first_ms, number - most)
    assert run_until(recurrence, verdict.next_ms, now_ms).number == most
