"""Receipts hold what the header contract says, of each outcome and after each action."""

from __future__ import annotations

import asyncio
import json
from collections import defaultdict
from typing import Any

import pytest

from delaystream.codec.outgoing import Outcome
from tests.unit.engine import REQUESTS, Engine, in_virtual_time
from tests.unit.header_contract import CONTRACT

RECEIPT: dict[str, Any] = CONTRACT["receipt"]
HOUR_S = 3600


async def every_outcome(engine: Engine) -> None:
    """All that can become of a request, at least once, and of most in more than one way."""

    def ask(**control: str) -> int:
        named = {name.replace("_", "-"): text for name, text in control.items()}
        where = {} if "action" in named else {"destination": "orders"}
        return engine.request(value=None, control={"reply-to": "replies", **where, **named})

    def coordinates(offset: int) -> str:
        return f"{REQUESTS}/0/{offset}"

    # Without an id, and about one such request.
    one = ask(delay="1h")
    late = ask(delay="0")
    listed = ask(delay="2h,3h")
    held = ask(delay="4h", tags="held")
    await asyncio.sleep(1)
    for action in ("describe", "trigger"):
        ask(action=action, coordinates=coordinates(one))
    ask(action="describe", coordinates=coordinates(listed))
    ask(action="reschedule", coordinates=coordinates(listed), delay="1h")
    for action in ("cancel", "trigger", "describe"):
        ask(action=action, coordinates=coordinates(late))
        ask(action=action, coordinates=coordinates(10_000))
    ask(action="reschedule", coordinates=coordinates(late), delay="1h")
    ask(action="cancel", coordinates=coordinates(held))
    await asyncio.sleep(60)
    # By id.
    ask(id="x", delay="1h", request_id="first")
    ask(id="x", delay="1h", request_id="first")
    ask(id="x", delay="2h", if_exists="keep", request_id="kept")
    ask(id="x", delay="2h", if_exists="keep", request_id="kept")
    ask(id="x", delay="2h", if_exists="reject")
    ask(id="x", delay="2h", request_id="again")
    ask(id="x", delay="2h", request_id="again")
    ask(id="cron", cron="0 * * * *", request_id="cron")
    ask(id="cron", cron="0 * * * *")
    for action, more in (
        ("pause", {}),
        ("pause", {"until": str(engine.clock.now_ms() + HOUR_S * 1000)}),
        ("pause", {"until": str(engine.clock.now_ms() + HOUR_S * 1000)}),
        ("describe", {}),
        ("update", {"name": "n"}),
        ("resume", {}),
        ("resume", {}),
        ("trigger", {}),
        ("reschedule", {"every": "1h"}),
        ("update", {"name": "m"}),
        ("update", {"tags": "red"}),
        ("describe", {}),
    ):
        number = str(len(engine.read(REQUESTS)))
        for _ in range(2):
            ask(id="cron", action=action, request_id=f"{action}-{number}", **more)
    # What is paused until a time, and stays so.
    ask(id="waits", cron="0 * * * *")
    ask(id="waits", action="pause", until=str(engine.clock.now_ms() + HOUR_S * 1000))
    ask(id="waits", cron="0 * * * *", if_exists="keep")
    ask(id="waits", cron="0 * * * *")
    ask(id="waits", action="trigger")
    ask(id="waits", action="reschedule", every="2h")
    ask(id="waits", cron="30 * * * *")
    ask(id="waits", action="update", name="n")
    ask(id="waits", action="describe")
    ask(id="waits", action="cancel")
    await asyncio.sleep(10 * HOUR_S)
    for action, more in (
        ("cancel", {}),
        ("pause", {}),
        ("resume", {}),
        ("trigger", {}),
        ("reschedule", {"delay": "1h"}),
        ("update", {"name": "n"}),
        ("describe", {}),
    ):
        # `x` is over by now, and nobody has heard of `y`.
        for id in ("x", f"y-{action}"):
            for _ in range(2):
                ask(id=id, action=action, request_id=f"late-{action}", **more)
    # For many.
    ask(id="red", delay="5h", tags="red")
    ask(delay="5h", tags="red")
    ask(action="pause", match_tags="red", until=str(engine.clock.now_ms() + HOUR_S * 1000))
    ask(action="describe", id="red")
    ask(id="red", delay="5h", tags="red")
    await asyncio.sleep(60)
    ask(action="resume", match_tags="red")
    ask(action="pause", match_tags="blue", match_new="true", until=str(engine.clock.now_ms() + HOUR_S * 1000))
    ask(id="blue", delay="5h", tags="blue")
    ask(id="blue", action="resume")
    for action in ("cancel", "resume", "pause"):
        ask(action=action, match_tags="unheard-of")
    ask(action="pause", match_tags="unheard-of", until=str(engine.clock.now_ms() + HOUR_S * 1000))
    ask(action="cancel", match_tags="red", match_anonymous="true")
    ask(id="cron", action="cancel", request_id="gone")
    ask(id="cron", action="cancel", request_id="gone")
    ask(id="cron", action="trigger")
    ask(action="rate", destination="orders", rate="600/m")
    # Refused: without an id, and each action with one that it takes.
    ask(delay="soon")
    for action in CONTRACT["actions"]:
        engine.request(
            value=None,
            control={"reply-to": "replies", "note": "x" * 1025, "action": action, "id": "refused"},
        )
    await asyncio.sleep(60)


