"""Operations on many: what is frozen is changed, at a bounded rate; and what a cancel took, comes back."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delaystream.console.audit.log import AuditLog
from delaystream.console.history.database import Database
from delaystream.console.operations.ledger import LEASE_MS, OperationLedger
from delaystream.console.operations.operation import Action, Frozen, Operation, Stage
from tests.unit.console.writable import World, in_world

CRON = {"destination": "invoices", "cron": "0 9 * * *", "value": "now"}
OPERATIONS = "/v1/operations"


async def created(world: World, id: str, **said: Any) -> None:
    answer = await world.ask.put(f"/v1/schedules/{id}", json={**CRON, **said})
    assert answer.status_code == 201, answer.text


async def dry_run(world: World, **asked: Any) -> dict[str, Any]:
    answer = await world.ask.post(OPERATIONS, json=asked)
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = answer.json()
    assert answer.headers["location"] == f"{OPERATIONS}/{body['id']}"
    return body


async def ended(world: World, id: str, stage: str = "done") -> dict[str, Any]:
    async with asyncio.timeout(60):
        while True:
            body: dict[str, Any] = (await world.ask.get(f"{OPERATIONS}/{id}")).json()
            if body["stage"] == stage and not body["progress"]["underway"]:
                return body
            await asyncio.sleep(0.01)


async def until(condition: Callable[[], bool]) -> None:
    async with asyncio.timeout(60):
        while True:
            if condition():
                return
            await asyncio.sleep(0.01)


async def started(world: World, id: str, **said: Any) -> dict[str, Any]:
    answer = await world.ask.post(f"{OPERATIONS}/{id}/start", json=said)
    assert answer.status_code == 200, answer.text
    return await ended(world, id)


async def undone(world: World, id: str) -> dict[str, Any]:
    answer = await world.ask.post(f"{OPERATIONS}/{id}/undo", json={})
    assert answer.status_code == 201, answer.text
    body: dict[str, Any] = await ended(world, answer.json()["id"])
    return body


async def read(world: World, id: str) -> dict[str, Any]:
    body: dict[str, Any] = (await world.ask.get(f"/v1/schedules/{id}?payload=true")).json()
    return body


def test_a_dry_run_tells_what_would_be_changed_and_sends_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(12):
            await created(world, f"a-{number}", key=f"customer-{number % 2}")
        await created(world, "b", destination="reports", status="paused")
        before = len(world.sent())
        found = await dry_run(world, action="cancel", filter={"key": "customer-1"}, note="closed")
        assert (found["stage"], found["count"], found["topics"]) == ("dry-run", 6, {"delay-requests": 6})
        assert {one["id"] for one in found["samples"]} == {f"a-{number}" for number in range(1, 12, 2)}
        assert found["progress"] == {
            "done": 0, "changed": 0, "unchanged": 0, "failed": 0, "left": 6, "waiting": 6, "underway": 0,
            "reasons": {},
        }  # fmt: skip
        assert (await dry_run(world, action="pause", filter={}))["count"] == 12
        assert (await dry_run(world, action="resume", filter={}))["count"] == 1
        assert (await dry_run(world, action="cancel", filter={"q": "b"}))["samples"][0]["id"] == "b"
        assert len(world.sent()) == before

    in_world(tmp_path, story)


def test_what_is_frozen_is_changed_and_nothing_else(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(6):
            await created(world, f"a-{number}")
        found = await dry_run(world, action="cancel", filter={"id_prefix": "a-"}, note="no more")
        await created(world, "a-6")
        await world.ask.patch("/v1/schedules/a-2", json={"name": "New"})
        await world.ask.delete("/v1/schedules/a-3")
        done = await started(world, found["id"])
        assert done["progress"] | {"reasons": None} == {
            "done": 6, "changed": 4, "unchanged": 0, "failed": 2, "left": 0, "waiting": 0, "underway": 0,
            "reasons": None,
        }  # fmt: skip
        assert done["progress"]["reasons"] == {"version-changed": 2}
        failures = (await world.ask.get(f"{OPERATIONS}/{found['id']}/failures")).json()["items"]
        assert [(one["id"], one["code"]) for one in failures] == [
            ("a-2", "version-changed"), ("a-3", "version-changed"),
        ]  # fmt: skip
        assert "has version" in failures[0]["detail"]
        for id, status in (("a-0", "cancelled"), ("a-2", "pending"), ("a-6", "pending")):
            assert (await read(world, id))["status"] == status
        gone = await read(world, "a-0")
        assert (gone["note"], gone["updated_by"]) == ("no more", "console")
        # Whoever starts it again is told that it is done.
        again = await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={})
        assert (again.status_code, again.json()["code"]) == (409, "done")

    in_world(tmp_path, story)


def test_an_undo_brings_back_what_was_there(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        payload = {"key_base64": "/w==", "value_base64": "AAE=", "headers": [["a", "1"], ["null", None]]}
        del_value = {"value": None}
        rows: dict[str, dict[str, Any]] = {
            "cron": {
                "timezone": "Europe/Berlin", "dst_gap": "skip", "max_fires": 5, "jitter": "5s",
                "name": "Name", "end": "2031-01-01T00:00:00Z",
                "catch_up": "all", "grace": "1h", "tags": ["x", "y"],
                "description": "Words.", "note": "why", "declared_by": "billing", "deploy": 7,
            },
            "grid": {"cron": None, "every": "7m", "status": "paused"},
            "list": {"cron": None, "at": ["2030-02-01T00:00:00Z", "2030-03-01T00:00:00Z"], "on_late": "drop",
                     "grace": "1m", "destination_partition": 0, "destination_key": "k"},
            "until": {},
        }  # fmt: skip
        for id, said in rows.items():
            body = {name: value for name, value in {**CRON, **payload, **said}.items() if name != "value"}
            answer = await world.ask.put(f"/v1/schedules/{id}", json=body)
            assert answer.status_code == 201, answer.text
        await created(world, "tombstone", **del_value)
        big = "x" * 5_000
        await created(world, "big", value=big)
        until = {"until": "2030-01-05T00:00:00Z", "note": "a break"}
        await world.ask.post("/v1/schedules/until/pause", json=until)
        ids = [*rows, "tombstone", "big"]
        before = {id: await read(world, id) for id in ids}
        found = await dry_run(world, action="cancel", filter={})
        assert (await started(world, found["id"]))["progress"]["changed"] == len(ids)
        assert {(await read(world, id))["status"] for id in ids} == {"cancelled"}
        undo = await undone(world, found["id"])
        assert undo["progress"]["changed"] == len(ids), undo
        assert (undo["action"], undo["undo_of"], undo["count"]) == ("undo", found["id"], len(ids))
        for id in ids:
            after = await read(world, id)
            for name in (
                "status",
                "definition",
                "payload",
                "note",
                "until",
                "declared_by",
                "deploy",
                # Without jitter, which follows from the id of a fire.
                "upcoming",
            ):
                assert after[name] == before[id][name], (id, name)
        # It is done once: asked for again, it is the same one.
        again = await world.ask.post(f"{OPERATIONS}/{found['id']}/undo", json={})
        assert again.json()["id"] == undo["id"]
        assert (await world.ask.get(f"{OPERATIONS}/{found['id']}")).json()["undone_by"] == undo["id"]

    in_world(tmp_path, story)


def test_an_undo_does_not_repeat_what_fired(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.worker.log.create_topic("invoices", 1)
        await created(world, "counted", cron=None, every="1m", max_fires=5)
        await created(world, "twice", cron=None, at=["2030-01-01T00:05:00Z", "2030-01-02T00:00:00Z"])
        found = await dry_run(world, action="cancel", filter={})
        # A fire changes no version: what is left is told by the schedule when it is cancelled.
        world.advance(330)
        await world.caught_up()
        assert (await started(world, found["id"]))["progress"]["changed"] == 1
        # Its last fire has come.
        assert (await read(world, "counted"))["status"] == "completed"
        assert (await undone(world, found["id"]))["progress"]["changed"] == 1
        assert (await read(world, "twice"))["definition"]["at"] == ["2030-01-02T00:00:00.000Z"]
        world.advance(2 * 86_400)
        due = [record.headers for record in world.sent("invoices")]
        assert len(due) == 5 + 2

    in_world(tmp_path, story)


def test_an_undo_keeps_what_is_there_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for id in ("again", "again-and-gone", "left"):
            await created(world, id)
        found = await dry_run(world, action="cancel", filter={})
        await started(world, found["id"])
        for id in ("again", "again-and-gone"):
            await created(world, id, destination="elsewhere")
        await world.ask.delete("/v1/schedules/again-and-gone")
        undo = await undone(world, found["id"])
        assert undo["progress"]["changed"] == 1
        assert undo["progress"]["reasons"] == {"version-changed": 2}
        assert (await read(world, "again"))["definition"]["destination"] == "elsewhere"
        assert (await read(world, "again-and-gone"))["status"] == "cancelled"
        assert (await read(world, "left"))["status"] == "pending"

    in_world(tmp_path, story)


def test_an_undo_is_over_after_ten_minutes_and_then_nothing_is_kept(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await created(world, "a")
        found = await dry_run(world, action="cancel", filter={})
        early = await world.ask.post(f"{OPERATIONS}/{found['id']}/undo", json={})
        assert (early.status_code, early.json()["code"]) == (409, "not-ended")
        done = await started(world, found["id"])
        assert done["undo_until"] is not None
        world.advance(601)
        late = await world.ask.post(f"{OPERATIONS}/{found['id']}/undo", json={})
        assert (late.status_code, late.json()["code"]) == (409, "undo-over")
        assert (await world.ask.get(f"{OPERATIONS}/{found['id']}")).json()["undo_until"] is None
        ledger = world.console.operations._ledger  # type: ignore[union-attr]
        ledger.forget(world.worker.now_ms())
        with ledger._database.reading() as connection:
            kept = connection.exec_driver_sql("SELECT kept FROM operation_items").scalars().all()
        assert kept == [None]
        paused = await dry_run(world, action="pause", filter={})
        refused = await world.ask.post(f"{OPERATIONS}/{paused['id']}/undo", json={})
        assert refused.json()["code"] == "not-undoable"

    in_world(tmp_path, story)


def test_a_resume_tells_what_goes_out_at_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        world.worker.log.create_topic("invoices", 1)
        await created(world, "late", cron=None, at=["2030-01-01T00:01:00Z", "2030-01-01T00:02:00Z"])
        await created(world, "each", cron=None, every="1m", catch_up="all")
        await created(world, "latest", cron=None, every="1m")
        await created(world, "ahead", cron=None, at="2030-01-09T00:00:00Z")
        pause = await dry_run(world, action="pause", filter={}, until="2030-01-08T00:00:00Z")
        assert (await started(world, pause["id"]))["progress"]["changed"] == 4
        assert (await read(world, "late"))["until"] == "2030-01-08T00:00:00.000Z"
        world.advance(600)
        assert (await dry_run(world, action="resume", filter={}))["fires_at_once"] == 2 + 10 + 1
        none = await dry_run(world, action="resume", filter={}, catch_up="latest", grace="3m")
        assert none["fires_at_once"] == 2 + 1 + 1
        done = await started(world, none["id"])
        assert done["progress"]["changed"] == 4
        world.advance(1)
        assert len(world.sent("invoices")) == 4

    in_world(tmp_path, story)


def without_ids(world: World) -> None:
    """Four requests, each for two times."""
    world.worker.log.create_topic("invoices", 1)
    for number in range(4):
        headers = [
            ("delaystream-destination", b"invoices"),
            ("delaystream-delay", b"1h,2h"),
            ("kind", b"reminder"),
        ]
        row = (b"customer", b"%d" % number, headers, world.worker.now_ms())
        world.worker.append("delay-requests", number % 2, row)
    world.advance(1)


def test_what_has_no_id_is_cancelled_and_comes_back_with_one(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        without_ids(world)
        await created(world, "named", key="customer", cron=None, delay="1h")
        await world.caught_up()
        assert (await dry_run(world, action="cancel", filter={"key": "customer"}))["count"] == 1
        found = await dry_run(world, action="cancel", filter={"key": "customer", "unnamed": True})
        assert found["count"] == 5
        assert (await started(world, found["id"]))["progress"]["changed"] == 5
        assert (await world.ask.get("/v1/pending")).json()["items"] == []
        undo = await undone(world, found["id"])
        assert undo["progress"]["changed"] == 5, undo
        ids = {one["id"] for one in (await world.ask.get("/v1/pending")).json()["items"]}
        assert ids == {"named", *(f"restored/delay-requests/{n % 2}/{n // 2}" for n in range(4))}
        world.advance(3 * 3600)
        sent = world.sent("invoices")
        assert len(sent) == 9
        assert sum(("kind", b"reminder") in list(record.headers) for record in sent) == 8

    in_world(tmp_path, story)


def test_it_can_be_stopped_and_goes_on(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(40):
            await created(world, f"a-{number}")
        found = await dry_run(world, action="cancel", filter={})
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={"rate": 20})
        await until(lambda: len(world.sent()) > 43)
        stopped = await world.ask.post(f"{OPERATIONS}/{found['id']}/stop", json={})
        assert stopped.json()["stage"] == "stopped"
        body = await ended(world, found["id"], "stopped")
        await asyncio.sleep(0.3)
        body = (await world.ask.get(f"{OPERATIONS}/{found['id']}")).json()
        assert 3 <= body["progress"]["changed"] < 40, body
        assert body["progress"]["left"] == 40 - body["progress"]["changed"]
        assert body["problem"] == "console stopped it."
        done = await started(world, found["id"], rate=1000)
        assert done["progress"]["changed"] == 40
        assert sum("action" in str(record.headers) for record in world.sent()) == 40

    in_world(tmp_path, story)


@pytest.mark.parametrize(
    ("asked", "code"),
    [
        ({"action": "cancel"}, "invalid-filter"),
        ({"action": "cancel", "filter": {}, "schedules": []}, "invalid-filter"),
        ({"action": "delete", "filter": {}}, "invalid-parameter"),
        ({"action": "cancel", "filter": {"statuses": []}}, "invalid-parameter"),
        ({"action": "cancel", "filter": {}, "until": "2031-01-01T00:00:00Z"}, "not-applicable"),
        ({"action": "pause", "filter": {}, "until": "soon"}, "invalid-until"),
        ({"action": "resume", "filter": {}, "catch_up": "some"}, "invalid-catch-up"),
        ({"action": "resume", "filter": {}, "grace": "long"}, "invalid-grace"),
        ({"action": "pause", "filter": {"unnamed": True}}, "not-applicable"),
        ({"action": "cancel", "filter": {"unnamed": True, "q": "x"}}, "not-applicable"),
        ({"action": "cancel", "filter": {"next_from": "soon"}}, "invalid-at"),
        ({"action": "cancel", "filter": {"key": "a", "key_base64": "YQ=="}}, "invalid-key"),
        ({"action": "cancel", "filter": {"request_topic": "none"}}, "unknown-request-topic"),
        ({"action": "cancel", "schedules": [{}]}, "invalid-schedules"),
        ({"action": "cancel", "schedules": [{"source": "x"}]}, "invalid-coordinates"),
        ({"action": "pause", "schedules": [{"source": "delay-requests/0/1"}]}, "not-applicable"),
        ({"action": "cancel", "filter": {}, "note": "x" * 2000}, "invalid-note"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_frozen(
    asked: dict[str, Any], code: str, tmp_path: Path
) -> None:
    async def story(world: World) -> None:
        answer = await world.ask.post(OPERATIONS, json=asked)
        assert (answer.status_code // 100, answer.json()["code"]) == (4, code), answer.text
        assert (await world.ask.get(OPERATIONS)).json()["items"] == []

    in_world(tmp_path, story)


def test_a_list_of_ids_says_what_of_it_there_is(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await created(world, "a")
        await created(world, "paused", status="paused")
        subjects = [{"id": id} for id in ("a", "a", "paused", "none")]
        found = await dry_run(world, action="pause", schedules=subjects)
        assert (found["count"], found["unknown"], found["unknown_first"], found["passed_over"]) == (
            1, 1, ["none"], 1,
        )  # fmt: skip
        assert found["filter"] is None

    in_world(tmp_path, story)


def test_bounds(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(4):
            await created(world, f"a-{number}")
        many = await world.ask.post(OPERATIONS, json={"action": "cancel", "filter": {}})
        assert (many.status_code, many.json()["code"]) == (400, "too-many-matches")
        assert "3" in many.json()["detail"]
        found = await dry_run(world, action="cancel", schedules=[{"id": "a-1"}])
        fast = await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={"rate": 51})
        assert (fast.status_code, fast.json()["code"]) == (400, "invalid-rate")
        for _ in range(19):
            await dry_run(world, action="cancel", schedules=[{"id": "a-1"}])
        more = await world.ask.post(OPERATIONS, json={"action": "cancel", "filter": {"id_prefix": "a-1"}})
        assert (more.status_code, more.json()["code"]) == (429, "too-many-operations")
        world.advance(16 * 60)
        late = await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={})
        assert (late.status_code, late.json()["code"]) == (409, "expired")
        assert (await world.ask.get(f"{OPERATIONS}/{found['id']}")).json()["stage"] == "expired"
        # Those that are too old do not count.
        assert (await dry_run(world, action="cancel", schedules=[{"id": "a-1"}]))["count"] == 1

    in_world(tmp_path, story, console_operation_items=3, console_operation_max_rate=50)


def test_another_console_goes_on_where_one_has_ended(tmp_path: Path) -> None:
    """What was sent, and not noted, is sent again by its name; nothing is done twice."""

    async def story(world: World) -> None:
        world.worker.log.create_topic("invoices", 1)
        for number in range(10):
            await created(world, f"a-{number}")
        found = await dry_run(world, action="trigger", filter={})
        operations = world.console.operations
        assert operations is not None
        ledger = operations._ledger
        decided = ledger.decided

        def lost(id: str, outcomes: Any) -> None:
            raise asyncio.CancelledError

        ledger.decided = lost  # type: ignore[method-assign]
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={"rate": 1000})
        # Whoever looks after it sends some again, as often as the outcomes are lost.
        await until(lambda: len(world.sent()) >= 20)
        await operations.close()
        body = (await world.ask.get(f"{OPERATIONS}/{found['id']}")).json()
        assert (body["stage"], body["progress"]["changed"]) == ("running", 0)
        ledger.decided = decided  # type: ignore[method-assign]
        operations._wake.set()
        done = await ended(world, found["id"])
        assert done["progress"]["changed"] == 10
        # Of none of them an outcome was known: each was sent again.
        assert len(world.sent()) >= 30
        world.advance(1)
        assert len(world.sent("invoices")) == 10
        for number in range(10):
            assert (await read(world, f"a-{number}"))["fired"] == 1

    in_world(tmp_path, story)


@pytest.mark.parametrize("passed_s", [0, 3600, 2 * 3600], ids=["at-once", "after-one-time", "after-all"])
def test_a_cancel_without_a_name_that_was_sent_before_is_known_by_what_is_ahead(
    tmp_path: Path, passed_s: int
) -> None:
    """Its first answer was lost with a console; the second one is that there is nothing to cancel."""

    async def story(world: World) -> None:
        without_ids(world)
        await world.caught_up()
        found = await dry_run(world, action="cancel", filter={"key": "customer", "unnamed": True})
        operations = world.console.operations
        assert operations is not None
        ledger = operations._ledger
        decided = ledger.decided

        def lost(id: str, outcomes: Any) -> None:
            raise asyncio.CancelledError

        ledger.decided = lost  # type: ignore[method-assign]
        await world.ask.post(f"{OPERATIONS}/{found['id']}/start", json={"rate": 1000})
        await until(lambda: len(world.sent()) >= 12)
        await operations.close()
        world.advance(passed_s)
        ledger.decided = decided  # type: ignore[method-assign]
        operations._wake.set()
        done = await ended(world, found["id"])
        if passed_s == 2 * 3600:
            # Nobody can tell any more whether it was cancelled or had fired.
            assert (done["progress"]["changed"], done["progress"]["failed"]) == (0, 4)
            return
        assert (done["progress"]["changed"], done["progress"]["failed"]) == (4, 0)
        assert (await undone(world, found["id"]))["progress"]["changed"] == 4
        world.advance(3 * 3600)
        times = 2 if not passed_s else 1
        assert len(world.sent("invoices")) == 4 * times

    in_world(tmp_path, story)


def test_one_console_of_several_carries_it_out(tmp_path: Path) -> None:
    """By a lease, which another one takes over once it is not renewed."""
    database = Database.open(f"sqlite:///{tmp_path / 'one.db'}")
    database.is_sqlite = False
    ledger = OperationLedger(database, AuditLog(database, lambda: 0))
    operation = Operation(
        id="o", frozen=Frozen(action=Action.PAUSE), stage=Stage.RUNNING, made_ms=1, made_by="a"
    )
    ledger.begin(operation)
    assert ledger.running() == ["o"]
    assert ledger.take("o", "first", 1_000)
    assert not ledger.take("o", "second", 1_000 + LEASE_MS)
    assert ledger.take("o", "first", 1_000 + LEASE_MS)
    assert ledger.take("o", "second", 1_001 + 2 * LEASE_MS)
    assert not ledger.take("o", "first", 1_001 + 2 * LEASE_MS)
    ledger.leave("o", "second")
    assert ledger.take("o", "first", 1_001 + 2 * LEASE_MS)
    database.close()


def test_a_read_only_console_starts_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        found = await world.ask.post(OPERATIONS, json={"action": "cancel", "filter": {}})
        started = await world.ask.post(f"{OPERATIONS}/{found.json()['id']}/start", json={})
        assert (started.status_code, started.json()["code"]) == (403, "read-only")

    in_world(tmp_path, story, console_writes=False)


def test_the_list_and_its_pages(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await created(world, "a")
        ids = []
        for number in range(5):
            ids.append((await dry_run(world, action="cancel", filter={"id_prefix": f"{number}"}))["id"])
            world.advance(1)
        seen: list[str] = []
        cursor = ""
        while cursor is not None:
            page = (await world.ask.get(f"{OPERATIONS}?limit=2{cursor and '&cursor=' + cursor}")).json()
            seen += [one["id"] for one in page["items"]]
            cursor = page["next_cursor"]
        assert seen == ids[::-1]
        assert (await world.ask.get(f"{OPERATIONS}/none")).status_code == 404

    in_world(tmp_path, story)
