"""Bulk commands that reach requests without an id, holds, and commands by the coordinates of one request."""

from __future__ import annotations

import asyncio
import io
from base64 import b64decode
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from delaystream.codec.command import attach
from delaystream.codec.envelope import Envelope, decode_entry
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.request import Action, Coordinates, IfExists, Match, Request
from delaystream.engine.policy.holds import covers
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.testing import VirtualTimeLoop
from delaystream.transfer import lines
from tests.unit.engine import OWN, RECEIPTS, REQUESTS, Engine, Watch, header, in_virtual_time
from tests.unit.moving import exported, imported
from tests.unit.test_commands import receipts
from tests.unit.test_moving import between_clusters
from tests.unit.test_recurring import events

Conditions = dict[str, str]
#: seconds after which a command has begun on every partition, where its sweep takes longer
AT_WORK = 0.02


def ask(engine: Engine, action: str, **control: str) -> int:
    return engine.request(action=action, reply_to="replies", control=control)


def values(engine: Engine, topic: str = "orders") -> list[str]:
    return [(record.value or b"").decode() for record in engine.read(topic)]


def last(engine: Engine, *names: str) -> tuple[Any, ...]:
    receipt = receipts(engine)[-1]
    return tuple(receipt.get(name) for name in names)


async def again(engine: Engine) -> None:
    """The workers end, and others go on with what is stored."""
    await engine.stop()
    engine.start()
    await asyncio.sleep(1)


async def rebuilt(engine: Engine) -> None:
    """The same, and the local stores are lost."""
    await engine.stop()
    engine.stores.disks.clear()
    engine.start()
    await asyncio.sleep(1)


async def nothing(engine: Engine) -> None:
    await asyncio.sleep(0)


# -- what a pause holds --------------------------------------------------------------------------

SELECTORS: list[Conditions] = [
    {"match_destination": "ord*"},
    {"match_key": "customer-1"},
    {"match_tags": "nightly, even"},
    {"match_tags": "even", "match_key": "customer-1", "match_destination": "orders"},
]


@pytest.mark.parametrize("happens", [nothing, again, rebuilt])
@pytest.mark.parametrize("match", SELECTORS, ids=" ".join)
def test_a_pause_holds_requests_without_an_id_until_it_is_resumed(
    match: Conditions, happens: Callable[[Engine], Awaitable[None]]
) -> None:
    """They fire in their order then, and what does not match fires when it is due."""

    async def test(engine: Engine) -> None:
        for number in range(5):
            engine.request(
                b"held-%d" % number,
                b"customer-1",
                destination="orders",
                delay=f"{number + 10}s",
                tags="nightly,even",
                partition=number % 2,
            )
        engine.request(b"other", b"customer-2", destination="emails", delay="12s", tags="odd")
        await asyncio.sleep(1)
        ask(engine, "pause", **match)
        await asyncio.sleep(1)
        assert last(engine, "outcome", "count", "matched", "anonymous", "holds") == ("paused", 0, 0, 5, 1)
        await happens(engine)
        await asyncio.sleep(60)
        assert values(engine) == []
        assert values(engine, "emails") == ["other"]
        await happens(engine)
        engine.request(b"new", b"customer-1", destination="orders", delay="0", tags="nightly,even")
        await asyncio.sleep(1)
        assert values(engine) == ["new"]
        ask(engine, "resume", **match)
        await asyncio.sleep(1)
        assert last(engine, "outcome", "holds") == ("resumed", 1)
        held = [value for value in values(engine) if value != "new"]
        assert sorted(held) == [f"held-{number}" for number in range(5)]
        for of in ("024", "13"):
            # Of each request partition in their order.
            assert [value[-1] for value in held if value[-1] in of] == [*of]

    in_virtual_time(test, partitions=2, bulk_slice=2)


@pytest.mark.parametrize("happens", [nothing, again, rebuilt])
@pytest.mark.parametrize("match", SELECTORS, ids=" ".join)
def test_with_match_new_what_arrives_is_held_as_well(
    match: Conditions, happens: Callable[[Engine], Awaitable[None]]
) -> None:
    """What is due on arrival too; schedules with an id are stored paused."""

    async def test(engine: Engine) -> None:
        ask(engine, "pause", match_new="true", **match)
        await asyncio.sleep(1)
        assert last(engine, "outcome", "matched", "anonymous", "holds") == ("no-match", 0, 0, 1)
        await happens(engine)
        told = {"destination": "orders", "tags": "even,nightly"}
        engine.request(b"at once", b"customer-1", delay="0", control=told)
        engine.request(b"later", b"customer-1", delay="10s", control=told)
        engine.request(b"named", b"customer-1", delay="0", id="x", reply_to="replies", control=told)
        engine.request(b"beat", b"customer-1", every="1m", id="y", control=told)
        engine.request(b"other", b"customer-2", destination="emails", delay="0", tags="odd")
        await asyncio.sleep(30)
        assert (values(engine), values(engine, "emails")) == ([], ["other"])
        assert last(engine, "outcome", "status") == ("scheduled", "paused")
        await happens(engine)
        ask(engine, "resume", **match)
        await asyncio.sleep(1)
        assert last(engine, "outcome", "count", "matched", "holds") == ("resumed", 2, 2, 1)
        assert sorted(values(engine)) == ["at once", "later", "named"]
        await asyncio.sleep(40)
        assert values(engine)[3:] == ["beat"]

    in_virtual_time(test, partitions=2, bulk_slice=2)


def test_a_resume_lets_go_of_what_its_hold_has_paused_whoever_is_newer() -> None:
    """A producer's clock may be ahead of that of whoever resumes."""

    async def test(engine: Engine) -> None:
        ask(engine, "pause", match_destination="*", match_new="true")
        await asyncio.sleep(1)
        ahead_ms = engine.clock.now_ms() + 60_000
        engine.request(destination="orders", at="1", id="x", partition=1, timestamp_ms=ahead_ms, delay="0")
        engine.request(b"named", destination="orders", id="x", partition=1, timestamp_ms=ahead_ms, delay="0")
        await asyncio.sleep(1)
        ask(engine, "resume", match_destination="*")
        await asyncio.sleep(90)
        assert values(engine) == ["named"]

    in_virtual_time(test, partitions=2)


def test_a_grace_that_is_over_at_the_resume_is_over() -> None:
    async def test(engine: Engine) -> None:
        late = {"destination": "orders", "delay": "10s", "grace": "30s"}
        engine.request(b"dropped", on_late="drop", control=late)
        engine.request(b"moved", on_late="late", control=late)
        await asyncio.sleep(1)
        ask(engine, "pause", match_destination="orders")
        await asyncio.sleep(60)
        assert (events(engine, "expired"), values(engine, "late")) == ([], [])
        ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(1)
        assert (values(engine), values(engine, "late")) == ([], ["moved"])
        assert len(events(engine, "expired")) == 1

    in_virtual_time(test)


def test_what_is_held_is_pending_and_wakes_nobody() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="10s")
        await asyncio.sleep(1)
        ask(engine, "pause", match_destination="orders")
        await asyncio.sleep(60)
        assert told[-1] == (1, None)
        engine.request(action="resume", match_destination="orders")
        await asyncio.sleep(1)
        assert told[-1] == (0, None)

    told: list[tuple[int, int | None]] = []

    class Waiting(Watch):
        def pending(self, partition: int, total: int, oldest_ms: int | None) -> None:
            told.append((total, oldest_ms))

    with VirtualTimeLoop() as loop:

        async def run() -> None:
            engine = Engine(loop)
            engine.observer = Waiting()
            engine.start()
            await test(engine)
            await engine.stop()

        loop.run_until_complete(run())


def test_holds_have_a_bound_and_the_same_pause_again_renews_its_own() -> None:
    async def test(engine: Engine) -> None:
        for destination in ("orders", "emails", "orders", "late"):
            ask(engine, "pause", match_destination=destination)
        await asyncio.sleep(1)
        codes = [receipt["code"] for receipt in receipts(engine) if receipt["outcome"] == "rejected"]
        assert codes == ["too-many-holds"]
        (letter,) = engine.read("delay-dead-letters")
        assert header(letter, "error-detail") == (
            "2 bulk pauses of delay-requests hold requests back; expected fewer than 2 (max_holds): end some "
            "of them with a resume"
        )
        # The second pause of the orders came after this one.
        engine.request(b"a", destination="orders", delay="1s")
        await asyncio.sleep(5)
        assert values(engine) == ["a"]
        engine.request(b"b", destination="orders", delay="10s")
        await asyncio.sleep(1)
        ask(engine, "pause", match_destination="orders")
        await asyncio.sleep(30)
        assert values(engine) == ["a"]
        ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(1)
        assert values(engine) == ["a", "b"]

    in_virtual_time(test, max_holds=2)


