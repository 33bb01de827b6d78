"""Daylight saving: the table of docs/scheduling.md row by row, and a slow definition to compare with."""

import re
from collections.abc import Iterator
from datetime import UTC, date, datetime, time, timedelta
from typing import Any, NamedTuple

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from delaystream.core.recurrence import Recurrence, misses, next_after
from delaystream.core.recurrence.occurrences import occurrences
from delaystream.core.recurrence.zones import zone
from tests.examples import examples
from tests.unit.test_setup import ROOT

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def milliseconds(at: datetime) -> int:
    return (at - EPOCH) // timedelta(milliseconds=1)


# -- the table of the documentation ------------------------------------------------------------------


class Row(NamedTuple):
    zone: str
    first: date
    last: date
    cron: str
    policy: dict[str, Any]
    fires: list[str]


def documented() -> list[Row]:
    text = (ROOT / "docs" / "scheduling.md").read_text("utf-8")
    rows = []
    for line in text.splitlines():
        cells = [cell.strip() for cell in line.strip("|").split("|")]
        if len(cells) != 5 or "/" not in cells[0] + "/" or not re.match(r"\d{4}-", cells[1]):
            continue
        first, _, last = cells[1].partition(" to ")
        policy = dict(re.findall(r"`(dst-\w+): (\w+)`", cells[3]))
        rows.append(
            Row(
                cells[0],
                date.fromisoformat(first),
                date.fromisoformat(last or first),
                cells[2].strip("`"),
                {name.replace("-", "_"): value for name, value in policy.items()},
                [] if cells[4] == "never" else cells[4].split(", "),
            )
        )
    return rows


def test_the_table_has_the_cases() -> None:
    """What is parsed is what is printed there."""
    rows = documented()
    assert {row.zone for row in rows} == {
        "America/New_York",
        "Australia/Lord_Howe",
        "Pacific/Apia",
        "Africa/Casablanca",
        "UTC",
    }
    assert len(rows) >= 25
    assert {tuple(row.policy.items()) for row in rows} >= {
        (),
        (("dst_gap", "skip"),),
        (("dst_overlap", "second"),),
        (("dst_overlap", "both"),),
    }


@pytest.mark.parametrize(
    "row", documented(), ids=lambda row: f"{row.zone} {row.first} {row.cron} {row.policy}"
)
def test_every_row_of_the_table_is_what_happens(row: Row) -> None:
    """From the first midnight of the days to the last."""
    rules = zone(row.zone)
    start = datetime.combine(row.first, time(), rules)
    end = datetime.combine(row.last + timedelta(days=1), time(), rules)
    recurrence = Recurrence(row.cron, 0, row.zone, **row.policy)
    fires = [
        occurrence.local
        for occurrence in occurrences(recurrence, milliseconds(start) - 1, 50)
        if occurrence.due_ms < milliseconds(end)
    ]
    days = "%m-%d " if row.first != row.last else ""
    assert [f"{at:{days}%H:%M}{at.isoformat()[-6:]}" for at in fires] == row.fires


# -- against the definition, time by time ------------------------------------------------------------

#: Zone, and a day near which its clocks change.
CHANGES = [
    ("America/New_York", date(2026, 3, 8)),
    ("America/New_York", date(2026, 11, 1)),
    ("Australia/Lord_Howe", date(2026, 4, 5)),
    ("Australia/Lord_Howe", date(2026, 10, 4)),
    ("Pacific/Apia", date(2011, 12, 30)),
    ("Pacific/Kwajalein", date(1993, 8, 21)),
    ("Africa/Casablanca", date(2025, 2, 23)),
    ("Africa/Casablanca", date(2025, 4, 6)),
    ("America/Havana", date(2025, 3, 9)),  # no midnight
    ("America/Havana", date(2025, 11, 2)),
    ("America/Sao_Paulo", date(2018, 11, 4)),
    ("Europe/Moscow", date(2010, 10, 31)),
    ("Asia/Manila", date(1844, 12, 31)),  # a missing day, long before 1970
    ("America/Juneau", date(1867, 10, 18)),  # a day that came twice
    ("Europe/Berlin", date(2100, 3, 28)),
    ("UTC", date(2026, 3, 8)),
]


