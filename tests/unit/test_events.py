"""Lifecycle events: of every type, by the published schema, true, and enough to rebuild the list."""

from __future__ import annotations

import asyncio
import json
from base64 import b64encode
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from msgspec.structs import fields, replace

from delaystream.codec.envelope import LIVE, Past, Schedule, Status, decode_schedule
from delaystream.codec.event import (
    EVENT_DESCRIPTIONS,
    SCHEMA_VERSION,
    Event,
    EventType,
    FiredEvent,
    encode_event,
    json_schema,
    next_at_ms,
)
from delaystream.codec.keys import split_schedule_key
from delaystream.core.instants import LATEST_MS
from delaystream.core.recurrence import Recurrence
from delaystream.core.request import Action
from delaystream.engine.output.events import _why_completed
from delaystream.engine.policy.tenants import TenantEvents
from delaystream.engine.ports import TopicPartition
from tests.unit.engine import Engine, in_virtual_time
from tests.unit.tenants import OTHER, other_request, tenant, tenants, with_tenants
from tests.unit.test_recurring import all_but_stopped, events

ROOT = Path(__file__).resolve().parents[2]
PUBLISHED = (ROOT / "docs" / "events.schema.json", ROOT / "delaystream" / "codec" / "event.schema.json")
_TYPES = {"string": str, "integer": int, "number": float, "array": list, "object": dict, "null": type(None)}


def invalid(value: Any, schema: dict[str, Any], root: dict[str, Any]) -> str | None:
    """Why a value is not valid by the part of JSON Schema that the published one uses; None when it is."""
    known = {
        "$ref",
        "$defs",
        "$schema",
        "title",
        "description",
        "default",
        "anyOf",
        "type",
        "enum",
        "minimum",
    }
    known |= {"properties", "required", "items", "const"}
    assert schema.keys() <= known, schema.keys() - known
    if "$ref" in schema:
        return invalid(value, root["$defs"][schema["$ref"].rsplit("/", 1)[1]], root)
    if "anyOf" in schema:
        reasons = [invalid(value, choice, root) for choice in schema["anyOf"]]
        return None if None in reasons else f"{value!r} is none of {reasons}"
    if "enum" in schema and value not in schema["enum"]:
        return f"{value!r} is not in {schema['enum']}"
    kind = schema.get("type")
    if kind is not None and (not isinstance(value, _TYPES[kind]) or isinstance(value, bool)):
        return f"{value!r} is not of type {kind}"
    if "minimum" in schema and value < schema["minimum"]:
        return f"{value!r} is less than {schema['minimum']}"
    if kind == "array":
        return next((why for item in value if (why := invalid(item, schema["items"], root))), None)
    if kind == "object":
        properties = schema["properties"]
        if missing := set(schema["required"]) - value.keys():
            return f"{missing} is missing"
        if unknown := value.keys() - properties.keys():
            return f"{unknown} is not in the schema"
        return next((why for name in value if (why := invalid(value[name], properties[name], root))), None)
    return None


async def everything_once(engine: Engine) -> None:
    """All that can happen to a schedule, at least once."""
    now_ms = engine.clock.now_ms()
    engine.request(destination="orders", id="one", delay="1s,2h", tags="t", name="n", actor="ada")
    engine.request(destination="orders", id="one", if_exists="keep", delay="1s")
    engine.request(destination="orders", id="one", delay="2s,3h", description="again")
    engine.request(
        destination="orders", id="cron", cron="*/5 * * * *", timezone="Europe/Berlin", jitter="30s"
    )
    engine.request(destination="orders", id="latest", every="10s")
    engine.request(destination="orders", id="short", every="1s", max_fires="2")
    engine.request(destination="orders", id="none", every="600s", catch_up="none")
    engine.request(destination="orders", id="paused", every="1h", grace="1d")
    engine.request(destination="orders", id="expired", at=str(now_ms - 60_000), grace="1s", on_late="drop")
    engine.request(destination="orders", at=str(now_ms - 60_000), grace="1s", on_late="drop")
    engine.request(destination="orders", id="moved", at=str(now_ms - 60_000), grace="1s", on_late="late")
    engine.request(destination="orders", at=str(now_ms - 60_000), grace="1s", on_late="late")
    engine.request(destination="orders", id="refused", delay="soon")
    engine.request(destination="tiny", id="impossible", delay="1s")
    engine.request(destination="orders", id="bulk-1", delay="5h")
    await asyncio.sleep(5)
    for action in ("pause", "pause", "trigger", "resume", "trigger"):
        engine.request(action=action, id="cron", actor="ada")
    engine.request(action="pause", id="paused")
    engine.request(action="reschedule", id="paused", every="2h")
    engine.request(action="cancel", id="nobody")
    engine.request(action="cancel", id="short")
    engine.request(action="cancel", match_id_prefix="bulk-")
    engine.request(action="rate", destination="emails", rate="5")
    engine.request(destination="not-there-yet", delay="1s")
    await asyncio.sleep(5)
    engine.log.create_topic("not-there-yet", 1)
    await asyncio.sleep(585)
    await all_but_stopped(engine, 300)
    for _ in range(2):
        engine.request(None, id="one", action="update", tags="changed", request_id="r-1")
        await asyncio.sleep(1)


