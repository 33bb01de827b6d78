"""Against a second implementation, cronsim, which was written to agree with Debian's cron.

Where both define the answer it is the same; where they differ, docs/scheduling.md and a test here say so.
"""

from contextlib import suppress
from datetime import UTC, datetime, timedelta
from itertools import islice, pairwise

import pytest
from cronsim import CronSim, CronSimError
from hypothesis import assume, given
from hypothesis import strategies as st

from delaystream.core.recurrence import Recurrence, next_after
from delaystream.core.recurrence.expression import parse_cron
from delaystream.core.recurrence.fields import CronError
from delaystream.core.recurrence.zones import zone
from delaystream.core.rejection import Code
from tests.examples import examples

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
#: Their clocks change by an hour, and not at midnight.
ZONES = ["UTC", "Europe/Berlin", "America/New_York", "Africa/Casablanca", "Asia/Kolkata", "Australia/Sydney"]
FIRES = 6
#: of an hour, a minute or a second each: days go without
_MOST_STEPS = 100_000


def ours(
    cron: str, name: str, start: datetime, number: int = FIRES, *, elapsed: bool = False
) -> list[datetime]:
    """The first times after `start`; by elapsed time as a pattern with a wildcard, if asked for."""
    recurrence = Recurrence(
        cron,
        0,
        name,
        dst_gap="skip" if elapsed else "shift",
        dst_overlap="both" if elapsed else "first",
        start_ms=-(10**14),
    )
    found: list[datetime] = []
    after_ms = (start - EPOCH) // timedelta(milliseconds=1)
    while len(found) < number and (next_ms := next_after(recurrence, after_ms)) is not None:
        after_ms = next_ms
        found.append(EPOCH + timedelta(milliseconds=after_ms))
    return found


class EndlessError(Exception):
    """cronsim does not find a next time."""


class Bounded(CronSim):
    """cronsim, which may go round in a circle where clocks are put back: it gives up in the end."""

    _steps = 0

    def tick(self, seconds: int = 1) -> None:
        self._steps += 1
        if self._steps > _MOST_STEPS:
            raise EndlessError(f"no time after {_MOST_STEPS} steps")
        super().tick(seconds)


def theirs(cron: str, name: str, start: datetime, number: int = FIRES) -> list[datetime]:
    """The same of cronsim. Raises EndlessError."""
    times = Bounded(cron, start.astimezone(zone(name)))
    return [local.astimezone(UTC) for local in islice(times, number)]


def numbers(low: int, high: int, names: tuple[str, ...] = ()) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    if names:
        number |= st.sampled_from(names)
    span = high - low + 1
    ends = st.tuples(st.integers(low, high), st.integers(low, high)).map(sorted)
    step = st.integers(1, span - 1 if names else span)
    ranges = ends.map(lambda pair: f"{pair[0]}-{pair[1]}")
    terms = st.one_of(
        number,
        ranges,
        # `5-5/10` is 5 here, and `5/10` in cronsim.
        st.tuples(ranges, step)
        .filter(lambda parts: len(set(parts[0].split("-"))) == 2)
        .map(lambda parts: f"{parts[0]}/{parts[1]}"),
        st.tuples(st.integers(low, high), step).map(lambda parts: f"{parts[0]}/{parts[1]}"),
    )
    lists = st.lists(terms, min_size=1, max_size=3).map(",".join)
    return st.one_of(st.just("*"), lists, number, step.map(lambda n: f"*/{n}"))


SECONDS = numbers(0, 59)
TIMES = st.tuples(numbers(0, 59), numbers(0, 23))
SPECIAL_DAYS = st.sampled_from(["L", "LW", "1,L", "15,LW"])
SPECIAL_WEEKDAYS = st.sampled_from(["5L", "7L", "1#1", "MON#5", "SUN#2", "2#1,4#3", "1,5L"])
WEEKDAYS = ("SUN", "MON", "TUE", "WED", "THU", "FRI", "SAT")
DATES = st.tuples(
    st.just("*") | numbers(1, 31) | SPECIAL_DAYS,
    st.just("*") | numbers(1, 12, ("JAN", "FEB", "SEP", "DEC")),
    st.just("*") | numbers(0, 7, WEEKDAYS) | SPECIAL_WEEKDAYS,
)
STARTS = st.integers(0, 150 * 366 * 86_400).map(
    lambda seconds: datetime(1950, 1, 1, tzinfo=UTC) + timedelta(seconds=seconds)
)


