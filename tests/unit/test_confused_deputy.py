"""Attacks: somebody who may write requests tries to have delaystream write where that somebody may not.

Workers may write wherever any tenant's policy allows, so each attack is a request that tries to borrow a
right of the workers' or of another tenant. What must come out: a dead letter, and nothing else anywhere.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import msgspec
import pytest

from delaystream.codec.command import COMMAND_HEADER, Report, report_headers
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.request import Coordinates
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.engine.ports import TopicPartition
from delaystream.testing import LogRecord, MemorySources, VirtualTimeLoop
from tests.unit.engine import OWN, RECEIPTS, REQUESTS, Engine, header

VICTIM = "billing-requests"
DENIED = [*OWN, REQUESTS, VICTIM, "__consumer_offsets", "__transaction_state", "billing", "ORDERS", "orders2"]
NOT_NAMES = [
    "",
    " ",
    ".",
    "..",
    "orders\n",
    "orders ",
    "orders\0",
    "orders/../billing",
    "\N{CYRILLIC SMALL LETTER O}rders",
    "a" * 250,
    "*",
]
INTERNAL = ["__consumer_offsets", "__transaction_state", VICTIM, "billing"]


def tenants(allow: str = "orders", billing: str = "billing") -> Tenants:
    """One tenant that may write to `orders`, another that may write to `billing`."""

    def of(pattern: str) -> Tenant:
        allowed = DestinationFilter([pattern], [REQUESTS, VICTIM, *OWN], RECEIPTS)
        return Tenant(RequestParser(allowed, Limits(), None))

    return Tenants(of(allow), {VICTIM: of(billing)})


def attacked(attack: Callable[[Engine], Coroutine[Any, Any, None]], policies: Tenants | None = None) -> None:
    """Run an attack on a worker that serves both tenants."""
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            engine = Engine(loop)
            for topic in INTERNAL:
                engine.log.create_topic(topic, 1)
            topics = [REQUESTS, VICTIM, "delay-commands"]
            engine.start(
                lambda partition: MemorySources(engine.log, topics, partition), policies or tenants()
            )
            await asyncio.sleep(1)
            await attack(engine)
            await engine.stop()

        loop.run_until_complete(run())


def _written(engine: Engine, *, but: tuple[str, ...] = ()) -> dict[str, int]:
    """Records by topic, of all that an attack must not reach."""
    topics = {*DENIED, "orders", "emails", "late", "replies", RECEIPTS, *INTERNAL} - {
        "delay-dead-letters", "delay-wheel-changelog", REQUESTS, "ORDERS", "orders2", "delay-events", *but,
    }  # fmt: skip
    return {topic: len(found) for topic in topics if (found := engine.read(topic))}


def refused(engine: Engine, code: str) -> None:
    """One dead letter of that code, and nothing anywhere else."""
    assert [header(letter, "error") for letter in engine.read("delay-dead-letters")] == [code]
    assert _written(engine) == {}


# -- where to ------------------------------------------------------------------------------------------


def receipts(engine: Engine) -> dict[str, int]:
    """Receipts by topic, wherever they are: among what else is written there too."""
    found: dict[str, int] = {}
    for topic in {*DENIED, "orders", "emails", "late", "replies", RECEIPTS, *INTERNAL} - {
        "ORDERS",
        "orders2",
    }:
        if topic in engine.log.topics:
            records = engine.read(topic)
            told = [record for record in records if "delaystream-receipt" in dict(record.headers)]
            found |= {topic: len(told)} if told else {}
    return found


@pytest.mark.parametrize("named", ["anonymous", "by id"])
@pytest.mark.parametrize(
    ("way", "topic"),
    [
        *((way, topic) for way in ("destination", "on_late") for topic in (*DENIED, RECEIPTS, *NOT_NAMES)),
        *(("reply_to", topic) for topic in NOT_NAMES),
    ],
)
def test_no_way_leads_to_a_topic_outside_the_tenants_policy(way: str, topic: str, named: str) -> None:
    """Kafka's own, delaystream's own, request topics, another tenant's, and what only looks allowed."""

    async def attack(engine: Engine) -> None:
        control = {"destination": "orders", "delay": "1s", way: topic}
        if way == "on_late":
            control["grace"] = "0"
        if named == "by id":
            control["id"] = "x"
        engine.request(control=control)
        await asyncio.sleep(5)
        expected = {
            "destination": "invalid-destination",
            "reply_to": "invalid-reply-to",
            "on_late": "invalid-on-late",
        }
        [letter] = engine.read("delay-dead-letters")
        assert header(letter, "error") in {expected[way], "destination-denied"}
        assert _written(engine) == {}

    attacked(attack)


