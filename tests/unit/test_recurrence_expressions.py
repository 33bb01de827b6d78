"""Cron expressions: what each notation means, and how often a pattern fires."""

import pytest
from croniter.croniter import EXPRESSIONS

from delaystream.core.instants import format_instant, parse_instant
from delaystream.core.recurrence import Recurrence, next_after
from delaystream.core.recurrence.expression import NAMES, _numbers, parse_cron
from delaystream.core.recurrence.pattern import DAY_S

# Thursday
START = "2026-01-01T00:00:00.000Z"


def first(cron: str, number: int = 4, start: str = START) -> list[str]:
    """The first times from `start` on, in UTC, without what is the same in all tests."""
    recurrence = Recurrence(cron=cron, every_ms=0)
    found: list[str] = []
    after_ms = parse_instant(start) - 1
    while len(found) < number and (next_ms := next_after(recurrence, after_ms)) is not None:
        after_ms = next_ms
        found.append(format_instant(after_ms).removesuffix(".000Z").replace("T", " "))
    return found


def dates(cron: str, number: int = 4, start: str = START) -> list[str]:
    """The same for an expression of midnights."""
    found = first(cron, number, start)
    assert all(time.endswith(" 00:00:00") for time in found)
    return [time.removesuffix(" 00:00:00") for time in found]


@pytest.mark.parametrize(
    ("cron", "times"),
    [
        ("30 9 * * *", ["2026-01-01 09:30:00", "2026-01-02 09:30:00"]),
        ("15 30 9 * * *", ["2026-01-01 09:30:15", "2026-01-02 09:30:15"]),
        ("*/20 * * * * *", ["2026-01-01 00:00:00", "2026-01-01 00:00:20"]),
        ("\t30  9\t* * * ", ["2026-01-01 09:30:00", "2026-01-02 09:30:00"]),
        ("0 0-23/6 * * *", ["2026-01-01 00:00:00", "2026-01-01 06:00:00"]),
        ("50/5 0 * * *", ["2026-01-01 00:50:00", "2026-01-01 00:55:00", "2026-01-02 00:50:00"]),
        ("0 22-1 * * *", ["2026-01-01 00:00:00", "2026-01-01 01:00:00", "2026-01-01 22:00:00"]),
        ("1,1,2 0 * * *", ["2026-01-01 00:01:00", "2026-01-01 00:02:00", "2026-01-02 00:01:00"]),
        ("*/60 * * * *", ["2026-01-01 00:00:00", "2026-01-01 01:00:00"]),
        ("@hourly", ["2026-01-01 00:00:00", "2026-01-01 01:00:00"]),
    ],
)  # fmt: skip
def test_times_of_day(cron: str, times: list[str]) -> None:
    assert first(cron, len(times)) == times


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 0 15 * *", ["2026-01-15", "2026-02-15"]),
        ("0 0 1 jan,JUL *", ["2026-01-01", "2026-07-01", "2027-01-01"]),
        ("0 0 1 NOV-FEB *", ["2026-01-01", "2026-02-01", "2026-11-01"]),
        ("0 0 * * MON-fri", ["2026-01-01", "2026-01-02", "2026-01-05"]),
        ("0 0 * * FRI-MON", ["2026-01-02", "2026-01-03", "2026-01-04", "2026-01-05", "2026-01-09"]),
        ("0 0 * * 0", ["2026-01-04", "2026-01-11"]),
        ("0 0 * * 7", ["2026-01-04", "2026-01-11"]),
        ("0 0 * * 6-7", ["2026-01-03", "2026-01-04", "2026-01-10"]),
        ("0 0 * * SAT-SUN", ["2026-01-03", "2026-01-04", "2026-01-10"]),
        ("0 0 ? * 1", ["2026-01-05", "2026-01-12"]),
        ("0 0 1 * ?", ["2026-01-01", "2026-02-01"]),
        ("0 0 31 * *", ["2026-01-31", "2026-03-31", "2026-05-31"]),
        ("0 0 L * *", ["2026-01-31", "2026-02-28", "2026-03-31", "2026-04-30"]),
        ("0 0 1,L * *", ["2026-01-01", "2026-01-31", "2026-02-01", "2026-02-28"]),
        ("0 0 LW * *", ["2026-01-30", "2026-02-27", "2026-03-31"]),
        ("0 0 1W * *", ["2026-01-01", "2026-02-02", "2026-03-02"]),
        ("0 0 1W 8 *", ["2026-08-03"]),  # the 1st is a Saturday
        ("0 0 31W * *", ["2026-01-30", "2026-03-31", "2026-05-29"]),  # never in a month of 30 days
        ("0 0 15W * *", ["2026-01-15", "2026-02-16", "2026-03-16"]),
        ("0 0 * * 5L", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 0 * * FRIL", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 0 * * L5", ["2026-01-30", "2026-02-27", "2026-03-27"]),
        ("0 0 * * 6L", ["2026-01-31", "2026-02-28"]),
        ("0 0 * * 7L", ["2026-01-25", "2026-02-22"]),
        ("0 0 * * MON#2", ["2026-01-12", "2026-02-09"]),
        ("0 0 * * 4#5", ["2026-01-29", "2026-04-30", "2026-07-30"]),
        ("0 0 * * MON#1,MON#3,5L", ["2026-01-05", "2026-01-19", "2026-01-30"]),
        ("0 0 * * MON#1,SUN", ["2026-01-04", "2026-01-05", "2026-01-11"]),
        ("0 0 29 2 *", ["2028-02-29", "2032-02-29"]),
    ],
)  # fmt: skip
def test_days(cron: str, days: list[str]) -> None:
    assert dates(cron, len(days)) == days


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        # Both fields say something: one is enough.
        ("0 0 13 * FRI", ["2026-01-02", "2026-01-09", "2026-01-13", "2026-01-16"]),
        # One of them begins with a star: both must match.
        ("0 0 */2 * MON", ["2026-01-05", "2026-01-19", "2026-02-09"]),
        ("0 0 1-7 * */7", ["2026-01-04", "2026-02-01", "2026-03-01"]),
        ("0 0 *,1 * MON", ["2026-01-05", "2026-01-12"]),
    ],
)  # fmt: skip
def test_the_two_day_fields_go_together_as_in_debian(cron: str, days: list[str]) -> None:
    assert dates(cron, len(days)) == days