def comes(cron: str) -> bool:
    """Whether it ever fires; anything else wrong with it is an error of the test."""
    try:
        parse_cron(cron)
    except CronError as error:
        if error.code is Code.NEVER_FIRES:
            return False
        raise
    return True


def assert_the_same(cron: str, name: str, start: datetime) -> None:
    local = start.astimezone(zone(name))
    # From within an hour that comes twice, cronsim may begin with a time that has been.
    assume(local.utcoffset() == local.replace(fold=1 - local.fold).utcoffset())
    if not comes(cron):
        with suppress(CronSimError):
            assert theirs(cron, name, start, 1) == []
        return
    elapsed = len(cron.split()) == 6
    expected = theirs(cron, name, start)
    assert ours(cron, name, start, len(expected), elapsed=elapsed) == expected


@examples(400)
@given(times=TIMES, date=DATES, name=st.sampled_from(ZONES), start=STARTS)
def test_five_fields(times: tuple[str, str], date: tuple[str, str, str], name: str, start: datetime) -> None:
    assert_the_same(" ".join([*times, *date]), name, start)


@examples(200)
@given(second=SECONDS, times=TIMES, date=DATES, name=st.sampled_from(ZONES), start=STARTS)
def test_six_fields(
    second: str, times: tuple[str, str], date: tuple[str, str, str], name: str, start: datetime
) -> None:
    assert_the_same(" ".join([second, *times, *date]), name, start)


@examples(200)
@given(
    times=TIMES,
    name=st.sampled_from(ZONES[1:4]),
    day=st.sampled_from([(3, 7), (3, 28), (10, 24), (10, 31)]),
)
def test_over_a_change_of_the_clocks(times: tuple[str, str], name: str, day: tuple[int, int]) -> None:
    assert_the_same(f"{times[0]} {times[1]} * * *", name, datetime(2026, *day, tzinfo=UTC))


@examples(150)
@given(second=st.just("0") | SECONDS, times=TIMES, date=DATES)
def test_the_shortest_gap_is_never_undercut(
    second: str, times: tuple[str, str], date: tuple[str, str, str]
) -> None:
    """Nor is it larger than need be: among a few thousand fires a dense pattern has it."""
    cron = " ".join([second, *times, *date])
    assume(comes(cron))
    pattern = parse_cron(cron)
    found: list[int] = []
    local_s = 0
    while len(found) < 3000 and (next_s := pattern.next(local_s)) is not None:
        found.append(next_s)
        local_s = next_s + 1
    gap_s = min(later - earlier for earlier, later in pairwise(found))
    assert min(gap_s, 86_401) >= pattern.shortest_gap_s()
    if found[-1] - found[0] > 60 * 366 * 86_400:
        assert min(gap_s, 86_401) == pattern.shortest_gap_s()


# -- the differences, each as the documentation lists it ---------------------------------------------


def test_six_fixed_fields_have_the_policies_here() -> None:
    start = datetime(2026, 3, 8, 6, 30, tzinfo=UTC)
    assert ours("0 30 2 * * *", "America/New_York", start, 1) == [datetime(2026, 3, 8, 7, tzinfo=UTC)]
    assert theirs("0 30 2 * * *", "America/New_York", start, 1) == [datetime(2026, 3, 9, 6, 30, tzinfo=UTC)]


def test_a_wildcard_minute_in_a_gap_at_midnight() -> None:
    start = datetime(2025, 3, 9, 4, tzinfo=UTC)
    assert ours("*/30 0 9 3 *", "America/Havana", start, 1)[0].year == 2026
    assert theirs("*/30 0 9 3 *", "America/Havana", start, 1) == [datetime(2025, 3, 9, 5, tzinfo=UTC)]


def test_clocks_that_move_by_half_an_hour() -> None:
    start = datetime(2026, 4, 4, 14, 50, tzinfo=UTC)  # 01:50 the first time, before 02:00 becomes 01:30
    both = [datetime(2026, 4, 4, 15, 30, tzinfo=UTC), datetime(2026, 4, 4, 15, 40, tzinfo=UTC)]
    assert ours("*/10 2 * * *", "Australia/Lord_Howe", start, 2) == both
    assert theirs("*/10 2 * * *", "Australia/Lord_Howe", start, 2) != both