@pytest.mark.parametrize("named", ["anonymous", "by id", "command", "many", "refused"])
@pytest.mark.parametrize("topic", DENIED)
def test_a_denied_reply_topic_gets_no_receipt_and_undoes_nothing(topic: str, named: str) -> None:
    """Whatever the request is, and whatever becomes of it."""
    control = {
        "anonymous": {"destination": "orders", "delay": "1s"},
        "by id": {"destination": "orders", "delay": "1s", "id": "x"},
        "command": {"action": "trigger", "id": "there"},
        "many": {"action": "resume", "match_destination": "*"},
        "refused": {"destination": "nowhere", "delay": "1s", "id": "x"},
    }

    async def attack(engine: Engine) -> None:
        engine.request(destination="orders", delay="1h", id="there")
        engine.request(action="pause", match_destination="*")
        await asyncio.sleep(1)
        engine.request(reply_to=topic, control=control[named])
        await asyncio.sleep(5)
        letters = [header(letter, "error") for letter in engine.read("delay-dead-letters")]
        assert letters == (["destination-denied"] if named == "refused" else [])
        expected = {"orders": 1} if named in {"anonymous", "by id", "command"} else {}
        assert _written(engine, but=("delay-commands", VICTIM)) == expected
        assert receipts(engine) == {}

    attacked(attack)


@pytest.mark.parametrize("topic", [*DENIED, "orders", RECEIPTS])
def test_a_forged_report_has_a_receipt_written_nowhere_but_where_its_tenant_may(topic: str) -> None:
    """What a partition writes when it is done with a bulk command names the topic for the receipt."""

    async def attack(engine: Engine) -> None:
        offset = engine.request(action="pause", match_destination="*")
        source = Coordinates(REQUESTS, 0, offset)
        report = (None, None, report_headers(Report(source, 0, 1, topic)), engine.clock.now_ms())
        # Before the command itself is read from there: after its own report it is over.
        engine.log.append(TopicPartition("delay-commands", 0), report)
        engine.log.append(TopicPartition("delay-commands", 0), report)
        await asyncio.sleep(5)
        assert set(receipts(engine)) <= {"orders", RECEIPTS}
        forged.append(bool(receipts(engine)))

    forged: list[bool] = []
    attacked(attack)
    assert forged == [topic in {"orders", RECEIPTS}], "the report must be taken for one"


@pytest.mark.parametrize("order", [["orders", "billing"], ["billing", "orders"]])
def test_a_second_destination_is_not_taken_for_the_first(order: list[str]) -> None:
    """In any case of letters: which of two is checked must not differ from which is used."""

    async def attack(engine: Engine) -> None:
        names = ["delaystream-destination", "DELAYSTREAM-Destination"]
        headers = [(name, topic.encode()) for name, topic in zip(names, order, strict=True)]
        engine.request(foreign=headers, delay="0")
        await asyncio.sleep(1)
        refused(engine, "duplicate-header")

    attacked(attack)


def test_a_denied_reply_topic_hears_nothing_of_the_refusal_either() -> None:
    """A rejection is a record too, and the sender chooses its key."""

    async def attack(engine: Engine) -> None:
        engine.request(destination="nowhere", delay="0", id="chosen", reply_to="billing")
        await asyncio.sleep(1)
        assert len(engine.read("delay-dead-letters")) == 1
        assert _written(engine) == {}

    attacked(attack)