@pytest.mark.parametrize(
    ("wide", "narrow", "covered"),
    [
        (Match(destination="*"), Match(destination="orders"), True),
        (Match(destination="billing-*"), Match(destination="billing-?-*"), True),
        (Match(destination="billing-?"), Match(destination="billing-*"), False),
        (Match(destination="billing-?"), Match(destination="billing-1"), True),
        (Match(destination="b[il]*"), Match(destination="b[il]*", key=b"k"), True),
        (Match(destination="billing-*"), Match(key=b"k"), False),
        (Match(destination="*"), Match(key=b"k"), True),
        (Match(key=b"k"), Match(key=b"k", tags=("a",)), True),
        (Match(key=b"k"), Match(key=b"l"), False),
        (Match(tags=("a", "b")), Match(tags=("a",)), False),
        (Match(id_prefix="a"), Match(id_prefix="ab", arriving=True), True),
        (Match(id_prefix="a"), Match(destination="*"), False),
    ],
)
def test_a_resume_ends_the_holds_that_it_covers(wide: Match, narrow: Match, covered: bool) -> None:
    assert covers(wide, narrow) is covered


def test_of_two_holds_the_other_one_takes_over() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"a", b"customer-1", destination="orders", delay="10s")
        await asyncio.sleep(1)
        ask(engine, "pause", match_destination="orders")
        ask(engine, "pause", match_key="customer-1")
        await asyncio.sleep(30)
        ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(5)
        assert (last(engine, "outcome", "holds"), values(engine)) == (("resumed", 1), [])
        ask(engine, "resume", match_key="customer-1")
        await asyncio.sleep(5)
        assert values(engine) == ["a"]

    in_virtual_time(test)


def test_a_destination_in_trouble_gives_nothing_up_that_is_held() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"a", destination="nowhere", delay="1s")
        await asyncio.sleep(0.5)
        ask(engine, "pause", match_destination="nowhere")
        await asyncio.sleep(60)
        assert engine.read("delay-dead-letters") == []
        engine.log.create_topic("nowhere", 1)
        await asyncio.sleep(60)
        assert values(engine, "nowhere") == []
        ask(engine, "resume", match_destination="nowhere")
        await asyncio.sleep(60)
        assert values(engine, "nowhere") == ["a"]

    in_virtual_time(test, destination_timeout_ms=10_000)


@pytest.mark.parametrize("then", [1, 2, 3])
def test_an_export_has_the_holds_and_an_import_restores_them(then: int) -> None:
    async def test(old: Engine, new: Engine) -> None:
        for partition in (0, 1):
            old.request(b"before", destination="orders", delay="10s", partition=partition)
        await asyncio.sleep(1)
        old.request(action="pause", match_destination="orders", match_new="true")
        old.request(b"at once", destination="orders", delay="0")
        await asyncio.sleep(30)
        await old.stop()
        text = exported(old).getvalue()
        assert text.count(b'"type":"hold"') == 2
        assert b'"held_by":"delay-requests/0/' in text
        await imported(io.BytesIO(text), new)
        new.start()
        await asyncio.sleep(30)
        for partition in range(then):
            new.request(b"after", destination="orders", delay="0", partition=partition)
        new.request(b"named", destination="orders", delay="0", id="x")
        await asyncio.sleep(30)
        assert values(new) == []
        ask(new, "resume", match_destination="orders")
        await asyncio.sleep(30)
        assert sorted(values(new)) == ["after"] * then + ["at once", "before", "before", "named"]

    between_clusters(test, partitions=2, then=then)


# -- a pause that ends by itself -----------------------------------------------------------------


def in_s(engine: Engine, seconds: int) -> str:
    return str(engine.clock.now_ms() + seconds * 1000)


@pytest.mark.parametrize("happens", [nothing, again, rebuilt])
@pytest.mark.parametrize("match", SELECTORS, ids=" ".join)
def test_a_pause_of_many_ends_by_itself_when_it_says_so(
    match: Conditions, happens: Callable[[Engine], Awaitable[None]]
) -> None:
    """What has an id, what has none, and what arrives meanwhile with an id or without."""

    async def test(engine: Engine) -> None:
        told = {"destination": "orders", "tags": "nightly,even"}
        engine.request(b"held", b"customer-1", delay="10s", control=told)
        engine.request(b"ahead", b"customer-1", delay="90s", partition=1, control=told)
        engine.request(b"named", b"customer-1", id="a", delay="20s", control=told)
        await asyncio.sleep(1)
        until_ms = engine.clock.now_ms() + 50_000
        ask(engine, "pause", until=str(until_ms), match_new="true", **match)
        await asyncio.sleep(1)
        assert last(engine, "outcome", "count", "anonymous", "holds") == ("paused", 1, 2, 1)
        engine.request(b"at once", b"customer-1", delay="0", partition=1, control=told)
        engine.request(b"new", b"customer-1", id="b", delay="0", control=told)
        await asyncio.sleep(20)
        await happens(engine)
        await asyncio.sleep(20)
        assert values(engine) == []
        await happens(engine)
        await asyncio.sleep(20)
        assert sorted(values(engine)) == ["at once", "held", "named", "new"]
        engine.request(b"later", b"customer-1", delay="0", control=told)
        await asyncio.sleep(1)
        assert values(engine)[4:] == ["later"]
        await asyncio.sleep(40)
        assert values(engine)[5:] == ["ahead"]
        for disk in engine.stores.disks.values():
            assert not [key for key in disk.values if key[:1] == b"h"]
        (bulk,) = events(engine, "bulk")
        assert bulk["until_ms"] == until_ms
        resumed = events(engine, "resumed")
        assert sorted(event["id"] for event in resumed if "id" in event) == ["a", "b"]
        ended = [event for event in resumed if "id" not in event]
        assert [event["partition"] for event in sorted(ended, key=lambda event: event["partition"])] == [0, 1]
        assert {event["source"] for event in ended} == {bulk["source"]}
        assert {(event["action"], event["until_ms"]) for event in ended} == {("pause", until_ms)}
        assert all(0 <= event["at_ms"] - until_ms < 100 for event in resumed)

    in_virtual_time(test, partitions=2, bulk_slice=2)


@pytest.mark.parametrize("ends", ["resume", "another", "wider", "sooner", "the same", "for good", "narrower"])
def test_a_later_command_that_covers_it_says_when_it_ends(ends: str) -> None:
    """For what has an id and for what has none alike."""

    async def test(engine: Engine) -> None:
        engine.request(b"held", destination="orders", delay="5s", tags="a,b")
        engine.request(b"named", destination="orders", delay="5s", tags="a,b", id="a")
        await asyncio.sleep(1)
        ask(engine, "pause", until=in_s(engine, 30), match_tags="a")
        await asyncio.sleep(1)
        began_ms = engine.clock.now_ms()
        later: dict[str, tuple[str, Conditions]] = {
            "resume": ("resume", {"match_destination": "*"}),
            "another": ("pause", {"match_tags": "a", "until": in_s(engine, 60)}),
            "wider": ("pause", {"match_destination": "*", "until": in_s(engine, 60)}),
            "sooner": ("pause", {"match_destination": "*", "until": in_s(engine, 10)}),
            "the same": ("pause", {"match_tags": "a"}),
            "for good": ("pause", {"match_destination": "*"}),
            "narrower": ("resume", {"match_tags": "a,b"}),
        }
        action, control = later[ends]
        ask(engine, action, **control)
        expected_s = {"resume": 3, "another": 60, "wider": 60, "sooner": 10, "narrower": 29}
        await asyncio.sleep(100)
        if ends not in expected_s:
            # A pause that says no end lasts until a resume.
            assert engine.read("orders") == []
            ask(engine, "resume", match_destination="*")
            await asyncio.sleep(1)
            assert {record.value for record in engine.read("orders")} == {b"held", b"named"}
            return
        fired = {record.value: record.timestamp - began_ms for record in engine.read("orders")}
        assert abs(fired[b"held"] - expected_s[ends] * 1000) < 200
        named_s = 3 if ends == "narrower" else expected_s[ends]
        assert abs(fired[b"named"] - named_s * 1000) < 200

    in_virtual_time(test, partitions=2)


#: when the first of two holds ends (None: by a resume after 10 s), when the second, and when both have
ENDS = [(None, 60, 60), (None, None, None), (60, 30, 30), (20, 40, 40), (40, 20, 40)]


