"""`delaystream-at` as a local time: what it means where clocks are put forward or back."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.limits import Limits
from delaystream.core.recurrence import LocalClock, Recurrence, next_after
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Header, Request
from tests.unit.test_headers import TO_ORDERS, accepted, control, parse

BERLIN = control("timezone", b"Europe/Berlin")
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def utc(text: str) -> int:
    return (datetime.fromisoformat(text) - _EPOCH) // timedelta(milliseconds=1)


def at(text: str, *headers: Header) -> Request | Rejection:
    return parse(TO_ORDERS, control("at", text.encode()), *headers)


@pytest.mark.parametrize(
    ("written", "means"),
    [
        ("2030-01-31T09:00:00", "2030-01-31T08:00:00Z"),
        ("2030-07-31T09:00", "2030-07-31T07:00:00Z"),
        ("2030-07-31 09:00", "2030-07-31T07:00:00Z"),
        ("2030-07-31t09:00:00.25", "2030-07-31T07:00:00.250Z"),
        ("2030-07-31T09:00:00.0001", "2030-07-31T07:00:00.001Z"),
        (" 2030-07-31T23:59:60 ", "2030-07-31T22:00:00Z"),
        ("2020-01-01T00:00", "2019-12-31T23:00:00Z"),
    ],
)
def test_a_local_time_is_one_of_the_zone_beside_it(written: str, means: str) -> None:
    request = at(written, BERLIN)
    assert isinstance(request, Request), request
    assert request.due_ms == (utc(means),)
    assert request.recurrence is None


@pytest.mark.parametrize(
    ("zone", "written", "policy", "means"),
    [
        ("Europe/Berlin", "2030-03-31T02:30", [], ["2030-03-31T01:00:00Z"]),
        ("Europe/Berlin", "2030-03-31T02:30:00.5", [("dst-gap", "shift")], ["2030-03-31T01:00:00Z"]),
        ("Europe/Berlin", "2030-03-31T03:00", [("dst-gap", "skip")], ["2030-03-31T01:00:00Z"]),
        ("Europe/Berlin", "2030-10-27T02:30", [], ["2030-10-27T00:30:00Z"]),
        ("Europe/Berlin", "2030-10-27T02:30", [("dst-overlap", "second")], ["2030-10-27T01:30:00Z"]),
        (
            "Europe/Berlin",
            "2030-10-27T02:30:00.5",
            [("dst-overlap", "both")],
            ["2030-10-27T00:30:00.500Z", "2030-10-27T01:30:00.500Z"],
        ),
        ("Europe/Berlin", "2030-10-27T03:00", [("dst-overlap", "both")], ["2030-10-27T02:00:00Z"]),
        ("Australia/Lord_Howe", "2030-10-06T02:15", [], ["2030-10-05T15:30:00Z"]),
        ("Pacific/Apia", "2011-12-30T12:00", [], ["2011-12-30T10:00:00Z"]),
        ("Pacific/Auckland", "2030-04-07T02:30", [], ["2030-04-06T13:30:00Z"]),
        ("America/Anchorage", "2030-11-03T01:30", [("dst-overlap", "second")], ["2030-11-03T10:30:00Z"]),
        ("Pacific/Kiritimati", "2030-01-01T00:00", [], ["2029-12-31T10:00:00Z"]),
        ("Etc/GMT+12", "2029-12-31T23:00", [], ["2030-01-01T11:00:00Z"]),
    ],
)
def test_clocks_that_change_are_read_as_those_of_a_cron_expression_are(
    zone: str, written: str, policy: list[tuple[str, str]], means: list[str]
) -> None:
    headers = [control(kind, value.encode()) for kind, value in policy]
    request = at(written, control("timezone", zone.encode()), *headers)
    assert isinstance(request, Request), request
    assert request.due_ms == tuple(map(utc, means))


def test_a_list_may_mix_local_times_with_others_and_keeps_its_order() -> None:
    both = control("dst-overlap", b"both")
    request = at("2030-10-27T02:30,1800000000000 ,2030-01-01T00:00:00-01:00", BERLIN, both)
    assert isinstance(request, Request), request
    assert request.due_ms == (
        utc("2030-10-27T00:30:00Z"),
        utc("2030-10-27T01:30:00Z"),
        1_800_000_000_000,
        utc("2030-01-01T01:00:00Z"),
    )


def test_a_time_that_does_not_exist_is_left_out_of_a_list_that_has_others() -> None:
    request = at("2030-03-31T02:30,2030-03-31T09:00", BERLIN, control("dst-gap", b"skip"))
    assert isinstance(request, Request), request
    assert request.due_ms == (utc("2030-03-31T07:00:00Z"),)


def test_a_local_time_needs_no_id_and_may_have_one() -> None:
    headers = (TO_ORDERS, control("at", b"2030-01-31T09:00"), BERLIN)
    assert accepted(*headers).due_ms == accepted(*headers, control("id", b"x")).due_ms


@pytest.mark.parametrize(
    ("code", "written", "headers", "says"),
    [
        (Code.INVALID_AT, "2030-01-31T09:00:00", [], "or delaystream-timezone beside it"),
        (Code.INVALID_AT, "2030-01-31T09:00", [], "'2030-01-31T09:00' has no offset from UTC"),
        (Code.INVALID_AT, "2030-01-31T09:00Z", [BERLIN], "is not a point in time"),
        (Code.INVALID_AT, "2030-02-30T09:00", [BERLIN], "not a date and time that exists"),
        (Code.INVALID_AT, "2030-01-31", [BERLIN], "is not a point in time"),
        (Code.INVALID_AT, "2030-01-31T09:00,", [BERLIN], "'' is empty"),
        (Code.AT_NOT_MILLISECONDS, "1970-01-31T09:00", [BERLIN], "1970"),
        (Code.AT_NOT_MILLISECONDS, "0000000001", [BERLIN], "1970"),
        (Code.DELAY_TOO_LONG, "2100-01-31T09:00", [BERLIN], "3650d"),
        (Code.DELAY_TOO_LONG, "9999-12-31T09:00", [BERLIN], "3650d"),
        (Code.INVALID_TIMEZONE, "2030-01-31T09:00", [control("timezone", b"Europe/Berln")], "Europe/Berlin"),
        (Code.INVALID_TIMEZONE, "2030-01-31T09:00", [control("timezone", b"")], "''"),
        (Code.NOT_UTF8, "2030-01-31T09:00", [control("timezone", b"\xff")], "delaystream-timezone"),
        (Code.INVALID_DST, "2030-01-31T09:00", [BERLIN, control("dst-gap", b"x")], "'shift', 'skip'"),
        (Code.INVALID_DST, "2030-01-31T09:00", [BERLIN, control("dst-overlap", b"x")], "'first'"),
        (Code.NOT_APPLICABLE, "2030-01-31T09:00:00Z", [BERLIN], "whose times have offsets"),
        (Code.NOT_APPLICABLE, "1800000000000", [BERLIN], "whose times have offsets"),
        (Code.NOT_APPLICABLE, "2030-01-31T09:00", [control("dst-gap", b"skip")], "delaystream-dst-gap"),
        (Code.NOT_APPLICABLE, "2030-01-31T09:00", [BERLIN, control("end", b"1")], "delaystream-end"),
        (Code.NEVER_FIRES, "2030-03-31T02:30", [BERLIN, control("dst-gap", b"skip")], "Europe/Berlin"),
        (Code.LIST_TOO_LONG, ",".join(["2030-01-31T09:00"] * 101), [BERLIN], "101 times"),
        (
            Code.LIST_TOO_LONG,
            ",".join(["2030-10-27T02:30"] * 51),
            [BERLIN, control("dst-overlap", b"both")],
            "102 times",
        ),
    ],
)
def test_a_bad_local_time_is_refused_with_a_code_and_one_sentence(
    code: Code, written: str, headers: list[Header], says: str
) -> None:
    rejection = at(written, *headers)
    assert isinstance(rejection, Rejection), rejection
    assert (rejection.code, says in rejection.detail) == (code, True), rejection.detail
    assert rejection.detail.endswith((".", "?"))


def test_the_last_local_time_that_can_be_worked_out_is() -> None:
    """Whatever a worker accepts, no local time makes it fail."""
    limits = Limits(max_delay_ms=9000 * 366 * 86_400_000)
    for written, accepts in (("9998-12-29T23:00", True), ("9998-12-31T00:00", False)):
        for zone in (b"Pacific/Kiritimati", b"Etc/GMT+12"):
            headers = [control("at", written.encode()), control("timezone", zone)]
            assert isinstance(parse(TO_ORDERS, *headers, limits=limits), Request) is accepts


ZONES = (
    "UTC",
    "Europe/Berlin",
    "America/St_Johns",
    "Australia/Lord_Howe",
    "Pacific/Apia",
    "Antarctica/Casey",
)


@given(
    st.sampled_from(ZONES),
    st.integers(18_400_000, 32_600_000),
    st.sampled_from(("shift", "skip")),
    st.sampled_from(("first", "second", "both")),
)
def test_a_local_time_means_what_the_same_time_of_a_cron_expression_means(
    zone: str, local_minutes: int, gap: str, overlap: str
) -> None:
    """One that names the minute and the day, looked for around it."""
    local = _EPOCH + timedelta(minutes=local_minutes)
    local_ms = local_minutes * 60_000
    clock = LocalClock(zone, gap, overlap)  # type: ignore[arg-type]
    cron = f"{local.minute} {local.hour} {local.day} {local.month} *"
    recurrence = Recurrence(cron, 0, zone, gap, overlap)  # type: ignore[arg-type]
    times_ms = []
    after_ms: int | None = local_ms - 2 * 86_400_000
    while (after_ms := next_after(recurrence, after_ms or 0)) is not None:
        if after_ms > local_ms + 2 * 86_400_000:
            break
        times_ms.append(after_ms)
    assert clock.instants(local_ms) == tuple(times_ms)
