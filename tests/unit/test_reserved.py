"""What the contract has and the engine does not carry out is refused, wherever it is asked for."""

import asyncio
import json
import re

import pytest

from delaystream.core.rejection import Code
from delaystream.engine.reserved import RESERVED
from tests.unit.engine import Engine, header, in_virtual_time
from tests.unit.test_setup import ROOT

ASKED: dict[str, dict[str, str]] = {
    "update": {"action": "update", "id": "x", "payload": "keep", "tags": "a"},
    "describe": {"action": "describe", "id": "x"},
    "note": {"destination": "orders", "delay": "0", "note": "no id, and due at once"},
    "until": {"action": "pause", "id": "x", "until": "1700003600000"},
    "status": {"destination": "orders", "delay": "0", "id": "x", "status": "pending"},
    "coordinates": {"action": "cancel", "coordinates": "delay-requests/0/0"},
    "match-key": {"action": "pause", "match_key": "k"},
    "match-new": {"action": "pause", "match_destination": "*", "match_new": "true"},
    "match-anonymous": {"action": "cancel", "match_destination": "*", "match_anonymous": "true"},
    "if-version": {"destination": "orders", "delay": "0", "id": "x", "if_version": "0"},
    "request-id": {"action": "cancel", "id": "x", "request_id": "r"},
    "declared-by": {"action": "cancel", "id": "x", "declared_by": "billing"},
    "deploy": {"action": "cancel", "id": "x", "declared_by": "billing", "deploy": "1"},
    "resume: lateness": {"action": "resume", "id": "x", "grace": "1h"},
    "reschedule: bounds": {"action": "reschedule", "id": "x", "end": "none"},
}


@pytest.mark.parametrize("name", sorted(RESERVED))
@pytest.mark.parametrize("partition", [0, 1])
def test_what_is_reserved_is_refused_by_name(name: str, partition: int) -> None:
    """On the partition that owns the id, and on one that would hand it on."""

    asked = ASKED[name]

    async def refused(engine: Engine) -> None:
        engine.request(partition=partition, reply_to="replies", **asked)
        await asyncio.sleep(1)
        (letter,) = engine.read("delay-dead-letters")
        (receipt,) = engine.read("replies")
        assert engine.read("orders") == []
        assert engine.read("delay-commands") == []
        assert header(letter, "error") == Code.NOT_SUPPORTED == "not-supported"
        body = json.loads(receipt.value or b"")
        assert (body["outcome"], body["code"]) == ("rejected", "not-supported")
        assert body.get("id") == asked.get("id")
        assert body["detail"] == header(letter, "error-detail")
        assert body["detail"].startswith("delaystream-")
        assert body["detail"].endswith("; expected a request without it.")

    in_virtual_time(refused, partitions=2)


def test_what_is_not_reserved_goes_on_beside_it() -> None:
    async def goes_on(engine: Engine) -> None:
        engine.request(destination="orders", action="rate", rate="1")
        engine.request(destination="orders", delay="0", tags="accepted,as,ever")
        await asyncio.sleep(1)
        assert len(engine.read("orders")) == 1

    in_virtual_time(goes_on)


def test_every_reserved_thing_is_refused_above() -> None:
    assert ASKED.keys() >= RESERVED


def test_the_documentation_marks_what_is_reserved_and_nothing_else() -> None:
    """Headers and actions; what older commands do not do yet is said in words."""
    contract = (ROOT / "docs" / "headers.md").read_text("utf-8")
    rows = re.findall(r"^\| ((?:`[a-z-]+`(?:, )?)+) \(reserved\) \|", contract, re.MULTILINE)
    marked = {name for row in rows for name in re.findall(r"`([a-z-]+)`", row)}
    assert marked == RESERVED