@pytest.mark.parametrize("happens", [nothing, again, rebuilt])
@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize(("first_s", "second_s", "both_s"), ENDS)
def test_what_two_holds_meet_is_held_until_both_have_ended(
    first_s: int | None,
    second_s: int | None,
    both_s: int | None,
    arrives: bool,
    happens: Callable[[Engine], Awaitable[None]],
) -> None:
    """With an id or without, there before the pauses or not, and whichever ends first."""
    resumed = first_s is None or first_s == 60
    began_ms = 0

    def pause(engine: Engine, seconds: int | None, **match: str) -> None:
        until = {} if seconds is None else {"until": str(began_ms + seconds * 1000)}
        ask(engine, "pause", match_new="true", **match, **until)

    async def test(engine: Engine) -> None:
        nonlocal began_ms
        began_ms = engine.clock.now_ms()
        if not arrives:
            request(engine)
            await asyncio.sleep(1)
        pause(engine, first_s, match_destination="orders")
        pause(engine, second_s, match_tags="a")
        if arrives:
            await asyncio.sleep(1)
            request(engine)
        await asyncio.sleep(9)
        await happens(engine)
        if resumed:
            ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(5)
        await happens(engine)
        await asyncio.sleep(85)
        fired = {record.value: record.timestamp - began_ms for record in engine.read("orders")}
        if both_s is None:
            assert fired == {}
            ask(engine, "resume", match_tags="a")
            await asyncio.sleep(1)
            assert sorted(values(engine)) == ["beat", "held", "named"]
            return
        assert fired.keys() == {b"held", b"named", b"beat"}
        assert all(abs(at_ms - both_s * 1000) < 200 for at_ms in fired.values())

    def request(engine: Engine) -> None:
        told = {"destination": "orders", "tags": "a"}
        engine.request(b"held", b"k", delay="3s", control=told)
        engine.request(b"named", b"k", delay="3s", id="x", partition=1, control=told)
        engine.request(b"beat", b"k", every="1h", start=str(began_ms + 3_000), id="y", control=told)

    in_virtual_time(test, partitions=2, bulk_slice=1)


def test_a_schedule_passes_from_the_hold_that_ends_to_the_one_that_stands() -> None:
    """Its events say until when it is paused now, and the resume that it has resumed none."""

    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        ask(engine, "pause", match_destination="orders", match_new="true")
        ask(engine, "pause", match_tags="a", match_new="true", until=str(began_ms + 60_000))
        engine.request(b"value", destination="orders", delay="3s", id="x", tags="a")
        await asyncio.sleep(1)
        resume = ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(1)
        assert last(engine, "outcome", "count", "matched", "holds") == ("resumed", 0, 1, 1)
        # The same once more ends no hold, and finds nothing to change.
        ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(1)
        assert last(engine, "outcome", "count", "matched", "holds") == ("resumed", 0, 1, 0)
        (paused,) = events(engine, "paused")
        told = (paused["source"], paused["status"], paused["until_ms"])
        assert told == (f"{REQUESTS}/0/{resume}", "paused", began_ms + 60_000)
        assert not [event for event in events(engine, "resumed") if "id" in event]
        await asyncio.sleep(100)
        (resumed,) = [event for event in events(engine, "resumed") if "id" in event]
        assert 0 <= resumed["at_ms"] - began_ms - 60_000 < 100
        assert values(engine) == ["value"]

    in_virtual_time(test)


@pytest.mark.parametrize(
    "match", [{"match_tags": "a"}, {"match_key": "k"}, {"match_id_prefix": "x"}], ids=str
)
@pytest.mark.parametrize("arriving", [{}, {"match_new": "true"}], ids=str)
def test_a_narrower_pause_that_ends_leaves_the_wider_hold(match: Conditions, arriving: Conditions) -> None:
    async def test(engine: Engine) -> None:
        ask(engine, "pause", match_destination="*", match_new="true")
        await asyncio.sleep(1)
        told = {"destination": "orders", "delay": "2s", "tags": "a"}
        engine.request(b"named", b"k", id="x", control=told)
        engine.request(b"held", b"k", control=told)
        await asyncio.sleep(5)
        ask(engine, "pause", until=in_s(engine, 20), **match, **arriving)
        await asyncio.sleep(60)
        assert values(engine) == []
        ask(engine, "resume", match_destination="*")
        await asyncio.sleep(1)
        assert sorted(values(engine)) == ["held", "named"]

    in_virtual_time(test)


@pytest.mark.parametrize("resent", ["the same", "changed", "not"])
def test_a_schedule_that_is_sent_again_stays_under_both_pauses(resent: str) -> None:
    """They are for what was there, and it was: a deployment resumes nothing."""

    async def test(engine: Engine) -> None:
        due = in_s(engine, 5)
        engine.request(b"value", destination="orders", at=due, id="x", tags="a", partition=1)
        await asyncio.sleep(1)
        ask(engine, "pause", match_destination="orders")
        ask(engine, "pause", match_tags="a")
        await asyncio.sleep(1)
        if resent != "not":
            value = b"value" if resent == "the same" else b"other"
            engine.request(value, destination="orders", at=due, id="x", tags="a", partition=1)
        await asyncio.sleep(1)
        ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(60)
        assert values(engine) == []
        ask(engine, "resume", match_tags="a")
        await asyncio.sleep(1)
        assert len(values(engine)) == 1

    in_virtual_time(test, partitions=2)


def test_the_end_of_a_pause_by_id_is_no_end_of_the_hold() -> None:
    async def test(engine: Engine) -> None:
        ask(engine, "pause", match_destination="orders", match_new="true")
        engine.request(b"value", destination="orders", delay="1s", id="x")
        await asyncio.sleep(1)
        engine.request(action="pause", id="x", until=in_s(engine, 20))
        await asyncio.sleep(40)
        assert values(engine) == []
        assert [event.get("until_ms") is None for event in events(engine, "paused")] == [False, True]
        ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(1)
        assert values(engine) == ["value"]

    in_virtual_time(test)


@pytest.mark.parametrize(
    ("pause_s", "hold_s", "both_s"), [(20, None, None), (20, 40, 40), (40, 20, 40), (None, 20, None)]
)
def test_a_paused_schedule_that_arrives_under_a_hold_is_paused_until_the_later_end(
    pause_s: int | None, hold_s: int | None, both_s: int | None
) -> None:
    """An end that an earlier pause has does not end the hold."""

    def until(began_ms: int, seconds: int | None) -> Conditions:
        return {} if seconds is None else {"until": str(began_ms + seconds * 1000)}

    async def test(engine: Engine) -> None:
        began_ms = engine.clock.now_ms()
        engine.request(b"before", destination="orders", delay="15s", id="x")
        engine.request(action="pause", id="x", control=until(began_ms, pause_s))
        ask(engine, "pause", match_destination="emails", match_new="true", **until(began_ms, hold_s))
        await asyncio.sleep(1)
        engine.request(b"value", destination="emails", delay="15s", id="x", reply_to="replies")
        await asyncio.sleep(1)
        until_ms = None if both_s is None else began_ms + both_s * 1000
        assert last(engine, "outcome", "status", "until_ms") == ("replaced", "paused", until_ms)
        await asyncio.sleep(80)
        fired = [record.timestamp - began_ms for record in engine.read("emails")]
        if both_s is None:
            assert fired == []
            ask(engine, "resume", match_destination="emails")
            await asyncio.sleep(1)
            assert values(engine, "emails") == ["value"]
        else:
            assert [abs(at_ms - both_s * 1000) < 200 for at_ms in fired] == [True]

    in_virtual_time(test, partitions=2)


#: what a command changes of a schedule for the e-mails, what there is of it, and what the hold matches
MOVED: list[tuple[Conditions, Conditions, Conditions]] = [
    ({"destination": "orders", "tags": "vip"}, {"delay": "10s"}, {"match_tags": "vip"}),
    ({"tags": "vip,other"}, {"delay": "10s,20s"}, {"match_destination": "emails", "match_tags": "vip"}),
    ({"destination_key": "k"}, {"every": "10s"}, {"match_key": "k"}),
    ({"destination": "orders", "delay": "2s,3s"}, {"every": "10s"}, {"match_destination": "orders"}),
    ({"destination": "orders", "every": "5s"}, {"delay": "10s"}, {"match_destination": "orders"}),
]