def problems(receipts: list[tuple[str, dict[str, Any]]]) -> list[str]:
    """What of the receipts is not as the contract says, by the action of each."""
    found = []
    for action, body in receipts:
        outcome = RECEIPT["outcomes"].get(body["outcome"])
        if outcome is None or body["outcome"] not in CONTRACT["actions"][action]["outcomes"]:
            found.append(f"{action} ended as {body['outcome']}")
            continue
        if body.get("repeated"):
            if other := body.keys() - {*RECEIPT["always"], *RECEIPT["repeated"], "repeated"}:
                found.append(f"{action}: {body['outcome']} again has {sorted(other)}")
            if "repeated" not in outcome["sometimes"]:
                found.append(f"{action}: {body['outcome']} is repeated")
            continue
        always = {*RECEIPT["always"], *outcome["also"]}
        if missing := always - body.keys():
            found.append(f"{action}: {body['outcome']} lacks {sorted(missing)}")
        if other := body.keys() - always - {*outcome["sometimes"]}:
            found.append(f"{action}: {body['outcome']} has {sorted(other)}")
    return found


@pytest.mark.parametrize("partitions", [1, 3])
def test_receipts_are_as_the_contract_says(partitions: int) -> None:
    """Of every action and every outcome; and what may be there is there at least once."""
    receipts: list[tuple[str, dict[str, Any]]] = []

    async def test(engine: Engine) -> None:
        await every_outcome(engine)
        actions = {}
        for record in engine.read(REQUESTS):
            control = dict(record.headers)
            source = f"{REQUESTS}/0/{record.offset}"
            actions[source] = (control.get("delaystream-action") or b"schedule").decode()
        for record in engine.read("replies"):
            body = json.loads(record.value or b"")
            receipts.append((actions[body["source"]], body))
            told = dict(record.headers)
            assert told["delaystream-receipt"] == body["outcome"].encode()
            assert record.key == body["schedule_id"].encode()

    in_virtual_time(test, partitions=partitions)
    assert sorted({*problems(receipts)}) == []
    again = {name for _, body in receipts if body.get("repeated") for name in body}
    assert again == {*RECEIPT["always"], *RECEIPT["repeated"], "repeated"}
    seen: dict[str, set[str]] = defaultdict(set)
    by_action: dict[str, set[str]] = defaultdict(set)
    for action, body in receipts:
        seen[body["outcome"]] |= body.keys()
        by_action[action].add(body["outcome"])
    assert seen.keys() == set(Outcome)
    never = {
        name: sorted({*outcome["sometimes"]} - seen[name]) for name, outcome in RECEIPT["outcomes"].items()
    }
    assert {name: fields for name, fields in never.items() if fields} == {}
    missing = {
        name: sorted({*action["outcomes"]} - by_action[name]) for name, action in CONTRACT["actions"].items()
    }
    assert {name: outcomes for name, outcomes in missing.items() if outcomes} == {}
