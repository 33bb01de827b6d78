"""Named schedules: replaced, kept, cancelled, answered, from whatever partition the requests come."""

from __future__ import annotations

import json
import time
from typing import Any
from uuid import uuid4

from delaystream.core.partitioning import owner_partition
from tests.integration.harness import Deployment
from tests.integration.harness_kafka import Delivery, Reader


def _id() -> str:
    return f"order {uuid4()} ☂"


def _answer(reader: Reader) -> dict[str, Any]:
    (receipt,) = reader.take(1)
    body = json.loads(receipt.value or b"")
    assert receipt.text("delaystream-receipt") == body["outcome"]
    assert receipt.key == body["schedule_id"].encode()
    return dict(body)


def _values(deliveries: list[Delivery]) -> set[bytes | None]:
    return {delivery.value for delivery in deliveries}


def test_an_id_is_reached_from_every_partition(app: Deployment) -> None:
    """Whatever partition a producer used, schedule and cancel of an id meet at the id's owner."""
    out, replies = app.destination("everywhere"), app.destination("everywhere-replies")
    with app.reader(replies) as reader:
        for start in range(app.partitions):
            for end in range(app.partitions):
                name = _id()
                control = {"id": name, "reply-to": replies}
                app.request(b"v", {"destination": out, "delay": "1h", **control}, partition=start)
                scheduled = _answer(reader)
                assert (scheduled["outcome"], scheduled["id"]) == ("scheduled", name)
                assert scheduled["source"].startswith(f"{app.requests}/{start}/")
                app.request(None, {"action": "cancel", **control}, partition=end)
                assert _answer(reader)["outcome"] == "cancelled"
    assert sum(app.kafka.stable_offsets(out)) == 0


def test_a_named_delivery_carries_its_id(app: Deployment) -> None:
    """The schedule id is the id; the source stays the request as it was produced, not as it was re-routed."""
    out, name = app.destination("named"), _id()
    elsewhere = (owner_partition(name, app.partitions) + 1) % app.partitions
    sent_ms = int(time.time() * 1000)
    control = {"destination": out, "delay": "500ms", "id": name, "name": "a name", "tags": "a,b"}
    _, offset = app.request(b"v", control, partition=elsewhere, timestamp_ms=sent_ms)
    (delivery,) = app.kafka.read(out, 1)
    assert delivery.text("delaystream-schedule-id") == name
    assert delivery.text("delaystream-source") == f"{app.requests}/{elsewhere}/{offset}"
    assert delivery.text("delaystream-due-at") == str(sent_ms + 500)
    assert delivery.text("delaystream-fire-id").endswith(f"/{sent_ms + 500}/{name}")
    assert delivery.timestamp_ms >= sent_ms + 500


def test_requests_of_one_partition_for_one_id_apply_in_order(app: Deployment) -> None:
    """The last of many requests for an id wins, however they are batched."""
    out = app.destination("in-order")
    names = [_id() for _ in range(10)]
    requests = [
        (
            None,
            f"{name} {turn}".encode(),
            [
                ("delaystream-destination", out.encode()),
                ("delaystream-delay", b"1500ms"),
                ("delaystream-id", name.encode()),
            ],
        )
        for turn in range(20)
        for name in names
    ]
    app.kafka.produce(app.requests, requests, partition=0)
    with app.reader(out) as reader:
        assert _values(reader.take(len(names))) == {f"{name} 19".encode() for name in names}
        reader.quiet(0.5)


def test_if_exists_replaces_keeps_or_rejects(app: Deployment) -> None:
    """A pending id is replaced by default; `keep` and `reject` leave it, and the receipt tells."""
    out, replies = app.destination("exists"), app.destination("exists-replies")
    with app.reader(replies) as reader, app.reader(out) as deliveries:
        for choice, outcome, delivered in (
            ("replace", "replaced", b"second"),
            ("keep", "kept", b"first"),
            ("reject", "rejected", b"first"),
        ):
            control = {"destination": out, "delay": "1500ms", "id": _id(), "reply-to": replies}
            app.request(b"first", control)
            assert _answer(reader)["outcome"] == "scheduled"
            app.request(b"second", {**control, "if-exists": choice})
            answer = _answer(reader)
            assert answer["outcome"] == outcome
            assert answer.get("code") == ("already-exists" if choice == "reject" else None)
            assert [delivery.value for delivery in deliveries.take(1)] == [delivered]
        deliveries.quiet(0.5)