def local_times(around: date, hours: list[int], minutes: list[int]) -> Iterator[datetime]:
    for days in range(-2, 3):
        for hour in hours:
            for minute in minutes:
                yield datetime.combine(around + timedelta(days=days), time(hour, minute))


def defined(local: datetime, name: str, gap: str, overlap: str) -> set[datetime]:
    """The instants of one local time, as the documentation defines them; by PEP 495 alone."""
    rules = zone(name)
    first, second = (local.replace(tzinfo=rules, fold=fold).astimezone(UTC) for fold in (0, 1))
    if first < second:
        return {"first": {first}, "second": {second}, "both": {first, second}}[overlap]
    if first == second:
        return {first}
    if gap == "skip":
        return set()
    # In a gap fold 0 lies after the change and fold 1 before it: look for the first instant after.
    before_change = second.astimezone(rules).utcoffset()
    while second.astimezone(rules).utcoffset() == before_change:
        second += timedelta(seconds=1)
    return {second}


def some(low: int, high: int) -> st.SearchStrategy[list[int]]:
    return st.lists(st.integers(low, high), min_size=1, max_size=4, unique=True).map(sorted)


def listed(numbers: list[int]) -> str:
    return ",".join(map(str, numbers))


@example(("Pacific/Apia", date(2011, 12, 30)), [0], [0], "shift", "first", False, 60 * 48)
@examples(150)
@given(
    change=st.sampled_from(CHANGES),
    minutes=some(0, 59),
    hours=some(0, 3) | some(0, 23),
    gap=st.sampled_from(["shift", "skip"]),
    overlap=st.sampled_from(["first", "second", "both"]),
    wildcard=st.booleans(),
    look_min=st.integers(0, 60 * 48),
)
def test_times_around_a_change_are_those_of_the_definition(
    change: tuple[str, date],
    minutes: list[int],
    hours: list[int],
    gap: Any,
    overlap: Any,
    wildcard: bool,
    look_min: int,
) -> None:
    """Each of them, none more; counted without visiting them too."""
    name, around = change
    if wildcard:
        # Every hour, said with a star: elapsed time, whatever the policy.
        cron, gap_meant, overlap_meant, hours = f"{listed(minutes)} * * * *", "skip", "both", list(range(24))
    else:
        cron, gap_meant, overlap_meant = f"{listed(minutes)} {listed(hours)} * * *", gap, overlap
    expected = sorted(
        {
            at
            for local in local_times(around, hours, minutes)
            for at in defined(local, name, gap_meant, overlap_meant)
        }
    )
    recurrence = Recurrence(cron, 0, name, gap, overlap, start_ms=-(10**14))
    after_ms = milliseconds(expected[0]) - 1
    end_ms = milliseconds(expected[-1])
    found = []
    at_ms = after_ms
    while (next_ms := next_after(recurrence, at_ms)) is not None and next_ms <= end_ms:
        at_ms = next_ms
        found.append(EPOCH + timedelta(milliseconds=at_ms))
    assert found == expected
    assert misses(recurrence, after_ms, end_ms) == (len(expected), after_ms + 1, end_ms)
    # From and to any instant in between, too: in a fold, in a gap, before and after.
    middle = expected[len(expected) // 2]
    # Where a day is missing, two days after the middle lie beyond what is expected.
    farthest = min(middle + timedelta(minutes=look_min), expected[-1])
    for look in (middle - timedelta(minutes=7), middle, farthest):
        earlier = [at for at in expected if at <= look]
        number, _, last_ms = misses(recurrence, after_ms, milliseconds(look))
        assert number == len(earlier)
        assert last_ms == (milliseconds(earlier[-1]) if earlier else None)
        later = [at for at in expected if at > look]
        number, first_ms, last_ms = misses(recurrence, milliseconds(look), end_ms)
        assert number == len(later)
        assert (first_ms, last_ms) == ((milliseconds(later[0]), end_ms) if later else (None, None))
