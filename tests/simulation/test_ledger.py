"""The ledger sees what it is there to see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ledger import Asked, Delivered, Report, audit

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