def rebuilt(engine: Engine) -> dict[str, tuple[Any, ...]]:
    """What the events say of every live schedule."""
    schedules: dict[str, dict[str, Any]] = {}
    for event in events(engine):
        if event.get("id") is None or event["type"] in ("rejected", "kept"):
            continue
        known = schedules.setdefault(event["id"], {})
        known["definition"] = event.get("definition", known.get("definition"))
        for name in ("status", "revision", "next_at_ms"):
            known[name] = event.get(name)
    return {
        id: (known["status"], known["revision"], known["next_at_ms"], _definition(known["definition"]))
        for id, known in schedules.items()
        if known["status"] in {status.value for status in LIVE}
    }


def _definition(known: dict[str, Any]) -> tuple[Any, ...]:
    return known["destination"], known.get("cron"), known.get("every_ms", 0), known.get("tags", [])


def stored(engine: Engine) -> dict[str, tuple[Any, ...]]:
    """What the changelog says of them."""
    found: dict[str, tuple[Any, ...]] = {}
    rows = {record.key: record.value for record in engine.read("delay-wheel-changelog")}
    for key, value in rows.items():
        if key is not None and key[:1] == b"s" and value is not None:
            schedule = decode_schedule(value)
            recurrence = schedule.recurrence
            if schedule.status in LIVE:
                found[split_schedule_key(key)[1]] = (
                    schedule.status.value,
                    schedule.revision,
                    next_at_ms(schedule),
                    (
                        schedule.destination,
                        recurrence.cron if recurrence is not None else None,
                        recurrence.every_ms if recurrence is not None else 0,
                        schedule.tags,
                    ),
                )
    return found


def test_the_published_schema_is_that_of_the_code() -> None:
    """`python -m scripts.documentation` writes it."""
    for path in PUBLISHED:
        assert json.loads(path.read_text("utf-8")) == json_schema()


def test_every_type_is_described() -> None:
    assert set(EVENT_DESCRIPTIONS) == set(EventType)


def test_every_type_of_event_is_valid_by_the_schema() -> None:
    async def test(engine: Engine) -> None:
        engine.log.create_topic("tiny", 1, max_message_bytes=10)
        await everything_once(engine)
        schema = json.loads(PUBLISHED[0].read_text("utf-8"))
        told = events(engine)
        for event in told:
            assert invalid(event, schema, schema) is None, event
        assert {event["type"] for event in told} == {type.value for type in EventType}
        assert {record.key for record in engine.read("delay-events")} == {
            event.get("schedule_id", event.get("destination")).encode()  # type: ignore[union-attr]
            for event in told
        }

    in_virtual_time(test, owner="worker-0")