@pytest.mark.parametrize("happens", [nothing, again, rebuilt])
@pytest.mark.parametrize("until_s", [None, 60])
@pytest.mark.parametrize(("control", "was", "match"), MOVED, ids=str)
def test_an_update_moves_no_schedule_past_a_hold(
    control: Conditions,
    was: Conditions,
    match: Conditions,
    until_s: int | None,
    happens: Callable[[Engine], Awaitable[None]],
) -> None:
    """It is held as if it arrived: with the name and the end of the hold."""

    async def test(engine: Engine) -> None:
        engine.request(b"value", destination="emails", id="x", partition=1, control=was)
        engine.request(b"other", destination="emails", id="y", partition=1, delay="30s")
        until_ms = None if until_s is None else engine.clock.now_ms() + until_s * 1000
        until = {} if until_ms is None else {"until": str(until_ms)}
        ask(engine, "pause", match_new="true", **match, **until)
        await asyncio.sleep(1)
        engine.request(None, action="update", id="x", reply_to="replies", control=control)
        engine.request(None, action="update", id="y", reply_to="replies", tags="odd")
        await asyncio.sleep(1)
        updated = [receipt for receipt in receipts(engine) if receipt["outcome"] == "updated"]
        told = {receipt["schedule_id"]: receipt for receipt in updated}
        assert [told["x"].get(name) for name in ("status", "until_ms")] == ["paused", until_ms]
        assert told["y"]["status"] == "pending"
        ask(engine, "describe", id="x")
        await asyncio.sleep(1)
        assert last(engine, "outcome", "status", "until_ms") == ("described", "paused", until_ms)
        await happens(engine)
        await asyncio.sleep(50)
        assert [*values(engine), *values(engine, "emails")] == ["other"]
        if until_s is None:
            ask(engine, "resume", **match)
        await asyncio.sleep(10)
        fired = [value for topic in ("orders", "emails") for value in values(engine, topic)]
        times = len((control.get("delay") or was.get("delay") or "").split(","))
        assert fired.count("value") >= times

    in_virtual_time(test, partitions=2)


def test_a_schedule_that_was_let_go_is_held_again_when_it_is_rescheduled() -> None:
    """Whoever asks for anything anew under a hold asks for what is held."""

    async def test(engine: Engine) -> None:
        ask(engine, "pause", match_destination="orders", match_new="true")
        engine.request(b"value", destination="orders", id="x", delay="10s")
        await asyncio.sleep(1)
        ask(engine, "resume", id="x")
        await asyncio.sleep(1)
        ask(engine, "reschedule", id="x", delay="5s")
        await asyncio.sleep(1)
        assert last(engine, "outcome", "status") == ("rescheduled", "paused")
        await asyncio.sleep(60)
        assert values(engine) == []
        ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(1)
        assert values(engine) == ["value"]

    in_virtual_time(test)


def test_an_update_under_a_pause_of_what_was_there_alone_is_not_held() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"value", destination="emails", id="x", delay="10s")
        ask(engine, "pause", match_destination="orders")
        await asyncio.sleep(1)
        engine.request(None, action="update", id="x", destination="orders")
        await asyncio.sleep(20)
        assert values(engine) == ["value"]

    in_virtual_time(test)


@pytest.mark.parametrize(("action", "fired"), [("resume", ["value"]), ("cancel", [])])
def test_a_command_about_the_id_itself_is_carried_out_although_holds_meet_it(
    action: str, fired: list[str]
) -> None:
    async def test(engine: Engine) -> None:
        ask(engine, "pause", match_destination="*", match_new="true")
        ask(engine, "pause", match_tags="a", match_new="true", until=in_s(engine, 20))
        engine.request(b"value", destination="orders", delay="1s", id="x", tags="a")
        await asyncio.sleep(5)
        ask(engine, action, id="x")
        await asyncio.sleep(1)
        assert values(engine) == fired
        await asyncio.sleep(60)
        ask(engine, "resume", match_destination="*")
        await asyncio.sleep(60)
        assert values(engine) == fired

    in_virtual_time(test)


@pytest.mark.parametrize("first", ["10s", None])
def test_what_arrives_under_two_holds_is_held_until_the_later_end(first: str | None) -> None:
    async def test(engine: Engine) -> None:
        ask(
            engine,
            "pause",
            match_tags="a",
            match_new="true",
            **({"until": in_s(engine, 10)} if first else {}),
        )
        ask(engine, "pause", match_key="k", match_new="true", until=in_s(engine, 40))
        await asyncio.sleep(1)
        for id in ({}, {"id": "x"}):
            engine.request(b"value", b"k", destination="orders", delay="0", tags="a", control=id)
        await asyncio.sleep(30)
        assert values(engine) == []
        await asyncio.sleep(30)
        assert values(engine) == (["value"] * 2 if first else [])

    in_virtual_time(test, partitions=2)


def test_who_asks_to_be_paused_stays_so_beyond_the_end_of_a_hold() -> None:
    async def test(engine: Engine) -> None:
        ask(engine, "pause", match_destination="*", match_new="true", until=in_s(engine, 20))
        engine.request(b"value", destination="orders", delay="0", id="x", status="paused")
        await asyncio.sleep(60)
        assert values(engine) == []
        ask(engine, "resume", match_destination="*")
        await asyncio.sleep(1)
        assert values(engine) == ["value"]

    in_virtual_time(test)


def test_a_pause_whose_end_is_over_when_it_is_read_holds_nothing_up() -> None:
    async def test(engine: Engine) -> None:
        await engine.stop()
        engine.request(b"held", destination="orders", delay="5s")
        engine.request(b"named", destination="orders", delay="5s", id="x")
        ask(engine, "pause", match_destination="*", match_new="true", until=in_s(engine, 10))
        await asyncio.sleep(30)
        engine.start()
        await asyncio.sleep(5)
        assert sorted(values(engine)) == ["held", "named"]

    in_virtual_time(test, partitions=2)


@pytest.mark.parametrize("then", [1, 2, 3])
def test_an_import_keeps_the_end_of_a_hold(then: int) -> None:
    async def test(old: Engine, new: Engine) -> None:
        for partition in (0, 1):
            old.request(b"before", destination="orders", delay="10s", partition=partition)
        await asyncio.sleep(1)
        old.request(action="pause", match_destination="orders", match_new="true", until=in_s(old, 100))
        old.request(b"at once", destination="orders", delay="0")
        await asyncio.sleep(30)
        await old.stop()
        await imported(exported(old), new)
        new.start()
        await asyncio.sleep(30)
        new.request(b"named", destination="orders", delay="0", id="x")
        for partition in range(then):
            new.request(b"after", destination="orders", delay="0", partition=partition)
        await asyncio.sleep(30)
        assert values(new) == []
        await asyncio.sleep(30)
        assert sorted(values(new)) == ["after"] * then + ["at once", "before", "before", "named"]

    between_clusters(test, partitions=2, then=then)


# -- what a resume says of what is late -----------------------------------------------------------

LATE: list[tuple[Conditions, list[str], int, list[str]]] = [
    # What the resume says, what is delivered, how much is dropped, what goes to the topic for late ones.
    ({}, ["plain"], 1, ["own"]),
    ({"on_late": "drop", "grace": "5s"}, [], 3, []),
    ({"on_late": "fire"}, ["plain", "drop", "own"], 0, []),
    ({"on_late": "fire", "grace": "0"}, ["plain", "drop", "own"], 0, []),
    ({"on_late": "late", "grace": "5s"}, [], 0, ["plain", "drop", "own"]),
    ({"grace": "1h"}, ["plain", "drop", "own"], 0, []),
]


@pytest.mark.parametrize("happens", [nothing, again, rebuilt])
@pytest.mark.parametrize(("control", "fired", "dropped", "moved"), LATE, ids=str)
def test_a_resume_says_what_becomes_of_what_is_held_and_late_for_this_once(
    control: Conditions,
    fired: list[str],
    dropped: int,
    moved: list[str],
    happens: Callable[[Engine], Awaitable[None]],
) -> None:
    async def test(engine: Engine) -> None:
        told = {"destination": "orders", "tags": "a", "delay": "10s"}
        engine.request(b"plain", control=told)
        engine.request(b"drop", on_late="drop", grace="30s", partition=1, control=told)
        engine.request(b"own", on_late="late", grace="30s", control=told)
        engine.request(b"other", on_late="drop", grace="1h", destination="orders", delay="10s", tags="b")
        engine.request(b"ahead", on_late="drop", grace="0", partition=1, control={**told, "delay": "2m"})
        await asyncio.sleep(1)
        ask(engine, "pause", match_tags="a")
        await asyncio.sleep(60)
        assert values(engine) == ["other"]
        for topic in ("orders", "late"):
            engine.log.topics[topic].refusal = "not authorized"
        ask(engine, "resume", match_tags="a", **control)
        await asyncio.sleep(1)
        assert last(engine, "outcome", "holds", "fires_at_once") == ("resumed", 1, 3)
        await happens(engine)
        for topic in ("orders", "late"):
            engine.log.topics[topic].refusal = None
        await asyncio.sleep(45)
        assert sorted(values(engine)[1:]) == sorted(fired)
        assert len(events(engine, "expired")) == dropped
        assert sorted(values(engine, "late")) == sorted(moved)
        await asyncio.sleep(90)
        assert values(engine)[-1] == "ahead", "what was not late goes out by its own word"
        for disk in engine.stores.disks.values():
            assert not [key for key in disk.values if key[:1] in (b"h", b"e")], "nothing is left of it"

    in_virtual_time(test, partitions=2, bulk_slice=2)


