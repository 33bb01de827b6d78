"""The grammar of delays and graces."""

from contextlib import suppress

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.durations import DurationError, format_duration, parse_duration, simple_duration

SECOND = 1000
MINUTE = 60 * SECOND
HOUR = 60 * MINUTE
DAY = 24 * HOUR


@pytest.mark.parametrize(
    ("text", "expected_ms"),
    [
        ("0", 0),
        ("0s", 0),
        ("PT0S", 0),
        ("500ms", 500),
        ("5s", 5 * SECOND),
        ("15m", 15 * MINUTE),
        ("1h30m", 90 * MINUTE),
        ("1d2h3m4s5ms", DAY + 2 * HOUR + 3 * MINUTE + 4 * SECOND + 5),
        ("1m5ms", MINUTE + 5),
        ("90m", 90 * MINUTE),
        ("1.5h", 90 * MINUTE),
        ("0.5s", 500),
        (" 5s\t", 5 * SECOND),
        ("PT15M", 15 * MINUTE),
        ("P1DT2H", DAY + 2 * HOUR),
        ("P1D", DAY),
        ("pt0.5s", 500),
        ("PT8H6M12.345S", 8 * HOUR + 6 * MINUTE + 12_345),
        ("3650d", 3650 * DAY),
    ],
)
def test_both_notations_give_milliseconds(text: str, expected_ms: int) -> None:
    assert parse_duration(text) == expected_ms


@pytest.mark.parametrize(
    ("text", "complaint"),
    [
        ("30", "has no unit"),
        ("1.5", "has no unit"),
        ("00", "has no unit"),
        ("", "is empty"),
        ("  ", "is empty"),
        ("-5m", "is negative"),
        ("PT-5M", "is negative"),
        ("-PT5M", "is negative"),
        ("P1M", "counts in years, months or weeks"),
        ("P1Y2D", "counts in years, months or weeks"),
        ("P2W", "counts in years, months or weeks"),
        ("P", "is not a duration"),
        ("PT", "is not a duration"),
        ("P1DT", "is not a duration"),
        ("30m1h", "is not a duration"),
        ("1h1h", "is not a duration"),
        ("5S", "is not a duration"),
        ("5 s", "is not a duration"),
        ("1w", "is not a duration"),
        ("5sec", "is not a duration"),
        ("\u0665s", "is not a duration"),
        ("1e3s", "is not a duration"),
        ("1.5h30m", "has a fraction before its last number"),
        ("0.5ms", "is not a whole number of milliseconds"),
        ("PT0.0001S", "is not a whole number of milliseconds"),
    ],
)
def test_what_could_be_misread_is_refused_with_the_reason(text: str, complaint: str) -> None:
    with pytest.raises(DurationError) as refusal:
        parse_duration(text)
    assert str(refusal.value) == complaint


@given(st.integers(min_value=0, max_value=10**15))
def test_what_is_formatted_parses_to_the_same(duration_ms: int) -> None:
    assert parse_duration(format_duration(duration_ms)) == duration_ms


@given(st.integers(min_value=0, max_value=10**12))
def test_iso_seconds_as_java_prints_them_parse_to_the_same(duration_ms: int) -> None:
    assert parse_duration(f"PT{duration_ms // 1000}.{duration_ms % 1000:03d}S") == duration_ms


@given(st.text() | st.text(alphabet="0123456789.dhmsPTpt- "))
def test_any_text_is_a_duration_that_is_not_negative_or_is_refused(text: str) -> None:
    with suppress(DurationError):
        assert parse_duration(text) >= 0


@given(st.integers(0, 10**15 - 1), st.sampled_from(["d", "h", "m", "s", "ms"]))
def test_the_quick_way_and_the_general_one_agree(number: int, unit: str) -> None:
    text = f"{number}{unit}"
    assert simple_duration(text.encode()) == parse_duration(text)


@given(st.binary(max_size=12))
def test_the_quick_way_takes_nothing_that_the_general_one_refuses(content: bytes) -> None:
    quick = simple_duration(content)
    if quick is not None:
        assert parse_duration(content.decode()) == quick