def test_a_cancel_says_what_it_found(app: Deployment) -> None:
    """`too-late` after the fire, with the fire that won; `unknown` for an id that nobody scheduled."""
    out, replies = app.destination("too-late"), app.destination("too-late-replies")
    name = _id()
    with app.reader(replies) as reader:
        app.request(b"v", {"destination": out, "delay": "0", "id": name})
        (delivery,) = app.kafka.read(out, 1)
        app.request(None, {"action": "cancel", "id": name, "reply-to": replies})
        answer = _answer(reader)
        assert answer["outcome"] == "too-late"
        assert answer["fire_id"] == delivery.text("delaystream-fire-id")
        app.request(None, {"action": "cancel", "id": _id(), "reply-to": replies})
        assert _answer(reader)["outcome"] == "unknown"


def test_a_cancel_that_overtakes_its_schedule_is_remembered(app: Deployment) -> None:
    """A cancel from another partition may come first: the older schedule is refused, a newer one not."""
    out, replies, name = app.destination("overtaken"), app.destination("overtaken-replies"), _id()
    now_ms = int(time.time() * 1000)
    with app.reader(replies) as reader:
        control = {"action": "cancel", "id": name, "reply-to": replies}
        app.request(None, control, partition=0, timestamp_ms=now_ms)
        assert _answer(reader)["outcome"] == "unknown"
        control = {"destination": out, "delay": "0", "id": name, "reply-to": replies}
        app.request(b"older", control, partition=1, timestamp_ms=now_ms - 1_000)
        answer = _answer(reader)
        assert (answer["outcome"], answer["code"]) == ("rejected", "cancelled-earlier")
        app.request(b"newer", control, partition=1, timestamp_ms=now_ms + 1_000)
        assert _answer(reader)["outcome"] == "scheduled"
    assert _values(app.kafka.read(out, 1)) == {b"newer"}


def test_receipts_of_anonymous_and_refused_requests(app: Deployment) -> None:
    """Every request may ask for a receipt: when it will fire, or why it never will."""
    replies = app.destination("replies-told")
    sent_ms = int(time.time() * 1000)
    with app.reader(replies) as reader:
        control = {"destination": app.destination("receipted"), "delay": "1h,2h", "reply-to": replies}
        partition, offset = app.request(b"v", control, timestamp_ms=sent_ms)
        answer = _answer(reader)
        assert answer["outcome"] == "scheduled"
        assert answer["schedule_id"] == f"{app.requests}/{partition}/{offset}"
        assert [fire["due_at_ms"] - sent_ms for fire in answer["fires"]] == [3_600_000, 7_200_000]
        app.request(b"v", {**control, "delay": "soon"})
        answer = _answer(reader)
        assert (answer["outcome"], answer["code"]) == ("rejected", "invalid-delay")
        assert "soon" in answer["detail"]


def test_a_cancel_takes_what_is_left_of_a_list(app: Deployment) -> None:
    """A list under one id is cancelled as a whole, what was delivered of it stays delivered."""
    out, replies, name = app.destination("rest"), app.destination("rest-replies"), _id()
    with app.reader(replies) as reader:
        app.request(b"v", {"destination": out, "delay": "0,1h,2h", "id": name, "reply-to": replies})
        assert _answer(reader)["outcome"] == "scheduled"
        assert len(app.kafka.read(out, 1)) == 1
        app.request(None, {"action": "cancel", "id": name, "reply-to": replies})
        assert _answer(reader)["outcome"] == "cancelled"
    assert sum(app.kafka.stable_offsets(out)) <= 2