@pytest.mark.parametrize("second", [{}, {"on_late": "fire"}, {"grace": "1h"}], ids=str)
def test_of_two_resumes_the_later_one_says_what_becomes_of_it(second: Conditions) -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"held", destination="orders", delay="10s", on_late="drop", grace="30s")
        engine.request(b"first", destination="emails", delay="10s", on_late="drop", grace="30s")
        await asyncio.sleep(1)
        engine.log.topics["orders"].refusal = "not authorized"
        for _ in range(2):
            ask(engine, "pause", match_destination="*")
            await asyncio.sleep(60)
            ask(engine, "resume", match_destination="*", on_late="fire")
            await asyncio.sleep(1)
            ask(engine, "pause", match_destination="orders")
            await asyncio.sleep(60)
            ask(engine, "resume", match_destination="orders", **second)
            await again(engine)
        engine.log.topics["orders"].refusal = None
        await asyncio.sleep(60)
        assert values(engine) == (["held"] if second else [])
        assert values(engine, "emails") == ["first"]
        await asyncio.sleep(60)
        for disk in engine.stores.disks.values():
            assert not [key for key in disk.values if key[:1] == b"e"]

    in_virtual_time(test)


#: what the resume of the second of two holds says (None: that ends by itself), which of the list then go
#: where, and which of the recurring times fire
LAST_WORD: list[tuple[Conditions | None, list[str], list[str], int]] = [
    (None, ["own"], [], 1),
    ({}, ["own"], [], 1),
    ({"on_late": "late", "grace": "0"}, [], ["own"], 0),
    ({"catch_up": "all"}, ["own"], [], 6),
    ({"on_late": "drop", "grace": "0", "catch_up": "none"}, [], [], 0),
]


@pytest.mark.parametrize("happens", [nothing, again, rebuilt])
@pytest.mark.parametrize("arrives", [True, False])
@pytest.mark.parametrize(("says", "fired", "moved", "beats"), LAST_WORD, ids=str)
def test_of_what_two_holds_met_the_resume_that_lets_it_go_says_what_becomes_of_it(
    says: Conditions | None,
    fired: list[str],
    moved: list[str],
    beats: int,
    arrives: bool,
    happens: Callable[[Engine], Awaitable[None]],
) -> None:
    """With an id or without; the words of the resume that only ended the first hold are not for it."""

    def request(engine: Engine) -> None:
        told = {"destination": "orders", "tags": "a"}
        engine.request(b"own", delay="10s", control=told)
        engine.request(b"own", delay="10s", id="x", partition=1, control=told)
        engine.request(b"beat", every="10s", id="y", control=told)

    async def test(engine: Engine) -> None:
        if not arrives:
            request(engine)
            await asyncio.sleep(1)
        new = {"match_new": "true"} if arrives else {}
        until = {"until": in_s(engine, 65)} if says is None else {}
        ask(engine, "pause", match_destination="orders", **new)
        ask(engine, "pause", match_tags="a", **new, **until)
        await asyncio.sleep(1)
        if arrives:
            request(engine)
        await asyncio.sleep(30)
        # By these words everything would be dropped.
        ask(engine, "resume", match_destination="orders", on_late="drop", grace="0", catch_up="none")
        await asyncio.sleep(10)
        assert events(engine, "expired", "missed", "fired") == []
        await happens(engine)
        await asyncio.sleep(22)
        if says is not None:
            ask(engine, "resume", match_tags="a", **says)
        await asyncio.sleep(3)
        assert [value for value in values(engine) if value != "beat"] == fired * 2
        assert values(engine, "late") == moved * 2
        assert values(engine).count("beat") == beats
        assert len(events(engine, "expired")) == (0 if fired or moved else 2)

    in_virtual_time(test, partitions=2, bulk_slice=1)


@pytest.mark.parametrize("second", ["resume", "pause", "another end", "a wider pause"])
def test_a_resume_at_work_does_not_look_at_what_comes_after_it(second: str) -> None:
    """It finds the holds that stood at its turn, and each of two resumes says its own word."""

    async def test(engine: Engine) -> None:
        for number in range(20):
            engine.request(b"other", destination="orders", id=f"a-{number}", delay="1h")
        engine.request(b"value", destination="orders", id="x", tags="a", delay="10s")
        await asyncio.sleep(5)
        until_ms = engine.clock.now_ms() + 300_000
        ask(engine, "pause", match_destination="orders")
        if second != "pause":
            ask(engine, "pause", match_tags="a", **({} if second == "resume" else {"until": str(until_ms)}))
        await asyncio.sleep(30)
        first = ask(engine, "resume", match_destination="orders", on_late="drop", grace="0")
        if second == "resume":
            later = ask(engine, "resume", match_tags="a")
            expected: list[tuple[str, int, int | None]] = [("paused", first, None), ("resumed", later, None)]
        elif second == "pause":
            later = ask(engine, "pause", match_tags="a")
            expected = [("resumed", first, None), ("paused", later, None)]
        else:
            wider = {"match_destination": "*"} if second == "a wider pause" else {"match_tags": "a"}
            later = ask(engine, "pause", until=str(until_ms + 1), **wider)
            expected = [("paused", first, until_ms), ("paused", later, until_ms + 1)]
        await asyncio.sleep(30)
        told = [
            (event["type"], int(event["source"].rsplit("/")[-1]), event.get("until_ms"))
            for event in events(engine, "paused", "resumed")
            if event.get("id") == "x"
        ]
        assert told[-2:] == expected
        found = [(r["matched"], r["holds"]) for r in receipts(engine)[-2:]]
        assert found == [(21, 1), (21 if second == "a wider pause" else 1, 1)]
        assert values(engine) == (["value"] if second == "resume" else [])
        assert events(engine, "expired") == []
        for disk in engine.stores.disks.values():
            assert not [key for key in disk.values if key[:1] == b"u"]

    in_virtual_time(test, bulk_slice=2)


@pytest.mark.parametrize("late", [{}, {"on_late": "drop", "grace": "0"}], ids=str)
def test_a_schedule_is_kept_back_by_no_hold_that_had_ended_before_it_came(late: Conditions) -> None:
    """Its partition has ended the hold before it asked for the schedule; a resume that is still at work came
    to its owner when the hold stood, lets the schedule go, and has the last word on what is late of it.
    """

    async def test(engine: Engine) -> None:
        for number in range(40):
            engine.request(b"other", destination="emails", id=f"a-{number}", delay="1h")
        await asyncio.sleep(5)
        ask(engine, "pause", match_destination="orders", match_new="true")
        ask(engine, "pause", match_tags="a", match_new="true")
        await asyncio.sleep(5)
        asked_ms = engine.clock.now_ms()
        await asyncio.sleep(5)
        engine.request(action="resume", partition=1, reply_to="replies", control={"match_tags": "a"})
        await asyncio.sleep(AT_WORK)
        ends = ask(engine, "resume", match_destination="orders", **late)
        named = {"id": "x", "tags": "a", "status": "paused", "delay": "0", "destination": "orders"}
        engine.request(b"value", timestamp_ms=asked_ms, control=named)
        await asyncio.sleep(30)
        assert [event["type"] for event in events(engine) if event.get("id") == "x"] == [
            "scheduled",
            "resumed",
            "fired",
        ]
        assert {receipt["source"]: receipt["count"] for receipt in receipts(engine)[-2:]} == {
            f"{REQUESTS}/0/{ends}": 0,
            f"{REQUESTS}/1/0": 1,
        }
        assert values(engine) == ["value"]

    in_virtual_time(test, partitions=2, bulk_slice=1)


@pytest.mark.parametrize("again", [{}, {"until": "never"}], ids=["a new hold", "the end of one"])
def test_a_resume_at_work_lets_nothing_go_that_came_under_a_later_hold(again: Conditions) -> None:
    """What a partition asks for after its pause is kept back, whoever was at work at its owner by then."""

    async def test(engine: Engine) -> None:
        for number in range(40):
            engine.request(b"other", destination="emails", id=f"a-{number}", delay="1h")
        await asyncio.sleep(5)
        ends_ms = engine.clock.now_ms() + 60_000
        if again:
            ask(engine, "pause", match_destination="orders", match_new="true", until=str(ends_ms))
            await asyncio.sleep(5)
        asked_ms = engine.clock.now_ms()
        await asyncio.sleep(5)
        engine.request(action="resume", partition=1, control={"match_tags": "a"})
        await asyncio.sleep(AT_WORK)
        ask(engine, "pause", match_destination="orders", match_new="true")
        named = {"id": "x", "tags": "a", "delay": "0", "destination": "orders"}
        engine.request(b"value", timestamp_ms=asked_ms, control=named)
        await asyncio.sleep(100)
        assert [event["type"] for event in events(engine) if event.get("id") == "x"] == ["scheduled"]
        assert values(engine) == []
        ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(5)
        assert values(engine) == ["value"]

    in_virtual_time(test, partitions=2, bulk_slice=1)


