"""Commands for many at work together: what each reaches, in their order, and what a step of them costs."""

from __future__ import annotations

import asyncio
import os
from collections import Counter, defaultdict
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from random import Random
from typing import Any
from unittest.mock import patch

import pytest

from delaystream.engine.accept.bulk import Bulks
from delaystream.engine.policy.holds import Holds
from delaystream.engine.state.step import Step
from tests.unit.engine import Engine, header, in_virtual_time
from tests.unit.test_commands import receipts
from tests.unit.test_recurring import events

#: `DELAYSTREAM_EXAMPLES` tries so many
SEEDS = int(os.environ.get("DELAYSTREAM_EXAMPLES", "24"))

_DONE = {"pause": "paused", "resume": "resumed", "cancel": "cancelled"}
_STATUS = {"pause": "paused", "resume": "pending", "cancel": "cancelled"}


@dataclass
class _Matches:
    """What a command for many is about."""

    prefix: str = ""
    tags: frozenset[str] = frozenset()
    destination: str | None = None
    arriving: bool = False

    def fits(self, id: str, schedule: _Schedule) -> bool:
        return (
            id.startswith(self.prefix)
            and self.tags <= schedule.tags
            and self.destination in (None, schedule.destination)
        )

    def covers(self, other: _Matches) -> bool:
        return (
            other.prefix.startswith(self.prefix)
            and self.tags <= other.tags
            and self.destination in (None, other.destination)
        )


@dataclass
class _Schedule:
    tags: frozenset[str]
    destination: str
    #: offset of the request that it stands for, and when the first one was asked for
    offset: int
    created_ms: int
    status: str = "pending"
    held_by: int | None = None


@dataclass
class _Hold:
    """By the offset of its first pause; that of its last one, and when that was asked for."""

    matches: _Matches
    offset: int
    at_ms: int

    def keeps(self, id: str, schedule: _Schedule) -> bool:
        knew = schedule.created_ms <= self.at_ms or schedule.offset < self.offset
        return self.matches.fits(id, schedule) and (self.matches.arriving or knew)


class _Expected:
    """What would be if each command for many were carried out at once."""

    def __init__(self) -> None:
        self.schedules: dict[str, _Schedule] = {}
        #: by the offsets of their first pauses, the latest last
        self.holds: dict[int, _Hold] = {}
        #: the events of each id
        self.told: dict[str, list[str]] = defaultdict(list)
        #: (matched, count, holds) in the receipt of each command for many, by its offset
        self.counted: dict[int, tuple[int, int, int]] = {}

    def define(self, id: str, tags: frozenset[str], destination: str, offset: int, now_ms: int) -> None:
        old = self.schedules.get(id)
        live = old is not None and old.status != "cancelled"
        new = _Schedule(tags, destination, offset, now_ms)
        if old is not None and live:
            new.created_ms, new.status = old.created_ms, old.status
        self._arrives(id, new)
        self.schedules[id] = new
        self.told[id].append("replaced" if live else "scheduled")

    def _arrives(self, id: str, schedule: _Schedule) -> None:
        met = [
            name for name, hold in self.holds.items() if hold.matches.arriving and hold.keeps(id, schedule)
        ]
        if met:
            schedule.status, schedule.held_by = "paused", met[0]

    def many(self, offset: int, now_ms: int, action: str, matches: _Matches) -> None:
        ended, holds = set[int](), 0
        if action == "pause" and (matches.arriving or not matches.prefix):
            same = [name for name, hold in self.holds.items() if hold.matches == matches]
            self.holds[same[0] if same else offset] = _Hold(matches, offset, now_ms)
            holds = 1
        elif action == "resume":
            ended = {name for name, hold in self.holds.items() if matches.covers(hold.matches)}
            for name in ended:
                del self.holds[name]
            holds = len(ended)
        matched = changed = 0
        for id, schedule in self.schedules.items():
            if schedule.status == "cancelled":
                continue
            if matches.fits(id, schedule) or (schedule.held_by is not None and schedule.held_by in ended):
                matched += 1
                changed += self._one_of_many(id, schedule, action, bool(ended))
        self.counted[offset] = (matched, changed, holds)

    def _one_of_many(self, id: str, schedule: _Schedule, action: str, ended: bool) -> bool:
        """Whether it was changed, and is not only kept back by another hold from now on."""
        keeping = next((name for name, hold in self.holds.items() if hold.keeps(id, schedule)), None)
        if action == "resume" and keeping is not None and (ended or schedule.held_by is not None):
            if schedule.status == "paused" and schedule.held_by != keeping:
                schedule.held_by = keeping
                self.told[id].append("paused")
            return False
        return self._switch(id, schedule, action)

    def _switch(self, id: str, schedule: _Schedule, action: str) -> bool:
        if schedule.status == _STATUS[action]:
            return False
        schedule.status, schedule.held_by = _STATUS[action], None
        self.told[id].append(_DONE[action])
        return True

    def one(self, id: str, action: str, change: dict[str, Any]) -> None:
        """A command about an id."""
        schedule = self.schedules[id]
        if schedule.status == "cancelled":
            self.told[id].append("too-late")
        elif action == "update":
            self.told[id].append("updated")
            for name, value in change.items():
                setattr(schedule, name, value)
            if schedule.status == "pending":
                self._arrives(id, schedule)
        elif not self._switch(id, schedule, action):
            self.told[id].append("unchanged")


