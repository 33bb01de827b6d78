"""What an update and a reschedule change: each header is not given, cleared, or a value."""

import pytest
from msgspec import UNSET
from msgspec.structs import replace

from delaystream.core.recurrence import NO_TIMING, Recurrence, Timing, retimed
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import CatchUp, Header, Request, Update
from tests.unit.test_headers import IN_5_S, SENT_MS, TO_ORDERS, accepted, control, parse

ID = control("id", b"order-7")
UPDATE = control("action", b"update")
RESCHEDULE = control("action", b"reschedule")
DAILY = control("cron", b"0 9 * * *")


def update(*headers: Header, value: bytes | None = None) -> Request:
    request = accepted(UPDATE, ID, *headers, value=value)
    assert request.destination == ""
    return request


def reschedule(*headers: Header) -> Request:
    return accepted(RESCHEDULE, ID, *headers)


def test_an_update_that_names_nothing_changes_nothing() -> None:
    request = update(control("payload", b"keep"))
    assert (request.update, request.timing, request.due_ms) == (Update(), NO_TIMING, ())
    assert request.recurrence is None


def test_an_update_takes_whatever_a_schedule_takes() -> None:
    request = update(
        TO_ORDERS,
        control("destination-partition", b"3"),
        control("destination-key", b"none"),
        control("grace", b"1h"),
        control("catch-up", b"none"),
        control("name", b"Reminder"),
        control("description", b""),
        control("tags", b"red, blue"),
        control("cron", b"0 9 * * *"),
        control("timezone", b"Europe/Berlin"),
        control("dst-gap", b"skip"),
        control("dst-overlap", b"both"),
        control("start", b"1800000000000"),
        control("end", b"1900000000000"),
        control("max-fires", b"7"),
        control("jitter", b"1m"),
    )
    assert request.update == Update(
        destination="orders",
        destination_partition=3,
        destination_key=b"none",
        grace_ms=3_600_000,
        catch_up=CatchUp.NONE,
        name="Reminder",
        description="",
        tags=("red", "blue"),
    )
    assert request.timing == Timing(
        UNSET, "0 9 * * *", "Europe/Berlin", "skip", "both", 1_800_000_000_000, 1_900_000_000_000, 7, 60_000
    )


def test_none_clears() -> None:
    kinds = ("end", "max-fires", "jitter", "timezone", "tags", "name", "description", "grace", "on-late")
    request = update(*(control(kind, b"none") for kind in kinds))
    assert request.update == Update(on_late=None, grace_ms=None, name=None, description=None, tags=())
    assert request.timing == Timing(timezone=None, end_ms=None, max_fires=None, jitter_ms=None)


def test_an_update_may_move_late_fires() -> None:
    assert update(control("on-late", b"late.orders")).update == Update(on_late="late.orders")


@pytest.mark.parametrize("what", [UPDATE, RESCHEDULE])
@pytest.mark.parametrize(
    ("when", "due_ms"),
    [
        (control("delay", b"5s,1m"), (SENT_MS + 5_000, SENT_MS + 60_000)),
        (control("at", b"1800000000000"), (1_800_000_000_000,)),
    ],
)
def test_one_time_due_times_are_worked_out_from_the_commands_own_record(
    what: Header, when: Header, due_ms: tuple[int, ...]
) -> None:
    request = accepted(what, ID, when, value=None)
    assert (request.due_ms, request.timing, request.recurrence) == (due_ms, NO_TIMING, None)


def test_local_times_are_those_of_the_zone_that_is_given_with_them() -> None:
    request = update(control("at", b"2027-07-01T09:00"), control("timezone", b"Europe/Berlin"))
    assert request.due_ms == (1_814_425_200_000,)
    assert request.timing == NO_TIMING


@pytest.mark.parametrize(
    ("payload", "value", "replaces"),
    [
        (None, None, False),
        (None, b"", False),
        (b"keep", None, False),
        (b"keep", b"value", False),
        (b"replace", None, True),
        (b"replace", b"value", True),
    ],
)
def test_the_payload_changes_only_when_that_is_said(
    payload: bytes | None, value: bytes | None, replaces: bool
) -> None:
    said = [] if payload is None else [control("payload", payload)]
    request = update(control("tags", b"x"), *said, value=value)
    assert request.update == Update(replaces_payload=replaces, tags=("x",))
    assert request.value == value