def test_a_command_that_was_carried_out_on_what_an_id_was_before_began_no_hold_for_what_is_older() -> None:
    """What is read late was asked for before all of them, and they come by in their order."""

    async def test(engine: Engine) -> None:
        for number in range(40):
            engine.request(b"other", destination="emails", id=f"a-{number}", delay="1h")
        await asyncio.sleep(5)
        asked_ms = engine.clock.now_ms()
        await asyncio.sleep(5)
        until_ms = engine.clock.now_ms() + 60_000
        for action, match in (
            ("pause", {"match_destination": "orders", "until": str(until_ms)}),
            ("resume", {"match_destination": "orders"}),
            ("pause", {"match_destination": "*"}),
        ):
            engine.request(action=action, partition=1, control=match)
        await asyncio.sleep(AT_WORK)
        for action, destination in (("schedule", "emails"), ("cancel", "emails"), ("schedule", "orders")):
            named = {"id": "x", "action": action, "destination": destination, "delay": "1h"}
            engine.request(b"value", timestamp_ms=asked_ms, control=named)
        await asyncio.sleep(30)
        told = [(e["type"], e.get("until_ms")) for e in events(engine) if e.get("id") == "x"]
        assert told[3:] == [("scheduled", None), ("paused", until_ms), ("resumed", None)]

    in_virtual_time(test, partitions=2, bulk_slice=1)


@pytest.mark.parametrize("then", [1, 3])
def test_an_import_knows_what_a_resume_said(then: int) -> None:
    async def test(old: Engine, new: Engine) -> None:
        old.request(b"held", destination="orders", delay="10s", on_late="drop", grace="30s")
        await asyncio.sleep(1)
        old.request(action="pause", match_destination="orders", match_new="true")
        await asyncio.sleep(1)
        old.request(b"at once", destination="orders", delay="0", on_late="drop", grace="30s", partition=1)
        await asyncio.sleep(60)
        old.log.topics["orders"].refusal = "not authorized"
        old.request(action="resume", match_destination="orders", on_late="fire")
        await asyncio.sleep(1)
        await old.stop()
        text = exported(old).getvalue()
        assert text.count(b'"type":"ended-hold"') == 2
        await imported(io.BytesIO(text), new)
        new.start()
        await asyncio.sleep(90)
        assert sorted(values(new)) == ["at once", "held"]
        for disk in new.stores.disks.values():
            assert not [key for key in disk.values if key[:1] == b"e"]

    between_clusters(test, partitions=2, then=then)


def test_a_resume_of_many_counts_what_fires_at_once() -> None:
    """Of schedules, as each of them would; and what was kept back of requests without an id."""

    async def test(engine: Engine) -> None:
        for number in range(3):
            engine.request(b"held", destination="orders", delay="10s,20s,90s", partition=number % 2)
        engine.request(b"named", destination="orders", delay="10s,90s", id="a")
        engine.request(b"beat", destination="orders", every="10s", catch_up="all", id="b")
        await asyncio.sleep(1)
        ask(engine, "pause", match_destination="*")
        await asyncio.sleep(60)
        ask(engine, "resume", match_destination="*", catch_up="latest")
        await asyncio.sleep(1)
        assert last(engine, "outcome", "fires_at_once") == ("resumed", 3 * 2 + 1 + 1)
        assert len(values(engine)) == 8

    in_virtual_time(test, partitions=2, bulk_slice=2)


# -- match-key -----------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [1, 5_000])
def test_a_key_is_that_of_the_delivery(size: int) -> None:
    """Also of a schedule whose payload has a row of its own."""

    async def test(engine: Engine) -> None:
        named = {"destination": "orders", "delay": "1h"}
        engine.request(b"x" * size, b"k", id="key", control=named)
        engine.request(b"x" * size, b"other", id="instead", destination_key="k", control=named)
        engine.request(b"x" * size, b"k", id="not", destination_key="other", control=named)
        engine.request(b"x" * size, None, id="null", control=named)
        await asyncio.sleep(1)
        ask(engine, "cancel", match_key="k")
        await asyncio.sleep(1)
        assert last(engine, "outcome", "count", "matched") == ("cancelled", 2, 2)
        assert sorted(event["id"] for event in events(engine, "cancelled")) == ["instead", "key"]

    in_virtual_time(test, partitions=2)


def test_matched_counts_what_there_was_nothing_to_change_of() -> None:
    async def test(engine: Engine) -> None:
        for id in ("a", "b"):
            engine.request(destination="orders", delay="1h", id=id)
        engine.request(action="pause", id="a")
        await asyncio.sleep(1)
        ask(engine, "pause", match_id_prefix="")
        ask(engine, "pause", match_destination="*")
        ask(engine, "pause", match_destination="*")
        await asyncio.sleep(1)
        told = [(r["outcome"], r.get("count"), r.get("matched")) for r in receipts(engine)]
        assert told == [("rejected", None, None), ("paused", 1, 2), ("paused", 0, 2)]
        assert [event["matched"] for event in events(engine, "bulk")] == [2, 2]

    in_virtual_time(test)


# -- cancels -------------------------------------------------------------------------------------


@pytest.mark.parametrize("happens", [nothing, again, rebuilt])
def test_a_cancel_with_match_anonymous_takes_out_what_matches_wherever_it_is(
    happens: Callable[[Engine], Awaitable[None]],
) -> None:
    """Pending, held, or due in the midst of the sweep: each once, with an event of its own."""

    async def test(engine: Engine) -> None:
        for number in range(40):
            engine.request(
                b"%d" % number,
                b"customer-%d" % (number % 2),
                destination="orders" if number % 4 < 2 else "emails",
                delay=f"{10_000 + number * 20}ms",
                partition=number % 2,
            )
        engine.request(b"list", b"customer-0", destination="late", delay="1h,2h")
        await asyncio.sleep(1)
        engine.request(action="pause", match_destination="orders", match_key="customer-0")
        await asyncio.sleep(9.3)
        ask(engine, "cancel", match_key="customer-0", match_anonymous="true")
        await asyncio.sleep(0.03)
        await happens(engine)
        await asyncio.sleep(10)
        outcome, count = last(engine, "outcome", "anonymous")
        cancelled = events(engine, "cancelled")
        assert (outcome, count) == ("cancelled", len(cancelled))
        assert len({event["fire_id"] for event in cancelled}) == count
        delivered = [int(value) for topic in ("orders", "emails") for value in values(engine, topic)]
        assert sorted(number for number in delivered if number % 2) == [*range(1, 40, 2)]
        early = [number for number in delivered if number % 2 == 0]
        assert count == 22 - len(early)
        assert max(early) < 30
        ask(engine, "resume", match_destination="*")
        await asyncio.sleep(10_000)
        assert len(values(engine, "orders")) + len(values(engine, "emails")) == len(delivered)
        assert values(engine, "late") == []

    in_virtual_time(test, partitions=2, bulk_slice=2)


def test_a_cancel_without_it_leaves_them_alone() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"a", destination="orders", delay="10s")
        await asyncio.sleep(1)
        ask(engine, "cancel", match_destination="*")
        await asyncio.sleep(1)
        ask(engine, "cancel", match_id_prefix="a", match_anonymous="true")
        await asyncio.sleep(30)
        assert [receipt["outcome"] for receipt in receipts(engine)] == ["no-match", "no-match"]
        assert values(engine) == ["a"]

    in_virtual_time(test)


def test_it_leaves_alone_what_was_asked_for_after_it() -> None:
    async def test(engine: Engine) -> None:
        engine.request(b"before", destination="orders", delay="10s")
        ask(engine, "cancel", match_destination="*", match_anonymous="true")
        engine.request(b"after", destination="orders", delay="10s")
        await asyncio.sleep(30)
        assert (last(engine, "anonymous"), values(engine)) == ((1,), ["after"])

    in_virtual_time(test)


