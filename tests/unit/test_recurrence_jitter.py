"""Jitter where clocks change, through pauses, outages and requests that are sent again.

What is promised of every scheduled time: it is not delivered before it is due, it is delivered once or lies
in exactly one run of skipped or missed ones, and the order of the times is kept. While nothing stands in its
way it is delivered, at its due time.

`DELAYSTREAM_EXAMPLES=20000` looks at so many lives in place of a few, in every zone and at random:
`DELAYSTREAM_EXAMPLES=20000 .venv/bin/python -m pytest --timeout=0 tests/unit/test_recurrence_jitter.py`.
"""

from __future__ import annotations

import asyncio
import json
from datetime import UTC, datetime
from functools import cache
from typing import Any, NamedTuple

from hypothesis import Phase, example, given, settings
from hypothesis import strategies as st
from msgspec.structs import replace

from delaystream.core.identity import named_fire_id
from delaystream.core.misfire import MisfirePolicy, decide_passed
from delaystream.core.recurrence import Recurrence, carried_on, due_ms, misses, next_after
from delaystream.core.recurrence.expression import parse_cron
from delaystream.core.recurrence.zones import piece_at, zone_names
from delaystream.core.request import CatchUp
from tests.examples import EXAMPLES, examples
from tests.unit.engine import Engine, in_virtual_time

MINUTE_MS = 60_000
HOUR_MS = 60 * MINUTE_MS
DAY_MS = 24 * HOUR_MS

#: Changes of an hour, half an hour, two, three and a day; at midnight, and not on the hour; four in a year.
ZONES = [
    ("America/New_York", 2026),
    ("Europe/Berlin", 2026),
    ("Australia/Lord_Howe", 2026),
    ("Pacific/Apia", 2011),
    ("Africa/Casablanca", 2025),
    ("Antarctica/Troll", 2026),
    ("Antarctica/Casey", 2020),
    ("America/Havana", 2025),
    ("America/St_Johns", 1988),
    ("America/St_Johns", 1989),
    ("Asia/Kathmandu", 1985),
    ("America/Caracas", 2016),
    ("Asia/Pyongyang", 2018),
    ("Africa/Monrovia", 1972),
    ("UTC", 2026),
]
EVERYWHERE = st.tuples(st.sampled_from(sorted(zone_names())), st.integers(1900, 2040))
#: no worker's clock is before 1970
OF_WORKERS = EVERYWHERE.filter(lambda where: where[1] > 1971)


def lives(number: int) -> settings:
    """So many examples, the same in every run, or as many as are asked for, drawn anew."""
    return settings(
        examples(number),
        # Making an example smaller takes minutes, and its schedule tells enough.
        phases=(Phase.explicit, Phase.reuse, Phase.generate),
    )


# -- what is tried -----------------------------------------------------------------------------------


@cache
def changes(zone: str, year: int) -> list[tuple[int, int]]:
    """The changes of a year's clocks: the instant, and the local time just before it, in seconds."""
    at_s = int(datetime(year, 1, 2, tzinfo=UTC).timestamp())
    found = []
    for _ in range(8):
        piece = piece_at(zone, at_s)
        if piece.offset_s != piece.after_s:
            found.append((piece.end_s, piece.end_s + piece.offset_s))
        at_s = piece.end_s
        if datetime.fromtimestamp(at_s, UTC).year > year:
            break
    return found or [(at_s, at_s + piece_at(zone, at_s).offset_s)]


def listed(numbers: st.SearchStrategy[int], longest: int) -> st.SearchStrategy[str]:
    lists = st.lists(numbers, min_size=1, max_size=longest, unique=True)
    return lists.map(lambda found: ",".join(map(str, found)))