def test_a_reschedule_says_what_changes() -> None:
    request = reschedule(DAILY, control("max-fires", b"3"), control("jitter", b"none"))
    assert request.timing == Timing(cron="0 9 * * *", max_fires=3, jitter_ms=None)
    assert request.update is None


def test_a_reschedule_may_change_the_bounds_alone() -> None:
    request = reschedule(control("end", b"none"))
    assert (request.timing, request.recurrence, request.due_ms) == (Timing(end_ms=None), None, ())


OLD = Recurrence("0 9 * * *", 0, "Europe/Berlin", "skip", "both", 1, 2, 3, 4)


@pytest.mark.parametrize(
    ("timing", "becomes"),
    [
        (NO_TIMING, OLD),
        (Timing(cron="@hourly"), replace(OLD, cron="@hourly")),
        (Timing(timezone=None), replace(OLD, timezone="UTC")),
        (Timing(timezone="Asia/Tokyo"), replace(OLD, timezone="Asia/Tokyo")),
        (Timing(dst_gap="shift", dst_overlap="second"), replace(OLD, dst_gap="shift", dst_overlap="second")),
        (
            Timing(end_ms=None, max_fires=None, jitter_ms=None),
            replace(OLD, end_ms=None, max_fires=0, jitter_ms=0),
        ),
        (Timing(start_ms=9, end_ms=10), replace(OLD, start_ms=9, end_ms=10)),
        (Timing(every_ms=60_000), Recurrence(None, 60_000, "UTC", "shift", "first", 1, 2, 3, 4)),
    ],
)  # fmt: skip
def test_what_is_not_given_stays(timing: Timing, becomes: Recurrence) -> None:
    assert retimed(OLD, timing, 99) == becomes


@pytest.mark.parametrize(
    ("old", "timing", "zone"),
    [
        (OLD, Timing(cron="@hourly"), "Europe/Berlin"),
        (OLD, Timing(timezone=None), "Asia/Tokyo"),
        (OLD, Timing(cron="@hourly", timezone=None), "Asia/Tokyo"),
        (OLD, Timing(timezone="UTC"), "UTC"),
        (OLD, Timing(every_ms=60_000), "UTC"),
        (Recurrence(None, 60_000), Timing(cron="@hourly"), "Asia/Tokyo"),
        (None, Timing(cron="@hourly"), "Asia/Tokyo"),
        (None, Timing(cron="@hourly", timezone="Europe/Paris"), "Europe/Paris"),
        (None, Timing(every_ms=60_000), "UTC"),
    ],
)
def test_the_default_zone_is_of_what_has_none_to_keep(
    old: Recurrence | None, timing: Timing, zone: str
) -> None:
    assert retimed(old, timing, 99, "Asia/Tokyo").timezone == zone


def test_without_a_recurrence_before_it_begins_with_the_request() -> None:
    assert retimed(None, Timing(every_ms=60_000), 99) == Recurrence(None, 60_000, start_ms=99)


def test_an_end_that_only_the_start_of_the_schedule_can_meet_is_left_to_that() -> None:
    """The grid of an interval is that of its start, which an update keeps."""
    end = control("end", str(SENT_MS + 1_800_000).encode())
    assert update(control("every", b"1h"), end).timing == Timing(3_600_000, end_ms=SENT_MS + 1_800_000)
    assert reschedule(control("every", b"1h"), end).timing == Timing(3_600_000, end_ms=SENT_MS + 1_800_000)


