"""Scheduled times: intervals, bounds, far years, misses that are counted, and jitter."""

from datetime import UTC, datetime, timedelta
from statistics import mean
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.instants import format_instant, parse_instant
from delaystream.core.recurrence import Recurrence, check, jittered_ms, misses, next_after
from delaystream.core.recurrence.fires import _next_cron
from delaystream.core.recurrence.zones import END_S, FIRST_S
from tests.examples import examples

START_MS = parse_instant("2026-01-01T00:00:00Z")
DAY_MS = 86_400_000
EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def at(*parts: int) -> int:
    return (datetime(*parts, tzinfo=UTC) - EPOCH) // timedelta(milliseconds=1)  # type: ignore[misc, arg-type]


def every(every_ms: int, **fields: Any) -> Recurrence:
    return Recurrence(None, every_ms, **{"start_ms": START_MS, **fields})


def cron(expression: str, **fields: Any) -> Recurrence:
    return Recurrence(expression, 0, **{"start_ms": START_MS, **fields})


def visited(recurrence: Recurrence, after_ms: int, until_ms: int) -> list[int]:
    found = []
    while (next_ms := next_after(recurrence, after_ms)) is not None and next_ms <= until_ms:
        found.append(next_ms)
        after_ms = next_ms
    return found


def test_an_interval_is_a_grid_from_its_start() -> None:
    """The start is on it; a late fire does not move it."""
    quarter = 15 * 60_000
    recurrence = every(quarter)
    assert next_after(recurrence, START_MS - 10 * quarter) == START_MS
    assert next_after(recurrence, START_MS - 1) == START_MS
    assert next_after(recurrence, START_MS) == START_MS + quarter
    assert next_after(recurrence, START_MS + quarter - 1) == START_MS + quarter
    assert next_after(recurrence, START_MS + 7 * quarter + 12_345) == START_MS + 8 * quarter
    assert next_after(every(7), START_MS + 700_000_000_003) == START_MS + 700_000_000_007


def test_start_and_end_may_be_fires_themselves() -> None:
    nine = at(2026, 3, 1, 9)
    assert next_after(cron("0 9 * * *", start_ms=nine), 0) == nine
    assert next_after(cron("0 9 * * *", start_ms=nine + 1), 0) == nine + DAY_MS
    assert next_after(cron("0 9 * * *", end_ms=nine), nine - 1) == nine
    assert next_after(cron("0 9 * * *", end_ms=nine - 1), nine - 1) is None
    assert next_after(every(1000, end_ms=START_MS + 1000), START_MS) == START_MS + 1000
    assert next_after(every(1000, end_ms=START_MS + 999), START_MS) is None


def test_the_next_time_is_strictly_later() -> None:
    """To the millisecond: a scheduled time is not its own next one."""
    minute = at(2026, 3, 1, 9, 30)
    recurrence = cron("* * * * *")
    assert next_after(recurrence, minute - 1) == minute
    assert next_after(recurrence, minute) == minute + 60_000
    assert next_after(recurrence, minute + 59_999) == minute + 60_000


@pytest.mark.parametrize(
    ("expression", "after", "expected"),
    [
        ("0 0 29 2 *", (2096, 3, 1), (2104, 2, 29)),  # 2100 is no leap year
        ("0 0 29 2 *", (1996, 3, 1), (2000, 2, 29)),  # 2000 was one
        ("0 0 29 2 *", (1896, 3, 1), (1904, 2, 29)),
        ("0 0 29 2 */7", (2088, 3, 1), (2128, 2, 29)),  # a Sunday: the longest wait there is
        ("0 0 31 12 *", (2099, 12, 31), (2100, 12, 31)),
        ("0 0 1 1 *", (1969, 6, 1), (1970, 1, 1)),
        ("59 59 23 31 12 *", (1969, 6, 1), (1969, 12, 31, 23, 59, 59)),
        ("30 12 * * *", (1815, 6, 18, 12, 30), (1815, 6, 19, 12, 30)),
        ("0 0 1 1 *", (9997, 6, 1), (9998, 1, 1)),
    ],
)  # fmt: skip
def test_far_years_and_leap_days(expression: str, after: tuple[int, ...], expected: tuple[int, ...]) -> None:
    recurrence = cron(expression, start_ms=-(10**15))
    assert next_after(recurrence, at(*after)) == at(*expected)


def test_times_end_with_the_calendar() -> None:
    """No error at either end, whatever the zone."""
    for name in ("UTC", "Pacific/Kiritimati", "Pacific/Pago_Pago", "America/New_York"):
        recurrence = cron("0 0 * * *", timezone=name, start_ms=-(10**17))
        assert next_after(recurrence, END_S * 1000) is None
        assert next_after(recurrence, 10**17) is None
        last_ms = next_after(recurrence, (END_S - 86_400) * 1000 - 1)
        assert last_ms is not None
        assert last_ms < END_S * 1000
        first_ms = next_after(recurrence, -(10**17))
        assert first_ms is not None
        assert FIRST_S * 1000 <= first_ms < FIRST_S * 1000 + 2 * DAY_MS


def test_far_years_in_a_zone_have_its_last_rules() -> None:
    """Python's rules go on; New York's clocks of 2100 are as they are said to be today."""
    recurrence = cron("30 2 * * *", timezone="America/New_York")
    found = visited(recurrence, at(2100, 3, 13), at(2100, 3, 16))
    assert [format_instant(time)[5:16] for time in found] == ["03-13T07:30", "03-14T07:00", "03-15T06:30"]