def test_the_schema_finds_what_is_wrong() -> None:
    schema = json_schema()
    right = {"schema_version": 2, "type": "fired", "at_ms": 1, "request_topic": "t", "schedule_id": "i"}
    right |= {"source": "t/0/1"}
    assert invalid(right, schema, schema) is None
    del right["schedule_id"], right["source"]
    assert invalid(right, schema, schema) is None, "it is of no schedule"
    right |= {"schedule_id": "i", "source": "t/0/1"}
    for wrong in ({"type": "sold"}, {"at_ms": -1}, {"source": 7}, {"schema_version": 1}, {"colour": "red"}):
        assert invalid(right | wrong, schema, schema) is not None
    for needed in ("schema_version", "type", "at_ms"):
        less = {name: value for name, value in right.items() if name != needed}
        assert invalid(less, schema, schema) is not None


def test_the_events_rebuild_the_list_of_schedules() -> None:
    async def test(engine: Engine) -> None:
        engine.log.create_topic("tiny", 1, max_message_bytes=10)
        await everything_once(engine)
        assert rebuilt(engine) == stored(engine)
        assert set(stored(engine)) == {"one", "cron", "latest", "none", "paused"}

    in_virtual_time(test)


def test_requests_without_an_id_are_told_only_when_asked() -> None:
    async def quiet(engine: Engine) -> None:
        engine.request(destination="orders", delay="0")
        engine.request(destination="orders", delay="5s")
        await asyncio.sleep(10)
        assert events(engine) == []

    async def told(engine: Engine) -> None:
        engine.request(destination="orders", delay="0")
        engine.request(destination="orders", delay="5s")
        await asyncio.sleep(10)
        assert [event["type"] for event in events(engine)] == ["scheduled", "fired", "scheduled", "fired"]
        fire_ids = {event["fire_id"] for event in events(engine, "fired")}
        assert fire_ids == {
            dict(record.headers)["delaystream-fire-id"].decode()  # type: ignore[union-attr]
            for record in engine.read("orders")
        }

    in_virtual_time(quiet)
    in_virtual_time(told, events_anonymous=True)


def test_events_can_be_turned_off() -> None:
    async def test(engine: Engine) -> None:
        engine.log.delete_topic("delay-events")
        engine.request(destination="orders", id="a", delay="1s")
        engine.request(destination="nowhere else", id="b", delay="1s")
        await asyncio.sleep(10)
        assert len(engine.read("orders")) == 1

    in_virtual_time(test, events=False)


def test_without_the_events_topic_what_would_be_told_waits_and_the_rest_goes_on() -> None:
    async def test(engine: Engine) -> None:
        engine.log.delete_topic("delay-events")
        engine.request(destination="orders", delay="1s")
        await asyncio.sleep(5)
        assert len(engine.read("orders")) == 1
        engine.request(destination="orders", id="a", delay="1s")
        await asyncio.sleep(30)
        assert len(engine.read("orders")) == 1
        engine.log.create_topic("delay-events", 1)
        await asyncio.sleep(60)
        assert len(engine.read("orders")) == 2
        assert [event["type"] for event in events(engine)][-1] == "fired"

    in_virtual_time(test)


def test_a_one_time_schedule_that_is_made_to_recur_has_the_grace_of_those_that_recur() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="a", delay="1h")
        engine.request(action="reschedule", id="a", every="1h")
        await asyncio.sleep(1)
        (event,) = events(engine, "rescheduled")
        assert event["definition"]["grace_ms"] == 15 * 60 * 1000
        schema = json_schema()
        assert invalid(event, schema, schema) is None

    in_virtual_time(test)


# -- keys, and who asked -----------------------------------------------------------------------------


def keys_told(engine: Engine) -> list[tuple[str, Any, Any]]:
    return [(e["type"], e.get("key"), e.get("key_base64")) for e in events(engine)]


def test_events_carry_the_key_that_is_delivered() -> None:
    """Cut between characters; as base64 where it is not UTF-8; not at all where it is null."""

    async def test(engine: Engine) -> None:
        long = "€" * 100
        for key, control in (
            (b"customer-7", {}),
            (b"own", {"destination_key": "another"}),
            (b"\xff\x00", {}),
            (None, {}),
            (long.encode(), {}),
            (b"x" * 255 + "é".encode(), {}),
            (b"\xff" * 300, {}),
        ):
            engine.request(key=key, destination="orders", delay="5s", id="a", control=control)
        await asyncio.sleep(1)
        assert [told[1:] for told in keys_told(engine)] == [
            ("customer-7", None),
            ("another", None),
            (None, "/wA="),
            (None, None),
            ("€" * 85, None),
            ("x" * 255, None),
            (None, b64encode(b"\xff" * 256).decode()),
        ]
        engine.request(action="pause", id="a")
        engine.request(action="cancel", match_id_prefix="a")
        await asyncio.sleep(1)
        assert [told[0] for told in keys_told(engine)[7:]] == ["paused", "cancelled", "bulk"]
        assert all(told[2] for told in keys_told(engine)[7:9])

    in_virtual_time(test)


