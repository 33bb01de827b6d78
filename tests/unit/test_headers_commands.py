"""What commands are about, on which conditions, and why: the headers of each action."""

import pytest

from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import (
    NO_TERMS,
    Action,
    CatchUp,
    Coordinates,
    Header,
    Lateness,
    Match,
    Terms,
)
from tests.unit.test_headers import IN_5_S, NOW_MS, SENT_MS, TO_ORDERS, accepted, control, parse, scheduled

LARGEST = 2**63 - 1
ID = control("id", b"order-7")
REPLY_TO = control("reply-to", b"replies")
THERE = control("coordinates", b"delay-requests/3/17")
EVERYTHING = control("match-destination", b"*")
ACTIONS = [action.value for action in Action if action is not Action.SCHEDULE]


def command(action: str, *headers: Header) -> list[Header]:
    """With what the action cannot be without, but for what it is about."""
    needed = {
        "reschedule": [IN_5_S],
        "describe": [REPLY_TO],
        "rate": [control("rate", b"50"), TO_ORDERS],
        "update": [control("payload", b"keep")],
    }.get(action, [])
    given = {name for name, _ in headers}
    return [control("action", action.encode()), *headers, *(h for h in needed if h[0] not in given)]


def about(action: str) -> list[Header]:
    return [] if action == "rate" else [ID]


def test_terms_are_read_on_a_schedule_with_an_id() -> None:
    request = scheduled(
        ID,
        control("note", "für später".encode()),
        control("if-version", b"0"),
        control("request-id", b"r" * 128),
        control("declared-by", b"billing"),
        control("deploy", str(LARGEST).encode()),
        control("status", b"paused"),
    )
    assert request.terms == Terms("für später", 0, "r" * 128, "billing", LARGEST)
    assert request.status == "paused"


def test_what_is_not_given_is_none() -> None:
    request = scheduled(ID, control("tags", b"a"))
    assert request.terms is NO_TERMS
    assert (request.status, request.timing, request.update, request.rate) == (None, None, None, None)
    assert scheduled(ID, control("status", b"pending")).status == "pending"


@pytest.mark.parametrize("action", ACTIONS)
def test_every_command_takes_a_note(action: str) -> None:
    request = accepted(*command(action, *about(action), control("note", b"n" * 1024)))
    assert request.action == action
    assert request.terms == Terms(note="n" * 1024)


def test_a_schedule_without_an_id_takes_a_note_and_keeps_its_tags() -> None:
    request = scheduled(control("note", b""), control("tags", b"a,b"))
    assert (request.terms, request.tags) == (Terms(note=""), ("a", "b"))


@pytest.mark.parametrize("action", [action for action in ACTIONS if action != "rate"])
def test_every_command_about_an_id_takes_conditions_on_it(action: str) -> None:
    request = accepted(*command(action, ID, control("if-version", b"7"), control("request-id", b"\xc3\xbc")))
    assert request.terms == Terms(if_version=7, request_id="ü")


@pytest.mark.parametrize("action", ["cancel", "update"])
def test_a_declared_set_is_taken_where_schedules_come_and_go(action: str) -> None:
    request = accepted(*command(action, ID, control("declared-by", b"billing"), control("deploy", b"0")))
    assert request.terms == Terms(declared_by="billing", deploy=0)


def test_a_pause_may_end_by_itself() -> None:
    """After it was asked for: of an id, and of many."""
    until = control("until", str(SENT_MS + 1).encode())
    assert accepted(*command("pause", ID, until)).until_ms == SENT_MS + 1
    assert accepted(*command("pause", ID)).until_ms is None
    assert accepted(*command("pause", EVERYTHING, until)).until_ms == SENT_MS + 1
    refused = parse(*command("pause", EVERYTHING, control("until", str(SENT_MS).encode())))
    assert isinstance(refused, Rejection)
    assert (refused.code, "a time after that" in refused.detail) == (Code.INVALID_UNTIL, True)


def test_the_end_of_a_pause_may_have_passed_when_it_is_read() -> None:
    """What counts is the request's own time, as for a delay."""
    assert SENT_MS + 1 < NOW_MS
    assert accepted(*command("pause", ID, control("until", str(SENT_MS + 1).encode()))).until_ms


@pytest.mark.parametrize("what", [ID, EVERYTHING])
def test_a_resume_says_what_it_does_about_late_fires(what: Header) -> None:
    late = [control("catch-up", b"all"), control("on-late", b"late.orders"), control("grace", b"1h")]
    assert accepted(*command("resume", what, *late)).lateness == Lateness(
        CatchUp.ALL, "late.orders", 3_600_000
    )
    assert accepted(*command("resume", what, late[2])).lateness == Lateness(None, None, 3_600_000)
    assert accepted(*command("resume", what)).lateness is None