def test_misses_are_counted_and_not_visited() -> None:
    """A schedule of every second that was down for three years: all of its times, in no time."""
    recurrence = cron("* * * * * *", timezone="Europe/Berlin")
    three_years_ms = at(2029, 1, 1) - START_MS
    _next_cron.cache_clear()
    number, first_ms, last_ms = misses(recurrence, START_MS, START_MS + three_years_ms)
    assert number == three_years_ms // 1000
    assert (first_ms, last_ms) == (START_MS + 1000, START_MS + three_years_ms)
    assert _next_cron.cache_info().misses == 1


def test_no_misses_are_none() -> None:
    recurrence = cron("0 9 * * *", end_ms=at(2026, 6, 1))
    nine = at(2026, 3, 1, 9)
    assert misses(recurrence, nine, nine) == (0, None, None)
    assert misses(recurrence, nine, nine + DAY_MS - 1) == (0, None, None)
    assert misses(recurrence, nine, nine - DAY_MS) == (0, None, None)
    assert misses(recurrence, nine - 1, nine) == (1, nine, nine)
    assert misses(recurrence, at(2026, 7, 1), at(2027, 7, 1)) == (0, None, None)
    assert misses(recurrence, 0, at(2027, 7, 1)) == (151, at(2026, 1, 1, 9), at(2026, 5, 31, 9))


@examples(200)
@given(
    every_ms=st.integers(1, 10**7),
    after_ms=st.integers(-(10**9), 10**9),
    span_ms=st.integers(-1000, 10**9),
    end_ms=st.none() | st.integers(0, 10**9),
)
def test_misses_of_an_interval(every_ms: int, after_ms: int, span_ms: int, end_ms: int | None) -> None:
    """As if visited, up to a thousand of them."""
    recurrence = every(every_ms, start_ms=0, end_ms=end_ms)
    until_ms = min(after_ms + span_ms, after_ms + 1000 * every_ms)
    found = visited(recurrence, after_ms, until_ms)
    expected = (len(found), found[0], found[-1]) if found else (0, None, None)
    assert misses(recurrence, after_ms, until_ms) == expected


@examples(200)
@given(
    expression=st.sampled_from(
        ["*/7 * * * *", "0 9-17/2 * * MON-FRI", "30 2 L * *", "0 0 29 2 *", "15,45 1,2 * * *", "0 */5 1W * *"]
    ),
    zone=st.sampled_from(["UTC", "America/New_York", "Australia/Lord_Howe", "Asia/Kathmandu"]),
    overlap=st.sampled_from(["first", "second", "both"]),
    after_ms=st.integers(START_MS, START_MS + 4 * 366 * DAY_MS),
    span_ms=st.integers(0, 5 * DAY_MS) | st.integers(0, 800 * DAY_MS),
)
def test_misses_of_a_cron_expression(
    expression: str, zone: str, overlap: Any, after_ms: int, span_ms: int
) -> None:
    recurrence = cron(expression, timezone=zone, dst_overlap=overlap)
    if expression.startswith("*"):
        span_ms %= 20 * DAY_MS
    found = visited(recurrence, after_ms, after_ms + span_ms)
    expected = (len(found), found[0], found[-1]) if found else (0, None, None)
    assert misses(recurrence, after_ms, after_ms + span_ms) == expected


def test_jitter_follows_from_the_fire_id_alone() -> None:
    """The same on every retry and worker: these figures must never change."""
    assert jittered_ms(START_MS, "delay-requests/r1/0/1767225600000/report", 0) == START_MS
    drawn = [jittered_ms(0, f"delay-requests/r1/0/{due}/report", 60_000) for due in range(3)]
    assert drawn == [25480, 41672, 13345]


def test_jitter_is_spread_evenly_within_its_bounds() -> None:
    """Both bounds included."""
    drawn = [jittered_ms(0, f"fire {number}", 9) for number in range(5000)]
    assert set(drawn) == set(range(10))
    assert 4.2 < mean(drawn) < 4.8


def test_a_recurrence_is_stored_by_position() -> None:
    """An older release's bytes, with fewer fields, are read too."""
    recurrence = cron("0 9 * * *", timezone="Europe/Berlin", end_ms=5, max_fires=3, jitter_ms=7)
    packed = msgspec.msgpack.encode(recurrence)
    assert msgspec.msgpack.decode(packed, type=Recurrence) == recurrence
    assert msgspec.msgpack.decode(msgspec.msgpack.encode([None, 5]), type=Recurrence) == Recurrence(None, 5)
    assert " ".join(Recurrence.__struct_fields__).startswith(
        "cron every_ms timezone dst_gap dst_overlap start_ms end_ms max_fires jitter_ms"
    )


def test_what_is_remembered_is_bounded() -> None:
    """Expressions come from requests: no number of them fills the memory."""
    from delaystream.core.recurrence import days, expression, fires, validation, zones

    for cached in (
        expression.parse_cron,
        validation._shortest_cron_gap_s,
        expression._numbers,
        days.day_table,
        fires._next_cron,
        fires._count_cron,
        zones._pieces,
        zones.zone,
        zones.nearest_zone,
    ):
        assert cached.cache_info().maxsize is not None


def test_schedules_that_share_an_expression_share_the_work() -> None:
    """A hundred thousand of them, with a hundred expressions, cost a hundred computations."""
    expressions = [f"{number % 60} {number % 24} * * *" for number in range(100)]
    recurrences = [cron(expression, timezone="Europe/Paris") for expression in expressions]
    for recurrence in recurrences:
        assert check(recurrence, min_interval_ms=1000, max_expression=256) is None
    _next_cron.cache_clear()
    for _ in range(1000):
        for recurrence in recurrences:
            next_after(recurrence, START_MS)
    assert _next_cron.cache_info().misses == len(set(expressions))