@pytest.mark.parametrize("happens", [nothing, again, rebuilt])
@pytest.mark.parametrize("held", [False, True], ids=["", "held again"])
def test_it_leaves_alone_what_goes_to_the_topic_for_late_ones_after_it(
    held: bool, happens: Callable[[Engine], Awaitable[None]]
) -> None:
    """It was for another topic when the cancel was sent."""

    async def test(engine: Engine) -> None:
        for _ in range(30):
            engine.request(b"other", destination="emails", delay="1h")
        engine.request(b"a", destination="orders", delay="1s", on_late="late", grace="1s")
        engine.request(b"there", destination="late", delay="1h")
        engine.request(action="pause", match_destination="orders")
        await asyncio.sleep(10)
        ask(engine, "cancel", match_destination="la*", match_anonymous="true")
        if held:
            engine.request(action="pause", match_destination="late")
        engine.request(action="resume", match_destination="orders")
        await asyncio.sleep(0.05)
        assert receipts(engine) == []
        await happens(engine)
        await asyncio.sleep(10)
        assert last(engine, "outcome", "anonymous") == ("cancelled", 1)
        if held:
            assert values(engine, "late") == []
            engine.request(action="resume", match_destination="late")
            await asyncio.sleep(1)
        assert values(engine, "late") == ["a"]

    in_virtual_time(test, bulk_slice=3)


# -- one request, by its coordinates -------------------------------------------------------------


def at(partition: int, offset: int) -> str:
    return f"{REQUESTS}/{partition}/{offset}"


@pytest.mark.parametrize("sent_to", [0, 1])
@pytest.mark.parametrize("held", [False, True])
@pytest.mark.parametrize("crowd", [0, 100])
def test_a_request_without_an_id_is_cancelled_by_its_coordinates(
    sent_to: int, held: bool, crowd: int
) -> None:
    async def test(engine: Engine) -> None:
        for _ in range(crowd):
            engine.request(b"other", destination="orders", delay="2h", partition=1)
        offset = engine.request(b"list", destination="orders", delay="10s,1h", partition=1)
        await asyncio.sleep(1)
        if held:
            engine.request(action="pause", match_destination="*")
            await asyncio.sleep(20)
        engine.request(action="cancel", reply_to="replies", coordinates=at(1, offset), partition=sent_to)
        await asyncio.sleep(1)
        assert last(engine, "outcome", "schedule_id", "count") == ("cancelled", at(1, offset), 2)
        if held:
            engine.request(action="resume", match_destination="*")
        await asyncio.sleep(10_000)
        assert values(engine) == ["other"] * crowd
        told = events(engine, "cancelled")
        assert [event.get("fire_id", "").rpartition("/")[0] for event in told] == [
            f"{at(1, offset)}/0",
            f"{at(1, offset)}/1",
            "",
        ]
        assert (told[-1]["schedule_id"], told[-1]["action"], told[-1]["count"]) == (
            at(1, offset),
            "cancel",
            2,
        )

    in_virtual_time(test, partitions=2, bulk_slice=1)


@pytest.mark.parametrize("happens", [nothing, again, rebuilt])
@pytest.mark.parametrize("telling", [False, True])
def test_it_is_described_by_its_coordinates(
    telling: bool, happens: Callable[[Engine], Awaitable[None]]
) -> None:
    """At its turn: also where what is pending of it comes due meanwhile; and nothing of it changes."""

    async def test(engine: Engine) -> None:
        parser = RequestParser(DestinationFilter(["*"], [REQUESTS, *OWN], RECEIPTS), Limits(), None)
        await engine.stop()
        engine.start(tenants=Tenants(Tenant(parser, describes_payload=telling)))
        began_ms = engine.clock.now_ms()
        times = {"delay": "60s,5s", "on_late": "drop", "grace": "1h", "tags": "a,b"}
        offset = engine.request(
            b"value", b"key", [("f", b"g")], destination="orders", partition=1, control=times
        )
        for number in range(60):
            engine.request(b"%d" % number, destination="emails", delay="1h", partition=1)
        await asyncio.sleep(1)
        ask(engine, "describe", coordinates=at(1, offset))
        await asyncio.sleep(1)
        assert last(engine, "outcome", "count", "schedule_id", "status") == (
            "described", 2, at(1, offset), "pending",
        )  # fmt: skip
        (told, fires) = last(engine, "schedule", "fires")
        due_ms = [began_ms + 5_000, began_ms + 60_000]
        assert told["definition"] == {
            "destination": "orders", "due_at_ms": due_ms, "grace_ms": 3_600_000, "tags": ["a", "b"],
        }  # fmt: skip
        assert (told["source"], told["created_at_ms"], told["on_late"]) == (at(1, offset), began_ms, "drop")
        assert told["upcoming_at_ms"] == [fire["due_at_ms"] for fire in fires] == due_ms
        assert ("payload" in told) == telling
        if telling:
            assert b64decode(told["payload"]["value_base64"]) == b"value"
            assert b64decode(told["payload"]["key_base64"]) == b"key"
        ask(engine, "pause", match_tags="a")
        ask(engine, "describe", coordinates=at(1, offset))
        await happens(engine)
        await asyncio.sleep(10)
        ask(engine, "describe", coordinates=at(1, offset))
        await asyncio.sleep(1)
        answers = [receipt for receipt in receipts(engine) if receipt["outcome"] == "described"]
        assert [(answer["count"], answer["status"]) for answer in answers[1:]] == [(2, "paused")] * 2
        assert answers[2]["schedule"]["held_by"].startswith("delay-requests/")
        assert values(engine) == []
        ask(engine, "resume", match_tags="a")
        await asyncio.sleep(1)
        assert values(engine) == ["value"]
        ask(engine, "describe", coordinates=at(1, offset))
        await asyncio.sleep(1)
        assert last(engine, "count", "status") == (1, "pending")
        await asyncio.sleep(58)
        assert values(engine) == ["value", "value"]
        ask(engine, "describe", coordinates=at(1, offset))
        ask(engine, "describe", coordinates=at(1, 999))
        await asyncio.sleep(1)
        assert sorted(receipt["outcome"] for receipt in receipts(engine)[-2:]) == ["too-late", "unknown"]
        assert {event["type"] for event in events(engine)} == {"bulk"}

    in_virtual_time(test, partitions=2, bulk_slice=1)


@pytest.mark.parametrize("slices", [1, 100])
def test_what_comes_due_while_it_is_described_goes_out_after_that(slices: int) -> None:
    async def test(engine: Engine) -> None:
        for number in range(300):
            engine.request(destination=f"to-{number % 3}", delay="1h")
        offset = engine.request(b"value", destination="orders", delay="1s")
        await asyncio.sleep(0.995)
        ask(engine, "describe", coordinates=at(0, offset))
        await asyncio.sleep(30)
        assert last(engine, "outcome", "count") == ("described", 1)
        assert values(engine) == ["value"]

    in_virtual_time(test, bulk_slice=slices)


def test_it_is_rescheduled_to_one_time_in_place_of_all_that_it_has() -> None:
    async def test(engine: Engine) -> None:
        offset = engine.request(b"list", destination="orders", delay="10s,1h")
        await asyncio.sleep(20)
        assert values(engine) == ["list"]
        ask(engine, "reschedule", coordinates=at(0, offset), delay="1m")
        ask(engine, "reschedule", coordinates=at(0, offset), delay="1m,2m")
        await asyncio.sleep(1)
        refused, rescheduled = sorted(receipts(engine), key=lambda receipt: receipt["outcome"])
        assert (rescheduled["outcome"], rescheduled["count"]) == ("rescheduled", 1)
        assert (refused["outcome"], refused["code"]) == ("rejected", "list-too-long")
        await asyncio.sleep(50)
        assert values(engine) == ["list"]
        await asyncio.sleep(10_000)
        fire = engine.read("orders")[1]
        assert [header(fire, "fire-id")] == [told["fire_id"] for told in rescheduled["fires"]]
        assert len({header(record, "fire-id") for record in engine.read("orders")}) == 2

    in_virtual_time(test)


@pytest.mark.parametrize("held", [False, True])
def test_it_is_triggered_in_place_of_its_times_although_a_hold_matches(held: bool) -> None:
    """To try one of many before all are resumed."""

    async def test(engine: Engine) -> None:
        offset = engine.request(b"one", destination="orders", delay="10s")
        engine.request(b"two", destination="orders", delay="10s")
        await asyncio.sleep(1)
        if held:
            engine.request(action="pause", match_destination="*")
            await asyncio.sleep(20)
        ask(engine, "trigger", coordinates=at(0, offset))
        await asyncio.sleep(1)
        assert (last(engine, "outcome", "count"), values(engine)) == (("triggered", 1), ["one"])
        await asyncio.sleep(60)
        assert values(engine) == (["one"] if held else ["one", "two"])

    in_virtual_time(test)


def test_what_was_triggered_and_then_rescheduled_is_held_as_any_other() -> None:
    """The trigger let go what fired then; it could not, and now has another time."""

    async def test(engine: Engine) -> None:
        offset = engine.request(b"one", destination="missing", delay="1h")
        await asyncio.sleep(1)
        ask(engine, "trigger", coordinates=at(0, offset))
        await asyncio.sleep(2)
        ask(engine, "reschedule", coordinates=at(0, offset), delay="1m")
        await asyncio.sleep(2)
        engine.request(action="pause", match_destination="missing")
        await asyncio.sleep(2)
        engine.log.create_topic("missing", 1)
        await asyncio.sleep(300)
        assert engine.read("missing") == []
        engine.request(action="resume", match_destination="missing")
        await asyncio.sleep(5)
        assert [record.value for record in engine.read("missing")] == [b"one"]

    in_virtual_time(test)