def _tags(random: Random) -> frozenset[str]:
    return frozenset(tag for tag in "xyz" if random.random() < 0.45)


def _ask_many(engine: Engine, random: Random, expected: _Expected) -> None:
    action = random.choice(("pause", "resume", "pause", "resume", "pause", "resume", "cancel"))
    matches = _Matches(
        random.choice(("", "", "a", "b", "c", "a1")),
        _tags(random) if random.random() < 0.5 else frozenset(),
        random.choice((None, None, "orders", "emails")),
        action == "pause" and random.random() < 0.4,
    )
    if action == "cancel":
        matches.tags = frozenset("xy")
    elif not (matches.prefix or matches.tags or matches.destination):
        matches.destination = "orders"
    words = {
        "match_id_prefix": matches.prefix,
        "match_tags": ",".join(sorted(matches.tags)),
        "match_destination": matches.destination,
        "match_new": "true" if matches.arriving else "",
    }
    match = {name: value for name, value in words.items() if value}
    offset = engine.request(action=action, reply_to="replies", partition=0, control=match)
    expected.many(offset, engine.clock.now_ms(), action, matches)


def _ask_one(engine: Engine, random: Random, expected: _Expected) -> None:
    id = random.choice([*expected.schedules])
    action = random.choice(("pause", "resume", "update", "update"))
    change: dict[str, Any] = {}
    if action == "update" and random.random() < 0.5:
        change["destination"] = random.choice(("orders", "emails"))
    elif action == "update":
        change["tags"] = _tags(random)
    expected.one(id, action, change)
    if "tags" in change:
        change["tags"] = ",".join(sorted(change["tags"])) or "none"
    engine.request(None, action=action, id=id, partition=0, control=change)


def _schedule(engine: Engine, random: Random, expected: _Expected, id: str) -> None:
    tags, destination = _tags(random), random.choice(("orders", "emails"))
    told = {"tags": ",".join(sorted(tags))} if tags else {}
    offset = engine.request(b"v", id=id, delay="100h", destination=destination, partition=0, control=told)
    expected.define(id, tags, destination, offset, engine.clock.now_ms())