def test_what_was_allowed_when_it_was_scheduled_is_asked_again_when_it_fires() -> None:
    """A policy that was tightened holds for what waits, by id and without, for late topics too."""
    policies = tenants(allow="*")

    async def attack(engine: Engine) -> None:
        engine.request(destination="emails", delay="10s")
        engine.request(destination="emails", delay="10s", id="x")
        engine.request(destination="orders", delay="1s", grace="0", on_late="late")
        await asyncio.sleep(0.2)
        await engine.stop()
        await asyncio.sleep(5)
        topics = [REQUESTS, VICTIM, "delay-commands"]
        engine.start(lambda partition: MemorySources(engine.log, topics, partition), tenants())
        await asyncio.sleep(20)
        assert _written(engine) == {}
        assert {header(letter, "error") for letter in engine.read("delay-dead-letters")} == {"quarantined"}
        assert len(engine.read("delay-dead-letters")) == 3

    attacked(attack, policies)


# -- as whom -------------------------------------------------------------------------------------------


def _command(source: str, destination: str, version: int = 2) -> bytes:
    """A command header as a worker writes it."""
    return msgspec.msgpack.encode([version, source, 0, 0, 1_000, destination, [1_000]])


@pytest.mark.parametrize("claimed", [VICTIM, REQUESTS])
def test_a_command_header_on_a_request_topic_is_not_believed(claimed: str) -> None:
    """It would lend a request another tenant's policy, or a time that nobody checked."""

    async def attack(engine: Engine) -> None:
        engine.request(
            foreign=[(COMMAND_HEADER, _command(claimed, "billing"))], id="x", delay="0", destination="orders"
        )
        await asyncio.sleep(1)
        refused(engine, "unknown-header")

    attacked(attack)


Headers = list[tuple[str, bytes | None]]
ID: tuple[str, bytes | None] = ("delaystream-id", b"x")


def _control(action: bytes, name: str, topic: bytes) -> Headers:
    payload: Headers = [("delaystream-payload", b"keep")] if action == b"update" else []
    return [("delaystream-action", action), (f"delaystream-{name}", topic), *payload]


@pytest.mark.parametrize(
    ("headers", "code"),
    [
        ([], "invalid-command"),
        ([ID, ("delaystream-destination", b"orders"), ("delaystream-delay", b"0")], "invalid-command"),
        ([ID, (COMMAND_HEADER, None)], "invalid-command"),
        ([ID, (COMMAND_HEADER, b"\xc1")], "invalid-command"),
        ([ID, (COMMAND_HEADER, _command(REQUESTS, "orders", version=99))], "invalid-command"),
        ([(COMMAND_HEADER, _command(REQUESTS, "orders")), ID], "invalid-command"),
        ([ID, (COMMAND_HEADER, _command(REQUESTS, "billing"))], "destination-denied"),
        ([ID, (COMMAND_HEADER, _command(REQUESTS, "__consumer_offsets"))], "destination-denied"),
        ([ID, (COMMAND_HEADER, _command(REQUESTS, "delay-wheel-changelog"))], "destination-denied"),
        ([ID, (COMMAND_HEADER, _command(VICTIM, "orders"))], "destination-denied"),
        ([ID, (COMMAND_HEADER, _command("made-up", "billing"))], "destination-denied"),
        (
            [ID, ("delaystream-destination", b"billing"), (COMMAND_HEADER, _command(REQUESTS, "orders"))],
            "destination-denied",
        ),
        *(
            (
                [*id, *_control(action, name, b"billing"), (COMMAND_HEADER, _command(REQUESTS, ""))],
                "destination-denied",
            )
            for id, action, name in (
                ([ID], b"update", "destination"),
                ([ID], b"update", "on-late"),
                ([ID], b"resume", "on-late"),
                ([], b"rate", "destination"),
            )
        ),
    ],
)
def test_a_forged_command_gets_no_further_than_the_policy_that_it_claims(headers: Headers, code: str) -> None:
    """Only workers may write commands, by ACL; should somebody else, each is judged like a request."""

    async def attack(engine: Engine) -> None:
        record = (b"key", b"value", headers, engine.clock.now_ms())
        engine.log.append(TopicPartition("delay-commands", 0), record)
        await asyncio.sleep(1)
        letters: list[LogRecord] = engine.read("delay-dead-letters")
        found = [header(letter, "error") for letter in letters]
        assert found == [code]
        assert _written(engine, but=("delay-commands",)) == {}

    attacked(attack)


BULK: Headers = [("delaystream-match-destination", b"*"), ("delaystream-action", b"pause")]


