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

from delaystream.codec.command import COMMAND_HEADER
from delaystream.codec.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.engine.ports import TopicPartition
from delaystream.engine.tenants import Tenant, Tenants
from delaystream.testing import LogRecord, MemorySources, VirtualTimeLoop
from tests.unit.engine import OWN, REQUESTS, Engine, header

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
        allowed = DestinationFilter([pattern], [REQUESTS, VICTIM, *OWN])
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
    topics = {*DENIED, "orders", "emails", "late", "replies", *INTERNAL} - {
        "delay-dead-letters", "delay-wheel-changelog", REQUESTS, "ORDERS", "orders2", "delay-events", *but,
    }  # fmt: skip
    return {topic: len(found) for topic in topics if (found := engine.read(topic))}


def refused(engine: Engine, code: str) -> None:
    """One dead letter of that code, and nothing anywhere else."""
    assert [header(letter, "error") for letter in engine.read("delay-dead-letters")] == [code]
    assert _written(engine) == {}


# -- where to ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("named", ["anonymous", "by id"])
@pytest.mark.parametrize("way", ["destination", "reply_to", "on_late"])
@pytest.mark.parametrize("topic", DENIED + NOT_NAMES)
def test_no_way_leads_to_a_topic_outside_the_tenants_policy(way: str, topic: str, named: str) -> None:
    """Kafka's own, delaystream's own, request topics, another tenant's, and what only looks allowed."""

    async def attack(engine: Engine) -> None:
        control = {"destination": "orders", "delay": "1s", way: topic}
        if way == "on_late":
            control["grace"] = "0"
        if named == "by id":
            control["id"] = "x"
        engine.request(**control)
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


def _command(source: str, destination: str, version: int = 1) -> bytes:
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
        (
            [ID, ("delaystream-reply-to", b"delay-requests"), (COMMAND_HEADER, _command(REQUESTS, "orders"))],
            "invalid-reply-to",
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
        assert found == [code] or (code == "invalid-reply-to" and found == ["destination-denied"])
        assert _written(engine, but=("delay-commands",)) == {}

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
