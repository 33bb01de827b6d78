"""What the model and the simulation have found, each as the shortest course of events that shows it."""

from __future__ import annotations

import asyncio
import json

from tests.unit.engine import Engine, header, in_virtual_time


def test_a_schedule_that_ends_with_a_triggered_fire_says_that_it_is_completed() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="last", every="10s", max_fires="1")
        await asyncio.sleep(1)
        await engine.stop()
        await asyncio.sleep(10)
        # Decided before its only scheduled fire goes out, and due after it.
        engine.request(id="last", action="trigger")
        engine.start()
        await asyncio.sleep(1)
        told = [json.loads(record.value or b"") for record in engine.read("delay-events")]
        assert [event["type"] for event in told] == ["scheduled", "triggered", "fired", "fired", "completed"]
        assert told[-1]["status"] == "completed"

    in_virtual_time(test)


def test_the_dead_letter_of_a_triggered_fire_names_the_request_whose_bytes_it_holds() -> None:
    async def test(engine: Engine) -> None:
        del engine.log.topics["orders"]
        asked = engine.request(b"bytes", destination="orders", id="job", delay="1h")
        engine.request(id="job", action="trigger")
        await asyncio.sleep(60)
        (letter,) = engine.read("delay-dead-letters")
        assert letter.value == b"bytes"
        assert header(letter, "error-offset") == str(asked)

    in_virtual_time(test, destination_timeout_ms=1_000)
