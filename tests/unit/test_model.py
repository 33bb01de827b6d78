"""One id's life, against a reference model of it: whatever is asked in whatever order, they agree.

Requests are made at half seconds of virtual time and everything is due at whole ones, so that how soon the
engine gets to something within a second never matters. After every rule the deliveries, the events, the
receipts and the stored record are what the model says.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, precondition, rule, run_state_machine_as_test

from delaystream.codec.envelope import Past, Schedule, decode_schedule
from delaystream.codec.keys import HOUSEKEEPING, schedule_key, split_wheel_key
from delaystream.core.partitioning import owner_partition
from delaystream.testing import LogRecord, VirtualTimeLoop
from tests.examples import examples
from tests.unit.engine import NO_CONTROL, REQUESTS, Definitions, Engine, header, triggered
from tests.unit.model import (
    HISTORY,
    LIVE,
    NO_TERMS,
    NONE_GRACE_MS,
    RETENTION_MS,
    Beat,
    Model,
    Plan,
    Terms,
)

ID = "job/1"
PARTITIONS = 2
SECOND_MS = 1_000

partitions = st.integers(0, PARTITIONS - 1)
seconds = st.integers(0, 12)
beats = st.fixed_dictionaries(
    {"every": st.sampled_from((1, 2, 5)), "cron": st.booleans()},
    optional={
        "start": st.integers(-5, 8),
        "end": st.integers(-1, 25),
        "max_fires": st.integers(1, 4),
    },
)
terms = st.one_of(
    st.just(NO_TERMS),
    st.just(NO_TERMS),
    st.builds(
        Terms,
        request_id=st.sampled_from((None, "r", "s")),
        if_version=st.sampled_from((None, None, "same", "same", "other", "none")),
        declared=st.one_of(st.none(), st.tuples(st.sampled_from("ab"), st.integers(0, 3))),
    ),
)
PASSED = frozenset({"fired", "skipped", "missed", "expired", "moved", "completed"})
graces = st.sampled_from((None, None, 200, 3_200, 12_200))


class Life(RuleBasedStateMachine):
    """Commands about one id, time, and a worker that is down now and then."""

    def __init__(self) -> None:
        super().__init__()
        self.loop = VirtualTimeLoop()
        asyncio.set_event_loop(self.loop)
        self.engine = Engine(
            self.loop,
            PARTITIONS,
            id_retention_ms=RETENTION_MS,
            history_length=HISTORY,
            misfire_threshold_ms=NONE_GRACE_MS,
        )
        self.engine.start()
        self.model = Model()
        self.bulks: list[tuple[str, int]] = []
        self.asked = self.steps = 0
        #: the engine's number of each of the model's versions
        self.numbers: dict[int, int] = {}
        #: what descriptions ought to say
        self.described: list[tuple[Any, ...]] = []
        #: the last recurring request: its plan, its beat as it was drawn, and what else it says
        self.last: tuple[Plan, dict[str, int], dict[str, str]] | None = None
        self.began_ms = self.engine.clock.now_ms()
        self._wait_until(self.began_ms + 500)

    def teardown(self) -> None:
        self.loop.run_until_complete(self.engine.stop())
        asyncio.set_event_loop(None)
        self.loop.close()

    # -- rules

    @precondition(lambda self: self._room)
    @rule(
        delays=st.lists(seconds, min_size=1, max_size=3),
        on_late=st.sampled_from(("fire", "fire", "drop", "late")),
        grace=graces,
        if_exists=st.sampled_from(("replace", "replace", "keep", "reject")),
        destination=st.sampled_from(("orders", "emails")),
        partition=partitions,
        terms=terms,
    )
    def once(
        self,
        delays: list[int],
        on_late: str,
        grace: int | None,
        if_exists: str,
        destination: str,
        partition: int,
        terms: Terms,
    ) -> None:
        plan = self._plan(destination, if_exists, grace)
        plan.dues = [self.whole_ms + delay * SECOND_MS for delay in delays]
        plan.on_late = on_late
        self._ask(
            partition,
            plan,
            terms=terms,
            delay=",".join(f"{delay}s" if delay else "0" for delay in delays),
            on_late=on_late,
        )

    @precondition(lambda self: self._room)
    @rule(
        beat=beats,
        catch_up=st.sampled_from(("latest", "all", "none")),
        grace=graces,
        if_exists=st.sampled_from(("replace", "replace", "keep", "reject")),
        destination=st.sampled_from(("orders", "emails")),
        partition=partitions,
        terms=terms,
    )
    def again_and_again(
        self,
        beat: dict[str, int],
        catch_up: str,
        grace: int | None,
        if_exists: str,
        destination: str,
        partition: int,
        terms: Terms,
    ) -> None:
        plan = self._plan(destination, if_exists, grace)
        plan.catch_up = catch_up
        plan.beat, control = self._beat(beat)
        self.last = plan, beat, {"catch_up": catch_up}
        self._ask(
            partition,
            plan,
            None,
            self._definition(plan, beat),
            terms,
            catch_up=catch_up,
            control=control,
        )

    @rule(
        action=st.sampled_from(("cancel", "pause", "resume", "trigger", "trigger")),
        partition=partitions,
        bulk=st.integers(0, 3).map(lambda n: n == 0),
        until=st.one_of(st.none(), st.integers(1, 9)),
        terms=terms,
    )
    def command(
        self,
        action: str,
        partition: int,
        bulk: bool,
        until: int | None = None,
        terms: Terms = NO_TERMS,
    ) -> None:
        if not bulk or action == "trigger":
            if action != "cancel":
                terms = replace(terms, declared=None)
            until_ms = None if until is None or action != "pause" else self.whole_ms + until * SECOND_MS
            ends = {} if until_ms is None else {"until": str(until_ms)}
            self._request(partition, id=ID, action=action, control={**ends, **self._said(terms)})
            self.model.command(action, self.now_ms, until_ms=until_ms, terms=terms)
        else:
            before = len(self.model.answers)
            self.model.command(action, self.now_ms, bulk=True)
            # It has one answer for all that it changed.
            self.bulks.append((action, len(self.model.answers) - before))
            del self.model.answers[before:]
            self._request(partition, action=action, match_id_prefix="job")
        self._second()

    @precondition(lambda self: self.model.status in LIVE)
    @rule(
        count=st.integers(1, 20),
        triggered=st.booleans(),
        bulk=st.booleans(),
        until=st.sampled_from((None, 1, 4, 25)),
    )
    def a_pause(self, count: int, triggered: bool, bulk: bool, until: int | None) -> None:
        self.command("pause", 0, bulk, until)
        if until is not None:
            self.describe(1)
        self.time_passes(count)
        if triggered:
            self.command("trigger", 1, bulk=False)
        self.command("resume", 0, bulk)

    @rule(partition=partitions)
    def describe(self, partition: int) -> None:
        model = self.model
        self._request(partition, id=ID, action="describe")
        model.describe()
        if model.answers[-1] == "described":
            number = self.numbers.get(model.version)
            counts = number, model.fires, model.missed
            past = [what[:4] if isinstance(what, tuple) else what for what in model.history]
            self.described.append((model.status, *counts, model.until_ms, past))
        self._second()

    @rule(
        times=st.one_of(st.lists(seconds, min_size=1, max_size=3), beats),
        partition=partitions,
        terms=terms,
    )
    def reschedule(self, times: Any, partition: int, terms: Terms) -> None:
        terms = replace(terms, declared=None)
        plan = Plan()
        if isinstance(times, list):
            plan.dues = [self.whole_ms + time * SECOND_MS for time in times]
            control = {"at": ",".join(map(str, plan.dues))}
        else:
            plan.beat, control = self._beat(times)
            if self._ends_before_it_starts(plan.beat):
                return
        self._request(partition, id=ID, action="reschedule", control={**control, **self._said(terms)})
        self.model.change("rescheduled", plan, {*control}, self.whole_ms, self.now_ms, terms=terms)
        self._second()

    @rule(
        times=st.one_of(st.none(), st.lists(seconds, min_size=1, max_size=3), beats),
        value=st.booleans(),
        partition=partitions,
        terms=terms,
    )
    def update(self, times: Any, value: bool, partition: int, terms: Terms) -> None:
        plan, control = Plan(), {}
        if isinstance(times, list):
            plan.dues = [self.whole_ms + time * SECOND_MS for time in times]
            control = {"at": ",".join(map(str, plan.dues))}
        elif times is not None:
            plan.beat, control = self._beat(times)
            if self._ends_before_it_starts(plan.beat):
                return
        self.asked += 1
        new = b"%d" % self.asked if value else None
        payload = {"payload": "replace" if value else "keep"}
        said = self._said(terms)
        self._request(partition, new or b"", id=ID, action="update", control={**payload, **control, **said})
        self.model.change("updated", plan, {*control}, self.whole_ms, self.now_ms, new, terms)
        self._second()

    @precondition(lambda self: self.last is not None)
    @rule(partition=partitions, status=st.sampled_from((None, None, "pending", "paused")))
    def sent_again(self, partition: int, status: str | None) -> None:
        """As services do whenever they start."""
        assert self.last is not None
        plan, beat, control = self.last
        plan = replace(plan)
        plan.beat, when = self._beat(beat)
        wanted = {} if status is None else {"status": status}
        self._ask(
            partition, plan, status, self._definition(plan, beat), control={**control, **when, **wanted}
        )

    @rule(partition=partitions, deploy=st.integers(0, 2), late=st.booleans())
    def a_deployment_prunes_it(self, partition: int, deploy: int, late: bool) -> None:
        """And the one before it is late with the schedule, or is in time."""
        self.command("cancel", partition, bulk=False, terms=Terms(declared=("a", deploy + late)))
        plan = self._plan("orders", "replace", None)
        plan.dues = [self.whole_ms + 3 * SECOND_MS]
        self._ask(partition, plan, terms=Terms(declared=("a", deploy)), delay="3s")

    @rule(count=st.integers(1, 35))
    def time_passes(self, count: int) -> None:
        for _ in range(count):
            self._second()

    @rule(count=st.integers(1, 20), rebuilt=st.booleans())
    def outage(self, count: int, rebuilt: bool) -> None:
        """The worker is down; where `rebuilt`, its disks are gone when it comes back."""
        self.loop.run_until_complete(self.engine.stop())
        self._wait_until(self.now_ms + count * SECOND_MS)
        if rebuilt:
            self.engine.stores.disks.clear()
        self.engine.start()
        self.model.tick(self.now_ms)
        self._second()

    # -- asking

    @property
    def _room(self) -> bool:
        """Whether to begin anew; what is live is mostly left to live."""
        self.steps += 1
        return self.model.status not in LIVE or self.steps % 5 == 0

    @property
    def now_ms(self) -> int:
        return self.engine.clock.now_ms()

    @property
    def whole_ms(self) -> int:
        """The second that it is; the timestamp of what is asked."""
        return self.now_ms // SECOND_MS * SECOND_MS

    def _plan(self, destination: str, if_exists: str, grace_ms: int | None) -> Plan:
        self.asked += 1
        return Plan(b"%d" % self.asked, destination, grace_ms=grace_ms, if_exists=if_exists)

    def _beat(self, drawn: dict[str, int]) -> tuple[Beat, dict[str, str]]:
        every_ms = drawn["every"] * SECOND_MS
        start_ms = self.whole_ms + drawn.get("start", 0) * SECOND_MS
        minute_ms = (start_ms // 60_000) * 60_000  # where the steps of a cron's seconds begin
        beat = Beat(every_ms, minute_ms if drawn["cron"] else start_ms, start_ms, cron=bool(drawn["cron"]))
        control = (
            {"cron": f"*/{drawn['every']} * * * * *"} if drawn["cron"] else {"every": f"{drawn['every']}s"}
        )
        if "start" in drawn:
            control["start"] = str(start_ms)
        if "end" in drawn:
            beat.end_ms = self.whole_ms + drawn["end"] * SECOND_MS
            control["end"] = str(beat.end_ms)
        if "max_fires" in drawn:
            beat.max_fires = drawn["max_fires"]
            control["max_fires"] = str(beat.max_fires)
        return beat, control

    def _ends_before_it_starts(self, beat: Beat) -> bool:
        """Which is refused before anybody looks at the id."""
        return beat.after(max(self.whole_ms, beat.start_ms - 1)) is None

    def _definition(self, plan: Plan, beat: dict[str, int]) -> Any:
        """What a recurring request defines, whenever it is sent; its bounds are told as times of the day."""
        bounds = (
            plan.beat and plan.beat.start_ms if beat.get("start") else None,
            plan.beat and plan.beat.end_ms,
        )
        return plan.value, plan.destination, plan.grace_ms, plan.catch_up, tuple(beat.items()), bounds

    def _ask(
        self,
        partition: int,
        plan: Plan,
        wanted: str | None = None,
        definition: Any = None,
        terms: Terms = NO_TERMS,
        control: Definitions = NO_CONTROL,
        **named: str,
    ) -> None:
        control = {**named, **control, **self._said(terms)}
        if plan.grace_ms is not None:
            control["grace"] = f"{plan.grace_ms}ms"
        self._request(
            partition,
            plan.value,
            id=ID,
            destination=plan.destination,
            if_exists=plan.if_exists,
            control=control,
        )
        self.model.schedule(plan, self.whole_ms, self.now_ms, definition, wanted, terms)
        self._second()

    def _said(self, terms: Terms) -> dict[str, str]:
        """The headers of what a request says beside what it asks for."""
        said = {}
        if terms.request_id is not None:
            said["request_id"] = terms.request_id
        if terms.if_version is not None:
            there = self.numbers.get(self.model.version, 0) or 7
            said["if_version"] = str({"same": there, "other": there + 1, "none": 0}[terms.if_version])
        if terms.declared is not None:
            said["declared_by"], said["deploy"] = terms.declared[0], str(terms.declared[1])
        return said

    def _request(
        self, partition: int, value: bytes = b"", control: Definitions = NO_CONTROL, **named: str
    ) -> None:
        self.engine.request(
            value,
            partition=partition,
            timestamp_ms=self.whole_ms,
            reply_to="replies",
            control={**named, **control},
        )

    # -- time, and agreement

    def _wait_until(self, at_ms: int) -> None:
        self.loop.run_until_complete(asyncio.sleep((at_ms - self.now_ms) / 1000))

    def _second(self) -> None:
        """What was asked is decided; then a second passes, and with it a whole one."""
        half_ms = self.whole_ms + 500
        self._wait_until(half_ms + 450)
        self.model.tick(half_ms + 300)  # what is remembered is forgotten at quarters
        self._agree()
        for at_ms in (half_ms + 500, half_ms + 800):
            self.model.tick(at_ms)
        self._wait_until(half_ms + SECOND_MS)
        self._agree()

    def _agree(self) -> None:
        model, engine = self.model, self.engine
        delivered = [
            (record, topic) for topic in ("orders", "emails", "late") for record in engine.read(topic)
        ]
        delivered.sort(key=lambda pair: int(header(pair[0], "fire-count")))
        found = [_delivery(topic, record) for record, topic in delivered]
        assert sorted(found, key=str) == sorted(model.delivered, key=str)
        for topic in ("orders", "emails", "late"):
            in_order = [_delivery(topic, record) for record in engine.read(topic)]
            assert in_order == [delivery for delivery in model.delivered if delivery[0] == topic]
        fired_at = {header(record, "fired-at") for record, _ in delivered}
        last = [dict(record.headers).get("delaystream-last-fired-at") for record, _ in delivered]
        assert {text.decode() for text in last if text is not None} <= fired_at
        told = [json.loads(record.value or b"") for record in engine.read("delay-events")]
        assert [_told(event) for event in told if event["type"] != "bulk"] == model.told
        assert [(e["action"], e["count"]) for e in told if e["type"] == "bulk"] == self.bulks
        receipts = [json.loads(record.value or b"") for record in engine.read("replies")]
        assert [receipt["outcome"] for receipt in receipts if "count" not in receipt] == model.answers
        assert sum("count" in receipt for receipt in receipts) == len(self.bulks)
        self._agree_on_versions(told)
        assert [_described(receipt) for receipt in receipts if "schedule" in receipt] == self.described
        self._agree_on_the_record()

    def _agree_on_versions(self, told: list[dict[str, Any]]) -> None:
        """Each of the model's versions is one of the engine's, and no other of the model's is."""
        outcomes = [event for event in told if event["type"] not in (*PASSED, "bulk")]
        found = [event.get("version", 0) for event in outcomes]
        pairs = {*zip(self.model.versions, found, strict=True)}
        self.numbers = dict(pairs)
        assert len(pairs) == len(self.numbers) == len({number for _, number in pairs})
        assert self.numbers.get(0, 0) == 0

    def _agree_on_the_record(self) -> None:
        model = self.model
        disk = self.engine.stores.disks[owner_partition(ID, PARTITIONS)]
        stored = disk.values.get(schedule_key(REQUESTS, ID))
        assert (stored is None) == (model.status is None)
        record = None if stored is None else decode_schedule(stored)
        assert (record is not None and record.payload is not None) == (model.status in LIVE)
        in_wheels = {
            key for key in disk.values if key[:1] == b"w" and split_wheel_key(key)[0] != HOUSEKEEPING
        }
        if stored is None:
            assert not in_wheels
            return
        record = decode_schedule(stored)
        assert in_wheels == set(record.pending)
        assert record.status == model.status
        assert (record.fire_count, record.missed_count) == (model.fires, model.missed)
        assert _by_definition(map(_remembered, record.history)) == _by_definition(model.history)
        assert (record.created_ms, record.updated_ms) == (model.created_ms, model.updated_ms)
        assert record.next_ms == (-1 if model.next_ms is None else model.next_ms)
        assert _ahead(record) == sorted(model.ahead)