@pytest.mark.parametrize("seed", range(SEEDS))
def test_commands_for_many_are_as_if_each_had_been_carried_out_at_once(seed: int) -> None:
    """However many are at work, at whatever points of their sweeps, and whoever dies meanwhile.

    What two holds meet passes from the one to the other by what was so at the turn of the resume.
    """
    random = Random(f"{seed}")

    async def test(engine: Engine) -> None:
        expected = _Expected()
        ids = [f"{letter}{number}" for number in range(random.choice((2, 7, 14))) for letter in "abc"]
        for id in ids:
            _schedule(engine, random, expected, id)
        await asyncio.sleep(20)
        for _ in range(random.choice((3, 10, 40))):
            if random.random() < 0.5:
                await asyncio.sleep(random.choice((0.001, 0.01, 0.03, 0.1)))
            if random.random() < 0.1:
                await engine.stop()
                if random.random() < 0.5:
                    engine.stores.disks.clear()
                engine.start()
            drawn = random.random()
            if drawn < 0.6:
                _ask_many(engine, random, expected)
            elif drawn < 0.9:
                _ask_one(engine, random, expected)
            else:
                _schedule(engine, random, expected, random.choice([*ids, "a-new", "c-new"]))
        await asyncio.sleep(200)
        told_of: dict[str, list[str]] = defaultdict(list)
        for event in events(engine):
            if "id" in event:
                told_of[event["id"]].append(event["type"])
        assert told_of == expected.told
        counted = {
            int(r["source"].rsplit("/")[-1]): (r["matched"], r["count"], r["holds"]) for r in receipts(engine)
        }
        assert counted == expected.counted
        assert not [key for disk in engine.stores.disks.values() for key in disk.values if key[:1] in b"bu"]

    in_virtual_time(
        test,
        partitions=random.choice((1, 2)),
        bulk_slice=random.choice((1, 2, 3, 5)),
        transaction_max_records=random.choice((8_000, 3, 10)),
    )


# -- what they cost ------------------------------------------------------------------------------


def _compared(engine_test: Any, **settings: int) -> Counter[int]:
    """How many commands were compared with schedules, by step."""
    by_step: Counter[int] = Counter()
    original: Any = Bulks._flush

    about: Any = Bulks._about_schedule

    def flush(self: Bulks, step: Step, key: bytes, stored: bytes, *sweeping: Any) -> int:
        by_step[step.number] += len(sweeping[0]) if sweeping else 0
        flushed: int = original(self, step, key, stored, *sweeping)
        return flushed

    def compared(self: Bulks, step: Step, *schedule: Any) -> Any:
        found = about(self, step, *schedule)
        by_step[step.number] += len(found)
        return found

    with patch.object(Bulks, "_flush", flush), patch.object(Bulks, "_about_schedule", compared):
        in_virtual_time(engine_test, **settings)
    return by_step


@pytest.mark.parametrize("together", [True, False], ids=["at once", "one by one"])
@pytest.mark.parametrize("prefix", [{}, {"match_id_prefix": "customer"}], ids=["", "prefix"])
def test_many_commands_compare_each_schedule_with_each_of_them_but_once(
    prefix: dict[str, str], together: bool
) -> None:
    count = 60

    async def test(engine: Engine) -> None:
        for number in range(count):
            engine.request(id=f"customer-{number}", delay="1h", destination="orders", tags=f"c-{number}")
        await asyncio.sleep(5)
        for number in range(count):
            engine.request(action="pause", match_tags=f"c-{number}", reply_to="replies", control=prefix)
            if not together:
                await asyncio.sleep(0.02)
        await asyncio.sleep(60)
        assert [(r["matched"], r["count"]) for r in receipts(engine)] == [(1, 1)] * count

    by_step = _compared(test, bulk_slice=10)
    # What is nearly a slice ahead of another one may be looked at in vain.
    assert count * count <= by_step.total() <= count * (count + 10)
    # 16 schedules at least, however many commands there are.
    assert max(by_step.values()) <= 16 * count


