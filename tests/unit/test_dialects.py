"""Other systems' headers: each vector is a record of theirs, and what it asks for in our names."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.codec.requests import names
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.record import Record
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Action, Coordinates, Header, Request
from delaystream.dialects import NAMES, Translated, by_name, filled
from delaystream.dialects.translation import PREFIX
from tests.unit.dialect_vectors import (
    AT_MS,
    AT_S,
    ETF1,
    KARAFKA,
    KASPR,
    KASPR_CRON,
    NATS,
    NOW_MS,
    REFUSED,
    SOURCE,
    USERS,
    VECTORS,
    Theirs,
)


def translate(
    dialect: str, theirs: Theirs, key: bytes | None = b"k", *, has_value: bool = True
) -> Translated | Rejection | None:
    headers: list[Header] = [(n, v.encode() if isinstance(v, str) else v) for n, v in theirs.items()]
    headers.insert(len(headers) // 2, USERS[0])
    record = Record(SOURCE, NOW_MS, key, b"v" if has_value else None, [*headers, USERS[1]])
    return by_name(dialect).translate(record)


def split(headers: Sequence[Header]) -> tuple[dict[str, str], list[Header]]:
    ours = {n.removeprefix(PREFIX): (v or b"").decode() for n, v in headers if n.startswith(PREFIX)}
    return ours, [header for header in headers if not header[0].startswith(PREFIX)]


def asked(dialect: str, theirs: Theirs, key: bytes | None = b"k") -> dict[str, str]:
    found = translate(dialect, theirs, key)
    assert isinstance(found, Translated), found
    ours, others = split(found.headers)
    assert [header for header in others if header[0] == "trace"] == USERS
    return ours


def delivered(dialect: str, theirs: Theirs, key: bytes | None = b"k") -> dict[str, bytes | None]:
    found = translate(dialect, theirs, key)
    assert isinstance(found, Translated), found
    return dict(split(found.headers)[1])


def refused(dialect: str, theirs: Theirs, key: bytes | None = b"k", *, has_value: bool = True) -> Code:
    found = translate(dialect, theirs, key, has_value=has_value)
    assert isinstance(found, Rejection), found
    assert found.detail.endswith(".")
    return found.code


@pytest.mark.parametrize(("dialect", "theirs", "ours"), VECTORS.values(), ids=VECTORS)
def test_asks_for_the_same(dialect: str, theirs: Theirs, ours: dict[str, str]) -> None:
    """In our names, and nothing besides."""
    found = translate(dialect, theirs)
    assert isinstance(found, Translated), found
    assert split(found.headers)[0] == ours


@pytest.mark.parametrize(("dialect", "theirs", "ours"), VECTORS.values(), ids=VECTORS)
def test_the_users_headers_pass(dialect: str, theirs: Theirs, ours: dict[str, str]) -> None:
    """Byte for byte and in order, whatever they hold; a command delivers nothing."""
    found = translate(dialect, theirs)
    assert isinstance(found, Translated), found
    passed = [header for header in found.headers if header[0] == "trace"]
    assert passed == ([] if ours.get("action") == "cancel" and dialect != "kaspr" else USERS)


@pytest.mark.parametrize(("dialect", "theirs", "code"), REFUSED.values(), ids=REFUSED)
def test_refuses_what_it_cannot_do(dialect: str, theirs: Theirs, code: Code) -> None:
    """With a code of its own and a sentence, never by guessing."""
    assert refused(dialect, theirs) is code


@pytest.mark.parametrize("dialect", NAMES)
def test_leaves_other_records_alone(dialect: str) -> None:
    """A record without a header of the dialect is read in our own language."""
    assert translate(dialect, {"delaystream-delay": "5m", "delaystream-destination": "t"}) is None
    assert (
        translate(dialect, {"delaystream-delay": "5m", "delaystream-destination": "t"}, has_value=False)
        is None
    )


@pytest.mark.parametrize("dialect", NAMES)
def test_our_headers_may_stand_beside_theirs(dialect: str) -> None:
    """A producer that moves over can ask for a receipt before it changes anything else."""
    theirs = next(theirs for name, theirs, _ in VECTORS.values() if name == dialect)
    assert asked(dialect, {**theirs, "delaystream-reply-to": "receipts"})["reply-to"] == "receipts"


@pytest.mark.parametrize("dialect", NAMES)
def test_a_header_given_twice_or_null_is_refused(dialect: str) -> None:
    """As one of ours is: which of the two counts would be a guess."""
    theirs = next(theirs for name, theirs, _ in VECTORS.values() if name == dialect)
    name = next(iter(theirs))
    for headers, code in (
        ([(name, b"a"), (name, b"a")], Code.DUPLICATE_HEADER),
        ([(name, None)], Code.NULL_HEADER),
    ):
        found = by_name(dialect).translate(Record(SOURCE, NOW_MS, b"k", b"v", headers))
        assert isinstance(found, Rejection)
        assert found.code is code


# -- names, keys, cancels --------------------------------------------------------------------------------


def test_etf1_deletes_by_a_null_value() -> None:
    """With its headers and without, as etf1 does; an empty value is a value."""
    both: tuple[Theirs, Theirs] = ({}, ETF1)
    for theirs in both:
        found = translate("etf1", theirs, b"vid1-online", has_value=False)
        assert isinstance(found, Translated)
        assert split(found.headers) == ({"id": "vid1-online", "action": "cancel"}, [])
    assert asked("etf1", ETF1)["at"] == AT_MS


@pytest.mark.parametrize("dialect", ["etf1", "karafka"])
@pytest.mark.parametrize("key", [None, b"", b"\xff"])
def test_the_key_is_the_id(dialect: str, key: bytes | None) -> None:
    """And so it must be there, and be text."""
    theirs = ETF1 if dialect == "etf1" else KARAFKA
    assert refused(dialect, theirs, key) in {Code.DIALECT_MISSING, Code.NOT_UTF8}


@pytest.mark.parametrize(
    ("dialect", "theirs", "key"),
    [
        ("etf1", ETF1, b"vid1"),
        ("etf1", {**ETF1, "scheduler-target-key": b"\xff\x00"}, b"\xff\x00"),
        ("etf1", {name: value for name, value in ETF1.items() if name != "scheduler-target-key"}, None),
        ("karafka", KARAFKA, None),
        ("karafka", {**KARAFKA, "schedule_target_key": "42"}, b"42"),
        ("kaspr", KASPR, b"k"),
        ("nats", NATS, b"k"),
        ("activemq", {"AMQ_SCHEDULED_DELAY": "1"}, b"k"),
    ],
)
def test_delivers_with_the_key_that_theirs_would(dialect: str, theirs: Theirs, key: bytes | None) -> None:
    """Where the record's own key is the schedule's name, another header has the key to deliver with."""
    found = translate(dialect, theirs)
    assert isinstance(found, Translated)
    assert found.key == key


def test_karafka_ends_a_schedule_by_type() -> None:
    """`cancel` is the user's, `tombstone` is Karafka's own after a dispatch."""
    for kind in ("cancel", "tombstone"):
        theirs: Theirs = {"schedule_schema_version": "1.0.0", "schedule_source_type": kind}
        found = translate("karafka", theirs, b"order-1", has_value=False)
        assert isinstance(found, Translated)
        assert split(found.headers)[0] == {"id": "order-1", "action": "cancel"}


def test_nats_ends_a_schedule_by_its_subject() -> None:
    """The record's own key is where NATS would publish: the schedule is the one in `Nats-Scheduler`."""
    theirs: Theirs = {"Nats-Schedule-Next": "purge", "Nats-Scheduler": "schedules.1"}
    found = translate("nats", theirs, b"schedules.cancelled", has_value=False)
    assert isinstance(found, Translated)
    assert split(found.headers)[0] == {"id": "schedules.1", "action": "cancel"}