def test_a_bulk_command_selects_by_the_key_that_is_delivered() -> None:
    request = accepted(*command("pause", control("match-key", b"\xff"), control("match-new", b"true")))
    assert request.match == Match(key=b"\xff", arriving=True)
    assert request.id is None


def test_an_empty_key_to_match_is_the_empty_key() -> None:
    match = accepted(*command("resume", control("match-key", b""), EVERYTHING)).match
    assert match == Match(destination="*", key=b"")


@pytest.mark.parametrize(("written", "meant"), [(b"true", True), (b"false", False)])
def test_a_bulk_cancel_says_whether_it_is_about_requests_without_an_id(written: bytes, meant: bool) -> None:
    match = accepted(*command("cancel", EVERYTHING, control("match-anonymous", written))).match
    assert match == Match(destination="*", anonymous=meant)


@pytest.mark.parametrize("action", ["cancel", "reschedule", "trigger"])
def test_a_command_names_a_request_without_an_id_by_where_it_stands(action: str) -> None:
    request = accepted(*command(action, THERE))
    assert request.subject == Coordinates("delay-requests", 3, 17)
    assert (request.id, request.match) == (None, None)
    assert request.source == Coordinates("delay-requests", 3, 42)


def test_the_largest_coordinates_are_read() -> None:
    there = control("coordinates", b"delay-requests/2147483647/9223372036854775807")
    subject = accepted(*command("cancel", there)).subject
    assert subject == Coordinates("delay-requests", 2**31 - 1, LARGEST)


@pytest.mark.parametrize(
    ("written", "per_second"),
    [(b"50", 50.0), (b"50/s", 50.0), (b"600/m", 10.0), (b"36/h", 0.01), (b"0.5", 0.5), (b"none", None)],
)
def test_a_rate_is_read_for_one_destination(written: bytes, per_second: float | None) -> None:
    request = accepted(control("action", b"rate"), TO_ORDERS, control("rate", written))
    assert (request.destination, request.rate, request.id) == ("orders", per_second, None)


def test_a_rate_is_never_of_the_default_destination() -> None:
    rejection = parse(control("action", b"rate"), control("rate", b"1"), default="orders")
    assert isinstance(rejection, Rejection)
    assert rejection.code is Code.MISSING_DESTINATION


def test_a_description_goes_nowhere_but_where_receipts_may_go() -> None:
    rejection = parse(control("action", b"describe"), ID, control("reply-to", b"billing"))
    assert isinstance(rejection, Rejection)
    assert rejection.code is Code.REPLY_TO_REQUIRED
    assert "'billing' is not in the allow-list" in rejection.detail


def test_a_cancel_ignores_what_else_the_schedule_has_and_reads_its_own() -> None:
    request = accepted(
        *command("cancel", ID, control("delay", b"soon"), control("status", b"?"), control("payload", b"?")),
        control("note", b"wrong order"),
    )
    assert request.terms == Terms(note="wrong order")
    assert request.status is None


