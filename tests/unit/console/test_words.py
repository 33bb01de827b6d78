"""Cron expressions and intervals in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.console.words import cron_in_words, every_in_words
from delaystream.core.recurrence import CronError
from delaystream.core.recurrence.expression import parse_cron

SAID = {
    "30 9 * * MON-FRI": "at 09:30, Monday to Friday",
    "0 9 * * *": "at 09:00, every day",
    "30 0 9 * * *": "at 09:00:30, every day",
    "0 9,12 1,15 JAN,JUL *": "at 09:00 and 12:00, on the 1st and the 15th of the month, in January and July",
    "*/5 * * * *": "every 5 minutes",
    "*/10 * * * * *": "every 10 seconds",
    "0 */2 * * *": "every 2 hours, on the hour",
    "@daily": "at 00:00, every day",
    "@HOURLY": "on the hour of every hour",
    "@weekly": "at 00:00, on Sunday",
    "7 * * * *": "at minute 7 of every hour, every day",
    "*/15 9-17 * * MON-FRI": "every 15 minutes from 09:00 to 17:59, Monday to Friday",
    "* 9 * * *": "every minute between 09:00 and 09:59",
    "0 12 15W * *": "at 12:00, on the working day nearest to the 15th of the month",
    "0 12 L * *": "at 12:00, on the last day of the month",
    "0 12 LW * *": "at 12:00, on the last working day of the month",
    "0 0 * * FRI#2": "at 00:00, on the second Friday of the month",
    "0 0 * 3-5 5L": "at 00:00, on the last Friday of the month, from March to May",
    # One of two day fields is enough, unless one of them begins with a star.
    "0 0 13 * 5": "at 00:00, on the 13th of the month and also on Friday",
    "0 0 */2 * 5": "at 00:00, every 2nd day from the 1st on if it is also on Friday",
    "0 0 11,13,21,23 * *": "at 00:00, on the 11th, the 13th, the 21st and the 23rd of the month",
}


@pytest.mark.parametrize("expression", SAID)
def test_an_expression_is_said_as_people_say_it(expression: str) -> None:
    assert cron_in_words(expression) == SAID[expression]


@pytest.mark.parametrize("expression", ["", "61 * * * *", "* * * *", "@reboot", "0 0 30 2 *", "<b>"])
def test_what_is_no_expression_is_not_said(expression: str) -> None:
    assert cron_in_words(expression) is None


def numbers(low: int, high: int) -> st.SearchStrategy[str]:
    number = st.integers(low, high).map(str)
    ranged = st.tuples(st.integers(low, high), st.integers(low, high)).map(
        lambda pair: f"{min(pair)}-{max(pair)}"
    )
    stepped = st.tuples(st.one_of(st.just("*"), number, ranged), st.integers(1, 6)).map(
        lambda pair: f"{pair[0]}/{pair[1]}"
    )
    one = st.one_of(number, ranged, stepped)
    return st.one_of(st.just("*"), st.lists(one, min_size=1, max_size=3).map(",".join))


DAYS = st.one_of(numbers(1, 31), st.sampled_from(["L", "LW", "15W", "?", "L,1", "1W,20"]))
WEEKDAYS = st.one_of(
    numbers(0, 7), st.sampled_from(["MON", "SUN-TUE", "FRI#1", "5L", "L5", "?", "MON,WED#2", "FRIL"])
)


@given(
    st.tuples(numbers(0, 59), numbers(0, 59), numbers(0, 23), DAYS, numbers(1, 12), WEEKDAYS).map(" ".join)
)
def test_whatever_a_worker_takes_has_words(expression: str) -> None:
    try:
        parse_cron(expression)
    except CronError:
        assert cron_in_words(expression) is None
        return
    words = cron_in_words(expression)
    assert words
    assert "  " not in words


def test_an_interval_is_said_in_its_largest_unit() -> None:
    assert [every_in_words(ms) for ms in (1_000, 90_000, 60_000, 7_200_000, 86_400_000, 1_500)] == [
        "every second",
        "every 90 seconds",
        "every minute",
        "every 2 hours",
        "every day",
        "every 1s500ms",
    ]