def test_a_recurring_schedule_without_a_name_is_named_by_its_place() -> None:
    """Nothing could ever stop it otherwise; a one-time one needs none."""
    assert asked("nats", {**NATS, "Nats-Schedule": "@hourly"}, None)["id"] == "requests/3/17"
    assert "id" not in asked("nats", NATS, None)


# -- what their consumers look for -----------------------------------------------------------------------


def test_etf1_deliveries_say_where_they_come_from() -> None:
    """As in its README; a delivery that is scheduled again says it once."""
    theirs: Theirs = {**ETF1, "scheduler-topic": "an older one"}
    found = delivered("etf1", theirs)
    assert found["scheduler-timestamp"] == b"1790000000"
    assert found["scheduler-key"] == b"k"
    assert found["scheduler-topic"] == b"requests"
    assert found["scheduler-epoch"] == b"1893456000"
    again = translate("etf1", theirs)
    assert isinstance(again, Translated)
    assert [name for name, _ in again.headers].count("scheduler-topic") == 1


def test_karafka_deliveries_say_where_they_come_from() -> None:
    """And keep the envelope's headers, which Karafka's users trace by."""
    found = delivered("karafka", KARAFKA)
    assert found["schedule_source_topic"] == b"requests"
    assert found["schedule_source_partition"] == b"3"
    assert found["schedule_source_offset"] == b"17"
    assert found["schedule_source_key"] == b"k"
    assert found["schedule_target_topic"] == b"orders"


