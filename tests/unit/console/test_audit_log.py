"""Who did what is in the audit log: what was changed, what was refused, and within bounds."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import text

from delaystream.console.access.caller import Kind, Who
from delaystream.console.audit.acts import DONE, REFUSED, Act, Entry, EntryFilter, Outcome
from delaystream.console.audit.log import AuditLog, Bounds, verified
from delaystream.console.history.database import Database, DatabaseError
from tests.unit.console.test_writing_access import CRON, WRITES, by, entrance
from tests.unit.console.writable import World, in_world

ANY = EntryFilter()
OPS = Who(name="ops", kind=Kind.TOKEN, subject="ops", address="10.0.0.1")
CANCEL = Act(who=OPS, action="cancel", request_topic="one", about="report", note="why not")


class Clock:
    """A time that tests move."""

    def __init__(self) -> None:
        self.at_ms = 1_000_000
        self.at_s = 0.0

    def now_ms(self) -> int:
        return self.at_ms

    def now_s(self) -> float:
        return self.at_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def database(tmp_path: Path) -> Any:
    opened = Database.open(f"sqlite:///{tmp_path / 'history.db'}")
    yield opened
    opened.close()


def entries(world: World) -> Sequence[Entry]:
    assert world.console.audit is not None
    return world.console.audit.page(ANY, 1_000)


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_what_is_changed_is_recorded_once_with_who_and_where(
    method: str, path: str, body: Any, tmp_path: Path
) -> None:
    async def story(world: World) -> None:
        await world.ask.put("/v1/schedules/report?request_topic=one", json=CRON, headers=by("boss"))
        await world.ask.post(
            "/v1/schedules?request_topic=one", json={**CRON, "id": "other"}, headers=by("boss")
        )
        before = entries(world)
        written = len(world.sent("one"))
        answer = await world.ask.request(method, path, json=body, headers=by("boss"))
        added = entries(world)[: len(entries(world)) - len(before)]
        if path.startswith("/v1/requests/check"):
            assert answer.status_code == 200
            assert added == [], "it changes nothing"
            return
        if answer.status_code >= 400 and len(world.sent("one")) == written:
            # There is no request without an id at these coordinates, or it was refused before it was sent.
            assert [one.outcome.word for one in added] == [REFUSED], answer.text
            return
        (one,) = added
        records = world.sent("one")
        assert len(records) == written + 1
        assert (one.act.who.name, one.act.who.kind) == ("boss", Kind.TOKEN)
        assert one.act.who.address == "127.0.0.1"
        assert one.act.request_topic == "one"
        assert one.outcome.word not in {"begun", "sent", DONE}, one
        found = await world.console.writing.find(one.act.request_id or "")  # type: ignore[union-attr]
        assert found is not None
        assert one.outcome.source == found.source

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


@pytest.mark.parametrize(("method", "path", "body"), WRITES)
def test_what_is_refused_is_recorded_with_its_code(method: str, path: str, body: Any, tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.ask.put("/v1/schedules/report?request_topic=one", json=CRON, headers=by("boss"))
        before = len(entries(world))
        assert (await world.ask.request(method, path, json=body, headers=by("guest"))).status_code == 403
        assert (await world.ask.request(method, path, json=body)).status_code in {401, 415}
        nobody, guest = entries(world)[: len(entries(world)) - before]
        assert (guest.act.who.name, guest.outcome) == ("guest", Outcome(REFUSED, "role-too-low"))
        assert guest.act.action == f"{method} {path.partition('?')[0]}"
        assert guest.act.request_topic == "one"
        assert (nobody.act.who.kind, nobody.outcome.code) == (Kind.UNKNOWN, "unauthenticated")

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


def test_a_repeated_request_is_recorded_each_time(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        key = {**by("boss"), "Idempotency-Key": "k"}
        path = "/v1/schedules?request_topic=one"
        for _ in range(2):
            assert (await world.ask.post(path, json=CRON, headers=key)).status_code in {200, 201}
        other = await world.ask.post(path, json={**CRON, "value": "x"}, headers=key)
        assert other.status_code == 422
        reused, repeated, first = entries(world)
        assert repeated.outcome == first.outcome
        assert repeated.act.request_id == first.act.request_id
        assert reused.outcome == Outcome(REFUSED, "idempotency-key-reused")

    in_world(tmp_path, story, topics=("one",), entrance=entrance(tmp_path))


def test_nothing_is_sent_that_is_not_recorded(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        database = world.console.audit.database  # type: ignore[union-attr]
        with database.writing() as connection:
            connection.execute(text("ALTER TABLE audit RENAME TO gone"))
        answer = await world.ask.put("/v1/schedules/report", json=CRON)
        assert (answer.status_code, answer.json()["code"]) == (503, "history-unavailable")
        assert world.sent() == []
        # A refusal stays one.
        refused = await world.ask.put("/v1/schedules/report", json={"cron": 1})
        assert refused.status_code == 400

    in_world(tmp_path, story)


def test_an_entry_is_found_by_each_filter(database: Database, clock: Clock) -> None:
    log = AuditLog(database, clock.now_ms)
    log.record(CANCEL, Outcome("cancelled", None, "one/0/7"))
    clock.at_ms += 10
    jobs = Who(name="jobs", kind=Kind.TOKEN, subject="jobs")
    log.record(
        Act(who=jobs, action="pause", request_topic="two", about="other", request_id="r"),
        Outcome("rejected", "too-late", "two/0/8"),
    )
    for wanted in (
        EntryFilter(name="ops"),
        EntryFilter(action="cancel"),
        EntryFilter(request_topics=("one", "three")),
        EntryFilter(about="report"),
        EntryFilter(outcome="cancelled"),
        EntryFilter(source="one/0/7"),
        EntryFilter(to_ms=1_000_010),
    ):
        (found,) = log.page(wanted, 10)
        assert found.act == CANCEL
    for wanted in (EntryFilter(code="too-late"), EntryFilter(request_id="r"), EntryFilter(from_ms=1_000_010)):
        (found,) = log.page(wanted, 10)
        assert found.act.who == jobs
    last = log.page(ANY, 1)
    (first,) = log.page(ANY, 1, before=last[0].number)
    assert first.act == CANCEL
    assert log.kept_since_ms() == 1_000_000


def test_what_came_of_it_is_recorded_with_what_it_changed_or_not_at_all(
    database: Database, clock: Clock
) -> None:
    log = AuditLog(database, clock.now_ms)

    def fails() -> None:
        with database.writing() as connection:
            log.note(connection, CANCEL, Outcome(DONE))
            connection.execute(text("INSERT INTO nowhere VALUES (1)"))

    with pytest.raises(DatabaseError):
        fails()
    assert log.page(ANY, 10) == []


def test_texts_that_no_database_takes_are_recorded(database: Database, clock: Clock) -> None:
    log = AuditLog(database, clock.now_ms)
    act = Act(who=OPS, action="DELETE /\udc2f\0" + "x" * 10_000, about="\0", note="<script>\ud800")
    log.record(act, Outcome(REFUSED, "unknown"))
    (found,) = log.page(ANY, 10)
    assert found.act.action.startswith("DELETE /?\ufffdx")
    assert len(found.act.action) == 512
    assert found.act.note == "<script>?"


def test_refusals_are_bounded_by_who_and_by_number_and_others_are_not(
    database: Database, clock: Clock
) -> None:
    bounds = Bounds(refused_most=4, refused_per_minute=2, refused_per_minute_of_all=3, kept_ms=1_000)
    log = AuditLog(database, clock.now_ms, bounds, clock.now_s)
    guest = Who(name="guest", kind=Kind.TOKEN, subject="guest")
    strangers = [Who(name="stranger", kind=Kind.UNKNOWN, address=f"2001:db8::{n}") for n in range(3)]
    for who in (guest, guest, guest, *strangers):
        log.record(Act(who=who, action="DELETE /x"), Outcome(REFUSED, "role-too-low"))
    kept = [one.act.who.name for one in log.page(ANY, 100)]
    assert kept == ["stranger", "guest", "guest"], "a network is one stranger, and all together are bounded"
    assert log.left_out == 3
    for _ in range(5):
        log.record(CANCEL, Outcome("cancelled"))
        clock.at_s += 60
        log.record(Act(who=guest, action="DELETE /x"), Outcome(REFUSED, "role-too-low"))
    assert log.forget() == 4
    words = [one.outcome.word for one in log.page(ANY, 100)]
    assert (words.count(REFUSED), words.count("cancelled")) == (4, 5)
    clock.at_ms += 1_001
    assert log.forget() == 9
    assert log.forget() == 0
    assert log.page(ANY, 100) == []
    log.record(CANCEL, Outcome("cancelled"))
    (last,) = log.page(ANY, 100)
    assert last.number > 12, "no number is given twice"


def test_an_actor_is_verified_by_source_and_name_alone(database: Database, clock: Clock) -> None:
    log = AuditLog(database, clock.now_ms)
    log.record(CANCEL, Outcome("cancelled", None, "one/0/7"))
    anybody = Who(name="anonymous", kind=Kind.ANONYMOUS, subject="anonymous")
    log.record(Act(who=anybody, action="cancel"), Outcome("cancelled", None, "one/0/9"))
    told = [("one/0/7", "ops"), ("one/0/7", "boss"), ("one/0/8", "ops"), ("one/0/9", "console")]
    with database.reading() as connection:
        assert verified(connection, told) == {("one/0/7", "ops")}
        assert verified(connection, []) == frozenset()


def test_whoever_goes_away_before_the_answer_is_recorded(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async def gone(_: Any) -> None:
            raise ConnectionResetError

        async def receive() -> Any:
            return {"type": "http.request", "body": b"", "more_body": False}

        scope = {
            "type": "http",
            "method": "DELETE",
            "path": "/v1/schedules/a/b",
            "raw_path": b"/v1/schedules/a%2fb",
            "query_string": b"",
            "headers": [(b"host", b"127.0.0.1:8643")],
            "client": ("10.1.1.1", 7),
        }
        with pytest.raises(ConnectionResetError):
            await world.app(scope, receive, gone)
        (one,) = entries(world)
        assert (one.act.action, one.act.who.address) == ("DELETE /v1/schedules/a%2fb", "10.1.1.1")

    in_world(tmp_path, story, entrance=entrance(tmp_path))


def test_two_at_once_have_entries_of_their_own(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await asyncio.gather(
            *(
                world.ask.put(f"/v1/schedules/{n}?request_topic=one", json=CRON, headers=by("boss"))
                for n in range(5)
            ),
            *(
                world.ask.delete(f"/v1/schedules/{n}?request_topic=one", headers=by("guest"))
                for n in range(5)
            ),
        )
        found = entries(world)
        assert sorted(one.act.about or "" for one in found if one.act.who.name == "boss") == list("01234")
        assert sorted(one.act.about or "" for one in found if one.act.who.name == "guest") == list("01234")

    in_world(tmp_path, story, topics=("one",), entrance=entrance(tmp_path))