@pytest.mark.parametrize(
    ("cron", "days"),
    [
        ("0 0 * * 5-5", ["2026-01-02", "2026-01-09"]),  # not every day
        ("0 0 3-3 * *", ["2026-01-03", "2026-02-03"]),
        ("0 0 * * 2-7/3", ["2026-01-02", "2026-01-06", "2026-01-09"]),  # not Sundays
        ("0 0 * * 1/2", ["2026-01-02", "2026-01-04", "2026-01-05"]),  # Sundays too
        ("0 0 * * 0-7", ["2026-01-01", "2026-01-02", "2026-01-03"]),
        ("0 0 * * SUN-7", ["2026-01-01", "2026-01-02", "2026-01-03"]),
        ("0 0 * * 7-7", ["2026-01-04", "2026-01-11"]),
        ("0 0 * * 7-0", ["2026-01-04", "2026-01-11"]),
        ("0 0 * * FRI-SUN/2", ["2026-01-02", "2026-01-04", "2026-01-09"]),
        ("0 0 * * 1,*", ["2026-01-01", "2026-01-02"]),
        ("0 0 * * 7#2", ["2026-01-11", "2026-02-08"]),
        ("0 0 * * 7-2", ["2026-01-04", "2026-01-05", "2026-01-06", "2026-01-11"]),
        ("0 0 0 1 * SUN-SUN", ["2026-01-01", "2026-01-04"]),
    ],
)  # fmt: skip
def test_what_croniter_would_misread(cron: str, days: list[str]) -> None:
    assert dates(cron, len(days)) == days


def test_names_mean_what_cron_says() -> None:
    assert set(NAMES) == {
        "@HOURLY", "@DAILY", "@MIDNIGHT", "@WEEKLY", "@MONTHLY", "@YEARLY", "@ANNUALLY"
    }  # fmt: skip
    assert first("@hourly", 2) == ["2026-01-01 00:00:00", "2026-01-01 01:00:00"]
    assert dates("@Daily", 2) == dates("@midnight", 2) == ["2026-01-01", "2026-01-02"]
    assert dates("@weekly", 2) == ["2026-01-04", "2026-01-11"]
    assert dates("@monthly", 2) == ["2026-01-01", "2026-02-01"]
    assert dates("@yearly", 2) == dates("@annually", 2) == ["2026-01-01", "2027-01-01"]


def test_parsing_leaves_nothing_behind_in_croniter() -> None:
    """It keeps every expression that it ever saw, and requests choose them."""
    parse_cron.cache_clear()
    _numbers.cache_clear()
    before = len(EXPRESSIONS)
    for minute in range(60):
        parse_cron(f"{minute},{(minute + 7) % 60} 4 * * *")
    assert len(EXPRESSIONS) == before


@pytest.mark.parametrize(
    ("cron", "shortest_s"),
    [
        ("* * * * * *", 1),
        ("*/25 * * * * *", 10),  # 0, 25, 50 and again 0
        ("* * * * *", 60),
        ("*/7 * * * *", 4 * 60),  # from 56 to 0
        ("0,59 * * * *", 60),
        ("58 59 * * * *", 3600),
        ("0,58 0,59 * * * *", 2),  # from 59:58 to 00:00
        ("0,59 0,23 * * *", 60),  # from 23:59 to 00:00 of the next day
        ("0,59 0,23 1 * *", 59 * 60),  # there is no next day
        ("0 */5 * * *", 4 * 3600),  # from 20:00 to 00:00
        ("0 9,17 * * *", 8 * 3600),
        ("0 9 * * *", DAY_S),
        ("0 0,20 31 12 *", 20 * 3600),
        ("0 0,20 31,1 12,1 *", 4 * 3600),  # over the new year
        ("0 1,22 28,1 2,3 *", 3 * 3600),  # over the end of February, unless it has 29 days
        ("0 1,22 29,1 2,3 *", 3 * 3600),  # in leap years alone
        ("0 1,22 L,1 * *", 3 * 3600),
        ("0 0 1 * *", DAY_S + 1),
        ("0 0 1,3 * *", DAY_S + 1),
        ("0 0 * * MON", DAY_S + 1),
        ("0 0 * * SUN,MON", DAY_S),
        ("0 0 * * 5#1,6L", DAY_S + 1),
        ("0 0 15 * MON", DAY_S),  # when the 15th is a Tuesday
    ],
)  # fmt: skip
def test_the_shortest_gap_is_that_of_the_whole_pattern(cron: str, shortest_s: int) -> None:
    """Not that of its first two times."""
    assert parse_cron(cron).shortest_gap_s() == shortest_s