def test_nats_deliveries_carry_no_instruction() -> None:
    """What would schedule or reject the message again is taken out, as NATS does."""
    found = delivered(
        "nats", {**NATS, "Nats-Schedule-TTL": "5m", "Nats-Msg-Id": "1", "Nats-Expected-Stream": "s"}
    )
    assert found == {
        "trace": None,
        "Nats-Scheduler": b"k",
        "Nats-TTL": b"5m",
        "Nats-Schedule-Next": b"purge",
    }


NEXT_MS = AT_S * 1000 + 60_000


@pytest.mark.parametrize(
    ("dialect", "theirs", "next_ms", "header"),
    [
        (
            "nats",
            {**NATS, "Nats-Schedule": "@hourly"},
            NEXT_MS,
            "Nats-Schedule-Next: 2030-01-01T00:01:00.000Z",
        ),
        ("nats", {**NATS, "Nats-Schedule": "@every 1m"}, None, "Nats-Schedule-Next: purge"),
        ("kaspr", KASPR_CRON, NEXT_MS, "x-scheduler-cron-fire-timestamp: 1893456000"),
    ],
)
def test_what_depends_on_the_fire_is_told_when_it_fires(
    dialect: str, theirs: Theirs, next_ms: int | None, header: str
) -> None:
    """NATS tells the next time, Kaspr the time of this one."""
    found = translate(dialect, theirs)
    assert isinstance(found, Translated)
    others = split(found.headers)[1]
    told = filled(others, AT_S * 1000, next_ms)
    name, value = header.split(": ")
    assert dict(told)[name] == value.encode()
    assert [entry for entry in told if entry[0] != name] == [entry for entry in others if entry[0] != name]


@pytest.mark.parametrize("dialect", NAMES)
def test_a_one_time_fire_has_nothing_to_be_told(dialect: str) -> None:
    """All of it is known from the start."""
    once = {"at", "delay"}
    theirs = next(theirs for name, theirs, ours in VECTORS.values() if name == dialect and once & set(ours))
    found = translate(dialect, theirs)
    assert isinstance(found, Translated)
    assert filled(found.headers, AT_S * 1000, None) is found.headers


def test_activemq_deliveries_carry_the_job() -> None:
    """By that id it can be removed."""
    found = delivered("activemq", {"AMQ_SCHEDULED_DELAY": "1"})
    assert found == {"trace": None, "scheduledJobId": b"requests/3/17"}


# -- fitting in ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("dialect", "theirs", "ours"), VECTORS.values(), ids=VECTORS)
def test_our_parser_takes_it(dialect: str, theirs: Theirs, ours: dict[str, str]) -> None:
    """A translation is a request that a worker accepts, for the action that was meant."""
    found = translate(dialect, theirs)
    assert isinstance(found, Translated)
    parser = RequestParser(DestinationFilter(["*"]), Limits(), "default")
    parsed = parser.parse(
        Record(Coordinates("requests", 3, 17), NOW_MS, found.key, b"v", found.headers), NOW_MS
    )
    assert isinstance(parsed, Request), parsed
    assert parsed.action is Action(ours.get("action", "schedule"))
    assert parsed.id == ours.get("id")


def test_the_prefix_is_the_contracts() -> None:
    """The dialects lie below the codec, and so repeat it."""
    assert PREFIX == names.PREFIX


def test_an_unknown_dialect_is_named() -> None:
    """With those that there are."""
    with pytest.raises(ValueError, match="'quartz' is not a dialect; expected one of kaspr, etf1"):
        by_name("quartz")


_WORDS = sorted(
    {word for _, theirs, _ in VECTORS.values() for word in theirs}
    | {word for _, theirs, _ in REFUSED.values() for word in theirs}
)
_VALUES = [v for _, theirs, _ in (*VECTORS.values(), *REFUSED.values()) for v in theirs.values()]
_CONTENT = st.one_of(
    st.sampled_from([v.encode() if isinstance(v, str) else v for v in _VALUES]),
    st.binary(max_size=20),
    st.text(max_size=20).map(str.encode),
)


@given(
    dialect=st.sampled_from(NAMES),
    headers=st.lists(st.tuples(st.sampled_from(_WORDS), st.none() | _CONTENT), max_size=8),
    key=st.none() | st.binary(max_size=8),
    has_value=st.booleans(),
)
def test_no_record_makes_it_raise(
    dialect: str, headers: list[Header], key: bytes | None, has_value: bool
) -> None:
    """Whatever a producer sends is a request, a rejection, or not for this dialect; and always the same."""
    record = Record(SOURCE, NOW_MS, key, b"v" if has_value else None, headers)
    found = by_name(dialect).translate(record)
    assert found == by_name(dialect).translate(record)
