"""Deciding on one record may fail as nobody expected: its partition does not, and nothing is lost."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import patch

import pytest

from delaystream.codec import keys
from delaystream.codec.envelope import Envelope, Pointer, decode_entry, decode_schedule
from delaystream.codec.outgoing import Delivery
from delaystream.codec.requests.headers import RequestParser
from delaystream.core import misfire
from delaystream.engine.accept.bulk import Bulks
from delaystream.engine.accept.intake import Intake
from delaystream.engine.failures import TooManyInternalErrors
from delaystream.engine.fire import firing
from delaystream.engine.fire import recurring as recurring_fires
from delaystream.engine.fire.named import NamedFires
from delaystream.engine.fire.writer import FireWriter
from delaystream.engine.output.letters import Letters
from delaystream.engine.schedules.commands import Commands
from delaystream.engine.schedules.schedules import Schedules
from delaystream.engine.state.partition_state import PartitionState
from tests.unit.engine import REQUESTS, Engine, header, in_virtual_time
from tests.unit.test_recurring import accounted, dues, events

POISON = b"poison"


class Fault(Exception):
    """What nobody expected."""


@contextmanager
def fails(
    owner: Any, name: str, meets: Callable[..., bool], times: int = 1_000_000, fault: type[Exception] = Fault
) -> Iterator[list[int]]:
    """Have a function fail, so often, where its arguments meet a condition; how often it did."""
    original = getattr(owner, name)
    failed = [0]

    def failing(*args: Any, **kwargs: Any) -> Any:
        if failed[0] < times and meets(*args, **kwargs):
            failed[0] += 1
            raise fault("it is broken")
        return original(*args, **kwargs)

    with patch.object(owner, name, failing):
        yield failed


def errors(engine: Engine) -> list[str]:
    return [header(record, "error") for record in engine.read("delay-dead-letters")]


def in_fault(test: Callable[[Engine], Any], **settings: Any) -> None:
    async def tolerant(engine: Engine) -> None:
        engine.may_fail = True
        await test(engine)

    in_virtual_time(tolerant, **settings)


# -- requests ------------------------------------------------------------------------------------

WHERE_A_REQUEST_FAILS = [
    pytest.param(
        RequestParser, "_check_sizes", lambda _, record: record.value == POISON, id="reading its headers"
    ),
    pytest.param(Intake, "_schedule", lambda _, step, request: request.value == POISON, id="deciding on it"),
    pytest.param(
        Letters, "receipt", lambda _, step, request, *rest: request.value == POISON, id="answering it"
    ),
]


@pytest.mark.parametrize(("owner", "name", "meets"), WHERE_A_REQUEST_FAILS)
def test_a_request_that_always_fails_is_a_dead_letter_and_the_others_are_delivered_in_order(
    owner: Any, name: str, meets: Callable[..., bool]
) -> None:
    async def test(engine: Engine) -> None:
        with fails(owner, name, meets) as failed:
            for number in range(5):
                engine.request(b"%d" % number, destination="orders", delay="0")
            at = engine.request(
                POISON, foreign=[("trace", b"1")], destination="orders", delay="0", reply_to="replies"
            )
            for number in range(5, 10):
                engine.request(b"%d" % number, destination="orders", delay="1s")
            await asyncio.sleep(5)
            assert failed[0] >= 2
        assert [record.value for record in engine.read("orders")] == [b"%d" % number for number in range(10)]
        (letter,) = engine.read("delay-dead-letters")
        assert (letter.key, letter.value) == (b"key", POISON)
        assert ("trace", b"1") in letter.headers
        assert header(letter, "error") == "internal-error"
        assert "Fault: it is broken" in header(letter, "error-detail")
        assert header(letter, "error-offset") == str(at)
        assert [event["code"] for event in events(engine, "rejected")] == ["internal-error"]
        assert engine.watch.internal_errors == 2

    in_fault(test)


@pytest.mark.parametrize(("owner", "name", "meets"), WHERE_A_REQUEST_FAILS)
def test_a_request_that_fails_once_is_accepted_at_the_second_try(
    owner: Any, name: str, meets: Callable[..., bool]
) -> None:
    async def test(engine: Engine) -> None:
        with fails(owner, name, meets, times=1) as failed:
            for value in (b"before", POISON, b"behind"):
                engine.request(value, destination="orders", delay="1s", reply_to="replies")
            await asyncio.sleep(5)
            assert failed[0] == 1
        assert [record.value for record in engine.read("orders")] == [b"before", POISON, b"behind"]
        assert errors(engine) == []
        assert len(engine.read("replies")) == 3

    in_fault(test)


def test_a_suspect_is_decided_on_in_a_transaction_of_its_own() -> None:
    """What fails because of what came before it in the step is not at fault."""
    seen: list[int] = []

    def meets(_: Any, step: Any, request: Any) -> bool:
        if request.value == POISON:
            seen.append(step.records)
        return bool(request.value == POISON and step.records > 1)

    async def test(engine: Engine) -> None:
        with fails(Intake, "_schedule", meets):
            for value in (b"before", POISON, b"behind"):
                engine.request(value, destination="orders", delay="0")
            await asyncio.sleep(1)
        assert seen == [2, 1]
        assert [record.value for record in engine.read("orders")] == [b"before", POISON, b"behind"]

    in_fault(test)


def test_a_command_that_always_fails_leaves_its_schedule_as_it_is() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="x", delay="10s")
        with fails(Commands, "apply", lambda *_: True):
            engine.request(None, None, id="x", action="cancel", reply_to="replies")
            await asyncio.sleep(1)
        (receipt,) = engine.read("replies")
        assert json.loads(receipt.value or b"")["code"] == "internal-error"
        await asyncio.sleep(20)
        assert len(engine.read("orders")) == 1

    in_fault(test)


def test_a_request_that_cannot_even_be_refused_is_a_dead_letter_with_its_bytes() -> None:
    async def test(engine: Engine) -> None:
        with (
            fails(Schedules, "apply", lambda *_: True),
            fails(Letters, "refuse", lambda _, step, record, *rest: record.value == POISON),
        ):
            engine.request(POISON, destination="orders", id="x", delay="10s")
            engine.request(destination="orders", delay="0")
            await asyncio.sleep(1)
        (letter,) = engine.read("delay-dead-letters")
        assert (letter.key, letter.value, header(letter, "error")) == (b"key", POISON, "internal-error")
        assert len(engine.read("orders")) == 1

    in_fault(test)


# -- fires ---------------------------------------------------------------------------------------


def anonymous(engine: Engine, value: bytes) -> None:
    engine.request(value, destination="orders", delay="5s")


def named(engine: Engine, value: bytes) -> None:
    engine.request(value, destination="orders", id=value.decode(), delay="5s")


def poisonous(entry: Any) -> bool:
    return (isinstance(entry, Envelope) and entry.value == POISON) or (
        isinstance(entry, Pointer) and entry.id == POISON.decode()
    )


@pytest.mark.parametrize("send", [anonymous, named])
@pytest.mark.parametrize("others", ["busy", "quiet"])
@pytest.mark.parametrize("times", [1, 1_000_000])
def test_a_fire_that_fails_is_tried_alone_then_quarantined_and_the_others_go_out(
    send: Callable[[Engine, bytes], None], others: str, times: int
) -> None:
    """Busy: something else is due in every step, and requests come in all the time."""

    async def test(engine: Engine) -> None:
        for value in (b"1", b"2", POISON, b"3", b"4"):
            send(engine, value)
        for number in range(200 if others == "busy" else 0):
            engine.request(destination="emails", delay=f"{4_900 + number}ms")
        await asyncio.sleep(4)

        delivers: dict[Callable[[Engine, bytes], None], tuple[object, str, Callable[..., bool]]] = {
            anonymous: (
                firing,
                "anonymous_delivery_headers",
                lambda headers, coordinates, *rest: coordinates.endswith(b"/2"),
            ),
            named: (
                FireWriter,
                "deliver",
                lambda _, step, cursor, due, *rest: due.id == POISON.decode(),
            ),
        }
        with fails(*delivers[send], times=times) as failed:
            for _ in range(100):
                if others == "busy":
                    engine.request(destination="emails", delay="0")
                await asyncio.sleep(0.05)
            assert failed[0] == min(times, 2)
        delivered = [record.value for record in engine.read("orders")]
        if times == 1:
            assert delivered == [b"1", b"2", POISON, b"3", b"4"]
            assert errors(engine) == []
            return
        assert delivered == [b"1", b"2", b"3", b"4"]
        (letter,) = engine.read("delay-dead-letters")
        assert (letter.value, header(letter, "error")) == (POISON, "internal-error")
        (event,) = events(engine, "quarantined")
        assert (event["code"], event["fire_id"]) == ("internal-error", header(letter, "fire-id"))

    in_fault(test)


@pytest.mark.parametrize("send", [anonymous, named])
def test_an_entry_that_cannot_be_read_is_a_dead_letter_with_the_bytes_that_are_stored(
    send: Callable[[Engine, bytes], None],
) -> None:
    def garbled(stored: bytes) -> bool:
        return poisonous(original(stored))

    original = decode_entry

    async def test(engine: Engine) -> None:
        for value in (b"1", POISON, b"3"):
            send(engine, value)
        await asyncio.sleep(4)
        with fails(firing, "decode_entry", garbled):
            await asyncio.sleep(10)
        assert [record.value for record in engine.read("orders")] == [b"1", b"3"]
        (letter,) = engine.read("delay-dead-letters")
        assert header(letter, "error") == "internal-error"
        assert POISON in (letter.value or b"")
        assert engine.processors[0]._health.poisoned == {}
        assert not engine.processors[0]._lasting.suspects
        stored = [key for key in engine.stores.disks[0].values if key[:1] in b"wp"]
        assert all(key < keys.wheel_bound(keys.HOUSEKEEPING + 1) for key in stored if key[:1] == b"w")
        assert not [key for key in stored if key[:1] == b"p"]

    in_fault(test)


def test_a_late_time_of_a_schedule_that_catches_up_is_given_up_and_no_other() -> None:
    """The fault is in the fourth of many times that one entry of the wheel stands for."""

    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="x", every="10s", catch_up="all")
        await asyncio.sleep(15)
        await engine.stop()
        await asyncio.sleep(60)
        engine.start()

        def fourth(_: Any, step: Any, cursor: Any, due: Any, delivery: Delivery, *rest: Any) -> bool:
            return delivery.due_ms == began_ms + 50_000

        with fails(FireWriter, "deliver", fourth):
            await asyncio.sleep(20)
        assert began_ms + 50_000 not in dues(engine)
        (event,) = events(engine, "quarantined")
        assert event["due_at_ms"] == began_ms + 50_000
        assert accounted(engine) == [began_ms + n * 10_000 for n in range(1, len(accounted(engine)) + 1)]
        assert dues(engine) == sorted(dues(engine))
        assert len(accounted(engine)) == 9

    in_fault(test)


def test_a_schedule_goes_on_after_a_time_that_was_given_up() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="x", every="10s")
        await asyncio.sleep(15)
        with fails(misfire, "next_after", lambda *_: True):
            await asyncio.sleep(10)
        await asyncio.sleep(20)
        assert [event["due_at_ms"] for event in events(engine, "quarantined")] == [began_ms + 20_000]
        assert dues(engine) == [began_ms + 10_000, began_ms + 30_000, began_ms + 40_000]

    in_fault(test)


def test_a_schedule_whose_next_time_cannot_be_worked_out_is_paused_and_loses_nothing() -> None:
    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="x", every="10s")
        await asyncio.sleep(15)
        with (
            fails(misfire, "next_after", lambda *_: True),
            fails(recurring_fires, "next_after", lambda *_: True),
        ):
            await asyncio.sleep(10)
        (event,) = events(engine, "paused")
        assert (event["code"], event["status"]) == ("internal-error", "paused")
        assert "Fault: it is broken" in event["detail"]
        assert errors(engine) == []
        engine.request(None, None, id="x", action="resume")
        await asyncio.sleep(1)
        assert dues(engine) == [began_ms + 10_000, began_ms + 20_000]
        await asyncio.sleep(10)
        assert accounted(engine) == [began_ms + 10_000 * n for n in (1, 2, 3)]

    in_fault(test)


def test_a_triggered_fire_that_fails_is_given_up_and_leaves_the_schedule_alone() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="x", every="10s")
        await asyncio.sleep(1)
        with fails(NamedFires, "_go_out", lambda *_: True):
            engine.request(None, None, id="x", action="trigger")
            await asyncio.sleep(5)
        assert errors(engine) == ["internal-error"]
        await asyncio.sleep(10)
        assert len(engine.read("orders")) == 1

    in_fault(test)


def test_a_schedule_that_a_bulk_command_fails_on_is_passed_over_and_told() -> None:
    async def test(engine: Engine) -> None:
        for id in ("a", "b", "c", "d"):
            engine.request(destination="orders", id=id, delay="1h")
        await asyncio.sleep(1)
        with fails(Commands, "switch", lambda _, step, id, *rest: id == "b"):
            engine.request(None, None, action="cancel", match_destination="*", reply_to="replies")
            await asyncio.sleep(5)
        (receipt,) = engine.read("replies")
        assert json.loads(receipt.value or b"")["count"] == 3
        assert errors(engine) == ["internal-error"]
        (letter,) = engine.read("delay-dead-letters")
        assert letter.key == keys.schedule_key(REQUESTS, "b")
        assert decode_schedule(letter.value or b"").destination == "orders"
        await asyncio.sleep(4_000)
        assert [header(record, "schedule-id") for record in engine.read("orders")] == ["b"]

    in_fault(test)


def test_housekeeping_that_fails_holds_up_no_delivery() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="x", delay="1h")
        await asyncio.sleep(1)
        with fails(Bulks, "sweep", lambda *_: True):
            engine.request(None, None, action="cancel", match_destination="*")
            engine.request(destination="orders", delay="5s")
            await asyncio.sleep(10)
        assert len(engine.read("orders")) == 1
        assert errors(engine) == ["internal-error"]

    in_fault(test)


# -- what is not the record's fault ------------------------------------------------------------


def test_a_bad_release_ends_the_worker_before_it_empties_the_topic() -> None:
    async def test(engine: Engine) -> None:
        engine.may_fail = True
        with fails(Intake, "_schedule", lambda *_: True):
            for _ in range(1_000):
                engine.request(destination="orders", delay="0")
            with pytest.raises(TooManyInternalErrors):
                await engine.lives[0]
        assert errors(engine) == ["internal-error"] * 5
        engine.start()
        await asyncio.sleep(5)
        assert len(engine.read("orders")) == 995, "the release after it delivers the rest"

    in_virtual_time(test)


def test_a_fault_now_and_then_ends_nothing() -> None:
    async def test(engine: Engine) -> None:
        with fails(Intake, "_schedule", lambda _, step, request: request.value == POISON):
            for _ in range(20):
                engine.request(POISON, destination="orders", delay="0")
                engine.request(destination="orders", delay="0")
                await asyncio.sleep(15)
        assert len(engine.read("orders")) == 20
        assert errors(engine) == ["internal-error"] * 20

    in_fault(test)


@pytest.mark.parametrize("fault", [MemoryError, OSError])
def test_what_the_system_fails_at_is_never_the_records_fault(fault: type[Exception]) -> None:
    async def test(engine: Engine) -> None:
        with fails(Intake, "_schedule", lambda *_: True, times=1, fault=fault):
            engine.request(destination="orders", delay="0")
            await asyncio.sleep(1)
            if fault is MemoryError:
                with pytest.raises(MemoryError):
                    await engine.lives[0]
                engine.start()
            await asyncio.sleep(60)
        engine.may_fail = True
        if fault is OSError:
            assert errors(engine) == []
            assert len(engine.read("orders")) == 1

    in_virtual_time(test)


def test_a_stale_owner_gives_nothing_up_whatever_its_state_makes_it_fail_on() -> None:
    """Another worker has the partition by now, and what is here may be a part of one of its steps."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1h")
        await asyncio.sleep(1)
        with fails(Intake, "_schedule", lambda *_: True):
            engine.log.init_producer("delaystream-0")
            engine.request(destination="orders", delay="0")
            await asyncio.sleep(0.05)
        await asyncio.sleep(5)
        assert errors(engine) == []
        assert len(engine.read("orders")) == 1

    in_fault(test)


def test_what_concerns_the_partition_is_tried_again_and_ends_the_worker_only_if_it_lasts() -> None:
    async def test(engine: Engine) -> None:
        with fails(PartitionState, "seal", lambda _, step, *rest: not step.empty, times=3) as failed:
            engine.request(destination="orders", delay="0")
            await asyncio.sleep(10)
        assert failed[0] == 3
        assert len(engine.read("orders")) == 1
        with fails(PartitionState, "seal", lambda _, step, *rest: not step.empty):
            engine.request(destination="orders", delay="0")
            with pytest.raises(Fault):
                await engine.lives[0]
        engine.start()
        await asyncio.sleep(1)
        assert len(engine.read("orders")) == 2
        assert errors(engine) == []

    in_fault(test, failure_timeout_ms=60_000)