@st.composite
def recurrences(
    draw: st.DrawFn, everywhere: st.SearchStrategy[tuple[str, int]] = EVERYWHERE
) -> tuple[Recurrence, int]:
    """A recurrence with jitter, and a change of the clocks that it meets, in milliseconds."""
    zone, year = draw(everywhere if EXAMPLES else st.sampled_from(ZONES))
    change_s, local_s = draw(st.sampled_from(changes(zone, year)))
    hour = local_s % 86_400 // 3600
    near = st.sampled_from([(hour + by) % 24 for by in range(-3, 4)])
    minute = local_s % 3600 // 60
    minutes = st.sampled_from([0, 1, 15, 29, 30, 31, 45, 58, 59, minute, (minute - 1) % 60])
    if draw(st.booleans()):
        # Further apart in the pattern than where clocks change: over a gap, and in an hour that comes twice.
        some, hours = draw(
            st.sampled_from(
                [
                    ("59", f"{(hour - 1) % 24},{hour}"),
                    ("45", f"{(hour - 1) % 24},{hour}"),
                    ("1,59", f"{(hour - 1) % 24}"),
                    ("5,35", f"{(hour - 1) % 24}"),
                ]
            )
        )
    else:
        some = draw(listed(minutes, 3) | st.sampled_from(["*/20", "*/7"]))
        hours = draw(listed(near, 4) | st.sampled_from(["*", "*/2", "0-23"]))
    second = draw(st.sampled_from(["", "", "0 ", "59 ", "0,59 "]))
    recurrence = Recurrence(
        f"{second}{some} {hours} * * *",
        0,
        zone,
        draw(st.sampled_from(["shift", "skip"])),
        draw(st.sampled_from(["first", "second", "both"])),
        start_ms=change_s * 1000 - 40 * DAY_MS,
    )
    shortest_ms = parse_cron(recurrence.cron or "").shortest_gap_s() * 1000
    if draw(st.integers(0, 7)) == 0:
        shortest_ms = draw(st.integers(1, 5)) * HOUR_MS + draw(st.integers(0, 1)) * 12_345
        recurrence = replace(recurrence, cron=None, every_ms=shortest_ms)
    jitter_ms = draw(st.just(shortest_ms - 1) | st.integers(shortest_ms // 2, shortest_ms - 1))
    return replace(recurrence, jitter_ms=jitter_ms), change_s * 1000


class Action(NamedTuple):
    """Something that happens to a schedule, and how long nothing else does after it."""

    what: str
    for_ms: int
    late_ms: int = 0
    """How long a request was under way."""


def scripts(longest_ms: int) -> st.SearchStrategy[list[Action]]:
    what = st.sampled_from(["wait", "outage", "pause", "resume", "again", "again"])
    for_ms = st.integers(1, 90 * MINUTE_MS) | st.integers(1, longest_ms)
    late_ms = st.sampled_from([0, 0, 1, 2_000, 10 * MINUTE_MS])
    lists = st.lists(st.builds(Action, what, for_ms, late_ms), min_size=1, max_size=8)
    return st.just([Action("wait", 6 * HOUR_MS)]) | lists


CATCH_UPS = st.sampled_from(CatchUp)
GRACES_MS = st.sampled_from([0, 1_000, 15 * MINUTE_MS, 3 * DAY_MS])
#: The cases that were found on a real worker.
CLOSE = Recurrence("59 1,2 * * *", 0, "America/New_York", start_ms=0, jitter_ms=59 * MINUTE_MS)
CHANGE_MS = 1_772_953_200_000
SENT_AGAIN = [
    Action("wait", 60 * MINUTE_MS),
    *(Action("again", 7 * MINUTE_MS, late_ms) for late_ms in [0, 10 * MINUTE_MS] * 12),
]
DOWN_OVER_IT = [Action("outage", 30 * HOUR_MS - 11 * MINUTE_MS), Action("wait", 70 * MINUTE_MS)]
PAUSED_OVER_IT = [Action("wait", 1), Action("pause", 54 * HOUR_MS - 30_000), Action("resume", 5 * HOUR_MS)]


# -- what is held against it -------------------------------------------------------------------------


class Decision(NamedTuple):
    """A run of scheduled times, or the one that was delivered."""

    from_ms: int
    to_ms: int
    number: int
    fired_ms: int | None = None
    due_ms: int = 0


def assert_each_once_in_order_and_never_early(
    recurrence: Recurrence, first_ms: int | None, decisions: list[Decision]
) -> None:
    next_ms = first_ms
    for decision in decisions:
        assert decision.from_ms == next_ms, "the next scheduled time is decided next"
        if decision.fired_ms is not None:
            assert decision.from_ms <= decision.due_ms <= decision.fired_ms, "it is not early"
        else:
            rest = misses(recurrence, decision.from_ms, decision.to_ms)
            assert decision.number == 1 + rest.number
            assert decision.to_ms in (rest.last_ms, decision.from_ms)
        next_ms = next_after(recurrence, decision.to_ms)


class Life:
    """A schedule as the engine leads it, without an engine: `decide_passed`, `due_ms` and `carried_on`."""

    def __init__(self, recurrence: Recurrence, now_ms: int, catch_up: CatchUp, grace_ms: int) -> None:
        self.recurrence = recurrence
        self.catch_up = catch_up
        self.grace_ms = grace_ms
        self.now_ms = now_ms
        self.revision = 0
        self.paused = False
        self.first_ms = self.next_ms = next_after(recurrence, now_ms)
        self.decisions: list[Decision] = []

    def due(self, scheduled_ms: int) -> int:
        fire = named_fire_id("delay-requests", self.revision, 0, scheduled_ms, "job")
        return due_ms(self.recurrence, scheduled_ms, fire)

    def meets(self, action: Action) -> None:
        if action.what == "pause":
            self.paused = True
        elif action.what == "resume":
            self.paused = False
        elif action.what == "again":
            self.sent_again(self.now_ms - action.late_ms)
        until_ms = self.now_ms + action.for_ms
        while action.what != "outage" and self.next_ms is not None and not self.paused:
            at_ms = self.due(self.next_ms)
            if at_ms > until_ms:
                break
            self.now_ms = max(self.now_ms, at_ms)
            self.decide(self.next_ms)
        self.now_ms = until_ms

    def sent_again(self, asked_ms: int) -> None:
        again, self.paused = self.recurrence, False
        if again.cron is not None:
            again = replace(again, start_ms=asked_ms)
        if self.next_ms is not None:
            carried = carried_on(again, asked_ms, self.recurrence, self.next_ms)
            assert carried is not None
            self.recurrence, self.next_ms = carried
            self.revision += 1

    def decide(self, scheduled_ms: int) -> None:
        verdict = decide_passed(
            self.recurrence, scheduled_ms, self.now_ms, MisfirePolicy(self.catch_up, self.grace_ms), self.due
        )
        for run in (verdict.missed, verdict.skipped):
            if run is not None:
                self.decisions.append(Decision(run.from_ms, run.to_ms, run.number))
        fired_ms = verdict.fire_ms
        if fired_ms is not None:
            self.decisions.append(Decision(fired_ms, fired_ms, 1, self.now_ms, self.due(fired_ms)))
        self.next_ms = verdict.next_ms


@lives(300)
@example((CLOSE, CHANGE_MS), 90 * MINUTE_MS, SENT_AGAIN, CatchUp.LATEST, 1_000)
@example((CLOSE, CHANGE_MS), 54 * HOUR_MS, PAUSED_OVER_IT, CatchUp.LATEST, 0)
@given(
    drawn=recurrences(),
    before_ms=st.integers(0, 8 * HOUR_MS) | st.integers(0, 40 * HOUR_MS),
    script=scripts(30 * HOUR_MS),
    catch_up=CATCH_UPS,
    grace_ms=GRACES_MS,
)
def test_every_time_is_decided_once_in_order_and_not_early(
    drawn: tuple[Recurrence, int], before_ms: int, script: list[Action], catch_up: CatchUp, grace_ms: int
) -> None:
    recurrence, change_ms = drawn
    life = Life(recurrence, change_ms - before_ms, catch_up, grace_ms)
    for action in script:
        life.meets(action)
    assert_each_once_in_order_and_never_early(recurrence, life.first_ms, life.decisions)
    if all(action.what in ("wait", "again", "resume") for action in script):
        assert all(decision.fired_ms is not None for decision in life.decisions), "each is delivered"
    for revision in range(3):
        undisturbed = Life(recurrence, change_ms - 6 * HOUR_MS, catch_up, grace_ms)
        undisturbed.revision = revision
        undisturbed.meets(Action("wait", 12 * HOUR_MS))
        assert all(decision.fired_ms == decision.due_ms for decision in undisturbed.decisions)


@lives(150)
@given(drawn=recurrences(), end_after=st.integers(1, 6), revision=st.integers(0, 10**9))
def test_a_time_is_due_before_the_next_one_and_not_after_the_end(
    drawn: tuple[Recurrence, int], end_after: int, revision: int
) -> None:
    recurrence, change_ms = drawn
    after_ms: int | None = change_ms - 6 * HOUR_MS
    for _ in range(end_after):
        assert after_ms is not None
        after_ms = next_after(recurrence, after_ms)
    assert after_ms is not None
    recurrence = replace(recurrence, end_ms=after_ms + revision % (recurrence.jitter_ms + 1))
    at_ms = next_after(recurrence, change_ms - 6 * HOUR_MS)
    while at_ms is not None:
        due = due_ms(recurrence, at_ms, named_fire_id("delay-requests", revision, 0, at_ms, "job"))
        next_ms = next_after(recurrence, at_ms)
        assert at_ms <= due <= at_ms + recurrence.jitter_ms
        assert due < next_ms if next_ms is not None else due <= (recurrence.end_ms or 0)
        at_ms = next_ms


# -- the engine --------------------------------------------------------------------------------------


def headers_of(recurrence: Recurrence, catch_up: CatchUp, grace_ms: int) -> dict[str, str]:
    control = {"jitter": f"{recurrence.jitter_ms}ms", "catch_up": catch_up, "grace": f"{grace_ms}ms"}
    if recurrence.cron is None:
        return {**control, "every": f"{recurrence.every_ms}ms", "start": str(recurrence.start_ms)}
    return {
        **control,
        "cron": recurrence.cron,
        "timezone": recurrence.timezone,
        "dst_gap": recurrence.dst_gap,
        "dst_overlap": recurrence.dst_overlap,
    }


def decisions_of(engine: Engine, recurrence: Recurrence, id: str) -> list[Decision]:
    """All that was decided on the times of a schedule, as its events tell it."""
    found = []
    for record in engine.read("delay-events"):
        event: dict[str, Any] = json.loads(record.value or b"")
        if event["id"] != id:
            continue
        if event["type"] == "fired":
            at_ms = event["due_at_ms"]
            due = due_ms(recurrence, at_ms, event["fire_id"])
            found.append(Decision(at_ms, at_ms, 1, event["fired_at_ms"], due))
        elif event["type"] in ("skipped", "missed"):
            found.append(Decision(event["from_ms"], event["to_ms"], event["count"]))
    return found


async def live(engine: Engine, id: str, headers: dict[str, str], script: list[Action]) -> None:
    """Lead a schedule through all that happens to it."""
    for action in script:
        if action.what in ("pause", "resume"):
            engine.request(None, id=id, action=action.what)
        elif action.what == "again":
            at_ms = engine.clock.now_ms() - action.late_ms
            engine.request(destination="orders", id=id, timestamp_ms=at_ms, control=headers)
        elif action.what == "outage":
            await engine.stop()
        await asyncio.sleep(action.for_ms / 1000)
        if action.what == "outage":
            engine.start()
    await asyncio.sleep(1)


@lives(12)
@example((CLOSE, CHANGE_MS), 90 * MINUTE_MS, SENT_AGAIN, CatchUp.LATEST, 1_000)
@example((CLOSE, CHANGE_MS), 30 * HOUR_MS, DOWN_OVER_IT, CatchUp.LATEST, 3 * DAY_MS)
@given(
    drawn=recurrences(OF_WORKERS),
    before_ms=st.integers(0, 3 * HOUR_MS),
    script=scripts(2 * HOUR_MS),
    catch_up=CATCH_UPS,
    grace_ms=GRACES_MS,
)
def test_the_engine_decides_on_every_time_once_in_order_and_not_early(
    drawn: tuple[Recurrence, int], before_ms: int, script: list[Action], catch_up: CatchUp, grace_ms: int
) -> None:
    recurrence, change_ms = drawn

    async def test(engine: Engine) -> None:
        engine.clock.step(change_ms - before_ms - engine.clock.now_ms())
        asked_ms = engine.clock.now_ms()
        headers = headers_of(recurrence, catch_up, grace_ms)
        engine.request(destination="orders", id="job", control=headers)
        await asyncio.sleep(600)  # what is sent again was sent after this request
        await live(engine, "job", headers, script)
        decisions = decisions_of(engine, recurrence, "job")
        first_ms = next_after(recurrence, asked_ms)
        assert_each_once_in_order_and_never_early(recurrence, first_ms, decisions)
        assert len(engine.read("orders")) == sum(d.fired_ms is not None for d in decisions)
        if all(action.what in ("wait", "again", "resume") for action in script) and grace_ms:
            assert all(decision.fired_ms is not None for decision in decisions), "each is delivered"

    in_virtual_time(test)


def test_times_that_a_change_brings_close_together_are_each_delivered() -> None:
    """01:59 and 02:59, moved to 03:00, with a jitter of 59 minutes: forty schedules, two fires each."""

    async def test(engine: Engine) -> None:
        engine.clock.step(CHANGE_MS - 3 * HOUR_MS - engine.clock.now_ms())
        for number in range(40):
            engine.request(
                destination="orders", id=f"job-{number}", control=headers_of(CLOSE, CatchUp.LATEST, 0)
            )
        await asyncio.sleep(6 * 3600)
        for number in range(40):
            decisions = decisions_of(engine, CLOSE, f"job-{number}")
            assert [decision.from_ms for decision in decisions] == [CHANGE_MS - MINUTE_MS, CHANGE_MS]
            assert all(decision.fired_ms is not None for decision in decisions)

    in_virtual_time(test)