def test_events_of_requests_without_an_id_carry_it_too() -> None:
    async def test(engine: Engine) -> None:
        asked_ms = engine.clock.now_ms()
        late = str(asked_ms - 60_000)
        engine.request(key=b"k", destination="orders", delay="0", actor="ada")
        engine.request(key=b"k", destination="orders", delay="1s", destination_key="d")
        engine.request(key=b"\xff", destination="orders", at=late, grace="1s", on_late="drop")
        await asyncio.sleep(3)
        told = events(engine)
        assert [(e["type"], e.get("key"), e.get("key_base64")) for e in told] == [
            ("scheduled", "k", None),
            ("fired", "k", None),
            ("scheduled", "d", None),
            ("scheduled", None, "/w=="),
            ("expired", None, "/w=="),
            ("fired", "d", None),
        ]
        assert {event["created_at_ms"] for event in told} == {asked_ms}
        assert [event.get("created_by") for event in told] == ["ada", *[None] * 5]

    in_virtual_time(test, events_anonymous=True)


def test_a_tenant_keeps_its_keys_out_of_events_and_tells_of_requests_without_an_id() -> None:
    async def test(engine: Engine) -> None:
        for ask in (engine.request, partial(other_request, engine)):
            ask(destination="orders", delay="1s", id="a")
            ask(destination="orders", delay="1s")
        await asyncio.sleep(3)
        told = [(e["request_topic"], e["type"], "id" in e, e.get("key")) for e in events(engine)]
        assert sorted(told) == [
            ("delay-requests", "fired", True, "key"),
            ("delay-requests", "scheduled", True, "key"),
            (OTHER, "fired", False, None),
            (OTHER, "fired", True, None),
            (OTHER, "scheduled", False, None),
            (OTHER, "scheduled", True, None),
        ]

    with_tenants(test, tenants(tenant("*", events=TenantEvents(key=False, anonymous=True))))


def test_events_say_what_they_are_correlated_with() -> None:
    """The request's, the command's, the delivery's: the first id that is text, and its beginning alone."""

    async def test(engine: Engine) -> None:
        long = "é" * 200
        first = [("another", b"x"), ("X-Correlation-Id", b"\xff"), ("correlation_id", long.encode())]
        engine.request(destination="orders", delay="1s", id="a", foreign=[*first, ("request-id", b"later")])
        engine.request(destination="orders", delay="1s", foreign=[("x-request-id", b"unnamed")])
        engine.request(destination="orders", delay="soon", foreign=[("kafka_correlationId", b"refused")])
        engine.request(destination="orders", every="1h", id="b")
        engine.request(None, action="pause", id="b", foreign=[("correlation-id", b"command")])
        engine.request(
            destination="orders",
            at="2000-01-01T00:00:00Z",
            grace="1s",
            on_late="drop",
            id="c",
            foreign=[("correlation-id", b"late")],
        )
        await asyncio.sleep(3)
        told = {(e["type"], e.get("id")): e.get("correlation_id") for e in events(engine)}
        assert told == {
            ("scheduled", "a"): "é" * 128,
            ("fired", "a"): "é" * 128,
            ("scheduled", None): "unnamed",
            ("fired", None): "unnamed",
            ("rejected", None): "refused",
            ("scheduled", "b"): None,
            ("paused", "b"): "command",
            ("scheduled", "c"): "late",
            ("expired", "c"): "late",
        }

    in_virtual_time(test, events_anonymous=True)


