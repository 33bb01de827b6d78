"""Cron expressions of other systems mean the same times after they were written anew."""

from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.recurrence import Recurrence, next_after
from delaystream.dialects.activemq import _GRAMMAR as ACTIVEMQ
from delaystream.dialects.cron_fields import Grammar, listed_steps, rewritten
from delaystream.dialects.nats import _GRAMMAR as NATS
from delaystream.dialects.translation import DialectError
from tests.examples import examples

START = datetime(2026, 2, 26, 22, 58, tzinfo=UTC)
START_MS = int(START.timestamp()) * 1000


def ours(cron: str, count: int) -> list[datetime]:
    """The first times of an expression, as a worker fires it."""
    recurrence = Recurrence(cron=cron, every_ms=0)
    found: list[datetime] = []
    at_ms: int | None = START_MS
    while len(found) < count and at_ms is not None:
        at_ms = next_after(recurrence, at_ms)
        if at_ms is not None:
            found.append(datetime.fromtimestamp(at_ms / 1000, UTC))
    return found


def days(matches: Callable[[datetime], bool]) -> Iterator[datetime]:
    """Midnights that match, from START on."""
    day = START.replace(hour=0, minute=0) + timedelta(days=1)
    while True:
        if matches(day):
            yield day
        day += timedelta(days=1)


def bits(token: str, least: int, most: int) -> tuple[set[int], bool]:
    """A field as `getField` and `getRange` of NATS' server/cron.go read it: its values, and its star bit."""
    values: set[int] = set()
    star = False
    for item in token.split(","):
        span, slash, step = item.partition("/")
        low, hyphen, high = span.partition("-")
        if span == "*":
            first, last = least, most
        else:
            first = int(low)
            last = int(high) if hyphen else most if slash else first
        values.update(range(first, last + 1, int(step or 1)))
        star |= span == "*" and int(step or 1) == 1
    return values, star


def nats_day(day_token: str, weekday_token: str) -> Callable[[datetime], bool]:
    """`dayMatches` of NATS' server/cron.go."""
    day, day_star = bits(day_token, 1, 31)
    weekday, weekday_star = bits(weekday_token, 0, 6)

    def matches(at: datetime) -> bool:
        on_day, on_weekday = at.day in day, at.isoweekday() % 7 in weekday
        return on_day and on_weekday if day_star or weekday_star else on_day or on_weekday

    return matches


def tokens(least: int, most: int) -> st.SearchStrategy[str]:
    number = st.integers(least, most)
    step = st.integers(1, 9)
    items = st.one_of(
        st.just("*"),
        step.map("*/{}".format),
        number.map(str),
        st.tuples(number, step).map(lambda pair: "{}/{}".format(*pair)),
        st.tuples(number, number).map(lambda pair: "{}-{}".format(*sorted(pair))),
        st.tuples(number, number, step).map(lambda t: "{}-{}/{}".format(*sorted(t[:2]), t[2])),
    )
    return st.lists(items, min_size=1, max_size=2).map(",".join)


@examples(150)
@given(day=tokens(1, 28), weekday=tokens(0, 6))
def test_nats_days(day: str, weekday: str) -> None:
    """Stars, steps and either-or of the two day fields, against NATS' own rules."""
    expected = days(nats_day(day, weekday))
    found = ours(rewritten("Nats-Schedule", f"0 0 0 {day} * {weekday}", NATS), 6)
    assert found == [next(expected) for _ in found]
    assert len(found) == 6


@examples(150)
@given(second=tokens(0, 59), minute=tokens(0, 59))
def test_nats_clock(second: str, minute: str) -> None:
    """Seconds and minutes, against NATS' own rules."""
    seconds, minutes = bits(second, 0, 59)[0], bits(minute, 0, 59)[0]
    expected = (
        START + timedelta(seconds=after)
        for after in range(1, 6 * 3600)
        if (START.minute * 60 + after) // 60 % 60 in minutes and after % 60 in seconds
    )
    found = ours(rewritten("Nats-Schedule", f"{second} {minute} * * * *", NATS), 5)
    assert found == [next(expected) for _ in range(5)]


@examples(100)
@given(first=st.integers(0, 59), last=st.integers(0, 59), step=st.integers(1, 30))
def test_activemq_steps_are_multiples(first: int, last: int, step: int) -> None:
    """As `calculateValues` of ActiveMQ's CronParser.java has it: those values of the range that divide."""
    first, last = sorted((first, last))
    minutes = {minute for minute in range(first, last + 1) if minute % step == 0}
    expression = f"{first}-{last}/{step} * * * *"
    if not minutes:
        with pytest.raises(DialectError, match="a value from 0 to 59"):
            rewritten("AMQ_SCHEDULED_CRON", expression, ACTIVEMQ)
        return
    found = ours(rewritten("AMQ_SCHEDULED_CRON", expression, ACTIVEMQ), 4)
    expected = (START + timedelta(minutes=n) for n in range(1, 1000) if (START.minute + n) % 60 in minutes)
    assert found == [next(expected) for _ in range(4)]


@pytest.mark.parametrize(
    ("theirs", "same"),
    [
        ("0 9 */2 * 1", "0 9 1-31/2 * 1"),
        ("0 9 * * */2", "0 9 * * 0-6/2"),
        ("0 9 */1 * 1,*/3", "0 9 */1 * 1,0-6/3"),
    ],
)
def test_croniter_steps(theirs: str, same: str) -> None:
    """croniter, which Kaspr uses, takes a stepped day field for a restriction; Vixie cron for a wildcard."""
    assert listed_steps(theirs) == same


@pytest.mark.parametrize(
    "expression",
    [
        "61 * * * *",
        "* 24 * * *",
        "* * 0 * *",
        "* * * 13 *",
        "*/0 * * * *",
        "5- * * * *",
        "1--2 * * * *",
        "²  * * * *",
        "*",
    ],
)
@pytest.mark.parametrize("grammar", [NATS, ACTIVEMQ])
def test_refuses(expression: str, grammar: Grammar) -> None:
    """Out of bounds, or no expression at all."""
    seconds = "0 " if len(grammar.fields) == 6 else ""
    with pytest.raises(DialectError):
        rewritten("header", seconds + expression, grammar)
