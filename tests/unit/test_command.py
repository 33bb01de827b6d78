"""Requests re-routed to the partition that owns their id."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.codec.command import COMMAND_HEADER, Command, Report, attach, detach
from delaystream.codec.keys import wheel_key
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.defaults import Defaults
from delaystream.core.destinations import DestinationFilter
from delaystream.core.identity import revision
from delaystream.core.instants import LATEST_MS
from delaystream.core.limits import Limits
from delaystream.core.record import Record
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Action, Coordinates, Header, Request

SENT_MS = 1_700_000_000_000
FILTER = DestinationFilter(["*"], ["delay-requests", "delay-commands"])
PARSER = RequestParser(FILTER, Limits(), default_destination="fallback")
TOKYO = RequestParser(FILTER, Limits(), "fallback", "Asia/Tokyo", 3_600_000)
NAMED: list[Header] = [
    ("trace", b"\xff"),
    ("delaystream-id", b"order-7"),
    ("delaystream-destination", b"orders"),
    ("delaystream-delay", b"5s,10s"),
    ("trace", None),
]


def first_seen(headers: list[Header]) -> Request:
    request = PARSER.parse(
        Record(Coordinates("delay-requests", 3, 42), SENT_MS, b"key", b"value", headers), SENT_MS + 10
    )
    assert isinstance(request, Request)
    return request


def re_read(headers: list[Header], parser: RequestParser = PARSER) -> Request | Report | Rejection:
    """As the owner reads it from the commands topic: at other coordinates, with another timestamp, later."""
    return parser.parse_command(
        Record(Coordinates("delay-commands", 9, 7), SENT_MS + 999, b"key", b"value", headers),
        SENT_MS + 86_400_000,
    )


def test_the_owner_reads_the_request_that_was_first_seen() -> None:
    request = first_seen(NAMED)
    assert re_read(attach(NAMED, request)) == request
    assert request.headers == [("trace", b"\xff"), ("trace", None)]


def test_the_requests_own_headers_travel_untouched() -> None:
    command, own = detach(attach(NAMED, first_seen(NAMED)))
    assert own == NAMED
    assert command is not None
    assert (command.source.topic, command.source.partition, command.source.offset) == (
        "delay-requests",
        3,
        42,
    )
    assert isinstance(command, Command)
    assert command.due_ms == (SENT_MS + 5000, SENT_MS + 10_000)


def test_a_request_without_a_timestamp_keeps_the_time_it_was_first_seen() -> None:
    request = PARSER.parse(
        Record(Coordinates("delay-requests", 3, 42), -1, b"key", b"value", NAMED), SENT_MS + 10
    )
    assert isinstance(request, Request)
    assert request.timestamp_ms == SENT_MS + 10
    assert re_read(attach(NAMED, request)) == request


def test_the_default_destination_of_the_request_topic_travels_with_the_request() -> None:
    headers: list[Header] = [("delaystream-id", b"x"), ("delaystream-delay", b"5s")]
    request = first_seen(headers)
    assert request.destination == "fallback"
    assert re_read(attach(headers, request), RequestParser(FILTER, Limits())) == request


def test_a_cancel_travels() -> None:
    headers: list[Header] = [("delaystream-id", b"x"), ("delaystream-action", b"cancel")]
    request = first_seen(headers)
    assert request.action is Action.CANCEL
    assert re_read(attach(headers, request)) == request


def control(**named: str) -> list[Header]:
    return [(f"delaystream-{name.replace('_', '-')}", value.encode()) for name, value in named.items()]


TRAVELS: list[list[Header]] = [
    control(id="x", action="update"),
    control(id="x", action="update", delay="5s,1m", payload="keep", destination="orders", tags="none"),
    control(id="x", action="update", cron="0 9 * * *", timezone="Europe/Berlin", end="none", grace="1h"),
    control(id="x", action="update", at="2023-12-31T09:00", timezone="Asia/Tokyo", payload="replace"),
    control(id="x", action="update", timezone="none", max_fires="7"),
    control(id="x", action="reschedule", delay="5s"),
    control(id="x", action="reschedule", every="1h", jitter="1m"),
    control(id="x", action="reschedule", end="none"),
    control(id="x", action="describe", reply_to="replies"),
    control(id="x", action="pause", until="1800000000000", note="maintenance"),
    control(id="x", action="resume", catch_up="all", grace="1h", if_version="7"),
    control(id="x", action="cancel", declared_by="billing", deploy="3", request_id="r"),
    control(id="x", at="2023-12-31T09:00,1700000100000", timezone="Europe/Berlin", status="paused"),
    control(coordinates="delay-requests/0/7", action="cancel"),
    control(coordinates="delay-requests/0/7", action="trigger"),
    control(coordinates="delay-requests/0/7", action="reschedule", delay="1h"),
    control(match_key="k", match_new="true", action="pause"),
    control(match_destination="*", match_anonymous="true", action="cancel"),
    control(action="rate", rate="600/m", destination="orders"),
    control(action="rate", rate="none", destination="orders"),
]


@pytest.mark.parametrize("headers", TRAVELS)
def test_every_command_travels_as_it_was_first_seen(headers: list[Header]) -> None:
    keep = [] if ("delaystream-action", b"update") not in headers else control(payload="keep")
    headers = [*headers, *(header for header in keep if header[0] not in dict(headers))]
    request = first_seen(headers)
    assert re_read(attach(headers, request)) == request


@pytest.mark.parametrize(
    "headers",
    [
        *TRAVELS[1:],
        control(id="x", destination="orders", every="1h"),
        control(id="x", destination="orders", cron="0 9 * * *"),
        control(id="x", destination="orders", delay="1h", on_late="drop"),
        control(id="x", action="resume", on_late="drop"),
        control(match_destination="*", action="resume", on_late="drop"),
    ],
    ids=str,
)
def test_the_defaults_of_the_request_topic_travel_with_what_is_handed_on(headers: list[Header]) -> None:
    """A request that was read before a default was changed keeps what was made of it."""
    keep = [] if ("delaystream-action", b"update") not in headers else control(payload="keep")
    headers = [*headers, *(header for header in keep if header[0] not in dict(headers))]
    for here, there in ((TOKYO, PARSER), (PARSER, TOKYO)):
        request = here.parse(
            Record(Coordinates("delay-requests", 0, 42), SENT_MS, b"key", b"value", headers), SENT_MS + 10
        )
        assert isinstance(request, Request)
        assert re_read(attach(headers, request), there) == request


def test_what_an_older_worker_hands_on_has_the_owners_defaults() -> None:
    headers = control(id="x", action="reschedule", cron="0 9 * * *")
    *own, (name, value) = attach(headers, first_seen(headers))
    older = msgspec.msgpack.encode(msgspec.msgpack.decode(value or b"")[:-1])
    request = re_read([*own, (name, older)], TOKYO)
    assert isinstance(request, Request)
    assert request.defaults == Defaults("Asia/Tokyo", 3_600_000)


@pytest.mark.parametrize("defaults", [("Nowhere/Else", None), (None, -1), (None, LATEST_MS + 1), ("",)])
def test_defaults_that_no_settings_hold_are_no_command(defaults: tuple[object, ...]) -> None:
    headers = control(id="x", action="reschedule", cron="0 9 * * *")
    *own, (name, value) = attach(headers, first_seen(headers))
    forged = msgspec.msgpack.encode([*msgspec.msgpack.decode(value or b"")[:-1], defaults])
    rejection = re_read([*own, (name, forged)])
    assert isinstance(rejection, Rejection)
    assert rejection.code is Code.INVALID_COMMAND


def test_a_reschedule_does_not_carry_its_times_twice() -> None:
    """What must fit a record is no more than before."""
    headers = control(id="x", action="reschedule", cron="0 9 * * *")
    value = attach(headers, first_seen(headers))[-1][1] or b""
    assert value.count(b"0 9 * * *") == 1


def test_the_owners_own_allow_list_counts_too() -> None:
    stricter = RequestParser(DestinationFilter(["billing"]), Limits())
    rejection = re_read(attach(NAMED, first_seen(NAMED)), stricter)
    assert isinstance(rejection, Rejection)
    assert (rejection.code, rejection.id) == (Code.DESTINATION_DENIED, "order-7")


def test_a_command_on_a_request_topic_is_an_unknown_header() -> None:
    headers = attach(NAMED, first_seen(NAMED))
    rejection = PARSER.parse(
        Record(Coordinates("delay-requests", 3, 42), SENT_MS, b"key", b"value", headers), SENT_MS
    )
    assert isinstance(rejection, Rejection)
    assert rejection.code is Code.UNKNOWN_HEADER


def stored(*fields: object) -> bytes:
    return msgspec.msgpack.encode(fields)


@pytest.mark.parametrize(
    "value",
    [
        None,
        b"",
        b"\xc1",
        stored(),
        stored(1, "t", 0, 0, 0, "d", (1,)),
        stored(3, "t", 0, 0, 0, "d", (1,)),
        stored(2, "t", 0, 0, 0, "d"),
        stored(2, "t", -1, 0, 0, "d", (1,)),
        stored(2, "t", 0, 0, 0, "d", (-1,)),
        stored(2, "t", 0, "0", 0, "d", (1,)),
        stored(2, b"\xff", 0, 0, 0, "d", (1,)),
        stored(2, "t#", 0, 0, 0, "d", (1,)).replace(b"#", b"\xff"),
        stored(2, "t\0", 0, 0, 0, "d", (1,)),
        stored(2, "", 0, 0, 0, "d", (1,)),
        stored(2, "t", 1 << 31, 0, 0, "d", (1,)),
        stored(2, "t", 0, 1 << 63, 0, "d", (1,)),
        stored(2, "t", 0, (1 << 63) - 1, 0, "d", (1,)),
        stored(2, "t", 0, (1 << 47) - 1, 0, "d", (1,)),
        stored(2, "t", 0, 0, LATEST_MS + 1, "d", (1,)),
        stored(2, "t", 0, 0, 0, "d", (LATEST_MS + 1,)),
        stored(2, "t", 0, 0, 0, "d", (1,) * 65_537),
        stored(2, "t", 0, 0, 0, "d", (), None, (1 << 31, 0, None)),
        stored(2, "t", 0, 0, 0, "d", (), None, (0, 1 << 49, None)),
        stored(2, "t", 0, 0, 0, "d", (1,), None, None, None, "a/b"),
        stored(2, "t", 0, 0, 0, "d", (1,), None, None, None, "a@b"),
        stored(2, "t", 0, 0, 0, "d", (1,), None, None, None, "a" * 33),
        stored(2, "t", 0, 0, 0, "d", (1,), None, None, None, 7),
        stored(2, "t", 0, 0, 0, "d", (1,), None, None)[:-1] + b"\x91" * 100_000 + b"\xc0",
        stored(2, "t", 0, 0, 0, "d", (1,), None, None, None, "", 0)[:-1] + b"\x91" * 100_000 + b"\xc0",
        *[
            stored(2, "t", 0, 0, 5_000, "d", (), recurrence)
            for recurrence in (
                (None, 0),
                (None, -1_000),
                (None, 1 << 60),
                ("* * * *", 0),
                ("0 0 30 2 *", 0),
                ("* * * * *", 0, "Nowhere/Else"),
                (None, 1_000, "UTC", "shift", "first", 0, None, 0, -1),
                (None, 1_000, "UTC", "shift", "first", 0, None, -1),
                (None, 1_000, "UTC", "shift", "first", -1),
                (None, 1_000, "UTC", "shift", "first", 0, 4_999),
                (None, 1_000, "UTC", "shift", "first", LATEST_MS + 1),
            )
        ],
    ],
)
def test_a_command_that_no_known_worker_wrote_is_refused(value: bytes | None) -> None:
    rejection = re_read([*NAMED, (COMMAND_HEADER, value)])
    assert isinstance(rejection, Rejection)
    assert rejection.code is Code.INVALID_COMMAND
    assert "delay-commands/9/7" in rejection.detail
    assert rejection.id == "order-7"


UPDATE = control(id="order-7", action="update", payload="keep")


@pytest.mark.parametrize(
    "timing",
    [
        {"every_ms": 0},
        {"every_ms": -1_000},
        {"every_ms": None},
        {"cron": "* * * *"},
        {"cron": "0 0 30 2 *"},
        {"cron": "* * * * *", "timezone": "Nowhere/Else"},
        {"cron": "* * * * *", "end_ms": 4_999},
        {"timezone": "Nowhere/Else"},
        {"every_ms": 1_000, "jitter_ms": 1_000},
        {"jitter_ms": -1},
        {"max_fires": -1},
        {"start_ms": LATEST_MS + 1},
        {"end_ms": -1},
        {"dst_gap": "none"},
    ],
)
def test_a_change_that_no_known_worker_wrote_is_refused(timing: dict[str, object]) -> None:
    def update(changes: object) -> Request | Report | Rejection:
        command = stored(2, "delay-requests", 3, 42, 5_000, "", (), None, None, changes)
        return re_read([*UPDATE, (COMMAND_HEADER, command)])

    assert isinstance(update({}), Request)
    rejection = update(timing)
    assert isinstance(rejection, Rejection)
    assert rejection.code is Code.INVALID_COMMAND
    assert "does not end in a delaystream-command header" in rejection.detail


def test_a_record_without_a_command_is_refused() -> None:
    for headers in ([], NAMED, [*attach(NAMED, first_seen(NAMED)), ("x", b"")]):
        rejection = re_read(headers)
        assert isinstance(rejection, Rejection)
        assert rejection.code is Code.INVALID_COMMAND


def test_a_second_command_is_refused() -> None:
    request = first_seen(NAMED)
    rejection = re_read(attach(attach(NAMED, request), request))
    assert isinstance(rejection, Rejection)
    assert rejection.code is Code.UNKNOWN_HEADER


def test_fields_that_a_later_worker_adds_are_passed_over() -> None:
    later = stored(
        2,
        "delay-requests",
        3,
        42,
        SENT_MS,
        "orders",
        (SENT_MS + 1,),
        None,
        None,
        None,
        "",
        (0, 0, 0),
        0,
        None,
        "new",
    )
    request = re_read([*NAMED, (COMMAND_HEADER, later)])
    assert isinstance(request, Request)
    assert request.due_ms == (SENT_MS + 1,)


RESCHEDULE = control(id="order-7", action="reschedule", delay="1s")


@pytest.mark.parametrize(
    ("headers", "due_ms", "recurrence", "timing"),
    [
        (NAMED, (), None, None),
        (NAMED, (1,), (None, 1_000), None),
        (NAMED, (1,), None, {}),
        ([*NAMED[:1], *NAMED[2:]], (1,), None, None),
        (RESCHEDULE, (), None, None),
        (RESCHEDULE, (), None, {}),
        (RESCHEDULE, (1,), None, None),
        (RESCHEDULE, (1,), None, {"end_ms": None}),
        (RESCHEDULE, (1,), (None, 1_000), {}),
        (UPDATE, (), None, None),
        (UPDATE, (1,), None, None),
        (UPDATE, (1,), None, {"every_ms": 1_000}),
        (UPDATE, (), (None, 1_000), {}),
        (control(id="order-7", action="cancel"), (1,), None, None),
        (control(id="order-7", action="cancel"), (), None, {}),
        (control(id="order-7", action="pause"), (), (None, 1_000), None),
        (control(match_destination="*", action="pause"), (1,), None, None),
        (control(coordinates="delay-requests/0/7", action="trigger"), (1,), None, None),
        (control(rate="1", destination="orders", action="rate"), (1,), None, None),
    ],
)
def test_a_command_that_belongs_to_another_request_is_refused(
    headers: list[Header], due_ms: tuple[int, ...], recurrence: object, timing: object
) -> None:
    """It would be a schedule without any time, or one that nobody can name."""
    command = stored(2, "delay-requests", 3, 42, 5_000, "orders", due_ms, recurrence, None, timing)
    rejection = re_read([*headers, (COMMAND_HEADER, command)])
    assert isinstance(rejection, Rejection)
    assert rejection.code is Code.INVALID_COMMAND


@given(st.none() | st.binary(max_size=60))
def test_no_command_header_makes_the_parser_raise(value: bytes | None) -> None:
    assert isinstance(re_read([*NAMED, (COMMAND_HEADER, value)]), Request | Rejection)


def test_the_last_coordinates_have_room_in_the_state() -> None:
    """In a revision, an integer of 63 bits, with as many partitions as a topic can have here; and in keys."""
    largest = msgspec.msgpack.encode((2, "t", (1 << 31) - 1, (1 << 47) - 2, 0, "d", (1,)))
    command, _ = detach([(COMMAND_HEADER, largest)])
    assert isinstance(command, Command)
    assert revision(command.source.partition, command.source.offset) < 1 << 63
    assert wheel_key(1, 1, command.source.partition, command.source.offset, 0)