def test_a_tenant_keeps_its_correlation_ids_out_of_events() -> None:
    async def test(engine: Engine) -> None:
        control = [("delaystream-destination", b"orders"), ("delaystream-delay", b"1s")]
        for topic in ("delay-requests", OTHER):
            for mine in ([("delaystream-id", b"a")], [], [("delaystream-every", b"soon")]):
                headers = [*control, *mine, ("correlation-id", b"order-17")]
                at = engine.clock.now_ms()
                engine.log.append(TopicPartition(topic, 0), (b"key", b"value", headers, at))
        await asyncio.sleep(3)
        told = {(e["request_topic"], e["type"], e.get("correlation_id")) for e in events(engine)}
        types = ("scheduled", "fired", "rejected")
        assert told == {
            *(
                (topic, type, id)
                for topic, id in (("delay-requests", "order-17"), (OTHER, None))
                for type in types
            )
        }

    other = tenant("*", events=TenantEvents(correlation_id=False, anonymous=True))
    with_tenants(test, tenants(other), events_anonymous=True)


def test_events_say_who_made_a_schedule_and_who_changed_it_last() -> None:
    async def test(engine: Engine) -> None:
        begin_ms = engine.clock.now_ms()

        def told() -> list[tuple[Any, ...]]:
            return [
                (
                    e["type"],
                    e["created_at_ms"] - begin_ms,
                    e.get("created_by"),
                    e["updated_at_ms"] - begin_ms,
                    e.get("updated_by"),
                )
                for e in events(engine)
                if e["type"] != "bulk"
            ]

        steps: list[tuple[str, dict[str, str]]] = [
            ("ada", {"destination": "orders", "every": "1h"}),
            ("bob", {"action": "pause"}),
            ("cleo", {"action": "pause"}),
            ("dan", {"action": "trigger"}),
            ("eve", {"destination": "orders", "every": "2h"}),
            ("fay", {"action": "reschedule", "every": "3h"}),
        ]
        for actor, control in steps:
            engine.request(id="a", actor=actor, control=control)
            await asyncio.sleep(1)
        engine.request(action="cancel", match_id_prefix="a", actor="gus")
        await asyncio.sleep(1)
        engine.request(action="cancel", id="a", actor="hal")
        engine.request(destination="orders", id="a", delay="1h")
        await asyncio.sleep(1)
        assert told() == [
            ("scheduled", 0, "ada", 0, "ada"),
            ("paused", 0, "ada", 1_000, "bob"),
            ("unchanged", 0, "ada", 1_000, "bob"),
            ("triggered", 0, "ada", 3_000, "dan"),
            ("fired", 0, "ada", 3_000, "dan"),
            ("replaced", 0, "ada", 4_000, "eve"),
            ("rescheduled", 0, "ada", 5_000, "fay"),
            ("cancelled", 0, "ada", 6_000, "gus"),
            ("cancelled", 0, "ada", 6_000, "gus"),
            ("scheduled", 7_000, None, 7_000, None),
        ]

    in_virtual_time(test)


# -- who asked, and why ------------------------------------------------------------------------------

WHO = {"actor": "ada", "note": "incident 12"}
BY_THEMSELVES = {
    "fired", "skipped", "missed", "expired", "moved", "quarantined", "completed", "parked", "released",
}  # fmt: skip
"""What follows from the time or the brokers, and is no request's own event."""


class Case(NamedTuple):
    """A request, the types of the events that are its own, and what is asked for before it."""

    action: Action
    types: set[str]
    control: dict[str, str]
    before: tuple[dict[str, str], ...] = ()


