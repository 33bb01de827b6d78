"""Numbers in requests: the largest is stored, decided on and described; one more is refused."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from typing import Any

import pytest
from pydantic import BaseModel

from delaystream.codec.requests.names import SUPPORTED
from delaystream.config import Settings
from delaystream.config.request_settings import RequestSettings
from delaystream.core.durations import LONGEST_MS, parse_duration
from delaystream.core.instants import LATEST_MS, format_instant
from delaystream.core.limits import Limits
from tests.unit.engine import Engine, header, in_virtual_time

FURTHEST_MS = Limits().max_delay_ms
LAST = 2**63 - 1

ONCE = {"destination": "orders", "delay": "1h"}
HOURLY = {"destination": "orders", "id": "x", "every": "1h"}
YEARLY = {"destination": "orders", "id": "x", "every": "3650d"}
LATE = {"on_late": "drop"}
THERE = {"id": "there"}
ALL = {"match_destination": "*"}
AGAIN = {"id": "again"}
EARLIER = {"coordinates": "delay-requests/0/0"}

#: what a request has beside the header, the header, its largest value, one more, the code
NUMBERS: list[tuple[Mapping[str, str], str, str, str, str]] = [
    ({"destination": "orders"}, "delay", f"{FURTHEST_MS}ms", f"{FURTHEST_MS + 1}ms", "delay-too-long"),
    ({"destination": "orders", "id": "x"}, "delay", "1s,3650d", "1s,3650d1ms", "delay-too-long"),
    ({"action": "reschedule", **THERE}, "delay", "3650d", "3650d1ms", "delay-too-long"),
    ({"action": "reschedule", **EARLIER}, "delay", "3650d", "3650d1ms", "delay-too-long"),
    ({"action": "update", **THERE}, "delay", "3650d", "999999999999999d", "delay-too-long"),
    ({"destination": "orders"}, "at", "furthest", "further", "delay-too-long"),
    ({"action": "reschedule", **THERE}, "at", "furthest", "further", "delay-too-long"),
    ({"destination": "orders", "id": "x"}, "every", "3650d", "3650d1ms", "invalid-every"),
    ({"action": "reschedule", **AGAIN}, "every", "3650d", "3650d1ms", "invalid-every"),
    ({"action": "update", **AGAIN}, "every", "3650d", "999999999999999999d", "invalid-every"),
    (YEARLY, "jitter", "3649d23h59m59s999ms", "3650d", "jitter-too-long"),
    (YEARLY, "jitter", "3649d", "36500d1ms", "invalid-jitter"),
    ({"action": "reschedule", **AGAIN}, "jitter", "59m59s999ms", "36500d1ms", "invalid-jitter"),
    ({"action": "reschedule", **AGAIN}, "jitter", "1ms", "36500d", "jitter-too-long"),
    ({"action": "update", **AGAIN}, "jitter", "1ms", "999999999999999999d", "invalid-jitter"),
    ({**ONCE, **LATE}, "grace", "36500d", "36500d1ms", "invalid-grace"),
    ({**ONCE, **LATE, "id": "x"}, "grace", "36500d", "36500d1ms", "invalid-grace"),
    (HOURLY, "grace", "36500d", "999999999999999999d", "invalid-grace"),
    ({**HOURLY, "catch_up": "all"}, "grace", "P36500D", "P36501D", "invalid-grace"),
    ({"action": "resume", **THERE}, "grace", "36500d", "36500d1ms", "invalid-grace"),
    ({"action": "resume", **AGAIN}, "grace", "36500d", "36500d1ms", "invalid-grace"),
    ({"action": "resume", **ALL}, "grace", "36500d", "36500d1ms", "invalid-grace"),
    ({"action": "update", **THERE}, "grace", "36500d", "36500d1ms", "invalid-grace"),
    ({"action": "update", **AGAIN}, "grace", "36500d", "36500d1ms", "invalid-grace"),
    (HOURLY, "start", "furthest", "further", "invalid-start"),
    ({"action": "reschedule", **AGAIN}, "start", "furthest", "further", "invalid-start"),
    (HOURLY, "end", str(LATEST_MS), str(LATEST_MS + 1), "invalid-end"),
    ({"action": "update", **AGAIN}, "end", format_instant(LATEST_MS), str(10**29), "invalid-end"),
    (HOURLY, "max-fires", "9999999999", "10000000000", "invalid-max-fires"),
    ({"action": "update", **AGAIN}, "max-fires", "9999999999", "1" + "0" * 30, "invalid-max-fires"),
    ({"action": "pause", **THERE}, "until", "furthest", "further", "invalid-until"),
    (
        {"action": "pause", "match_destination": "orders", "match_new": "true"},
        "until",
        "furthest",
        "further",
        "invalid-until",
    ),
    (
        {**ONCE, "destination": "later"},
        "destination-partition",
        str(2**31 - 1),
        str(2**31),
        "invalid-destination-partition",
    ),
    (
        {"action": "update", **AGAIN, "destination": "later"},
        "destination-partition",
        str(2**31 - 1),
        str(10**18),
        "invalid-destination-partition",
    ),
    ({**ONCE, "id": "x", "declared_by": "us"}, "deploy", str(LAST), str(LAST + 1), "invalid-deploy"),
    (
        {"action": "cancel", "id": "never", "declared_by": "us"},
        "deploy",
        str(LAST),
        str(10**40),
        "invalid-deploy",
    ),
    (ONCE, "attempt", str(2**31 - 1), str(2**31), "invalid-attempt"),
    (HOURLY, "attempt", str(2**31 - 1), str(10**30), "invalid-attempt"),
    ({"action": "rate", "destination": "orders"}, "rate", "10000000", "10000001", "invalid-rate"),
    ({"action": "rate", "destination": "orders"}, "rate", "600000000/m", "600000001/m", "invalid-rate"),
    ({"action": "rate", "destination": "late"}, "rate", "0.000000001/h", "0", "invalid-rate"),
    (
        {"action": "cancel"},
        "coordinates",
        f"delay-requests/{2**31 - 1}/{LAST}",
        f"delay-requests/0/{LAST + 1}",
        "invalid-coordinates",
    ),
    (
        {"action": "reschedule", "delay": "1h"},
        "coordinates",
        f"delay-requests/{2**31 - 1}/{LAST}",
        f"delay-requests/{2**31}/0",
        "invalid-coordinates",
    ),
]
#: what has a version is never at the largest there may be
CONDITIONS = [
    ({**ONCE, "id": "x"}, "if-version", str(LAST), str(LAST + 1), "invalid-version"),
    ({"action": "trigger", **THERE}, "if-version", str(LAST), str(10**30), "invalid-version"),
]
WORDS = frozenset({
    "destination", "cron", "timezone", "dst-gap", "dst-overlap", "catch-up", "id", "action", "match-tags",
    "match-destination", "match-id-prefix", "match-key", "match-new", "match-anonymous", "if-exists",
    "status", "payload", "on-late", "destination-key", "reply-to", "name", "description", "tags", "actor",
    "note", "request-id", "declared-by",
})  # fmt: skip
"""Headers that hold no number."""


def test_every_header_is_known_to_hold_a_number_or_none() -> None:
    assert {header for _, header, *_ in (*NUMBERS, *CONDITIONS)} | WORDS == set(SUPPORTED)


@pytest.mark.parametrize("way", ["largest", "more"])
@pytest.mark.parametrize(
    ("beside", "kind", "largest", "more", "code"),
    [*NUMBERS, *CONDITIONS],
    ids=lambda value: value if isinstance(value, str) and len(value) < 22 else "",
)
def test_the_largest_number_is_carried_out_and_one_more_refused(
    beside: Mapping[str, str], kind: str, largest: str, more: str, code: str, way: str
) -> None:
    async def test(engine: Engine) -> None:
        engine.request(destination="orders", id="there", status="paused", delay="2h")
        engine.request(destination="orders", id="again", status="paused", every="1h", partition=1)
        await asyncio.sleep(1)
        now_ms = engine.clock.now_ms()
        written = {
            "furthest": str(now_ms + FURTHEST_MS),
            "further": format_instant(now_ms + FURTHEST_MS + 1_000),
        }
        control = {**beside, kind.replace("-", "_"): largest if way == "largest" else more}
        control = {name: written.get(text, text) for name, text in control.items()}
        # From a partition that owns few of the ids: a request for another's is written down on its way.
        for partition in range(3):
            engine.request(None, b"key", (), partition, None, control)
        engine.request(b"behind", destination="emails", delay="0")
        await asyncio.sleep(3)
        for id in {"there", "again", control.get("id", "x")}:
            engine.request(None, action="describe", id=id, reply_to="replies")
        await asyncio.sleep(3)
        assert [record.value for record in engine.read("emails")] == [b"behind"]
        told = [json.loads(record.value or b"") for record in engine.read("replies")]
        assert len(told) == len({"there", "again", control.get("id", "x")})
        refused = {header(record, "error") for record in engine.read("delay-dead-letters")}
        conditional = {"version-changed"} if kind == "if-version" else set()
        assert refused == ({code} if way == "more" else conditional)
        await engine.stop()
        engine.start()
        # What was stored is read again, and decided on once more.
        engine.request(action="resume", match_destination="*")
        engine.request(action="trigger", id=control.get("id", "x"))
        await asyncio.sleep(5)
        assert "internal-error" not in {header(r, "error") for r in engine.read("delay-dead-letters")}

    in_virtual_time(test, partitions=3)


def _numbers(model: type[BaseModel]) -> Iterator[tuple[str, dict[str, Any]]]:
    schema = model.model_json_schema()
    for name, field in schema["properties"].items():
        for kind in field.get("anyOf", [field]):
            if kind.get("type") in ("integer", "number"):
                yield name, kind


@pytest.mark.parametrize("model", [Settings, RequestSettings])
def test_every_setting_that_is_a_number_has_bounds(model: type[BaseModel]) -> None:
    found = dict(_numbers(model))
    assert found
    for name, kind in found.items():
        assert kind.keys() & {"maximum", "exclusiveMaximum"}, name
        assert kind.keys() & {"minimum", "exclusiveMinimum"}, name
        assert kind["maximum"] < 2**63, name


def test_no_default_is_longer_than_what_a_request_may_ask_for() -> None:
    bounds = dict(_numbers(RequestSettings))
    assert bounds["default_grace_ms"]["maximum"] <= LONGEST_MS
    assert bounds["max_delay_ms"]["maximum"] <= LONGEST_MS
    assert parse_duration("36500d") == LONGEST_MS