@pytest.mark.parametrize("later", ["commands", "ends of pauses"])
def test_a_step_of_what_comes_later_is_bounded_by_what_it_is_compared_with(later: str) -> None:
    """Each of them is compared with all that is at work before it is carried out."""
    count = 80

    async def test(engine: Engine) -> None:
        for number in range(200):
            engine.request(id=f"a-{number}", delay="1h", destination="orders")
        until = str(engine.clock.now_ms() + 10_050)
        if later != "commands":
            for number in range(200):
                engine.request(action="pause", id=f"a-{number}", until=until)
        await asyncio.sleep(10)
        for number in range(count):
            # Whether a glob fits is known when it is compared, and not before.
            engine.request(action="pause", match_destination=f"[c]-{number}*", reply_to="replies")
        if later == "commands":
            for number in range(200):
                engine.request(action="trigger", id=f"a-{number}")
        await asyncio.sleep(60)
        assert len(receipts(engine)) == count
        assert len(events(engine, "resumed" if later != "commands" else "triggered")) == 200

    by_step = _compared(test, bulk_slice=1, transaction_max_records=100)
    # A step has room for 100 records, and a quarter more for what is due.
    assert max(by_step.values()) <= 1.5 * 100 * 8


def test_the_holds_are_looked_back_at_once_for_all_that_came_between_the_same_commands() -> None:
    """And not once for each: with hundreds of commands at work that was all that a partition did."""
    count, calls = 40, 0
    original = Holds.as_of

    def as_of(self: Holds, *changing: Any) -> Any:
        nonlocal calls
        calls += 1
        return original(self, *changing)

    async def test(engine: Engine) -> None:
        nonlocal calls
        for number in range(200):
            engine.request(id=f"a-{number}", delay="1h", destination="emails")
        await asyncio.sleep(5)
        now_ms = engine.clock.now_ms()
        pause = {"action": "pause", "match_destination": "orders", "reply_to": "replies"}
        engine.request(partition=1, timestamp_ms=now_ms + 2_000, control=pause)
        await asyncio.sleep(0.2)
        for number in range(10):
            engine.request(action="pause", match_tags=f"b-{number}")
        for number in range(count):
            engine.request(id=f"x-{number}", delay="1h", destination="orders", partition=0)
        await asyncio.sleep(0.5)
        calls = 0
        for number in range(count):
            engine.request(action="trigger", id=f"x-{number}", timestamp_ms=now_ms + 3_000)
        await asyncio.sleep(0.5)
        # Each ends a few times where a sweep ends meanwhile.
        assert 1 <= calls <= 10
        await asyncio.sleep(300)
        assert [(r["matched"], r["count"]) for r in receipts(engine) if "count" in r] == [(count, count)]

    with patch.object(Holds, "as_of", as_of):
        in_virtual_time(test, partitions=2, bulk_slice=1)


def test_what_one_command_by_key_has_cancelled_is_nothing_to_the_next() -> None:
    """There is no key any more to find the next one by."""

    async def test(engine: Engine) -> None:
        for number in range(20):
            engine.request(id=f"a-{number}", delay="1h", destination="orders")
        await asyncio.sleep(5)
        for action in ("cancel", "pause"):
            engine.request(action=action, match_key="key", reply_to="replies")
        engine.request(action="trigger", id="a-7", reply_to="replies")
        await asyncio.sleep(60)
        told = [(r["outcome"], r.get("count"), r.get("matched")) for r in receipts(engine)]
        assert sorted(told, key=str) == [
            ("cancelled", 20, 20),
            ("no-match", 0, 0),
            ("too-late", None, None),
        ]

    in_virtual_time(test, bulk_slice=1)


def test_who_has_no_room_in_a_step_comes_first_in_the_next() -> None:
    """Sweeps at points of their own share a step, and none waits until all before it have ended."""

    async def test(engine: Engine) -> None:
        for prefix in "abcdefgh":
            for number in range(40 if prefix < "h" else 2):
                engine.request(id=f"{prefix}-{number}", delay="1h", destination="orders")
        await asyncio.sleep(5)
        for prefix in "abcdefgh":
            engine.request(action="pause", match_id_prefix=prefix, reply_to="replies")
        await asyncio.sleep(60)
        assert [r["count"] for r in receipts(engine)].index(2) == 0
        assert sorted(r["count"] for r in receipts(engine)) == [2, *[40] * 7]

    in_virtual_time(test, bulk_slice=1)


