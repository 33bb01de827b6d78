"""The header contract: what a request says, and how a bad one is refused."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.codec.outgoing import OUTGOING_HEADERS, Delivery, dead_letter_headers, delivery_headers
from delaystream.codec.requests.headers import RequestParser
from delaystream.codec.requests.names import KINDS, SUPPORTED
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.record import Record
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Action, Coordinates, Header, IfExists, Request

SENT_MS = 1_700_000_000_000
NOW_MS = SENT_MS + 250
DAY_MS = 86_400_000
TO_ORDERS: Header = ("delaystream-destination", b"orders")
IN_5_S: Header = ("delaystream-delay", b"5s")

FILTER = DestinationFilter(["orders", "replies", "late.*"], ["delay-requests", "delay-commands"])


def parse(
    *headers: Header,
    timestamp_ms: int = SENT_MS,
    key: bytes | None = b"key",
    value: bytes | None = b"value",
    limits: Limits | None = None,
    default: str | None = None,
) -> Request | Rejection:
    parser = RequestParser(FILTER, limits or Limits(), default)
    first = parser.parse(
        Record(Coordinates("delay-requests", 3, 42), timestamp_ms, key, value, headers), NOW_MS
    )
    # What is remembered from the first time must not change the answer.
    assert (
        parser.parse(Record(Coordinates("delay-requests", 3, 42), timestamp_ms, key, value, headers), NOW_MS)
        == first
    )
    return first


def accepted(*headers: Header, **record: object) -> Request:
    request = parse(*headers, **record)  # type: ignore[arg-type]
    assert isinstance(request, Request), request
    return request


def scheduled(*headers: Header) -> Request:
    """With a destination and a delay already given."""
    return accepted(TO_ORDERS, IN_5_S, *headers)


def test_a_usual_request_is_read_and_its_control_headers_are_stripped() -> None:
    request = accepted(TO_ORDERS, ("trace", b"1"), IN_5_S)
    assert request == Request(
        source=Coordinates("delay-requests", 3, 42),
        timestamp_ms=SENT_MS,
        key=b"key",
        value=b"value",
        headers=[("trace", b"1")],
        action=Action.SCHEDULE,
        id=None,
        destination="orders",
        due_ms=(SENT_MS + 5000,),
        destination_partition=None,
        destination_key=None,
        has_destination_key=False,
        if_exists=IfExists.REPLACE,
        on_late="fire",
        grace_ms=None,
        reply_to=None,
        name=None,
        description=None,
        tags=(),
    )


@pytest.mark.parametrize("when", [IN_5_S, ("delaystream-at", b"1700000005000")])
def test_a_default_that_is_spelt_out_changes_nothing(when: Header) -> None:
    request = accepted(TO_ORDERS, IN_5_S)
    assert accepted(TO_ORDERS, when, ("delaystream-action", b"schedule")) == request
    assert accepted(TO_ORDERS, when, ("delaystream-on-late", b"fire")) == request


def test_a_full_request_is_read() -> None:
    request = scheduled(
        ("delaystream-id", "Bestellung/7 ü".encode()),
        ("delaystream-action", b"schedule"),
        ("delaystream-if-exists", b"keep"),
        ("delaystream-on-late", b"late.orders"),
        ("delaystream-grace", b"PT1M"),
        ("delaystream-destination-partition", b"0"),
        ("delaystream-destination-key", b""),
        ("delaystream-reply-to", b"replies"),
        ("delaystream-name", b"Reminder"),
        ("delaystream-description", b"a, b"),
        ("delaystream-tags", b"red, ,blue "),
    )
    assert request.id == "Bestellung/7 ü"
    assert request.if_exists is IfExists.KEEP
    assert request.on_late == "late.orders"
    assert request.grace_ms == 60_000
    assert request.destination_partition == 0
    assert request.destination_key == b""
    assert request.has_destination_key
    assert request.reply_to == "replies"
    assert (request.name, request.description, request.tags) == ("Reminder", "a, b", ("red", "blue"))
    assert request.headers == []


@pytest.mark.parametrize("value", [None, b"", b"\x00\xff" * 10, b"x" * 1024 * 1024])
@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_key_and_value_are_kept_byte_for_byte(key: bytes | None, value: bytes | None) -> None:
    request = accepted(TO_ORDERS, IN_5_S, key=key, value=value)
    assert (request.key, request.value) == (key, value)


def test_foreign_headers_keep_their_bytes_their_order_and_their_repeats() -> None:
    foreign: list[Header] = [
        ("b", b"\xff\x00"),
        ("a", None),
        ("b", b""),
        ("B", b"2"),
        ("", b"empty name"),
        ("delaystream", b"no dash"),
        ("x-delaystream-delay", b"not the prefix"),
        ("a", None),
    ]
    assert accepted(*foreign[:3], TO_ORDERS, *foreign[3:5], IN_5_S, *foreign[5:]).headers == foreign


def test_the_prefix_and_the_names_match_in_any_case() -> None:
    request = accepted(("Delaystream-Destination", b"orders"), ("DELAYSTREAM-DELAY", b"5s"), ("Trace", b"1"))
    assert request.due_ms == (SENT_MS + 5000,)
    assert request.headers == [("Trace", b"1")]


def test_a_delay_counts_from_the_records_timestamp_and_without_one_from_now() -> None:
    assert accepted(TO_ORDERS, IN_5_S, timestamp_ms=SENT_MS - 9_000).due_ms == (SENT_MS - 4_000,)
    unstamped = accepted(TO_ORDERS, IN_5_S, timestamp_ms=-1)
    assert unstamped.due_ms == (NOW_MS + 5000,)
    assert unstamped.timestamp_ms == NOW_MS


def test_a_delay_of_nothing_is_now() -> None:
    assert accepted(TO_ORDERS, ("delaystream-delay", b"0")).due_ms == (SENT_MS,)


def test_a_list_of_delays_gives_a_due_time_each_in_order_with_repeats() -> None:
    request = accepted(TO_ORDERS, ("delaystream-delay", b"10s, 5s,5s ,PT1M"))
    assert request.due_ms == tuple(SENT_MS + delay for delay in (10_000, 5000, 5000, 60_000))


def test_a_point_in_time_is_taken_as_it_is_and_may_be_past() -> None:
    assert accepted(TO_ORDERS, ("delaystream-at", b"1600000000000")).due_ms == (1_600_000_000_000,)
    request = accepted(TO_ORDERS, ("delaystream-at", b"2023-11-15T00:00:00+01:00, 1800000000000"))
    assert request.due_ms == (1_700_002_800_000, 1_800_000_000_000)


def test_a_default_destination_serves_requests_that_name_none() -> None:
    assert accepted(IN_5_S, default="replies").destination == "replies"
    assert accepted(TO_ORDERS, IN_5_S, default="replies").destination == "orders"


def test_a_default_destination_that_is_denied_is_refused_at_once() -> None:
    with pytest.raises(ValueError, match="'billing' is not in the allow-list"):
        RequestParser(FILTER, Limits(), "billing")


def test_a_cancel_needs_an_id_and_looks_at_nothing_but_reply_to() -> None:
    request = accepted(
        ("delaystream-action", b"cancel"),
        ("delaystream-id", b"order-7"),
        ("delaystream-reply-to", b"replies"),
        ("delaystream-delay", b"whatever"),
        ("delaystream-every", b"1h"),
    )
    assert (request.action, request.id, request.reply_to) == (Action.CANCEL, "order-7", "replies")
    assert (request.destination, request.due_ms) == ("", ())


def test_a_delivered_record_can_be_sent_again_as_a_request() -> None:
    delivered = delivery_headers(
        [("trace", b"1")], Delivery("a/0/1", "a/0/1/0/5", 5, "a/0/1", 1), ("delaystream-fired-at", b"6")
    )
    assert scheduled(*delivered).headers == [("trace", b"1")]


def test_a_dead_letter_can_be_repaired_and_sent_again_as_a_request() -> None:
    refused = dead_letter_headers(
        [("trace", b"1")], Coordinates("a", 0, 1), -1, Rejection(Code.NO_SCHEDULE, "nothing says when")
    )
    assert scheduled(*refused, *refused[1:]).headers == [("trace", b"1")]


def test_what_delaystream_writes_is_dropped_even_when_it_is_null_or_in_capitals() -> None:
    assert scheduled(*((name.upper(), None) for name in sorted(OUTGOING_HEADERS))).headers == []


def test_no_outgoing_name_is_a_control_name() -> None:
    assert not OUTGOING_HEADERS & {f"delaystream-{name}" for name in SUPPORTED}
    assert len(KINDS) == len(OUTGOING_HEADERS) + len(SUPPORTED)


def control(name: str, value: bytes | None) -> Header:
    return (f"delaystream-{name}", value)


LONG_LIST = b",".join([b"1s"] * 101)
REFUSED: list[tuple[Code, list[Header], str]] = [
    (Code.MISSING_DESTINATION, [IN_5_S], "delaystream-destination is missing"),
    (Code.INVALID_DESTINATION, [control("destination", b"a b"), IN_5_S], "'a b'"),
    (Code.INVALID_DESTINATION, [control("destination", b""), IN_5_S], "''"),
    (Code.DESTINATION_DENIED, [control("destination", b"billing"), IN_5_S], "not in the allow-list"),
    (Code.DESTINATION_DENIED, [control("destination", b"__x"), IN_5_S], "internal to Kafka"),
    (Code.DESTINATION_DENIED, [control("destination", b"delay-requests"), IN_5_S], "a request topic"),
    (Code.DESTINATION_DENIED, [TO_ORDERS, IN_5_S, control("on-late", b"billing")], "delaystream-on-late"),
    (Code.INVALID_REPLY_TO, [TO_ORDERS, IN_5_S, control("reply-to", b"a/b")], "'a/b'"),
    (Code.INVALID_REPLY_TO, [TO_ORDERS, IN_5_S, control("reply-to", b"")], "''"),
    (Code.NOT_UTF8, [TO_ORDERS, IN_5_S, control("reply-to", b"\xff")], "delaystream-reply-to"),
    (Code.INVALID_ON_LATE, [TO_ORDERS, IN_5_S, control("on-late", b"a/b")], "'fire', 'drop'"),
    (
        Code.INVALID_DESTINATION_PARTITION,
        [TO_ORDERS, IN_5_S, control("destination-partition", b"-1")],
        "'-1'",
    ),
    (Code.INVALID_DESTINATION_PARTITION, [TO_ORDERS, IN_5_S, control("destination-partition", b"")], "''"),
    (
        Code.INVALID_DESTINATION_PARTITION,
        [TO_ORDERS, IN_5_S, control("destination-partition", b"2147483648")],
        "48",
    ),
    (
        Code.INVALID_DESTINATION_PARTITION,
        [TO_ORDERS, IN_5_S, control("destination-partition", b"9" * 5000)],
        "99",
    ),
    (Code.NO_SCHEDULE, [TO_ORDERS], "None of delaystream-delay, delaystream-at, "),
    (Code.NO_SCHEDULE, [TO_ORDERS, control("id", b"x")], "None of"),
    (
        Code.DELAY_AND_AT,
        [TO_ORDERS, IN_5_S, control("at", b"1800000000000")],
        "delaystream-delay and delaystream-at",
    ),
    (
        Code.DELAY_AND_AT,
        [TO_ORDERS, IN_5_S, control("cron", b"@daily")],
        "delaystream-delay and delaystream-cron",
    ),
    (Code.INVALID_DELAY, [TO_ORDERS, control("delay", b"30")], "'30' has no unit"),
    (Code.INVALID_DELAY, [TO_ORDERS, control("delay", b"-5s")], "'-5s' is negative"),
    (Code.INVALID_DELAY, [TO_ORDERS, control("delay", b"")], "'' is empty"),
    (Code.INVALID_DELAY, [TO_ORDERS, control("delay", b"5s,")], "'' is empty"),
    (Code.INVALID_DELAY, [TO_ORDERS, control("delay", b"soon")], "expected a duration"),
    (Code.DELAY_TOO_LONG, [TO_ORDERS, control("delay", b"1s,3651d")], "at most 3650d"),
    (Code.DELAY_TOO_LONG, [TO_ORDERS, control("at", b"2100-01-01T00:00:00Z")], "at most 3650d"),
    (Code.DELAY_TOO_LONG, [TO_ORDERS, control("at", b"9000000000000")], "at most 3650d"),
    (Code.INVALID_AT, [TO_ORDERS, control("at", b"tomorrow")], "expected RFC 3339"),
    (Code.INVALID_AT, [TO_ORDERS, control("at", b"2030-01-31T09:00:00")], "no offset"),
    (Code.AT_NOT_MILLISECONDS, [TO_ORDERS, control("at", b"1700000000")], "epoch seconds"),
    (Code.AT_NOT_MILLISECONDS, [TO_ORDERS, control("at", b"1700000000000000")], "year 55840"),
    (Code.AT_NOT_MILLISECONDS, [TO_ORDERS, control("at", b"0000000000001")], "epoch seconds"),
    (Code.LIST_TOO_LONG, [TO_ORDERS, control("delay", LONG_LIST)], "lists 101 times"),
    (Code.LIST_TOO_LONG, [TO_ORDERS, control("at", LONG_LIST)], "lists 101 times"),
    (Code.INVALID_ID, [TO_ORDERS, IN_5_S, control("id", b"")], "delaystream-id is empty"),
    (Code.ID_TOO_LONG, [TO_ORDERS, IN_5_S, control("id", b"i" * 257)], "257 bytes"),
    (Code.ID_REQUIRED, [control("action", b"cancel")], "'cancel'"),
    (Code.ID_REQUIRED, [TO_ORDERS, IN_5_S, control("if-exists", b"keep")], "delaystream-id is missing"),
    (Code.INVALID_ACTION, [TO_ORDERS, IN_5_S, control("action", b"Cancel")], "'cancel'"),
    (
        Code.INVALID_IF_EXISTS,
        [TO_ORDERS, IN_5_S, control("id", b"x"), control("if-exists", b"no")],
        "'replace'",
    ),
    (Code.INVALID_GRACE, [TO_ORDERS, IN_5_S, control("grace", b"5")], "has no unit"),
    (Code.UNKNOWN_HEADER, [TO_ORDERS, control("dealy", b"5s")], "did you mean delaystream-delay"),
    (Code.UNKNOWN_HEADER, [TO_ORDERS, IN_5_S, control("", b"x")], "expected one of delaystream-destination"),
    (Code.UNKNOWN_HEADER, [TO_ORDERS, IN_5_S, control("x" * 5000, b"x")], "expected one of"),
    (Code.UNKNOWN_HEADER, [TO_ORDERS, IN_5_S, control("command", b"\x96")], "'delaystream-command'"),
    (Code.UNKNOWN_HEADER, [TO_ORDERS, IN_5_S, control("delay ", b"5s")], "'delaystream-delay '"),
    *(
        (Code.INVALID_ATTEMPT, [TO_ORDERS, IN_5_S, control("attempt", value)], "from 1 to 2147483647")
        for value in (b"0", b"-1", b"2147483648", b"99999999999", b"", b"one", b"1.0", b"\xff", "²".encode())
    ),
    (Code.DUPLICATE_HEADER, [TO_ORDERS, IN_5_S, *[control("attempt", b"2")] * 2], "attempt is given twice"),
    (Code.NULL_HEADER, [TO_ORDERS, IN_5_S, control("attempt", None)], "delaystream-attempt is null"),
    (Code.DUPLICATE_HEADER, [TO_ORDERS, IN_5_S, IN_5_S], "delaystream-delay is given twice"),
    (Code.DUPLICATE_HEADER, [TO_ORDERS, IN_5_S, ("DelayStream-Delay", b"5s")], "given twice"),
    (Code.NULL_HEADER, [TO_ORDERS, control("delay", None)], "delaystream-delay is null"),
    (Code.NULL_HEADER, [TO_ORDERS, IN_5_S, control("destination-key", None)], "null"),
    *(
        (Code.NOT_UTF8, [TO_ORDERS, IN_5_S, control(name, b"\xff")], f"delaystream-{name}")
        for name in (
            "id",
            "action",
            "on-late",
            "grace",
            "destination-key",
            "reply-to",
            "name",
            "description",
            "tags",
        )
    ),
    (Code.NOT_UTF8, [control("destination", b"\xff"), IN_5_S], "delaystream-destination"),
    (Code.NOT_UTF8, [TO_ORDERS, control("delay", b"\xff")], "delaystream-delay"),
    (Code.NOT_UTF8, [TO_ORDERS, control("at", b"\xff")], "delaystream-at"),
    (Code.NOT_UTF8, [TO_ORDERS, IN_5_S, control("id", b"x"), control("if-exists", b"\xff")], "if-exists"),
    *(
        (Code.ID_REQUIRED, [TO_ORDERS, control(*when)], f"delaystream-{when[0]} is given")
        for when in (("every", b"1h"), ("cron", b"@daily"))
    ),
    *(
        (Code.NOT_APPLICABLE, [TO_ORDERS, IN_5_S, control(name, b"x")], f"delaystream-{name} is given")
        for name in (
            "start",
            "end",
            "max-fires",
            "jitter",
            "timezone",
            "dst-gap",
            "dst-overlap",
            "match-tags",
        )
    ),
    (Code.NOT_APPLICABLE, [TO_ORDERS, IN_5_S, control("catch-up", b"all")], "expected on-late"),
    *(
        (code, [TO_ORDERS, control("id", b"x"), control("every", b"1h"), control(name, content)], detail)
        for code, name, content, detail in (
            (Code.NOT_APPLICABLE, "timezone", b"UTC", "beside cron, or beside at with local times"),
            (Code.NOT_APPLICABLE, "on-late", b"drop", "expected catch-up"),
            (Code.DELAY_AND_AT, "cron", b"@daily", "expected one of them"),
            (Code.DELAY_AND_AT, "at", b"2030-01-31T09:00:00Z", "expected one of them"),
            (Code.INVALID_START, "start", b"soon", "delaystream-start"),
            (Code.INVALID_START, "start", b"9990-01-31T09:00:00Z", "further ahead"),
            (Code.INVALID_END, "end", b"1", "delaystream-end"),
            (Code.NEVER_FIRES, "end", b"2001-01-31T09:00:00Z", "has no time"),
            (Code.INVALID_MAX_FIRES, "max-fires", b"0", "from 1"),
            (Code.INVALID_MAX_FIRES, "max-fires", b"-1", "from 1"),
            (Code.INVALID_JITTER, "jitter", b"30", "delaystream-jitter"),
            (Code.INVALID_CATCH_UP, "catch-up", b"some", "'latest', 'all', 'none'"),
        )
    ),
    (Code.INVALID_EVERY, [TO_ORDERS, control("id", b"x"), control("every", b"0")], "an interval of"),
    (Code.INVALID_EVERY, [TO_ORDERS, control("id", b"x"), control("every", b"60")], "has no unit"),
    (Code.INVALID_EVERY, [TO_ORDERS, control("id", b"x"), control("every", b"P1M")], "or 'PT15M'."),
    (
        Code.NOT_APPLICABLE,
        [TO_ORDERS, IN_5_S, control("timezone", b"UTC")],
        "a one-time schedule; expected it beside cron, or beside at with local times.",
    ),
    (Code.NOT_APPLICABLE, [TO_ORDERS, IN_5_S, control("end", b"1")], "expected it beside every or cron."),
    (
        Code.INVALID_DST,
        [TO_ORDERS, control("id", b"x"), control("cron", b"@daily"), control("dst-gap", b"both")],
        "'shift', 'skip'",
    ),
    *(
        (Code.ID_REQUIRED, [control("action", action)], "delaystream-id is missing")
        for action in (b"cancel", b"pause", b"resume", b"trigger", b"reschedule")
    ),
    *(
        (Code.NOT_APPLICABLE, [control("id", b"x"), control("action", action), IN_5_S], "delaystream-delay")
        for action in (b"pause", b"resume", b"trigger")
    ),
    (
        Code.NOT_APPLICABLE,
        [control("id", b"x"), control("action", b"reschedule"), IN_5_S, TO_ORDERS],
        "delaystream-destination",
    ),
    (Code.NO_SCHEDULE, [control("id", b"x"), control("action", b"reschedule")], "-cron"),
    (
        Code.NOT_APPLICABLE,
        [control("id", b"x"), control("action", b"cancel"), control("match-tags", b"a")],
        "without id",
    ),
    (Code.NOT_APPLICABLE, [control("action", b"trigger"), control("match-tags", b"a")], "without id"),
    *(
        (Code.INVALID_MATCH, [control("action", b"cancel"), control(f"match-{name}", b"")], f"match-{name}")
        for name in ("tags", "destination", "id-prefix")
    ),
    (Code.TOO_MANY_HEADERS, [TO_ORDERS, IN_5_S, *[("x", b"")] * 99], "101 headers"),
    (Code.HEADERS_TOO_LARGE, [TO_ORDERS, IN_5_S, ("x", b"y" * 32 * 1024)], "at most 32768"),
    (Code.HEADERS_TOO_LARGE, [TO_ORDERS, IN_5_S, ("x" * 33 * 1024, None)], "at most 32768"),
    (Code.HEADERS_TOO_LARGE, [TO_ORDERS, IN_5_S, ("\U0001f600" * 9 * 1024, None)], "at most 32768"),
]


@pytest.mark.parametrize(("code", "headers", "says"), REFUSED)
def test_a_bad_request_is_refused_with_a_code_and_one_sentence(
    code: Code, headers: list[Header], says: str
) -> None:
    rejection = parse(*headers)
    assert isinstance(rejection, Rejection)
    assert rejection.code is code
    assert says in rejection.detail
    assert rejection.detail.endswith((".", "?"))
    assert rejection.detail.isprintable()
    assert len(rejection.detail) < 1000


def test_a_value_or_a_key_over_its_bound_is_refused() -> None:
    limits = Limits(max_value_bytes=10, max_key_bytes=5)
    assert isinstance(parse(TO_ORDERS, IN_5_S, key=b"k" * 5, value=b"v" * 10, limits=limits), Request)
    value = parse(TO_ORDERS, IN_5_S, value=b"v" * 11, limits=limits)
    key = parse(TO_ORDERS, IN_5_S, key=b"k" * 6, limits=limits)
    assert isinstance(value, Rejection)
    assert isinstance(key, Rejection)
    assert (value.code, key.code) == (Code.VALUE_TOO_LARGE, Code.KEY_TOO_LARGE)
    assert value.detail == "The record's value holds 11 bytes; expected at most 10."


def test_every_code_that_the_parser_decides_has_a_case_here() -> None:
    elsewhere = {
        Code.VALUE_TOO_LARGE,  # above
        Code.KEY_TOO_LARGE,
        Code.INVALID_COMMAND,  # test_command.py
        Code.INVALID_CRON,  # test_recurrence_refusals.py
        Code.UNSUPPORTED_CRON,
        Code.CRON_TOO_LONG,
        Code.INVALID_TIMEZONE,
        Code.TOO_FREQUENT,
        Code.JITTER_TOO_LONG,
        Code.NEVER_FIRES,
        # The rest needs the state, the destination's metadata or the broker's answer.
        Code.UNDECODABLE_RECORD,
        Code.BATCH_TOO_LARGE,  # test_record_reader.py
        Code.UNREADABLE_BATCH,
        Code.DESTINATION_PARTITION_OUT_OF_RANGE,
        Code.ALREADY_EXISTS,
        Code.CANCELLED_EARLIER,
        Code.VERSION_CHANGED,
        Code.DEPLOY_SUPERSEDED,
        Code.QUARANTINED,
        Code.QUOTA_EXCEEDED,
        Code.TOO_MANY_TRIGGERS,
        Code.TOO_MANY_RATES,
        Code.TOO_MANY_HOLDS,
        Code.TOO_MANY_COMMANDS,
        Code.TOO_MANY_CANCELS,
        Code.INTERNAL_ERROR,
        Code.ATTEMPTS_EXHAUSTED,  # consumers write these: test_retrying.py
        Code.GIVEN_UP,
        Code.INVALID_TIMESTAMP,  # below
        Code.REPLY_TO_REQUIRED,  # test_headers_commands.py
        Code.INVALID_NOTE,
        Code.INVALID_TAGS,
        Code.INVALID_UNTIL,
        Code.INVALID_STATUS,
        Code.INVALID_COORDINATES,
        Code.INVALID_VERSION,
        Code.INVALID_REQUEST_ID,
        Code.INVALID_DECLARED_BY,
        Code.INVALID_DEPLOY,
        Code.INVALID_RATE,
        Code.NOT_SUPPORTED,
        Code.INVALID_PAYLOAD,  # test_headers_update.py
        Code.NOTHING_TO_CHANGE,
        Code.DIALECT_MISSING,  # test_dialects.py
        Code.DIALECT_INVALID,
        Code.DIALECT_UNSUPPORTED,
    }
    assert {code for code, _, _ in REFUSED} >= set(Code) - elsewhere


def test_bounds_are_inclusive() -> None:
    assert accepted(TO_ORDERS, ("delaystream-delay", b"3650d")).due_ms == (SENT_MS + 3650 * DAY_MS,)
    latest = NOW_MS + 3650 * DAY_MS
    assert accepted(TO_ORDERS, ("delaystream-at", str(latest).encode())).due_ms == (latest,)
    assert len(accepted(TO_ORDERS, ("delaystream-delay", b",".join([b"1s"] * 100))).due_ms) == 100
    assert scheduled(("delaystream-id", b"i" * 256)).id == "i" * 256
    assert len(scheduled(*[("x", b"")] * 98).headers) == 98


@pytest.mark.parametrize(
    "timestamp_ms",
    [
        pytest.param(SENT_MS * 1000, id="microseconds"),
        pytest.param(SENT_MS * 1_000_000, id="nanoseconds"),
        pytest.param(SENT_MS // 1000, id="seconds"),
        pytest.param(0, id="zero"),
        pytest.param(2**63 - 1, id="the largest"),
        pytest.param(NOW_MS + 3650 * DAY_MS + 1, id="further ahead than a due time may be"),
    ],
)
@pytest.mark.parametrize(
    "headers",
    [
        pytest.param([TO_ORDERS, IN_5_S], id="delay"),
        pytest.param([TO_ORDERS, control("at", str(NOW_MS).encode())], id="at"),
        pytest.param([TO_ORDERS, control("id", b"x"), control("every", b"15m")], id="every"),
        pytest.param([TO_ORDERS, control("id", b"x"), control("cron", b"0 9 * * *")], id="cron"),
        *(
            pytest.param([control("id", b"x"), control("action", action)], id=action.decode())
            for action in (b"cancel", b"pause", b"resume", b"trigger")
        ),
        *(
            pytest.param(
                [control("id", b"x"), control("action", b"reschedule"), when], id=f"reschedule {when[0]}"
            )
            for when in (IN_5_S, control("cron", b"@daily"), control("every", b"1h"))
        ),
        pytest.param([control("match-destination", b"*"), control("action", b"pause")], id="bulk"),
    ],
)
def test_a_timestamp_in_another_unit_is_refused_whatever_is_asked_for(
    headers: list[Header], timestamp_ms: int
) -> None:
    rejection = parse(*headers, timestamp_ms=timestamp_ms)
    assert isinstance(rejection, Rejection)
    assert rejection.code is Code.INVALID_TIMESTAMP
    assert str(timestamp_ms) in rejection.detail


def test_a_clock_that_is_ahead_by_minutes_still_gets_the_longest_delay() -> None:
    request = accepted(TO_ORDERS, ("delaystream-delay", b"3650d"), timestamp_ms=NOW_MS + 600_000)
    assert request.due_ms == (NOW_MS + 600_000 + 3650 * DAY_MS,)


def test_a_refused_request_tells_whom_to_answer_when_that_could_be_read() -> None:
    rejection = parse(
        ("delaystream-dealy", b"5s"), ("Delaystream-Id", b"x"), ("delaystream-reply-to", b"replies")
    )
    assert isinstance(rejection, Rejection)
    assert (rejection.id, rejection.reply_to) == ("x", "replies")


@pytest.mark.parametrize(
    ("reply_to", "why"),
    [
        (b"billing", "'billing' is not in the allow-list"),
        (b"delay-commands", "'delay-commands' is a request topic or one of delaystream's own"),
        (b"__x", "'__x' is internal to Kafka"),
    ],
)
@pytest.mark.parametrize("command", [False, True])
def test_a_reply_topic_that_is_denied_is_no_reason_to_refuse(
    reply_to: bytes, why: str, command: bool
) -> None:
    what = (control("action", b"cancel"), control("id", b"x")) if command else (TO_ORDERS, IN_5_S)
    request = accepted(*what, control("reply-to", reply_to))
    assert (request.reply_to, request.no_receipt) == (None, why)
    refused = parse(*what, control("reply-to", reply_to), control("dealy", b"1s"))
    assert isinstance(refused, Rejection)
    assert (refused.reply_to, refused.no_receipt) == (None, why)


@pytest.mark.parametrize("reply_to", [b"billing", b"delay-requests", b"\xff", b"", None])
def test_a_refused_request_is_never_answered_to_a_topic_that_is_denied(reply_to: bytes | None) -> None:
    rejection = parse(("delaystream-dealy", b"5s"), ("delaystream-reply-to", reply_to))
    assert isinstance(rejection, Rejection)
    assert rejection.reply_to is None


def test_a_refused_request_with_two_ids_has_none() -> None:
    rejection = parse(TO_ORDERS, IN_5_S, ("delaystream-id", b"x"), ("delaystream-id", b"y"))
    assert isinstance(rejection, Rejection)
    assert (rejection.code, rejection.id) == (Code.DUPLICATE_HEADER, None)


def test_more_names_and_values_than_are_remembered_are_still_read_alike() -> None:
    parser = RequestParser(FILTER, Limits())
    for round_ in range(2):
        for number in range(6000):
            headers: list[Header] = [TO_ORDERS, ("delaystream-delay", b"%dms" % number), (f"h{number}", b"x")]
            request = parser.parse(
                Record(Coordinates("delay-requests", 0, number), SENT_MS, None, None, headers), NOW_MS
            )
            assert isinstance(request, Request), (round_, number)
            assert request.due_ms == (SENT_MS + number,)
            assert request.headers == [(f"h{number}", b"x")]


@pytest.mark.parametrize("number", [b"1", b"2147483647", b"07"])
@pytest.mark.parametrize("id", [[], [("delaystream-id", b"order-7")]])
def test_an_attempt_is_delivered_behind_the_foreign_headers(number: bytes, id: list[Header]) -> None:
    request = scheduled(("a", b"1"), ("Delaystream-Attempt", number), *id, ("b", None))
    assert request.headers == [("a", b"1"), ("b", None), ("delaystream-attempt", number)]


def test_a_delivery_that_is_sent_again_keeps_its_attempt_and_no_other_header_of_a_delivery() -> None:
    sent = scheduled(("a", b"1"), ("delaystream-attempt", b"3"))
    delivered = delivery_headers(
        sent.headers, Delivery("s", "f", 1, "t/0/1", 1), ("delaystream-fired-at", b"2")
    )
    assert scheduled(*delivered).headers == [("a", b"1"), ("delaystream-attempt", b"3")]


names = st.sampled_from(
    [*KINDS, *(name.upper() for name in KINDS), "delaystream-command", "delaystream-dealy", "trace"]
) | st.text(max_size=20).map(lambda text: "delaystream-" + text)
contents = (
    st.none()
    | st.binary(max_size=40)
    | st.text(alphabet="0123456789smhd,PT-:Z+.", max_size=24).map(str.encode)
)


@given(
    st.lists(st.tuples(names | st.text(max_size=20), contents), max_size=8),
    st.none() | st.binary(max_size=8),
    st.integers(min_value=-(2**63), max_value=2**63 - 1),
)
def test_no_record_makes_the_parser_raise(
    headers: list[Header], value: bytes | None, timestamp_ms: int
) -> None:
    result = parse(*headers, value=value, timestamp_ms=timestamp_ms)
    if isinstance(result, Request):
        assert all(due_ms >= 0 for due_ms in result.due_ms)
        ours = [header for header in result.headers if header[0].lower().startswith("delaystream-")]
        assert len(ours) <= 1
        assert all(name == "delaystream-attempt" and 1 <= int(text or b"") < 2**31 for name, text in ours)
    else:
        result.detail.encode()


foreign_headers = st.lists(
    st.tuples(
        st.text(max_size=20).filter(lambda name: not name.lower().startswith("delaystream-")),
        st.none() | st.binary(max_size=20),
    ),
    max_size=10,
)


@given(foreign_headers, foreign_headers)
def test_any_foreign_headers_pass_through_as_they_are(before: list[Header], after: list[Header]) -> None:
    assert accepted(*before, TO_ORDERS, IN_5_S, *after).headers == before + after


usual = st.lists(
    st.sampled_from([
        TO_ORDERS, ("delaystream-destination", b"late.1"), IN_5_S, ("delaystream-delay", b"0"),
        ("delaystream-at", b"1700000005000"), ("delaystream-at", b"2030-01-01T10:00:00"), ("trace", b"1"),
        ("trace", b"2"), ("delaystream-id", b"order-7"), ("delaystream-attempt", b"3"),
    ]),
    max_size=4,
)  # fmt: skip


@given(
    st.lists(usual | st.just([TO_ORDERS, IN_5_S]), min_size=1, max_size=2),
    st.lists(
        st.tuples(st.integers(0, 1), st.sampled_from([SENT_MS, SENT_MS + 1]), st.sampled_from([9, 11])),
        max_size=8,
    ),
)
def test_a_record_is_read_alike_whatever_came_before_it(
    sets: list[list[Header]], records: list[tuple[int, int, int]]
) -> None:
    """Of many records the next has the same headers: what they say is worked out once."""
    limits = Limits(max_value_bytes=10)
    parser = RequestParser(FILTER, limits)
    for offset, (number, timestamp_ms, value_bytes) in enumerate(records):
        coordinates, headers = Coordinates("delay-requests", 0, offset), [*sets[number % len(sets)]]
        record = Record(coordinates, timestamp_ms, None, b"v" * value_bytes, headers)
        alone = RequestParser(FILTER, limits).parse(record, NOW_MS)
        assert parser.parse(record, NOW_MS) == alone