def test_what_comes_due_while_it_is_looked_for_waits_for_what_becomes_of_it() -> None:
    async def test(engine: Engine) -> None:
        for _ in range(400):
            engine.request(b"other", destination="emails", delay="1h")
        offset = engine.request(b"a", destination="orders", delay="10s,20s")
        await asyncio.sleep(9.99)
        ask(engine, "reschedule", coordinates=at(0, offset), delay="5m")
        await asyncio.sleep(0.1)
        await again(engine)
        await asyncio.sleep(60)
        assert (last(engine, "outcome", "count"), values(engine)) == (("rescheduled", 2), [])
        await asyncio.sleep(300)
        assert values(engine) == ["a"]

    in_virtual_time(test, bulk_slice=1)


@pytest.mark.parametrize("first", ["cancel", "trigger"])
def test_commands_by_coordinates_and_for_many_have_one_order(first: str) -> None:
    async def test(engine: Engine) -> None:
        for _ in range(50):
            engine.request(b"other", destination="emails", delay="1h")
        offset = engine.request(b"a", destination="orders", delay="1h")
        await asyncio.sleep(5)
        many = {"match_destination": "orders", "match_anonymous": "true"}
        if first == "cancel":
            ask(engine, "cancel", **many)
        ask(engine, "trigger", coordinates=at(0, offset))
        if first == "trigger":
            ask(engine, "cancel", **many)
        await asyncio.sleep(60)
        told = [(r["outcome"], r.get("anonymous")) for r in receipts(engine)]
        if first == "cancel":
            assert (told, values(engine)) == ([("cancelled", 1), ("too-late", None)], [])
        else:
            # As of an id: what was triggered and is not delivered yet is cancelled, too.
            assert (told, values(engine)) == ([("triggered", None), ("cancelled", 1)], [])

    in_virtual_time(test, bulk_slice=1)


def test_a_command_finds_what_the_one_before_it_has_put_back() -> None:
    """Also where both are carried out at once."""

    async def test(engine: Engine) -> None:
        offset = engine.request(b"a", destination="orders", delay="1h")
        await asyncio.sleep(1)
        ask(engine, "reschedule", coordinates=at(0, offset), delay="1m")
        ask(engine, "reschedule", coordinates=at(0, offset), delay="2m")
        ask(engine, "cancel", coordinates=at(0, offset))
        await asyncio.sleep(10_000)
        told = [receipt["outcome"] for receipt in receipts(engine)]
        assert (told, values(engine)) == (["rescheduled", "rescheduled", "cancelled"], [])

    in_virtual_time(test)


def test_commands_that_wait_for_each_other_all_have_their_turn() -> None:
    """Where a step has no room for all of them, and the first does not come first in their wheel."""

    async def test(engine: Engine) -> None:
        for _ in range(50):
            engine.request(b"a", destination="orders", delay="1h")
        await asyncio.sleep(1)
        for _ in range(5):
            ask(engine, "cancel", match_destination="*", match_anonymous="true")
            await asyncio.sleep(0.1)
            # Each begins with an earlier time than the one before it.
            engine.clock.step(-10_000)
        engine.clock.step(50_000)
        await asyncio.sleep(60)
        assert sorted(receipt.get("anonymous", 0) for receipt in receipts(engine)) == [0, 0, 0, 0, 50]
        assert engine.read("orders") == []

    in_virtual_time(test, bulk_slice=1, transaction_max_records=2)


def test_nothing_pending_is_too_late_and_nothing_read_is_unknown() -> None:
    async def test(engine: Engine) -> None:
        fired = engine.request(b"a", destination="orders", delay="0", partition=1)
        named = engine.request(b"b", destination="orders", delay="1h", id="x", partition=1)
        await asyncio.sleep(1)
        for offset in (fired, named, 1_000):
            ask(engine, "cancel", coordinates=at(1, offset))
        await asyncio.sleep(1)
        assert [receipt["outcome"] for receipt in receipts(engine)] == ["too-late", "too-late", "unknown"]
        await asyncio.sleep(10_000)
        assert values(engine) == ["a", "b"]

    in_virtual_time(test, partitions=2)


@pytest.mark.parametrize("action", ["cancel", "reschedule", "trigger", "describe"])
def test_what_was_read_in_the_very_step_of_the_command_was_read(action: str) -> None:
    async def test(engine: Engine) -> None:
        offset = engine.request(b"at once", destination="orders", delay="0")
        when = {"delay": "1s"} if action == "reschedule" else {}
        ask(engine, action, coordinates=at(0, offset), **when)
        await asyncio.sleep(1)
        assert last(engine, "outcome", "count") == ("too-late", 0)
        assert values(engine) == ["at once"]

    in_virtual_time(test)


def test_a_request_that_was_moved_here_is_named_with_its_origin() -> None:
    async def test(old: Engine, new: Engine) -> None:
        offset = old.request(b"a", destination="orders", delay="1h")
        await asyncio.sleep(1)
        await old.stop()
        await imported(exported(old), new)
        new.start()
        for _ in range(offset + 3):
            new.request(b"b", destination="orders", delay="1h")
        await asyncio.sleep(1)
        ask(new, "cancel", coordinates=f"{REQUESTS}@topic-id-1/0/{offset}")
        await asyncio.sleep(1)
        assert last(new, "outcome", "count") == ("cancelled", 1)
        await asyncio.sleep(10_000)
        assert values(new) == ["b"] * (offset + 3)

    between_clusters(test)


def test_a_command_that_was_moved_on_its_way_means_what_was_moved_with_it() -> None:
    async def test(old: Engine, new: Engine) -> None:
        offset = old.request(b"moved", destination="orders", delay="1h", partition=1)
        await asyncio.sleep(1)
        await old.stop()
        new.request(b"here", destination="orders", delay="1h", partition=1)
        assert offset == 0
        headers = [("delaystream-action", b"cancel"), ("delaystream-coordinates", at(1, 0).encode())]
        command = Coordinates(REQUESTS, 0, 7)
        request = Request(
            command, old.clock.now_ms(), None, None, [], Action.CANCEL, None, "", (), None, None, False,
            IfExists.REPLACE, "fire", None, None, None, None, (),
        )  # fmt: skip
        sent = attach(headers, request)
        in_flight = lines.InFlight(0, 5, old.clock.now_ms(), None, None, sent)
        await imported(exported(old, in_flight=[in_flight]), new)
        new.start()
        await asyncio.sleep(10_000)
        assert values(new) == ["here"]

    between_clusters(test, partitions=2)


# -- what is stored ------------------------------------------------------------------------------


def test_the_tags_of_a_request_without_an_id_are_kept_until_it_fires() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1h", tags="a,b")
        await asyncio.sleep(1)
        stored = [value for key, value in engine.stores.disks[0].values.items() if key[:1] == b"w"]
        (entry,) = [entry for entry in map(decode_entry, stored) if type(entry) is Envelope]
        assert entry.tags == ["a", "b"]

    in_virtual_time(test)


def test_nothing_is_left_of_a_hold_that_was_resumed() -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="10s")
        await asyncio.sleep(1)
        ask(engine, "pause", match_destination="orders")
        await asyncio.sleep(30)
        ask(engine, "resume", match_destination="orders")
        await asyncio.sleep(30)
        kinds = {key[:1] for key in engine.stores.disks[0].values}
        assert not kinds & {b"h", b"b", b"g", b"w"}

    in_virtual_time(test)


def test_what_is_read_while_a_command_about_it_is_at_work_is_not_over() -> None:
    """A command may be read before the request that it names: on its way it came from another partition."""

    async def test(engine: Engine) -> None:
        # The command looks through this wheel first, and is long at work on the other one.
        engine.request(destination="orders", delay="10h", partition=0)
        for _ in range(400):
            engine.request(destination="emails", delay="10h", partition=0)
        await asyncio.sleep(1)
        control = {"coordinates": at(0, 401)}
        engine.request(None, action="cancel", reply_to="replies", partition=1, control=control)
        await asyncio.sleep(0.2)
        assert engine.request(b"late", destination="orders", delay="1m", partition=0) == 401
        await asyncio.sleep(30)
        assert last(engine, "outcome", "count") == ("unknown", 0)
        await asyncio.sleep(100)
        assert values(engine) == ["late"]

    in_virtual_time(test, partitions=2, bulk_slice=1)
