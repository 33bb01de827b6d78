"""An export and the events since, or all events, rebuild the list of schedules exactly.

Nothing of the engine is used to rebuild it: an export's lines and the events' JSON are enough.
"""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass, field
from random import Random
from typing import Any

import pytest

from delaystream.engine.ports import Marker, TopicPartition
from delaystream.testing import MemoryStateStores
from delaystream.transfer import lines
from delaystream.transfer.reading import PartitionReading
from tests.simulation.reckoning import changelog_state
from tests.unit.engine import Engine, in_virtual_time, triggered

PARTITIONS = 2
LIVE = ("pending", "paused")
IDS = ("a", "b", "c/1", "ü", "e")


@dataclass
class Listed:
    """A schedule in the list: what it is, where it stands, what it has done."""

    status: str
    revision: int
    definition: dict[str, Any]
    next_at_ms: int | None = None
    fire_count: int = 0
    missed: int = 0


@dataclass
class Listing:
    """The schedules that are not over."""

    schedules: dict[tuple[str, str], Listed] = field(default_factory=dict)

    def exported(self, line: lines.Named) -> None:
        if line.status not in LIVE:
            return
        record = line.schedule
        recurrence = record["recurrence"]
        definition = {"destination": record["destination"]}
        definition |= {name: record[name] for name in ("name", "description", "tags") if record[name]}
        if recurrence is None:
            held = [due_ms for due_ms, _ in record["held"]]
            definition["due_at_ms"] = sorted([*(fire.due_at_ms for fire in line.fires), *held])
        else:
            told = dict(recurrence)
            told |= {"start_at_ms": told.pop("start_ms"), "end_at_ms": told.pop("end_ms")}
            if told["cron"] is None:
                told |= {"timezone": None, "dst_gap": None, "dst_overlap": None}
            told |= {"catch_up": record["catch_up"], "grace_ms": record["grace_ms"]}
            definition |= {name: value for name, value in told.items() if value not in (None, 0)}
        self.schedules[line.tenant, line.id] = Listed(
            line.status,
            record["revision"],
            definition,
            min((fire.due_at_ms for fire in line.fires), default=None),
            record["fire_count"],
            record["missed_count"],
        )

    def happened(self, event: dict[str, Any]) -> None:
        kind, name = event["type"], (event["request_topic"], event["schedule_id"])
        if "revision" not in event:
            return
        if (definition := event.get("definition")) is not None:
            definition.pop("grace_ms") if definition.get("grace_ms") == 0 else None
            if "cron" not in definition and "every_ms" not in definition:
                definition["due_at_ms"] = sorted(definition.get("due_at_ms", ()))
            before = self.schedules.get(name)
            listed = Listed(event["status"], event["revision"], definition)
            if kind in ("rescheduled", "resumed") and before is not None:
                listed.fire_count, listed.missed = before.fire_count, before.missed
            self.schedules[name] = listed
        listed = self.schedules.get(name, Listed("", 0, {}))
        listed.status, listed.revision = event["status"], event["revision"]
        listed.next_at_ms = event.get("next_at_ms")
        by_trigger = "fire_id" in event and triggered(event["fire_id"])
        if kind == "fired":
            listed.fire_count = event["fire_count"]
        if kind in ("missed", "skipped", "expired"):
            listed.missed += event["count"]
        done_ms = event.get("from_ms" if kind == "expired" else "due_at_ms")
        if (
            kind in ("fired", "expired")
            and not by_trigger
            and done_ms in listed.definition.get("due_at_ms", ())
        ):
            listed.definition["due_at_ms"].remove(done_ms)
        if listed.status not in LIVE:
            self.schedules.pop(name, None)


