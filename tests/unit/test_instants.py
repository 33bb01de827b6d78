"""The grammar of points in time."""

from contextlib import suppress
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.instants import (
    EARLIEST_MS,
    LATEST_MS,
    InstantError,
    NotMillisecondsError,
    format_instant,
    parse_instant,
)


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("1700000000000", 1_700_000_000_000),
        (" 1700000000000 ", 1_700_000_000_000),
        ("2023-11-14T22:13:20Z", 1_700_000_000_000),
        ("2023-11-14t22:13:20z", 1_700_000_000_000),
        ("2023-11-14 22:13:20Z", 1_700_000_000_000),
        ("2023-11-14T23:13:20+01:00", 1_700_000_000_000),
        ("2023-11-14T16:43:20-05:30", 1_700_000_000_000),
        ("2023-11-14T22:13:20.5Z", 1_700_000_000_500),
        ("2023-11-14T22:13:20-00:00", 1_700_000_000_000),
        ("1971-01-01T00:00:00Z", EARLIEST_MS),
        ("9999-12-31T23:59:59.999Z", LATEST_MS),
    ],
)
def test_rfc_3339_and_epoch_milliseconds_are_read(text: str, expected_ms: int) -> None:
    assert parse_instant(text) == expected_ms


def test_a_fraction_finer_than_a_millisecond_is_rounded_up_so_that_nothing_comes_early() -> None:
    assert parse_instant("2023-11-14T22:13:20.000001Z") == 1_700_000_000_001
    assert parse_instant("2023-11-14T22:13:20.999999999Z") == 1_700_000_001_000


def test_a_leap_second_is_the_second_after_it() -> None:
    assert parse_instant("2016-12-31T23:59:60Z") == parse_instant("2017-01-01T00:00:00Z")


@pytest.mark.parametrize(
    "text",
    [
        "0",
        "-1",
        "1700000000",
        "1970-01-20T16:13:20Z",
        "1969-12-31T23:59:59Z",
        "0001-01-01T00:00:00Z",
    ],
)
def test_seconds_read_as_milliseconds_are_refused_by_name(text: str) -> None:
    with pytest.raises(NotMillisecondsError, match="epoch seconds"):
        parse_instant(text)


@pytest.mark.parametrize(
    ("text", "year"),
    [
        ("1700000000000000", "55840"),
        ("1700000000000000000", "538"),
        ("253402300800000", "10000"),
        ("9" * 30, ""),
    ],
)
def test_microseconds_and_nanoseconds_are_refused_by_name(text: str, year: str) -> None:
    with pytest.raises(NotMillisecondsError, match=f"year {year}.*microseconds or nanoseconds"):
        parse_instant(text)


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("", "is empty"),
        ("tomorrow", "is not a point in time"),
        ("1700000000.5", "is not a point in time"),
        ("2030-01-31", "is not a point in time"),
        ("2030-01-31T09:00Z", "is not a point in time"),
        ("2030-01-31T09:00:00 Z", "is not a point in time"),
        ("2030-01-31T09:00:00", "has no offset from UTC"),
        ("2030-01-31T09:00:00+24:00", "has an offset that does not exist"),
        ("2030-02-30T09:00:00Z", "is not a date and time that exists"),
        ("2030-01-31T24:00:00Z", "is not a date and time that exists"),
        ("2030-01-31T09:00:61Z", "is not a date and time that exists"),
        ("0000-01-31T09:00:00Z", "is not a date and time that exists"),
        ("٢٠٣٠-01-31T09:00:00Z", "is not a point in time"),
        ("1_700_000_000_000", "is not a point in time"),
        ("9" * 31, "is not a point in time"),
    ],
)
def test_what_is_not_a_point_in_time_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(InstantError) as refusal:
        parse_instant(text)
    assert str(refusal.value).startswith(complaint)


@given(st.integers(min_value=EARLIEST_MS, max_value=LATEST_MS))
def test_what_is_formatted_parses_to_the_same(instant_ms: int) -> None:
    assert parse_instant(format_instant(instant_ms)) == instant_ms
    assert parse_instant(str(instant_ms)) == instant_ms


@given(
    st.datetimes(min_value=datetime(1972, 1, 1), max_value=datetime(9998, 1, 1)),  # noqa: DTZ001
    st.integers(min_value=-23 * 60 - 59, max_value=23 * 60 + 59),
)
def test_any_offset_is_the_same_instant_as_python_reads(local: datetime, offset_minutes: int) -> None:
    moment = local.replace(microsecond=0, tzinfo=timezone(timedelta(minutes=offset_minutes)))
    elapsed = moment - datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_instant(moment.isoformat()) == elapsed // timedelta(milliseconds=1)


@given(st.text() | st.text(alphabet="0123456789-:TZ+. "))
def test_any_text_is_an_instant_within_bounds_or_is_refused(text: str) -> None:
    with suppress(InstantError):
        assert EARLIEST_MS <= parse_instant(text) <= LATEST_MS


@pytest.mark.parametrize("instant_ms", [2**63 - 1, -(2**63), 253_402_300_800_000, -62_135_596_800_001])
def test_what_rfc_3339_has_no_year_for_is_written_in_epoch_milliseconds(instant_ms: int) -> None:
    assert format_instant(instant_ms) == str(instant_ms)
