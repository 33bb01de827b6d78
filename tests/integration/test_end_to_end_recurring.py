"""Recurring schedules on a real Kafka: on their beat, controlled from any client, and told of as events."""

from __future__ import annotations

import json
from itertools import pairwise
from typing import Any
from uuid import uuid4

from tests.integration.harness import Deployment
from tests.integration.harness_kafka import Delivery, Reader


def _answers(reader: Reader, count: int) -> list[dict[str, Any]]:
    return [dict(json.loads(receipt.value or b"")) for receipt in reader.take(count)]


def _answer(reader: Reader) -> dict[str, Any]:
    (answer,) = _answers(reader, 1)
    return answer


def test_a_recurring_schedule_is_fired_paused_triggered_and_cancelled_with_others(app: Deployment) -> None:
    """Delivery, next fire and event are one transaction; a bulk command reaches every partition once."""
    out, replies, tag = app.destination("beat"), app.destination("beat-replies"), f"tag-{uuid4()}"
    names = [f"beat {uuid4()}" for _ in range(6)]
    first = names[0]
    with app.reader(replies) as receipts, app.reader(app.events) as told:
        for name in names:
            app.request(
                b"beat", {"destination": out, "every": "1s", "id": name, "tags": tag, "reply-to": replies}
            )
        assert [answer["outcome"] for answer in _answers(receipts, len(names))] == ["scheduled"] * len(names)
        with app.reader(out) as reader:
            fires = reader.take(4, wanted=lambda delivery: delivery.text("delaystream-schedule-id") == first)
        dues = [int(fire.text("delaystream-due-at")) for fire in fires]
        assert [later - due for due, later in pairwise(dues)] == [1000] * 3
        outcomes = []
        for action in ("pause", "trigger", "resume"):
            app.request(None, {"action": action, "id": first, "reply-to": replies})
            outcomes.append(_answer(receipts)["outcome"])
        assert outcomes == ["paused", "triggered", "resumed"]
        app.request(None, {"action": "cancel", "match-tags": tag, "reply-to": replies})
        summary = _answer(receipts)
        assert (summary["outcome"], summary["count"]) == ("cancelled", len(names))

        def cancelled(record: Delivery) -> bool:
            event = _event(record.value)
            return event["type"] == "cancelled" and event.get("id") in names

        ended = told.take(len(names), wanted=cancelled)
    assert {_event(record.value)["id"] for record in ended} == set(names)
    assert {record.key for record in ended} == {name.encode() for name in names}


def _event(value: bytes | None) -> dict[str, Any]:
    return dict(json.loads(value or b"{}"))