REFUSED: list[tuple[Code, list[Header], str]] = [
    (Code.INVALID_NOTE, [TO_ORDERS, IN_5_S, control("note", b"n" * 1025)], "1025 bytes"),
    (Code.INVALID_TAGS, [TO_ORDERS, IN_5_S, control("tags", b"a," * 101)], "101 tags; expected at most 100"),
    (Code.INVALID_MATCH, command("pause", control("match-tags", b"a," * 101)), "101 tags"),
    (Code.INVALID_MATCH, command("resume", control("match-destination", b"[" * 250)), "250 characters"),
    (Code.INVALID_NOTE, command("cancel", ID, control("note", b"n" * 1025)), "0 to 1024 bytes"),
    (Code.NOT_UTF8, command("cancel", ID, control("note", b"\xff")), "delaystream-note"),
    *(
        (Code.INVALID_UNTIL, command("pause", ID, control("until", content)), says)
        for content, says in (
            (b"tomorrow", "expected RFC 3339"),
            (b"2030-01-31T09:00:00", "no offset"),
            (b"1700000001", "epoch seconds"),
            (str(SENT_MS).encode(), "expected a time after that"),
            (b"1600000000000", "expected a time after that"),
            (b"9990-01-31T09:00:00Z", "further ahead"),
            (b"1800000000000,1800000000001", "expected RFC 3339"),
        )
    ),
    *(
        (Code.INVALID_STATUS, [TO_ORDERS, IN_5_S, ID, control("status", status)], "'pending', 'paused'")
        for status in (b"Paused", b"", b"cancelled")
    ),
    *(
        (Code.INVALID_COORDINATES, command("trigger", control("coordinates", content)), says)
        for content, says in (
            (b"", "such as 'delay-requests/3/17'"),
            (b"order-7", "topic/partition/offset"),
            (b"delay-requests/3", "topic/partition/offset"),
            (b"delay-requests/3/17/0", "topic/partition/offset"),
            (b"delay-requests/-1/17", "topic/partition/offset"),
            (b"delay-requests/2147483648/17", "topic/partition/offset"),
            (b"delay-requests/3/9223372036854775808", "topic/partition/offset"),
            ("delay-requests/٣/17".encode(), "topic/partition/offset"),
            (b"delay-requests/" + b"1" * 5000 + b"/17", "topic/partition/offset"),
            (b"a b/3/17", "topic/partition/offset"),
            (b"other-requests/3/17", "expected coordinates in delay-requests"),
        )
    ),
    (Code.NOT_UTF8, command("trigger", control("coordinates", b"\xff")), "delaystream-coordinates"),
    *(
        (code, command("pause", ID, control(name, content)), "from 0 to 9223372036854775807")
        for content in (b"-1", b"", b"1.0", b"9223372036854775808", b"9" * 5000, "٣".encode())
        for code, name in ((Code.INVALID_VERSION, "if-version"),)
    ),
    *(
        (
            Code.INVALID_DEPLOY,
            [TO_ORDERS, IN_5_S, ID, control("declared-by", b"x"), control("deploy", deploy)],
            "delaystream-deploy",
        )
        for deploy in (b"-1", b"", b"9223372036854775808")
    ),
    *(
        (code, [TO_ORDERS, IN_5_S, ID, control(name, content)], "expected 1 to 128 bytes")
        for code, name in (
            (Code.INVALID_REQUEST_ID, "request-id"),
            (Code.INVALID_DECLARED_BY, "declared-by"),
        )
        for content in (b"", b"x" * 129)
    ),
    *(
        (Code.INVALID_RATE, [control("action", b"rate"), TO_ORDERS, control("rate", content)], says)
        for content, says in (
            (b"", "is not a rate"),
            (b"orders=50", "is not a rate"),
            (b"50/d", "is not a rate"),
            (b"-5", "is not a rate"),
            (b"0", "is out of bounds"),
            (b"999999999", "at most 10000000 a second"),
        )
    ),
    (Code.INVALID_RATE, [control("action", b"rate"), TO_ORDERS], "delaystream-rate is missing"),
    (Code.MISSING_DESTINATION, command("rate")[:2], "the topic that the rate is for"),
    (Code.DESTINATION_DENIED, command("rate", control("destination", b"billing")), "allow-list"),
    (Code.REPLY_TO_REQUIRED, [control("action", b"describe"), ID], "delaystream-reply-to is missing"),
    *(
        (Code.INVALID_MATCH, command(action, EVERYTHING, control(name, content)), "'true', 'false'")
        for action, name in (("pause", "match-new"), ("cancel", "match-anonymous"))
        for content in (b"", b"yes", b"True")
    ),
    # What needs an id.
    *(
        (Code.ID_REQUIRED, [TO_ORDERS, IN_5_S, control(name, content)], f"delaystream-{name} is")
        for name, content in (
            ("if-version", b"1"),
            ("request-id", b"x"),
            ("declared-by", b"x"),
            ("status", b"paused"),
        )
    ),
    (Code.ID_REQUIRED, command("describe"), "(or coordinates)"),
    (Code.REPLY_TO_REQUIRED, command("describe", THERE)[:2], "delaystream-reply-to is missing"),
    (Code.ID_REQUIRED, command("cancel"), ", match-key)"),
    (Code.ID_REQUIRED, command("pause", control("match-new", b"true")), "delaystream-id is missing"),
    (Code.ID_REQUIRED, command("update"), "delaystream-id is missing"),
    (Code.ID_REQUIRED, [*command("reschedule", THERE)[:2], control("every", b"1h")], "delaystream-every"),
    (Code.ID_REQUIRED, [*command("reschedule", THERE)[:2], control("end", b"1800000000000")], "-end"),
    # What means nothing where it stands.
    (Code.NOT_APPLICABLE, [TO_ORDERS, IN_5_S, ID, control("deploy", b"1")], "no delaystream-declared-by"),
    *(
        (Code.NOT_APPLICABLE, [TO_ORDERS, IN_5_S, ID, control(name, b"x")], f"expected it on {on}")
        for name, on in (
            ("until", "pause"),
            ("coordinates", "cancel"),
            ("payload", "update"),
            ("rate", "rate"),
            ("match-key", "cancel"),
            ("match-new", "cancel"),
            ("match-anonymous", "cancel"),
        )
    ),
    *(
        (Code.NOT_APPLICABLE, command(action, *about(action), control("status", b"paused")), "-status")
        for action in ACTIONS
        if action != "cancel"
    ),
    *(
        (Code.NOT_APPLICABLE, command(action, *about(action), control("until", b"1800000000000")), "-until")
        for action in ACTIONS
        if action != "pause"
    ),
    *(
        (Code.NOT_APPLICABLE, command(action, ID, control(name, b"x")), f"delaystream-{name} is given")
        for action in ("pause", "resume", "trigger", "reschedule", "describe")
        for name in ("declared-by", "payload", "rate", "if-exists", "tags")
    ),
    *(
        (Code.NOT_APPLICABLE, command("rate", control(name, b"x")), f"delaystream-{name} is given")
        for name in ("id", "if-version", "request-id", "coordinates", "match-key", "declared-by")
    ),
    (Code.NOT_APPLICABLE, command("cancel", ID, control("rate", b"1")), "delaystream-rate is given"),
    *(
        (Code.NOT_APPLICABLE, command(action, ID, THERE), "an id; expected one of them")
        for action in ("cancel", "reschedule", "trigger")
    ),
    *(
        (Code.NOT_APPLICABLE, command(action, *about, THERE), "expected it on cancel, reschedule")
        for action in ("pause", "resume", "update")
        for about in ([], [ID])
    ),
    *(
        (Code.NOT_APPLICABLE, command("cancel", THERE, control(name, b"x")), "-coordinates; expected")
        for name in ("match-key", "match-tags", "match-anonymous")
    ),
    *(
        (Code.NOT_APPLICABLE, command("cancel", what, control(name, b"1")), f"-{name} is given with")
        for what in (THERE, EVERYTHING, control("match-key", b""))
        for name in ("if-version", "request-id", "declared-by")
    ),
    *(
        (Code.NOT_APPLICABLE, command(action, EVERYTHING, control(name, b"true")), f"on {on} only")
        for action, name, on in (
            ("cancel", "match-new", "pause"),
            ("resume", "match-new", "pause"),
            ("pause", "match-anonymous", "cancel"),
            ("resume", "match-anonymous", "cancel"),
        )
    ),
    *(
        (Code.NOT_APPLICABLE, command(action, ID, control(name, b"true")), "without id")
        for action, name in (("pause", "match-new"), ("cancel", "match-anonymous"), ("resume", "match-key"))
    ),
    *(
        (Code.NOT_SUPPORTED, [TO_ORDERS, IN_5_S, control(name, b"3")], f"'delaystream-{name}'")
        for name in ("max-attempts", "backoff", "Backoff")
    ),
]  # fmt: skip