# -- how many there may be -----------------------------------------------------------------------


async def _as_it_is(engine: Engine) -> None:
    await asyncio.sleep(0)


async def _after_a_rebuild(engine: Engine) -> None:
    await engine.stop()
    engine.stores.disks.clear()
    engine.start()
    await asyncio.sleep(0.2)


def _refused(engine: Engine) -> list[str]:
    return [header(letter, "error") for letter in engine.read("delay-dead-letters")]


@pytest.mark.parametrize("happens", [_as_it_is, _after_a_rebuild])
def test_so_many_commands_may_be_at_work_and_one_more_is_refused(
    happens: Callable[[Engine], Awaitable[None]],
) -> None:
    """Those for many and those about one request together; what is refused changes nothing."""

    async def test(engine: Engine) -> None:
        for _ in range(3_000):
            engine.request(b"other", destination="orders", delay="1h")
        offset = engine.request(b"value", destination="emails", delay="1h")
        await asyncio.sleep(5)
        at = f"delay-requests/0/{offset}"
        engine.request(action="cancel", match_key="nobody", match_anonymous="true", partition=0)
        engine.request(action="cancel", coordinates=at, partition=0)
        await asyncio.sleep(0.2)
        await happens(engine)
        engine.request(b"v", b"k", [("trace", b"1")], action="pause", match_tags="a", reply_to="replies")
        engine.request(b"w", b"l", action="reschedule", coordinates=at, delay="1s", partition=1)
        await asyncio.sleep(0.5)
        assert _refused(engine) == ["too-many-commands"] * 2
        letters = engine.read("delay-dead-letters")
        assert [(letter.key, letter.value) for letter in letters] == [(b"k", b"v"), (b"l", b"w")]
        assert ("trace", b"1") in letters[0].headers
        assert header(letters[0], "error-detail") == (
            "2 bulk commands, and commands by coordinates, of delay-requests are at work on partition 0; "
            "expected fewer than 2 (max_commands_at_work): send it again when some of them are done"
        )
        assert [receipt["code"] for receipt in receipts(engine)] == ["too-many-commands"]
        await asyncio.sleep(60)
        assert [event["count"] for event in events(engine, "cancelled") if "count" in event] == [1]
        engine.request(action="pause", match_tags="a", reply_to="replies")
        await asyncio.sleep(60)
        assert [receipt["outcome"] for receipt in receipts(engine)] == ["rejected", "no-match"]
        assert len(_refused(engine)) == 2

    in_virtual_time(test, partitions=2, bulk_slice=5, max_commands_at_work=2)


@pytest.mark.parametrize("happens", [_as_it_is, _after_a_rebuild])
def test_who_reads_commands_waits_for_the_slowest_partition(
    happens: Callable[[Engine], Awaitable[None]],
) -> None:
    """Else one with nothing to do would take any number of them, for all others to carry out."""

    async def test(engine: Engine) -> None:
        for _ in range(2_000):
            engine.request(b"value", destination="orders", delay="1h", partition=1)
        await asyncio.sleep(5)
        for _ in range(4):
            engine.request(action="cancel", match_key="nobody", match_anonymous="true", partition=0)
            await asyncio.sleep(0.2)
            await happens(engine)
        assert _refused(engine) == ["too-many-commands"] * 2
        await asyncio.sleep(60)
        engine.request(action="cancel", match_key="nobody", match_anonymous="true", partition=0)
        await asyncio.sleep(20)
        assert (len(_refused(engine)), len(events(engine, "bulk"))) == (2, 3)

    in_virtual_time(test, partitions=2, bulk_slice=5, max_commands_at_work=2)