def _delivery(topic: str, record: LogRecord) -> tuple[Any, ...]:
    skipped = int(header(record, "skipped")) if dict(record.headers).get("delaystream-skipped") else 0
    due: Any = int(header(record, "due-at"))
    if triggered(header(record, "fire-id")):
        due = "trigger"
    own = dict(record.headers)
    next_at = own.get("delaystream-next-at")
    return (
        topic,
        due,
        record.value,
        int(header(record, "fire-count")),
        skipped,
        "delaystream-last-fired-at" in own,
        None if next_at is None else int(next_at),
    )


def _told(event: dict[str, Any]) -> tuple[Any, ...]:
    what: Any = None
    if event["type"] == "fired":
        what = "trigger" if triggered(event["fire_id"]) else event["due_at_ms"]
    elif event["type"] == "moved":
        what = event["due_at_ms"]
    elif event["type"] == "completed":
        what = event["reason"]
    elif "from_ms" in event:
        what = (event["from_ms"], event["to_ms"], event["count"], event["reason"])
    return event["type"], event.get("status"), what


def _described(receipt: dict[str, Any]) -> tuple[Any, ...]:
    schedule = receipt["schedule"]
    counts = schedule["fire_count"], schedule["missed_count"]
    past = [_told_past(entry) for entry in schedule["history"]]
    return receipt["status"], receipt["version"], *counts, schedule.get("until_ms"), past


