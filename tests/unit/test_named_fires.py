"""Fires of named schedules that need little: what they leave is what the longer way leaves."""

from __future__ import annotations

import asyncio
from typing import Any

from msgspec.structs import asdict

from delaystream.codec.envelope import Schedule, decode_schedule
from delaystream.codec.keys import schedule_key
from delaystream.core.identity import named_fire_id
from tests.unit.engine import REQUESTS, Engine, in_virtual_time
from tests.unit.test_recurring import all_but_stopped, events


def _row(engine: Engine, id: str) -> Schedule:
    return decode_schedule(engine.stores.disks[0].values[schedule_key(REQUESTS, id)])


def _but(schedule: Schedule, *names: str) -> dict[str, Any]:
    return {name: value for name, value in asdict(schedule).items() if name not in names}


def test_the_last_fire_leaves_a_record_that_is_over() -> None:
    async def test(engine: Engine) -> None:
        now_ms = engine.clock.now_ms()
        last = now_ms + 20_000
        engine.request(key=b"k", id="one", destination="orders", at=str(last), actor="ada")
        engine.request(key=b"k", id="two", destination="orders", at=f"{now_ms + 10_000},{last}", actor="ada")
        await asyncio.sleep(15)
        before = _row(engine, "one")
        assert before.payload is not None
        await asyncio.sleep(15)
        one, two = _row(engine, "one"), _row(engine, "two")
        changed = ("status", "pending", "payload", "fire_count", "last_fire_id", "last_fired_ms", "history")
        assert _but(one, *changed, "forget_key") == _but(before, *changed, "forget_key")
        for row in (one, two):
            assert (row.status, row.pending, row.payload, row.over) == ("fired", [], None, True)
            assert row.last_fire_id == named_fire_id(
                REQUESTS, row.revision, int(row is two), last, row_id(row)
            )
            assert (row.last_fired_ms, row.forget_ms) == (last, last + engine.settings.id_retention_ms)
        assert (one.fire_count, two.fire_count) == (1, 2)
        assert [fire.due_ms for fire in one.history] == [last]
        assert [fire.due_ms for fire in two.history] == [now_ms + 10_000, last]

    def row_id(row: Schedule) -> str:
        return ("one", "two")[row.offset]

    in_virtual_time(test)


def test_what_a_resume_says_for_once_ends_with_the_last_fire() -> None:
    async def test(engine: Engine) -> None:
        engine.request(id="a", destination="orders", delay="10s")
        engine.request(None, None, id="a", action="pause")
        await asyncio.sleep(1)
        engine.request(None, None, id="a", action="resume", grace="1h")
        await asyncio.sleep(2)
        assert _row(engine, "a").once is not None
        await asyncio.sleep(20)
        row = _row(engine, "a")
        assert (row.status, row.once) == ("fired", None)

    in_virtual_time(test)


def test_a_payload_in_a_row_of_its_own_goes_with_the_last_fire() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"v" * 5_000, id="large", destination="orders", delay="10s")
        await asyncio.sleep(5)
        assert any(key[:1] == b"p" for key in engine.stores.disks[0].values)
        await asyncio.sleep(10)
        assert not any(key[:1] == b"p" for key in engine.stores.disks[0].values)
        assert _row(engine, "large").status == "fired"

    in_virtual_time(test)


def test_a_scheduled_time_that_comes_alone_leaves_what_it_leaves_with_an_account() -> None:
    async def test(engine: Engine) -> None:
        # A bound on fires takes the longer way.
        for id, control in (("short", {}), ("long", {"max-fires": "100"})):
            engine.request(key=b"k", id=id, destination="orders", every="10s", actor="ada", control=control)
        await asyncio.sleep(35)
        short, long = _row(engine, "short"), _row(engine, "long")
        own = ("offset", "revision", "version", "digest", "recurrence", "pending", "last_fire_id", "history")
        assert _but(short, *own) == _but(long, *own)
        assert (short.fire_count, short.run_count, len(short.pending)) == (3, 3, 1)
        assert [fire.due_ms for fire in short.history] == [fire.due_ms for fire in long.history]
        ids = {"schedule_id", "id", "source", "revision", "fire_id"}
        told = {
            id: [
                {name: value for name, value in event.items() if name not in ids}
                for event in events(engine, "fired")
                if event["id"] == id
            ]
            for id in ("short", "long")
        }
        assert len(told["short"]) == 3
        assert told["short"] == told["long"]

    in_virtual_time(test)


def test_events_tell_each_fact_under_its_own_name() -> None:
    """They are made in the order of the fields: one too many or too few, and all behind it are another's."""

    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        due_ms = began_ms + 60_000
        engine.request(
            key=b"k",
            id="a",
            destination="orders",
            at=str(due_ms),
            actor="ada",
            note="why",
            request_id="r1",
            declared_by="set",
            deploy="7",
        )
        await asyncio.sleep(1)
        engine.request(None, None, id="a", action="update", name="b", actor="bob")
        await all_but_stopped(engine, 100)
        row = _row(engine, "a")
        scheduled, updated, fired = events(engine)
        assert updated["type"] == "updated", updated.get("detail")
        common = {
            "schema_version": 2,
            "request_topic": REQUESTS,
            "schedule_id": "a",
            "id": "a",
            "key": "k",
            "created_at_ms": began_ms,
            "created_by": "ada",
        }
        assert scheduled == common | {
            "type": "scheduled",
            "at_ms": scheduled["at_ms"],
            "source": f"{REQUESTS}/0/0",
            "status": "pending",
            "revision": 1,
            "actor": "ada",
            "updated_at_ms": began_ms,
            "updated_by": "ada",
            "version": 1,
            "note": "why",
            "request_id": "r1",
            "declared_by": "set",
            "deploy": 7,
            "definition": {"destination": "orders", "due_at_ms": [due_ms]},
            "next_at_ms": due_ms,
        }
        assert fired["lateness_ms"] > 30_000
        assert fired == common | {
            "type": "fired",
            "at_ms": fired["fired_at_ms"],
            "source": f"{REQUESTS}/0/0",
            "status": "fired",
            "revision": row.revision,
            "updated_at_ms": began_ms + 1_000,
            "updated_by": "bob",
            "due_at_ms": due_ms,
            "fired_at_ms": due_ms + fired["lateness_ms"],
            "lateness_ms": fired["lateness_ms"],
            "fire_id": row.last_fire_id,
            "fire_count": 1,
            "destination": "orders",
            "destination_partition": 0,
        }

    in_virtual_time(test)
