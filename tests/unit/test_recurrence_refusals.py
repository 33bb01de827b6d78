"""Recurrences that are refused: each by its code, with a sentence that says what is wrong."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.instants import parse_instant
from delaystream.core.recurrence import Recurrence, check, next_after
from delaystream.core.rejection import Code, Rejection
from tests.examples import examples

START_MS = parse_instant("2026-01-01T00:00:00Z")


def refused(
    cron: str | None, *, min_interval_ms: int = 1000, every_ms: int = 0, **fields: object
) -> Rejection | None:
    fields = {"start_ms": START_MS, **fields}
    recurrence = Recurrence(cron, every_ms, **fields)  # type: ignore[arg-type]
    return check(recurrence, min_interval_ms=min_interval_ms, max_expression=256)


CRON = [
    ("", "it has 0 fields; expected 5, or 6 with seconds first"),
    ("* * * *", "it has 4 fields"),
    ("*", "it has 1 field;"),
    ("* * * * * * * *", "it has 8 fields"),
    ("60 * * * *", "'60' is no minute; expected 0 to 59"),
    ("* 24 * * *", "'24' is no hour; expected 0 to 23"),
    ("* * 0 * *", "'0' is no day of month; expected 1 to 31"),
    ("0 * * 0 * *", "'0' is no day of month"),
    ("* * 32 * *", "'32' is no day of month"),
    ("* * * 13 *", "'13' is no month; expected 1 to 12 or JAN to DEC"),
    ("* * * 0 *", "'0' is no month"),
    ("0 * * * 0 *", "'0' is no month"),
    ("* * * * 8", "'8' is no day of week; expected 0 to 7 or SUN to SAT"),
    ("60 * * * * *", "'60' is no second"),
    ("* * * FOO *", "'FOO' is no month"),
    ("0 9 * * MONDAY", "'MONDAY' is no day of week; expected 'MON': a name has three letters"),
    ("0 9 * * monday-friday", "expected 'MON-FRI': a name has three letters"),
    ("0 9 1 January,Juli *", "'JANUARY' is no month; expected 'JAN': a name has three letters"),
    ("0 9 * * FORDAY", "'FORDAY' is no day of week; expected a number, a range"),
    ("* * * MON *", "'MON' is no month"),
    ("-5 * * * *", "'-5' is no minute; expected a number"),
    ("5- * * * *", "'5-' is no minute; expected a number"),
    ("1-2-3 * * * *", "'1-2-3' is no minute; expected a number"),
    ("1,,2 * * * *", "'' is no minute; expected a number"),
    (", * * * *", "'' is no minute"),
    ("*-5 * * * *", "'*-5' is no minute"),
    ("5* * * * *", "'5*' is no minute"),
    ("** * * * *", "'**' is no minute"),
    ("? * * * *", "'?' is no minute"),
    ("* * ?,1 * *", "'?' is no day of month"),
    ("*/0 * * * *", "the step in '*/0' of the minute must be 1 to 60"),
    ("*/90 * * * *", "the step in '*/90' of the minute must be 1 to 60"),
    ("* */25 * * *", "the step in '*/25' of the hour must be 1 to 24"),
    ("*/-1 * * * *", "'*/-1' is no minute"),
    ("* 21-3/2 * * *", "runs over the end of the field with a step; write two ranges"),
    ("L * * * *", "'L' is no minute"),
    ("* L * * *", "'L' is no hour"),
    ("* * * L *", "'L' is no month"),
    ("* * * * L", "'L' as day of week does not say which"),
    (
        "* * L-3 * *",
        "'L-3' counts from the end of the month, which is not supported; write one schedule for each length "
        "of month: day 28 in months 1,3,5,7,8,10,12, day 27 in 4,6,9,11, and day 25 in 2",
    ),
    ("* * 1,l-27 * *", "and day 1 in 2"),
    ("* * L-28 * *", "'L-28' counts from the end of the month, which is not supported; write the days out"),
    ("* * L-3W * *", "'L-3W' counts from the end of the month, which is not supported; write the days out"),
    (
        "CRON_TZ=Europe/Berlin 0 9 * * *",
        "leave 'CRON_TZ=Europe/Berlin' out, and write the zone in the header",
    ),
    ("tz=UTC 0 0 9 * * *", "leave 'tz=UTC' out, and write the zone in the header delaystream-timezone"),
    ("TZ=Asia/Tokyo @daily", "leave 'TZ=Asia/Tokyo' out"),
    ("0 9 * * * TZ=UTC", "a time zone is not part of the expression"),
    ("* * 1-L * *", "'1-L' is no day of month"),
    ("* * 32W * *", "'32' is no day of month"),
    ("* * 1-5W * *", "'1-5W' is no day of month"),
    ("* * * * 1W", "'1W' is no day of week"),
    ("* * * * MON#0", "'MON#0' must have 1 to 5 after '#'"),
    ("* * * * MON#6", "'MON#6' must have 1 to 5 after '#'"),
    ("* * * * FOO#1", "'FOO' is no day of week"),
    ("* * 1#1 * *", "'1#1' is no day of month"),
    ("@reboot", "'@reboot' is not a name; expected one of @hourly, @daily"),
    ("@every 5m", "written in the header delaystream-every"),
    ("\u0661 * * * *", "it has characters other than printable ASCII"),
    ("1\x00 * * * *", "it has characters other than printable ASCII"),
    ("0 9\n* * *", "it has characters other than printable ASCII"),
]


@pytest.mark.parametrize(("cron", "complaint"), CRON)
def test_what_is_no_cron_expression_says_where(cron: str, complaint: str) -> None:
    rejection = refused(cron)
    assert rejection is not None
    assert rejection.code is Code.INVALID_CRON
    assert rejection.detail.startswith("delaystream-cron is '")
    assert complaint in rejection.detail
    assert rejection.detail.endswith(".")


@pytest.mark.parametrize(
    "cron", ["H * * * *", "H/5 * * * *", "0 H(0-7) * * *", "R R * * *", "h h * * h", "0 0 0 1 1 * 2026"]
)
def test_random_times_and_years_are_not_supported(cron: str) -> None:
    """Croniter draws `R` anew at each parse; no two workers would agree."""
    rejection = refused(cron)
    assert rejection is not None
    assert rejection.code is Code.UNSUPPORTED_CRON


def test_a_field_of_years_is_told_from_a_wrong_number_of_fields() -> None:
    """Quartz has seconds first and years last."""
    rejection = refused("0 0 9 1 1 ? 2026")
    assert rejection is not None
    assert rejection.detail.endswith(
        "it has 7 fields, and years are not supported; write the first 6, and bound them with the headers "
        "delaystream-start and delaystream-end."
    )


def test_a_long_expression_is_refused_before_it_is_read() -> None:
    """By its length in characters; the bound itself is allowed."""
    longest = "0" + ",0" * 123 + " * * * *"
    assert len(longest) == 255
    assert refused(longest) is None
    rejection = refused(",".join(["1"] * 2500) + " * * * *")
    assert rejection is not None
    assert rejection.code is Code.CRON_TOO_LONG
    assert "it has 5007 characters; expected at most 256" in rejection.detail
    assert len(rejection.detail) < 300


@pytest.mark.parametrize(
    "cron", ["0 0 30 2 *", "0 0 31 2,4,6,9,11 *", "0 0 31W 4 *", "0 0 30 2 */2", "0 0 30 2 ?"]
)
def test_a_date_that_does_not_exist_never_fires(cron: str) -> None:
    rejection = refused(cron)
    assert rejection is not None
    assert rejection.code is Code.NEVER_FIRES


def test_a_time_that_is_always_in_a_gap_never_fires() -> None:
    """Where gaps are skipped: the second Sunday of March is New York's."""
    cron = "30 2 * 3 SUN#2"
    assert refused(cron, timezone="America/New_York") is None
    rejection = refused(cron, timezone="America/New_York", dst_gap="skip")
    assert rejection is not None
    assert rejection.code is Code.NEVER_FIRES


