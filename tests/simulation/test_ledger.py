"""The ledger sees what it is there to see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ledger import Asked, Beat, Delivered, Report, audit

NOW_MS = 1_700_000_000_000


def asked(offset: int = 0, **changes: Any) -> Asked:
    fields: dict[str, Any] = {
        "source": f"orders/0/{offset}",
        "key": b"k",
        "value": b"v%d" % offset,
        "headers": [("trace", b"1")],
        "destination": "out",
        "due_ms": (NOW_MS,),
        "accepted_ms": NOW_MS - 1_000,
    }
    return Asked(**{**fields, **changes})


def fire(request: Asked, index: int = 0, *, at: int = 0, late_ms: int = 3, **changes: Any) -> Delivered:
    due_ms = request.due_ms[index]
    fired_ms = due_ms + late_ms
    schedule = request.source if request.id is None else request.id
    identity = f"{request.source}/{index}/{due_ms}"
    if request.id is not None:
        identity = f"orders/r1/{index}/{due_ms}/{request.id}"
    ours = {
        "schedule-id": schedule,
        "fire-id": changes.pop("fire_id", identity),
        "due-at": due_ms,
        "fired-at": fired_ms,
        "source": request.source,
    }
    fields: dict[str, Any] = {
        "topic": request.destination,
        "partition": 0,
        "offset": at,
        "key": request.key,
        "value": request.value,
        "headers": [*request.headers, *((f"delaystream-{k}", str(v).encode()) for k, v in ours.items())],
        "timestamp_ms": fired_ms,
        "appended_ms": fired_ms + at,
    }
    return Delivered(**{**fields, **changes})


def letter(request: Asked, code: str) -> Delivered:
    topic, partition, offset = request.source.split("/")
    ours = {"error": code, "error-topic": topic, "error-partition": partition, "error-offset": offset}
    headers = [*request.headers, *((f"delaystream-{k}", v.encode()) for k, v in ours.items())]
    return Delivered("letters", 0, 0, request.key, request.value, headers, NOW_MS)


def receipt(request: Asked, outcome: str) -> Delivered:
    body = json.dumps({"source": request.source, "outcome": outcome}).encode()
    return Delivered("receipts", 0, 0, b"", body, [], NOW_MS)


def only(report: Report, kind: str) -> None:
    assert list(report.wrong) == [kind], report
    assert kind in str(report)


def test_a_clean_run_is_clean() -> None:
    plain, many, bad = (
        asked(),
        asked(1, due_ms=(NOW_MS, NOW_MS + 5)),
        asked(2, due_ms=(), errors={"no-schedule"}),
    )
    report = audit(
        [plain, many, bad],
        [fire(plain), fire(many, 0, at=1), fire(many, 1, at=2)],
        dead_letters=[letter(bad, "no-schedule")],
    )
    assert report.ok, report
    assert "all is well" in str(report)


def test_a_fire_that_is_missing_is_lost() -> None:
    many = asked(due_ms=(NOW_MS, NOW_MS + 5))
    only(audit([many], [fire(many)]), "lost")


def test_a_refusal_that_is_missing_is_lost() -> None:
    only(audit([asked(due_ms=(), errors={"no-schedule"})], []), "lost")


def test_the_same_fire_twice_is_a_duplicate() -> None:
    request = asked()
    only(audit([request], [fire(request), fire(request, at=1)]), "duplicated")


def test_the_same_fire_under_another_name_is_a_duplicate() -> None:
    request = asked()
    again = fire(request, at=1, fire_id=f"orders/0/0/0/{NOW_MS + 1}")
    only(audit([request], [fire(request), again]), "duplicated")


def test_a_fire_that_is_delivered_and_quarantined_is_a_duplicate() -> None:
    request = asked(may_quarantine=True)
    report = audit([request], [fire(request)], dead_letters=[letter(request, "quarantined")])
    only(report, "duplicated")


@pytest.mark.parametrize("change", [{"late_ms": -1}, {"appended_ms": NOW_MS - 1}])
def test_a_fire_before_its_time_is_early(change: dict[str, int]) -> None:
    request = asked()
    only(audit([request], [fire(request, **change)]), "early")


def test_a_worker_whose_clock_is_ahead_fires_early_by_as_much() -> None:
    request = asked()
    record = fire(request, appended_ms=NOW_MS - 100)
    assert audit([request], [record], clock_ahead_ms=100).ok
    assert not audit([request], [record], clock_ahead_ms=99).ok


@pytest.mark.parametrize(
    "change",
    [{"key": b"other"}, {"value": None}, {"headers": []}, {"timestamp_ms": 1}, {"topic": "elsewhere"}],
)
def test_what_is_not_as_it_was_asked_for_is_damaged(change: dict[str, Any]) -> None:
    request = asked()
    assert not audit([request], [fire(request, **change)]).ok


def test_a_record_on_the_wrong_partition_is_damaged() -> None:
    request = asked()
    right = next(
        p for p in range(3) if audit([request], [fire(request, partition=p)], partitions={"out": 3}).ok
    )
    wrong = fire(request, partition=(right + 1) % 3)
    only(audit([request], [wrong], partitions={"out": 3}), "damaged")


def test_due_order_is_checked_from_acceptance_on() -> None:
    """What was accepted before the other was delivered comes before it."""
    late, soon = asked(0, due_ms=(NOW_MS + 50,)), asked(1)
    order = [fire(late, at=0, late_ms=0), fire(soon, at=1, late_ms=60)]
    only(audit([late, soon], order), "disordered")
    soon.accepted_ms = NOW_MS + 55
    assert audit([late, soon], order).ok


def test_ties_go_in_the_order_of_the_requests() -> None:
    first, second = asked(0), asked(1)
    only(audit([first, second], [fire(second, at=0), fire(first, at=1)]), "disordered")


def test_a_cancelled_schedule_that_fires_is_inconsistent() -> None:
    request, cancel = asked(id="x"), asked(1, id="x", cancel=True, due_ms=())
    receipts = [receipt(request, "scheduled"), receipt(cancel, "cancelled")]
    assert audit([request, cancel], [], receipts=receipts).ok
    only(audit([request, cancel], [fire(request)], receipts=receipts), "inconsistent")


def test_a_cancel_that_came_too_late_has_cancelled_nothing() -> None:
    request, cancel = asked(id="x"), asked(1, id="x", cancel=True, due_ms=())
    receipts = [receipt(request, "scheduled"), receipt(cancel, "too-late")]
    assert audit([request, cancel], [fire(request)], receipts=receipts).ok
    assert not audit([request, cancel], [], receipts=receipts).ok


def test_a_replaced_schedule_does_not_fire_and_its_successor_does() -> None:
    old, new = asked(id="x"), asked(1, id="x")
    receipts = [receipt(old, "scheduled"), receipt(new, "replaced")]
    assert audit([old, new], [fire(new)], receipts=receipts).ok
    only(audit([old, new], [], receipts=receipts), "lost")
    assert not audit(
        [old, new], [fire(old), fire(new, at=1, fire_id="orders/r2/0/1/x")], receipts=receipts
    ).ok


def test_a_receipt_is_given_once() -> None:
    request = asked(id="x", receipt_expected=True)
    only(audit([request], [fire(request)]), "lost")
    twice = [receipt(request, "scheduled")] * 2
    only(audit([request], [fire(request)], receipts=twice), "duplicated")


def test_without_receipts_only_what_nobody_can_have_cancelled_is_lost() -> None:
    request, cancel = asked(id="x"), asked(1, id="x", cancel=True, due_ms=())
    assert audit([request, cancel], []).ok
    only(audit([request], []), "lost")


def test_what_nobody_asked_for_is_inconsistent() -> None:
    only(audit([], [fire(asked())]), "inconsistent")


def test_a_late_fire_goes_where_late_ones_go() -> None:
    request = asked(on_late="late", grace_ms=100)
    assert audit([request], [fire(request, late_ms=50)]).ok
    assert audit([request], [fire(request, late_ms=150, topic="late")]).ok
    only(audit([request], [fire(request, late_ms=150)]), "inconsistent")


# -- the chronicle


EVERY_MS = 1_000


def beat(**changes: Any) -> Asked:
    end_ms = NOW_MS + 3 * EVERY_MS
    when = Beat(EVERY_MS, NOW_MS, NOW_MS, end_ms)
    fields: dict[str, Any] = {
        "id": "x",
        "due_ms": (),
        "timestamp_ms": NOW_MS,
        "beat": when,
        "chronicled": True,
    }
    return asked(**{**fields, **changes})


def tell(type: str, number: int = 0, source: str = "orders/0/0", **facts: Any) -> Delivered:
    """An event about x; its n-th scheduled time."""
    due_ms = NOW_MS + number * EVERY_MS
    body: dict[str, Any] = {"type": type, "request_topic": "orders", "id": "x", "source": source}
    if type == "scheduled":
        body |= {"definition": {"destination": "out", "end_at_ms": NOW_MS + 3 * EVERY_MS}}
    if type == "fired":
        body |= {"due_at_ms": due_ms, "fired_at_ms": due_ms + 3, "fire_id": f"orders/r1/0/{due_ms}/x"}
        body |= {"destination": "out", "destination_partition": 0, "fire_count": number}
    if type in ("skipped", "missed"):
        body |= {"from_ms": due_ms, "to_ms": due_ms, "count": 1}
    body |= {"status": "completed" if type == "completed" else "pending", **facts}
    return Delivered("events", 0, 0, b"x", json.dumps(body).encode(), [], NOW_MS)


def beaten(number: int, count: int | None = None, skipped: int = 0) -> Delivered:
    """The delivery of the n-th scheduled time of x."""
    request, due_ms = beat(), NOW_MS + number * EVERY_MS
    ours = {
        "schedule-id": "x",
        "fire-id": f"orders/r1/0/{due_ms}/x",
        "due-at": due_ms,
        "fired-at": due_ms + 3,
    }
    ours |= {"source": request.source, "fire-count": number if count is None else count, "skipped": skipped}
    headers = [*request.headers, *((f"delaystream-{k}", str(v).encode()) for k, v in ours.items())]
    return Delivered("out", 0, number, request.key, request.value, headers, due_ms + 3)


FIRED = [tell("scheduled"), tell("fired", 1), tell("fired", 2), tell("fired", 3), tell("completed")]


def test_a_schedule_whose_every_time_fires_is_clean() -> None:
    assert audit([beat()], [beaten(1), beaten(2), beaten(3)], events=FIRED).ok


def test_times_that_are_told_to_be_skipped_or_missed_are_accounted_for() -> None:
    events = [
        tell("scheduled"),
        tell("missed", 1),
        tell("skipped", 2),
        tell("fired", 3, fire_count=1, skipped=1),
    ]
    report = audit([beat()], [beaten(3, 1, skipped=1)], events=[*events, tell("completed")])
    assert report.ok, report


def test_a_time_that_is_neither_fired_nor_told_of_is_noticed() -> None:
    events = [FIRED[0], FIRED[1], tell("fired", 3, fire_count=2), FIRED[4]]
    only(audit([beat()], [beaten(1), beaten(3, 2)], events=events), "inconsistent")


def test_a_time_that_is_fired_and_told_to_be_missed_is_noticed() -> None:
    events = [*FIRED[:2], tell("missed", 1), *FIRED[2:]]
    only(audit([beat()], [beaten(1), beaten(2), beaten(3)], events=events), "inconsistent")


def test_a_schedule_that_stops_half_way_is_lost() -> None:
    only(audit([beat()], [beaten(1)], events=FIRED[:2]), "lost")


def test_a_delivery_that_no_event_tells_of_is_noticed() -> None:
    report = audit([beat()], [beaten(1), beaten(2), beaten(3), beaten(4)], events=FIRED)
    only(report, "inconsistent")


def test_a_fire_that_is_told_of_and_not_delivered_is_lost() -> None:
    only(audit([beat()], [beaten(1), beaten(3)], events=FIRED), "lost")


def test_a_fire_that_is_told_to_be_moved_and_goes_elsewhere_is_noticed() -> None:
    moved = tell("moved", 2, fire_id=f"orders/r1/0/{NOW_MS + 2 * EVERY_MS}/x", destination="late")
    report = audit([beat()], [beaten(1), beaten(2), beaten(3)], events=[*FIRED[:2], moved, *FIRED[2:]])
    only(report, "inconsistent")


def test_a_command_has_one_outcome_and_its_receipt_says_the_same() -> None:
    cancel = asked(1, id="x", action="cancel", chronicled=True, due_ms=())
    cancelled = tell("cancelled", source=cancel.source, status="cancelled")
    both = [beat(), cancel]
    assert audit(both, [], events=[FIRED[0], cancelled]).ok
    only(audit(both, [], events=[FIRED[0]]), "lost")
    only(audit(both, [], events=[FIRED[0], cancelled, cancelled]), "duplicated")
    told = [receipt(cancel, "too-late")]
    only(audit(both, [], events=[FIRED[0], cancelled], receipts=told), "inconsistent")


def test_a_paused_schedule_that_fires_is_noticed() -> None:
    pause = asked(1, id="x", action="pause", chronicled=True, due_ms=())
    events = [FIRED[0], tell("paused", source=pause.source, status="paused")]
    assert audit([beat(), pause], [], events=events).ok
    events.append(tell("fired", 1, status="paused"))
    only(audit([beat(), pause], [beaten(1)], events=events), "inconsistent")


def test_the_sum_of_a_command_for_many_is_that_of_its_events() -> None:
    bulk = asked(1, action="cancel", prefix="x", chronicled=True, due_ms=())
    swept = [FIRED[0], tell("cancelled", source=bulk.source, status="cancelled")]
    assert audit([beat(), bulk], [], events=[*swept, tell("bulk", source=bulk.source, count=1)]).ok
    only(
        audit([beat(), bulk], [], events=[*swept, tell("bulk", source=bulk.source, count=2)]), "inconsistent"
    )
    only(audit([beat(), bulk], [], events=swept), "inconsistent")