REFUSED: list[tuple[Code, list[Header], str]] = [
    (Code.NO_SCHEDULE, [RESCHEDULE, ID], "None of delaystream-delay, delaystream-at, delaystream-every, "),
    (Code.NO_SCHEDULE, [RESCHEDULE, ID], "delaystream-jitter, delaystream-max-fires, delaystream-start and "),
    (Code.NOTHING_TO_CHANGE, [UPDATE, ID], "nothing to change; expected a header that says when, or one of "),
    (Code.NOTHING_TO_CHANGE, [UPDATE, ID, control("note", b"n"), control("if-version", b"3")], "-tags"),
    (Code.DELAY_AND_AT, [UPDATE, ID, IN_5_S, DAILY], "expected one of them"),
    (Code.DELAY_AND_AT, [RESCHEDULE, ID, DAILY, control("every", b"1h")], "expected one of them"),
    (Code.INVALID_PAYLOAD, [UPDATE, ID], "a value of 5 bytes"),
    (Code.INVALID_PAYLOAD, [UPDATE, ID, control("payload", b"none")], "'keep', 'replace'"),
    *(
        (Code.NOT_APPLICABLE, [what, ID, *when, control(kind, b"none")], f"delaystream-{kind} is given with")
        for what in (UPDATE, RESCHEDULE)
        for when, kinds in (
            ([IN_5_S], ("end", "max-fires", "jitter", "start", "timezone", "dst-gap")),
            ([control("at", b"1800000000000")], ("end", "jitter", "dst-overlap")),
            ([control("every", b"1h")], ("timezone", "dst-gap", "dst-overlap")),
        )
        for kind in kinds
    ),
    (Code.NOT_APPLICABLE, [UPDATE, ID, IN_5_S, control("catch-up", b"all")], "expected on-late"),
    (Code.NOT_APPLICABLE, [UPDATE, ID, DAILY, control("on-late", b"drop")], "expected catch-up"),
    (Code.NOT_APPLICABLE, [UPDATE, ID, control("if-exists", b"keep")], "delaystream-if-exists"),
    (Code.NOT_APPLICABLE, [RESCHEDULE, ID, DAILY, control("grace", b"none")], "delaystream-grace"),
    (Code.NOT_APPLICABLE, [RESCHEDULE, ID, control("tags", b"none")], "delaystream-tags"),
    # What cannot be cleared.
    (Code.INVALID_DESTINATION_PARTITION, [UPDATE, ID, control("destination-partition", b"none")], "'none'"),
    (Code.INVALID_START, [UPDATE, ID, control("start", b"none")], "'none'"),
    (Code.INVALID_DST, [UPDATE, ID, control("dst-gap", b"none")], "'none'"),
    (Code.INVALID_EVERY, [UPDATE, ID, control("every", b"none")], "'none'"),
    (Code.INVALID_CRON, [UPDATE, ID, control("cron", b"none")], "'none'"),
    (Code.INVALID_DELAY, [UPDATE, ID, control("delay", b"none")], "'none'"),
    # Only a command clears.
    *(
        (code, [TO_ORDERS, ID, DAILY, control(kind, b"none")], "none")
        for code, kind in (
            (Code.INVALID_END, "end"),
            (Code.INVALID_MAX_FIRES, "max-fires"),
            (Code.INVALID_JITTER, "jitter"),
            (Code.INVALID_TIMEZONE, "timezone"),
            (Code.INVALID_GRACE, "grace"),
        )
    ),
    # What no schedule could make right.
    (Code.DESTINATION_DENIED, [UPDATE, ID, control("destination", b"billing")], "allow-list"),
    (Code.DESTINATION_DENIED, [UPDATE, ID, control("on-late", b"billing")], "allow-list"),
    (Code.INVALID_TIMEZONE, [UPDATE, ID, control("timezone", b"Europe/Berln")], "Europe/Berlin"),
    (Code.INVALID_TIMEZONE, [RESCHEDULE, ID, DAILY, control("timezone", b"x/y")], "'x/y'"),
    (Code.TOO_FREQUENT, [UPDATE, ID, control("every", b"10ms")], "at least 1s"),
    (Code.JITTER_TOO_LONG, [UPDATE, ID, control("every", b"1m"), control("jitter", b"1m")], "less than that"),
    (Code.NEVER_FIRES, [UPDATE, ID, control("cron", b"0 0 30 2 *")], "no such date"),
    (Code.NEVER_FIRES, [RESCHEDULE, ID, DAILY, control("end", b"1600000000000")], "no time"),
    (Code.INVALID_MAX_FIRES, [UPDATE, ID, control("max-fires", b"0")], "from 1"),
    (Code.INVALID_END, [UPDATE, ID, control("end", b"soon")], "delaystream-end"),
    (Code.DELAY_TOO_LONG, [UPDATE, ID, control("at", b"2100-01-01T00:00:00Z")], "3650d"),
]


@pytest.mark.parametrize(("code", "headers", "says"), REFUSED)
def test_a_bad_change_is_refused_with_a_code_and_one_sentence(
    code: Code, headers: list[Header], says: str
) -> None:
    value = b"value" if code is Code.INVALID_PAYLOAD else None
    rejection = parse(*headers, value=value)
    assert isinstance(rejection, Rejection), rejection
    assert (rejection.code, says in rejection.detail) == (code, True), rejection.detail
    assert rejection.detail.endswith((".", "?"))
    assert rejection.detail.isprintable()