def test_a_time_outside_of_start_and_end_never_fires() -> None:
    year_ms = 365 * 86_400_000
    cron = "0 0 29 2 *"
    assert refused(cron, end_ms=START_MS + 3 * year_ms) is None
    rejection = refused(cron, end_ms=START_MS + 2 * year_ms)
    assert rejection is not None
    assert rejection.code is Code.NEVER_FIRES
    assert "2026-01-01T00:00:00.000Z" in rejection.detail
    assert "2028-01-01T00:00:00.000Z" in rejection.detail
    before_start = refused(None, every_ms=1000, end_ms=START_MS - 1)
    assert before_start is not None
    assert before_start.code is Code.NEVER_FIRES


@pytest.mark.parametrize(
    ("cron", "min_interval_ms", "apart"),
    [
        ("* * * * * *", 1001, "1s"),
        ("*/25 * * * * *", 11_000, "10s"),
        ("0,59 0,23 * * *", 61_000, "1m"),
        ("0 9 * * *", 86_400_001, "1d"),
    ],
)
def test_too_frequent_anywhere_in_the_pattern(cron: str, min_interval_ms: int, apart: str) -> None:
    assert refused(cron, min_interval_ms=min_interval_ms - 1001) is None
    rejection = refused(cron, min_interval_ms=min_interval_ms)
    assert rejection is not None
    assert rejection.code is Code.TOO_FREQUENT
    assert f"as little as {apart} apart" in rejection.detail