@pytest.mark.parametrize(("code", "headers", "says"), REFUSED)
def test_a_bad_command_is_refused_with_a_code_and_one_sentence(
    code: Code, headers: list[Header], says: str
) -> None:
    rejection = parse(*headers)
    assert isinstance(rejection, Rejection), rejection
    assert (rejection.code, says in rejection.detail) == (code, True), rejection.detail
    assert rejection.detail.endswith(".")
    assert rejection.detail.isprintable()
    assert len(rejection.detail) < 1000


def test_a_name_that_is_reserved_is_never_called_unknown_nor_one_that_is_like_it_reserved() -> None:
    rejection = parse(TO_ORDERS, IN_5_S, control("attempts", b"3"))
    assert isinstance(rejection, Rejection)
    assert rejection.code is Code.UNKNOWN_HEADER


def test_the_times_of_a_fire_are_dropped_from_what_is_sent_again() -> None:
    again = scheduled(control("last-fired-at", b"1"), control("next-at", None), ("trace", b"1"))
    assert again.headers == [("trace", b"1")]


def test_the_coordinates_on_a_delivery_are_no_header_of_a_command() -> None:
    """A delivery that is sent again as a command names nothing by the coordinates that it carries."""
    request = accepted(*command("cancel", ID, ("delaystream-source", b"delay-requests/0/1")))
    assert (request.id, request.subject) == ("order-7", None)