def _told_past(entry: dict[str, Any]) -> Any:
    if "fire_id" not in entry:
        return entry["kind"], entry["from_ms"], entry["to_ms"], entry["count"]
    assert (entry["kind"] == "triggered") == triggered(entry["fire_id"])
    return entry["due_at_ms"] if entry["kind"] == "fired" else "trigger"


def _remembered(fire: Any) -> Any:
    if fire.kind in (Past.MISSED, Past.SKIPPED):
        return fire.kind.name.lower(), fire.due_ms, fire.to_ms, fire.count, fire.revision
    assert (fire.kind is Past.TRIGGERED) == isinstance(fire.index, str)
    return fire.due_ms if fire.kind is Past.FIRED else "trigger"


def _by_definition(history: Iterable[Any]) -> list[Any]:
    """A history whose runs have the place of their definition among all, not its revision."""
    numbers: dict[int, int] = {}
    return [
        (*what[:4], numbers.setdefault(what[4], len(numbers))) if isinstance(what, tuple) else what
        for what in history
    ]


def _ahead(record: Schedule) -> list[tuple[int, int]]:
    if record.recurrence is not None:
        return []
    pending = [split_wheel_key(key) for key in record.pending]
    return sorted([*((due_ms, index) for _, due_ms, _, _, index in pending), *record.held])


def live(number: int) -> None:
    """Run the machine; the same examples every time."""
    run_state_machine_as_test(
        Life,
        settings=settings(
            examples(number),
            stateful_step_count=20,
            database=None,
            # An example that fails is short enough to be read as it is, and shrinking it takes minutes.
            phases=(Phase.explicit, Phase.generate),
            suppress_health_check=list(HealthCheck),
        ),
    )


@pytest.mark.timeout(300)
def test_an_id_lives_as_the_model_says() -> None:
    live(100)