def test_a_forged_bulk_command_that_is_to_report_nowhere_does_not_stop_the_partition() -> None:
    async def attack(engine: Engine) -> None:
        command = msgspec.msgpack.encode([2, REQUESTS, 5, 0, 1_000, "", []])
        record = (None, None, [*BULK, (COMMAND_HEADER, command)], engine.clock.now_ms())
        engine.log.append(TopicPartition("delay-commands", 0), record)
        await asyncio.sleep(1)
        engine.request(destination="orders", delay="0")
        await asyncio.sleep(10)
        (letter,) = engine.read("delay-dead-letters")
        assert header(letter, "error") == "invalid-command"
        assert len(engine.read("orders")) == 1

    attacked(attack)


@pytest.mark.parametrize(
    ("partition", "offset"), [(0, (1 << 63) - 1), (0, 1 << 62), (1 << 32, 7), ((1 << 31) - 1, 7)]
)
def test_a_forged_command_from_nowhere_has_no_room_in_the_state(partition: int, offset: int) -> None:
    """It is refused before anybody counts with it, and the partition goes on."""

    async def attack(engine: Engine) -> None:
        command = msgspec.msgpack.encode([2, REQUESTS, partition, offset, 1_000, "orders", [1_000]])
        record = (b"key", b"value", [ID, (COMMAND_HEADER, command)], engine.clock.now_ms())
        engine.log.append(TopicPartition("delay-commands", 0), record)
        await asyncio.sleep(1)
        assert engine.watch.internal_errors == 0
        assert [header(letter, "error") for letter in engine.read("delay-dead-letters")] == [
            "invalid-command"
        ]
        engine.request(destination="orders", delay="0", id="after")
        await asyncio.sleep(10)
        assert len(engine.read("orders")) == 1

    attacked(attack)


def test_a_bulk_command_that_somebody_sends_again_is_not_begun_twice() -> None:
    async def attack(engine: Engine) -> None:
        command = msgspec.msgpack.encode([2, REQUESTS, 0, 7, 1_000, "", []])
        for wait_s in (0.001, 5):
            # The second copy comes later, and in the same step all the same.
            record = (None, None, [*BULK, (COMMAND_HEADER, command)], engine.clock.now_ms())
            engine.log.append(TopicPartition("delay-commands", 0), record)
            await asyncio.sleep(wait_s)
        assert engine.watch.internal_errors == 0
        assert engine.read("delay-dead-letters") == []

    attacked(attack)


def test_a_dead_letter_of_a_forged_record_has_every_header() -> None:
    """It is the evidence; on a request topic a command's header is like any other."""

    async def attack(engine: Engine) -> None:
        forged: tuple[str, bytes | None] = (COMMAND_HEADER, b"\xc1")
        engine.request(foreign=[("trace", b"1"), forged], destination="orders", delay="0")
        record = (b"key", b"value", [("trace", b"2"), forged], engine.clock.now_ms())
        engine.log.append(TopicPartition("delay-commands", 0), record)
        await asyncio.sleep(1)
        for letter, trace in zip(engine.read("delay-dead-letters"), (b"1", b"2"), strict=True):
            assert list(letter.headers[:-6])[-2:] == [("trace", trace), forged]

    attacked(attack)


def test_an_id_is_its_tenants_own() -> None:
    """One tenant cannot cancel, replace or find out about another's schedule of the same id."""

    async def attack(engine: Engine) -> None:
        victim = [
            ("delaystream-destination", b"billing"),
            ("delaystream-delay", b"5s"),
            ("delaystream-id", b"daily"),
        ]
        engine.log.append(TopicPartition(VICTIM, 0), (b"k", b"the victim's", victim, engine.clock.now_ms()))
        await asyncio.sleep(1)
        engine.request(id="daily", action="cancel", reply_to="orders")
        engine.request(value=b"mine", id="daily", destination="orders", delay="0")
        await asyncio.sleep(10)
        assert [record.value for record in engine.read("billing")] == [b"the victim's"]
        [receipt, mine] = engine.read("orders")
        assert msgspec.json.decode(receipt.value or b"")["outcome"] == "unknown"
        assert mine.value == b"mine" or engine.read("delay-dead-letters")

    attacked(attack)