ONCE = {"destination": "orders", "delay": "1h"}
NAMED = {**ONCE, "id": "a"}
HOURLY = {"destination": "orders", "every": "1h", "id": "a"}
PAUSED = {"action": "pause", "id": "a"}
ALL = {"match_destination": "*"}
#: of the first request on its topic
FIRST = {"coordinates": "delay-requests/0/0"}
CASES = [
    Case(Action.SCHEDULE, {"scheduled"}, ONCE),
    Case(Action.SCHEDULE, {"scheduled"}, NAMED),
    Case(Action.SCHEDULE, {"replaced"}, NAMED, (NAMED,)),
    Case(Action.SCHEDULE, {"unchanged"}, HOURLY, (HOURLY,)),
    Case(Action.SCHEDULE, {"kept"}, {**NAMED, "if_exists": "keep"}, (NAMED,)),
    Case(Action.SCHEDULE, {"rejected"}, {**NAMED, "if_exists": "reject"}, (NAMED,)),
    Case(Action.SCHEDULE, {"repeated"}, {**NAMED, "request_id": "r"}, ({**NAMED, "request_id": "r"},)),
    Case(Action.CANCEL, {"cancelled"}, {"id": "a"}, (NAMED,)),
    Case(Action.CANCEL, {"unknown"}, {"id": "a"}),
    Case(Action.CANCEL, {"too-late"}, {"id": "a"}, ({**NAMED, "delay": "0"},)),
    Case(Action.CANCEL, {"cancelled", "bulk"}, ALL, (NAMED,)),
    Case(Action.CANCEL, {"cancelled", "bulk"}, {**ALL, "match_anonymous": "true"}, (ONCE,)),
    Case(Action.CANCEL, {"cancelled"}, FIRST, (ONCE,)),
    Case(Action.CANCEL, {"too-late"}, FIRST, ({**ONCE, "delay": "0"},)),
    Case(Action.PAUSE, {"paused"}, {"id": "a"}, (NAMED,)),
    Case(Action.PAUSE, {"unchanged"}, {"id": "a"}, (NAMED, PAUSED)),
    Case(Action.PAUSE, {"rejected"}, {"id": "a", "if_version": "5"}, (NAMED,)),
    Case(Action.PAUSE, {"paused", "bulk"}, ALL, (NAMED, ONCE)),
    Case(Action.RESUME, {"resumed"}, {"id": "a"}, (NAMED, PAUSED)),
    Case(Action.RESUME, {"resumed", "bulk"}, ALL, (NAMED, PAUSED)),
    Case(Action.TRIGGER, {"triggered"}, {"id": "a"}, (NAMED,)),
    Case(Action.TRIGGER, {"triggered"}, FIRST, (ONCE,)),
    Case(Action.RESCHEDULE, {"rescheduled"}, {"id": "a", "delay": "2h"}, (NAMED,)),
    Case(Action.RESCHEDULE, {"rescheduled"}, {**FIRST, "delay": "2h"}, (ONCE,)),
    Case(Action.RESCHEDULE, {"unknown"}, {"coordinates": "delay-requests/0/9", "delay": "2h"}),
    Case(Action.RESCHEDULE, {"rejected"}, {"id": "a", "max_fires": "2"}, (NAMED,)),
    Case(Action.UPDATE, {"updated"}, {"id": "a", "tags": "b", "payload": "keep"}, (NAMED,)),
    # Nothing has happened, so that nothing is told but to who asked.
    Case(Action.DESCRIBE, set(), {"id": "a", "reply_to": "replies"}, (NAMED,)),
    Case(Action.DESCRIBE, set(), {**FIRST, "reply_to": "replies"}, (ONCE,)),
    Case(Action.RATE, {"rate"}, {"destination": "orders", "rate": "5"}),
]


@pytest.mark.parametrize("read", [True, False], ids=["carried-out", "not-readable"])
@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case.action}-{'-'.join(sorted(case.types))}")
def test_a_note_and_an_actor_come_out_in_every_event_of_their_request(case: Case, read: bool) -> None:
    """Also where it is handed on, is for many, or is refused as soon as it is read."""
    told: list[dict[str, Any]] = []

    async def test(engine: Engine) -> None:
        for control in case.before:
            engine.request(control=control)
            await asyncio.sleep(1)
        known = len(events(engine))
        unknown = {} if read else {"dealy": "5s"}
        engine.request(partition=1, action=case.action.value, control={**case.control, **WHO, **unknown})
        await asyncio.sleep(5)
        told.extend(events(engine)[known:])

    in_virtual_time(test, partitions=2, events_anonymous=True)
    own = [event for event in told if event["type"] not in BY_THEMSELVES]
    assert {event["type"] for event in own} == (case.types if read else {"rejected"})
    for event in told:
        assert {name: event[name] for name in WHO if name in event} == (WHO if event in own else {}), event