def export(engine: Engine) -> Listing:
    """As an export reads it: what the changelog's committed records add up to, and through JSON."""
    listing = Listing()
    for partition in range(PARTITIONS):
        at = TopicPartition(engine.settings.changelog_topic, partition)
        store = MemoryStateStores().open(partition)
        store.write([*changelog_state(engine.log, at).items()], [], Marker("id", 1, 0, b""))
        reading = PartitionReading(partition, store)
        reading.check()
        for line in reading.named(remembered=True):
            named = lines.decoded(lines.encoded(line))
            assert isinstance(named, lines.Named)
            listing.exported(named)
    return listing


def told(engine: Engine) -> list[dict[str, Any]]:
    return [json.loads(record.value or b"") for record in engine.read("delay-events")]


def something(random: Random, engine: Engine) -> None:
    """One request of any kind."""
    now_ms = engine.clock.now_ms()
    partition = random.randrange(PARTITIONS)
    control = {"id": random.choice(IDS), "reply_to": "replies"}
    match random.choice(("once", "once", "every", "cron", "command", "command", "reschedule", "bulk")):
        case "once":
            delays = sorted({random.choice((0, 3, 20, 60, 400)) for _ in range(random.choice((1, 3)))})
            control["delay"] = ",".join(f"{delay}s" if delay else "0" for delay in delays)
            control |= {"on_late": random.choice(("drop", "late", "fire")), "grace": "10s"}
        case "every":
            control |= {"every": random.choice(("5s", "30s")), "grace": random.choice(("15s", "20m"))}
            control |= {"catch_up": random.choice(("latest", "all", "none"))}
            if random.random() < 0.5:
                control |= {"max_fires": "3", "start": str(now_ms + random.choice((-7_000, 9_000)))}
            if random.random() < 0.5:
                control["jitter"] = "2s"
        case "cron":
            control |= {"cron": random.choice(("*/10 * * * * *", "* * * * *", "0 9 * * MON-FRI"))}
            control |= {
                "timezone": "Europe/Berlin",
                "dst_overlap": "both",
                "end": str(now_ms + 2_000_000_000),
            }
        case "command":
            control["action"] = random.choice(("cancel", "pause", "pause", "resume", "trigger"))
        case "reschedule":
            control["action"] = "reschedule"
            control |= random.choice(
                ({"delay": "25s,90s"}, {"every": "7s", "max_fires": "4"}, {"cron": "@hourly"})
            )
        case "bulk":
            del control["id"]
            control["action"] = random.choice(("cancel", "pause", "resume", "resume"))
            control |= random.choice(({"match_tags": "red"}, {"match_destination": "em*"}))
    if "action" not in control:
        control["destination"] = random.choice(("orders", "emails"))
        control["if_exists"] = random.choice(("replace", "keep", "reject"))
        control |= random.choice(
            ({}, {"name": "A name", "tags": "red, blue"}, {"description": "why", "tags": "red"})
        )
    engine.request(partition=partition, control=control)


@pytest.mark.parametrize("seed", range(12))
def test_an_export_and_the_events_since_are_the_list_of_schedules(seed: int) -> None:
    random = Random(seed)

    async def live(engine: Engine) -> None:
        for _ in range(random.randrange(10, 40)):
            something(random, engine)
            await asyncio.sleep(random.choice((0.5, 2, 10)))
            if random.random() < 0.05:
                await engine.stop()
                await asyncio.sleep(random.choice((4, 40, 400)))
                engine.start()
        await asyncio.sleep(1)

    from_export, from_events = Listing(), Listing()
    actual: dict[tuple[str, str], Listed] = {}

    async def test(engine: Engine) -> None:
        await live(engine)
        before, count = export(engine), len(told(engine))
        await live(engine)
        from_export.schedules = before.schedules
        for event in told(engine)[count:]:
            from_export.happened(event)
        for event in told(engine):
            from_events.happened(event)
        actual.update(export(engine).schedules)

    in_virtual_time(test, partitions=PARTITIONS)
    assert actual
    assert from_export.schedules == actual
    assert from_events.schedules == actual