def test_an_interval_is_bounded_too() -> None:
    assert refused(None, every_ms=1000) is None
    rejection = refused(None, every_ms=999)
    assert rejection is not None
    assert rejection.code is Code.TOO_FREQUENT
    assert "delaystream-every 999ms" in rejection.detail


@pytest.mark.parametrize("cron", ["*/7 * * * *", None])
def test_jitter_is_shorter_than_the_shortest_gap(cron: str | None) -> None:
    """So that no fire is due before the one before it."""
    four_minutes = 240_000
    every_ms = 0 if cron else four_minutes
    assert refused(cron, every_ms=every_ms, jitter_ms=four_minutes - 1) is None
    rejection = refused(cron, every_ms=every_ms, jitter_ms=four_minutes)
    assert rejection is not None
    assert rejection.code is Code.JITTER_TOO_LONG


@pytest.mark.parametrize(
    ("zone", "hint"),
    [
        ("Europe/berlin", "did you mean 'Europe/Berlin'?"),
        ("America/NewYork", "did you mean 'America/New_York'?"),
        ("../../etc/passwd", "expected one such as 'Europe/Berlin' or 'UTC'."),
        ("", "expected one such as 'Europe/Berlin' or 'UTC'."),
        ("+02:00", "or 'Etc/GMT-2': it is 2 hours ahead of UTC, as Etc has the signs the other way round."),
        ("UTC+8", "or 'Etc/GMT-8': it is 8 hours ahead of UTC, as Etc has the signs the other way round."),
        ("utc-1", "or 'Etc/GMT+1': it is 1 hour behind UTC, as Etc has the signs the other way round."),
        ("utc+0", "an offset is no zone; write the name of one, as 'Europe/Berlin' is, or 'UTC'."),
        ("UTC+05:30", "an offset is no zone; write the name of one, as 'Europe/Berlin' is."),
        ("UTC+15", "an offset is no zone; write the name of one, as 'Europe/Berlin' is."),
        (
            "etc/gmt+8",
            "did you mean 'Etc/GMT+8'? It is 8 hours behind UTC, as Etc has the signs the other way round.",
        ),
        (
            "etc/gmt-8",
            "did you mean 'Etc/GMT-8'? It is 8 hours ahead of UTC, as Etc has the signs the other way round.",
        ),
    ],
)
def test_an_unknown_zone_is_refused_with_the_nearest_name(zone: str, hint: str) -> None:
    rejection = refused("0 9 * * *", timezone=zone)
    assert rejection is not None
    assert rejection.code is Code.INVALID_TIMEZONE
    assert rejection.detail.endswith(hint)


LETTERS = "0123456789*/-,?#LWHRC@ \tMONFEBJAUSTDYlw\n"


@examples(500)
@given(st.text(st.sampled_from(LETTERS), max_size=40) | st.text(max_size=40))
def test_any_text_is_accepted_or_refused_by_a_code(cron: str) -> None:
    """Nothing else comes out of it; what is accepted fires."""
    rejection = refused(cron)
    if rejection is None:
        assert next_after(Recurrence(cron, 0), START_MS) is not None
    else:
        assert rejection.detail.isprintable()