def first_of_both(cron: str, name: str, start: datetime) -> tuple[str, str]:
    """The first time after `start`, by the local clock, here and in cronsim."""
    found = ours(cron, name, start, 1)[0], theirs(cron, name, start, 1)[0]
    mine, other = (f"{at.astimezone(zone(name)):%Y-%m-%d %H:%M%z}" for at in found)
    return mine, other


def test_clocks_that_move_by_an_hour_but_not_on_the_hour() -> None:
    """St John's, 1989-04-02 00:01 became 01:01: the rest of that hour exists."""
    start = datetime(1989, 4, 2, 3, 30, tzinfo=UTC)
    assert first_of_both("*/20 1,2 * * *", "America/St_Johns", start) == (
        "1989-04-02 01:20-0230",
        "1989-04-02 02:00-0230",
    )


@pytest.mark.parametrize("cron", ["30 * 29 * *", "7 */2 29 * *"])
def test_cronsim_may_not_return(cron: str) -> None:
    """St John's, 1989-10-29 00:01 became 23:01 of the day before."""
    start = datetime(1989, 10, 29, 2, 30, tzinfo=UTC)
    assert ours(cron, "America/St_Johns", start, 1)[0].day == 29
    with pytest.raises(EndlessError):
        theirs(cron, "America/St_Johns", start, 1)


def test_the_hour_after_a_gap_at_midnight() -> None:
    """Havana, 2025-03-09 00:00 became 01:00: a wildcard of hour 1 fires there, and one of hour 6 does not."""
    start = datetime(2025, 3, 9, 4, 59, tzinfo=UTC)
    assert first_of_both("*/7 1,2 9 * *", "America/Havana", start) == (
        "2025-03-09 01:00-0400",
        "2025-03-09 02:00-0400",
    )
    assert first_of_both("0,30 */6 9 * *", "America/Havana", start) == (
        "2025-03-09 06:00-0400",
        "2025-03-09 01:00-0400",
    )


def test_a_missing_day_with_wildcards() -> None:
    """Apia had no 2011-12-30."""
    start = datetime(2011, 12, 30, 8, tzinfo=UTC)
    assert first_of_both("0 * 30 * *", "Pacific/Apia", start) == (
        "2012-01-30 00:00+1400",
        "2011-12-31 00:00+1400",
    )


def test_clocks_that_move_by_three_hours() -> None:
    """Casey, 2020-10-04 00:01 became 03:01, and 2010-03-05 02:00 became 23:00 of the day before."""
    start = datetime(2020, 10, 3, 16, tzinfo=UTC)
    assert first_of_both("*/20 3 * * *", "Antarctica/Casey", start) == (
        "2020-10-04 03:20+1100",
        "2020-10-05 03:00+1100",
    )
    start = datetime(2010, 3, 4, 14, 50, tzinfo=UTC)
    assert first_of_both("*/20 1 5 * *", "Antarctica/Casey", start) == (
        "2010-03-05 01:00+0800",
        "2010-03-05 01:00+1100",
    )


def test_a_range_of_one_with_a_step() -> None:
    assert [at.minute for at in ours("5-5/10 * * * *", "UTC", EPOCH, 3)] == [5, 5, 5]
    assert [at.minute for at in theirs("5-5/10 * * * *", "UTC", EPOCH, 3)] == [5, 15, 25]


def test_asked_within_the_second_occurrence() -> None:
    start = datetime(2026, 11, 1, 6, 10, tzinfo=UTC)  # 01:10, the second time
    assert theirs("30 1 * * *", "America/New_York", start, 1)[0] < start
    assert ours("30 1 * * *", "America/New_York", start, 1) == [datetime(2026, 11, 2, 6, 30, tzinfo=UTC)]


@pytest.mark.parametrize("cron", ["0 22-2 * * *", "0 0 * * FRI-MON", "0 0 15W * *", "0 0 * * L5"])
def test_what_cronsim_refuses(cron: str) -> None:
    parse_cron(cron)
    with pytest.raises(CronSimError):
        CronSim(cron, EPOCH)


def test_a_step_larger_than_the_field() -> None:
    CronSim("*/90 * * * *", EPOCH)
    with pytest.raises(CronError):
        parse_cron("*/90 * * * *")