def test_no_action_and_no_type_of_event_is_left_out_of_that() -> None:
    """Whoever adds one says here what it tells, and of whom."""
    assert {case.action for case in CASES} == set(Action)
    assert set().union(*[case.types for case in CASES]) | BY_THEMSELVES == set(EventType)
    assert not BY_THEMSELVES & set().union(*[case.types for case in CASES])


def test_what_of_a_refused_request_cannot_be_read_is_left_out_of_its_event() -> None:
    async def test(engine: Engine) -> None:
        engine.request(control=ONCE, actor="ada", note="n" * 1_025)
        engine.request(control=ONCE, note="why", foreign=[("delaystream-actor", b"\xff")])
        engine.request(control={**ONCE, **WHO}, foreign=[("Delaystream-Note", b"another")])
        await asyncio.sleep(1)
        assert [(event["code"], event.get("actor"), event.get("note")) for event in events(engine)] == [
            ("invalid-note", "ada", None),
            ("not-utf8", None, "why"),
            ("duplicate-header", "ada", None),
        ]

    in_virtual_time(test)


def test_completed_says_why() -> None:
    async def test(engine: Engine) -> None:
        end = str(engine.clock.now_ms() + 3_500)
        engine.request(destination="orders", id="counted", every="1s", max_fires="2")
        engine.request(destination="orders", id="ended", every="1s", end=end)
        engine.request(destination="orders", id="both", every="1s", end=end, max_fires="9")
        await asyncio.sleep(10)
        found = {event["id"]: event["reason"] for event in events(engine, "completed")}
        assert found == {"counted": "max-fires", "ended": "end", "both": "end"}

    in_virtual_time(test)


def test_a_schedule_completes_where_time_ends() -> None:
    """Nothing comes after the year 9999."""
    recurrence = Recurrence("0 0 1 1 *", 0, end_ms=LATEST_MS)
    for end_ms, why in ((LATEST_MS, "no-more-times"), (None, "no-more-times"), (LATEST_MS // 2, "end")):
        bounded = replace(recurrence, end_ms=end_ms)
        last = Schedule(Status.COMPLETED, 1, "t", 0, 0, 0, "orders", recurrence=bounded)
        assert _why_completed(last) == why


# -- history -----------------------------------------------------------------------------------------


def test_the_history_keeps_what_was_triggered_missed_and_skipped() -> None:
    """Runs are one entry each, also those that follow one another."""

    async def test(engine: Engine) -> None:
        begin_ms = engine.clock.now_ms()
        engine.request(destination="orders", id="a", every="10s")
        await asyncio.sleep(12)
        engine.request(action="trigger", id="a")
        engine.request(action="pause", id="a")
        await asyncio.sleep(30)
        engine.request(action="resume", id="a")
        await asyncio.sleep(1)
        record = next(
            decode_schedule(value) for key, value in engine.stores.disks[0].values.items() if key[:1] == b"s"
        )
        found = [
            (fire.kind, fire.due_ms - begin_ms, fire.to_ms and fire.to_ms - begin_ms, fire.count)
            for fire in record.history
        ]
        assert found == [
            (Past.FIRED, 10_000, 0, 1),
            (Past.TRIGGERED, 12_000, 0, 1),
            (Past.SKIPPED, 20_000, 30_000, 2),
            (Past.FIRED, 40_000, 0, 1),
        ]

    in_virtual_time(test)


def test_the_event_of_a_fire_is_an_event_with_fewer_fields() -> None:
    """Most events are of fires: they are made of what such a one may say, in the same order."""
    whole = {field.name: (number, field.default) for number, field in enumerate(fields(Event))}
    fired = [field.name for field in fields(FiredEvent)]
    assert fired == sorted(fired, key=lambda name: whole[name][0])
    assert [field.default for field in fields(FiredEvent)] == [whole[name][1] for name in fired]
    told: dict[str, Any] = {name: f"{name} \u2603" for name in fired}
    told |= {"schema_version": SCHEMA_VERSION, "type": EventType.FIRED, "at_ms": 1, "skipped": 2}
    assert encode_event(FiredEvent(**told)) == encode_event(Event(**told))
    least = {name: told[name] for name in ("schema_version", "type", "at_ms")}
    assert encode_event(FiredEvent(**least)) == encode_event(Event(**least))
