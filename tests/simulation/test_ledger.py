"""The ledger sees what it is there to see."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.ledger import Asked, Beat, Circumstances, Delivered, Once, Report, Selector, audit

NOW_MS = 1_700_000_000_000
EVERY_MS = 1_000


def asked(offset: int = 0, **changes: Any) -> Asked:
    fields: dict[str, Any] = {
        "source": f"orders/0/{offset}",
        "key": b"k",
        "value": b"v%d" % offset,
        "headers": [("trace", b"1")],
        "destination": "out",
        "due_ms": (NOW_MS,),
        "timestamp_ms": NOW_MS,
        "accepted_ms": NOW_MS - 1_000,
    }
    return Asked(**{**fields, **changes})


def fire(request: Asked, index: int = 0, *, at: int = 0, late_ms: int = 3, **changes: Any) -> Delivered:
    """The delivery of one of the due times of a request without an id."""
    due_ms = request.due_ms[index]
    fired_ms = due_ms + late_ms
    ours = {
        "schedule-id": request.source,
        "fire-id": changes.pop("fire_id", f"{request.source}/{index}/{due_ms}"),
        "due-at": due_ms,
        "fired-at": fired_ms,
        "source": request.source,
        "fire-count": changes.pop("count", index + 1),
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


def said(type: str, request: Asked, *, late_ms: int = 0, index: int = 0, **facts: Any) -> Delivered:
    """An event about a request without an id, or about one of its due times."""
    body: dict[str, Any] = {"schema_version": 2, "type": type, "request_topic": "orders"}
    body |= {"schedule_id": request.source, "source": request.source, "at_ms": NOW_MS + late_ms}
    if request.due_ms and type not in ("rejected", "scheduled"):
        due_ms = request.due_ms[index]
        body |= {"at_ms": due_ms + late_ms, "due_at_ms": due_ms, "lateness_ms": late_ms}
        body |= {"fire_id": f"{request.source}/{index}/{due_ms}", "destination": request.destination}
    if type == "quarantined":
        body |= {"code": "quarantined", "detail": "so"}
    return Delivered(
        "events", 0, 0, request.source.encode(), json.dumps(body | facts).encode(), [], NOW_MS, body["at_ms"]
    )


def letter(request: Asked, code: str, **ours: str) -> Delivered:
    topic, partition, offset = request.source.split("/")
    names = {"error": code, "error-detail": "so", "error-topic": topic, "error-partition": partition}
    names |= {"error-offset": offset, "error-timestamp": str(request.timestamp_ms), **ours}
    headers = [*request.headers, *((f"delaystream-{k}", v.encode()) for k, v in names.items())]
    return Delivered("letters", 0, 0, request.key, request.value, headers, NOW_MS)


def given_up(request: Asked) -> Delivered:
    """The dead letter of the first fire of a request without an id."""
    due_ms = request.due_ms[0]
    return letter(
        request,
        "quarantined",
        **{
            "destination": request.destination,
            "schedule-id": request.source,
            "fire-id": f"{request.source}/0/{due_ms}",
            "due-at": str(due_ms),
        },
    )


def receipt(request: Asked, outcome: str, **facts: Any) -> Delivered:
    named = request.source if request.id is None else request.id
    body: dict[str, object] = {"source": request.source, "outcome": outcome, "request_topic": "orders"}
    body["schedule_id"] = named
    body |= {"decided_at_ms": NOW_MS, **({} if request.id is None else {"id": request.id}), **facts}
    headers = [("delaystream-receipt", outcome.encode())]
    return Delivered("receipts", 0, 0, named.encode(), json.dumps(body).encode(), headers, NOW_MS)


def only(report: Report, kind: str) -> None:
    assert list(report.wrong) == [kind], report
    assert kind in str(report)


# -- requests without an id


def test_a_clean_run_is_clean() -> None:
    plain, many, bad = (
        asked(),
        asked(1, due_ms=(NOW_MS, NOW_MS + 5)),
        asked(2, due_ms=(), errors={"no-schedule"}),
    )
    report = audit(
        [plain, many, bad],
        [fire(plain), fire(many, 0, at=1), fire(many, 1, at=2)],
        events=[said("rejected", bad, code="no-schedule")],
        dead_letters=[letter(bad, "no-schedule")],
    )
    assert report.ok, report
    assert "all is well" in str(report)


def test_a_fire_that_is_missing_is_lost() -> None:
    many = asked(due_ms=(NOW_MS, NOW_MS + 5))
    only(audit([many], [fire(many)], events=[]), "lost")


def test_a_fire_that_may_be_dropped_is_lost_when_nothing_tells_of_it() -> None:
    only(audit([asked(on_late="drop", grace_ms=100)], [], events=[]), "lost")


def test_a_refusal_that_is_missing_is_lost() -> None:
    only(audit([asked(due_ms=(), errors={"no-schedule"})], [], events=[]), "lost")


def test_a_refusal_that_is_not_told_of_is_inconsistent() -> None:
    bad = asked(due_ms=(), errors={"no-schedule"})
    only(audit([bad], [], events=[], dead_letters=[letter(bad, "no-schedule")]), "inconsistent")


def test_the_same_fire_twice_is_a_duplicate() -> None:
    request = asked()
    only(audit([request], [fire(request), fire(request, at=1)], events=[]), "duplicated")


def test_the_same_fire_under_another_name_is_noticed() -> None:
    request = asked()
    again = fire(request, at=1, fire_id=f"orders/0/0/0/{NOW_MS + 1}")
    assert not audit([request], [fire(request), again], events=[]).ok


@pytest.mark.parametrize("change", [{"late_ms": -1}, {"appended_ms": NOW_MS - 1}])
def test_a_fire_before_its_time_is_early(change: dict[str, int]) -> None:
    request = asked()
    assert "early" in audit([request], [fire(request, **change)], events=[]).wrong


def test_a_worker_whose_clock_is_ahead_fires_early_by_as_much() -> None:
    request = asked()
    record = fire(request, late_ms=0, appended_ms=NOW_MS - 100)
    assert audit([request], [record], events=[], circumstances=Circumstances(clock_ahead_ms=100)).ok
    assert not audit([request], [record], events=[], circumstances=Circumstances(clock_ahead_ms=99)).ok


def test_a_time_that_was_past_when_it_was_decided_is_noticed() -> None:
    """The step before was committed after that."""
    request = asked()
    record = fire(request, appended_ms=NOW_MS + 900, decided_after_ms=NOW_MS + 800)
    only(audit([request], [record], events=[]), "inconsistent")
    assert audit([request], [record], events=[], circumstances=Circumstances(clock_behind_ms=797)).ok


@pytest.mark.parametrize(
    "change",
    [
        {"key": b"other"},
        {"value": None},
        {"headers": []},
        {"timestamp_ms": 1},
        {"topic": "elsewhere"},
        {"count": 2},
    ],
)
def test_what_is_not_as_it_was_asked_for_is_noticed(change: dict[str, Any]) -> None:
    request = asked()
    assert not audit([request], [fire(request, **change)], events=[]).ok


def test_a_header_that_was_meant_for_delaystream_is_not_delivered() -> None:
    request = asked()
    leaking = fire(request)
    leaking.headers = [("delaystream-destination", b"out"), *leaking.headers]
    only(audit([request], [leaking], events=[]), "damaged")


def test_a_record_on_the_wrong_partition_is_damaged() -> None:
    request = asked()
    three = Circumstances(partitions={"out": 3})
    right = next(
        p
        for p in range(3)
        if audit([request], [fire(request, partition=p)], events=[], circumstances=three).ok
    )
    wrong = fire(request, partition=(right + 1) % 3)
    only(audit([request], [wrong], events=[], circumstances=three), "damaged")


def test_due_order_is_checked_from_acceptance_on() -> None:
    """What was accepted before the other was delivered comes before it."""
    late, soon = asked(0, due_ms=(NOW_MS + 50,)), asked(1)
    order = [fire(late, at=0, late_ms=0), fire(soon, at=1, late_ms=60)]
    only(audit([late, soon], order, events=[]), "disordered")
    soon.accepted_ms = NOW_MS + 55
    assert audit([late, soon], order, events=[]).ok


def test_ties_go_in_the_order_of_the_requests() -> None:
    first, second = asked(0), asked(1)
    only(audit([first, second], [fire(second, at=0), fire(first, at=1)], events=[]), "disordered")


def test_order_holds_on_a_partition_whatever_the_keys() -> None:
    first, second = asked(0), asked(1, key=None)
    only(audit([first, second], [fire(second, at=0), fire(first, at=1)], events=[]), "disordered")


def test_what_nobody_asked_for_is_inconsistent() -> None:
    only(audit([], [fire(asked())], events=[]), "inconsistent")
    only(audit([], [], events=[said("expired", asked())]), "inconsistent")


def test_a_fire_expires_when_it_is_late_and_not_before() -> None:
    request = asked(on_late="drop", grace_ms=100)
    assert audit([request], [], events=[said("expired", request, late_ms=101)]).ok
    only(audit([request], [], events=[said("expired", request, late_ms=100)]), "inconsistent")
    only(audit([request], [fire(request, late_ms=101)], events=[]), "inconsistent")
    assert audit([request], [fire(request, late_ms=100)], events=[]).ok


def test_a_fire_that_expires_twice_or_is_delivered_too_is_a_duplicate() -> None:
    request = asked(on_late="drop", grace_ms=100)
    expired = said("expired", request, late_ms=101)
    only(audit([request], [], events=[expired, expired]), "duplicated")
    only(audit([request], [fire(request, late_ms=50)], events=[expired]), "duplicated")


def test_what_was_not_to_be_dropped_does_not_expire() -> None:
    request = asked(grace_ms=100)
    only(audit([request], [], events=[said("expired", request, late_ms=101)]), "inconsistent")


def test_an_event_that_gives_a_false_time_is_noticed() -> None:
    """The broker had it before its worker says that it was late."""
    request = asked(on_late="drop", grace_ms=100)
    told = said("expired", request, late_ms=101)
    told.appended_ms = NOW_MS + 50
    only(audit([request], [], events=[told]), "inconsistent")


def test_a_late_fire_goes_where_late_ones_go_and_is_told_of() -> None:
    request = asked(on_late="late", grace_ms=100)
    moved = said("moved", request, late_ms=150, destination="late")
    assert audit([request], [fire(request, late_ms=50)], events=[]).ok
    assert audit([request], [fire(request, late_ms=151, topic="late")], events=[moved]).ok
    only(audit([request], [fire(request, late_ms=151, topic="late")], events=[]), "inconsistent")
    only(audit([request], [fire(request, late_ms=151)], events=[moved]), "inconsistent")
    only(audit([request], [fire(request, late_ms=150)], events=[]), "inconsistent")
    only(audit([request], [], events=[moved]), "lost")


def test_a_fire_that_was_moved_in_time_is_noticed() -> None:
    request = asked(on_late="late", grace_ms=100)
    moved = said("moved", request, late_ms=99, destination="late")
    only(audit([request], [fire(request, late_ms=99, topic="late")], events=[moved]), "inconsistent")


# -- given up

_SMALL = Circumstances(largest={"out": 800})


def test_a_fire_that_is_impossible_is_among_the_dead_letters_and_told_of() -> None:
    request = asked(value=b"x" * 1_000)
    told = said("quarantined", request)
    report = audit([request], [], events=[told], dead_letters=[given_up(request)], circumstances=_SMALL)
    assert report.ok, report
    only(audit([request], [], events=[told], circumstances=_SMALL), "inconsistent")
    report = audit([request], [], events=[], dead_letters=[given_up(request)], circumstances=_SMALL)
    assert {"lost", "inconsistent"} == report.wrong.keys()
    only(audit([request], [], events=[told], dead_letters=[given_up(request)]), "inconsistent")


def test_a_fire_that_is_delivered_and_given_up_is_a_duplicate() -> None:
    request = asked(value=b"x" * 1_000)
    told, letters = said("quarantined", request), [given_up(request)]
    report = audit([request], [fire(request)], events=[told], dead_letters=letters, circumstances=_SMALL)
    only(report, "duplicated")


def test_a_fire_is_given_up_only_once_its_destination_was_in_trouble_for_long_enough() -> None:
    request = asked()

    def report(late_ms: int, trouble_ms: int) -> Report:
        circumstances = Circumstances(
            gives_up_after_ms=500, troubled=lambda _, start, end: start <= NOW_MS + trouble_ms <= end
        )
        told = said("quarantined", request, late_ms=late_ms)
        letters = [given_up(request)]
        return audit([request], [], events=[told], dead_letters=letters, circumstances=circumstances)

    assert report(500, 0).ok
    only(report(499, 0), "inconsistent")
    only(report(500, 1), "inconsistent")


def test_a_dead_letter_holds_the_request_where_its_topic_takes_it() -> None:
    bad = asked(due_ms=(), errors={"no-schedule"})
    bare = letter(bad, "no-schedule")
    bare.key, bare.value, bare.headers = None, None, bare.headers[1:]
    told = [said("rejected", bad, code="no-schedule")]
    only(audit([bad], [], events=told, dead_letters=[bare]), "damaged")
    small = Circumstances(largest={"letters": 500})
    assert audit([bad], [], events=told, dead_letters=[bare], circumstances=small).ok


# -- what is told of requests without an id, where everything is


def test_everything_about_a_request_without_an_id_may_be_told() -> None:
    request, told = asked(), Circumstances(events_anonymous=True)
    scheduled = said("scheduled", request, next_at_ms=NOW_MS, destination="out")
    fired = said("fired", request, late_ms=3, fired_at_ms=NOW_MS + 3, destination_partition=0)
    assert audit([request], [fire(request)], events=[scheduled, fired], circumstances=told).ok
    assert not audit([request], [fire(request)], events=[scheduled], circumstances=told).ok
    assert not audit([request], [fire(request)], events=[fired], circumstances=told).ok
    assert not audit([request], [fire(request)], events=[scheduled, fired]).ok


def test_a_receipt_names_the_fires_of_its_request() -> None:
    request = asked(receipt_expected=True)
    fires = [{"due_at_ms": NOW_MS, "fire_id": f"orders/0/0/0/{NOW_MS}"}]
    told = [receipt(request, "scheduled", fires=fires)]
    assert audit([request], [fire(request)], events=[], receipts=told).ok
    only(audit([request], [fire(request)], events=[]), "lost")
    only(audit([request], [fire(request)], events=[], receipts=told * 2), "duplicated")
    fires[0]["fire_id"] = "another"
    told = [receipt(request, "scheduled", fires=fires)]
    only(audit([request], [fire(request)], events=[], receipts=told), "inconsistent")


# -- the chronicle


def beat(**changes: Any) -> Asked:
    when = Beat(EVERY_MS, NOW_MS, NOW_MS, NOW_MS + 3 * EVERY_MS)
    fields: dict[str, Any] = {"id": "x", "due_ms": (), "beat": when}
    return asked(**{**fields, **changes})


def plan(*numbers: int, **changes: Any) -> Asked:
    """A one-time schedule that is due so many beats from now."""
    return asked(**{"id": "x", "due_ms": tuple(NOW_MS + n * EVERY_MS for n in numbers), **changes})


def fire_id(number: int, index: int = 0) -> str:
    return f"orders/r1/{index}/{NOW_MS + number * EVERY_MS}/x"


_CHANGES = (
    *("scheduled", "replaced", "rescheduled", "updated"),
    *("paused", "resumed", "triggered", "cancelled"),
)


def tell(type: str, number: int = 0, request: Asked | None = None, **facts: Any) -> Delivered:
    """An event about x; its n-th scheduled time."""
    due_ms = NOW_MS + number * EVERY_MS
    request = request or beat()
    body: dict[str, Any] = {"schema_version": 2, "type": type, "at_ms": due_ms + 3, "request_topic": "orders"}
    body |= {"schedule_id": "x", "id": "x", "source": request.source, "status": "pending", "revision": 1}
    if type == "scheduled" and request.beat is not None:
        body["definition"] = {"destination": "out", "every_ms": EVERY_MS, "start_at_ms": NOW_MS}
        body["definition"] |= {"end_at_ms": NOW_MS + 3 * EVERY_MS, "catch_up": request.catch_up}
        body["definition"]["grace_ms"] = 900_000 if request.grace_ms is None else request.grace_ms
    elif type == "scheduled":
        body["definition"] = {"destination": "out", "due_at_ms": list(request.due_ms)}
        body["next_at_ms"] = min(request.due_ms)
    if type == "fired":
        body |= {"due_at_ms": due_ms, "fired_at_ms": due_ms + 3, "lateness_ms": 3, "fire_id": fire_id(number)}
        body |= {"destination": "out", "destination_partition": 0, "fire_count": number}
    if type in _CHANGES:
        body["version"] = request.offset + 1
    if type in ("skipped", "missed", "expired"):
        body |= {"from_ms": due_ms, "to_ms": due_ms, "count": 1, "reason": "late"}
    if request.beat is not None and type != "completed" and number < 3:
        body["next_at_ms"] = due_ms + EVERY_MS
    if type == "completed" or (request.beat is not None and number >= 3):
        body |= {"status": "completed"}
    if type == "completed":
        body |= {"at_ms": NOW_MS + 3 * EVERY_MS + 3, "fire_count": 3}
    body = {name: fact for name, fact in (body | facts).items() if fact is not None}
    return Delivered("events", 0, 0, b"x", json.dumps(body).encode(), [], NOW_MS, body["at_ms"])


def beaten(
    number: int,
    count: int | None = None,
    skipped: int = 0,
    late_ms: int = 3,
    last_ms: int | None = None,
    ahead: bool = True,
    **changes: Any,
) -> Delivered:
    """The delivery of the n-th scheduled time of x; it fired before at `last_ms`, 0 for never."""
    request, due_ms = beat(), NOW_MS + number * EVERY_MS
    ours = {"schedule-id": "x", "fire-id": fire_id(number), "due-at": due_ms, "fired-at": due_ms + late_ms}
    ours |= {"source": request.source, "fire-count": number if count is None else count}
    if skipped:
        ours["skipped"] = skipped
    if last_ms is None:
        last_ms = due_ms - EVERY_MS + 3 if number > 1 else 0
    if last_ms:
        ours["last-fired-at"] = last_ms
    if number < 3 and ahead:
        ours["next-at"] = due_ms + EVERY_MS
    headers = [*request.headers, *((f"delaystream-{k}", str(v).encode()) for k, v in ours.items())]
    fields = {"topic": "out", **changes}
    return Delivered(
        partition=0,
        offset=number,
        key=request.key,
        value=request.value,
        headers=headers,
        timestamp_ms=due_ms + late_ms,
        appended_ms=due_ms + late_ms,
        **fields,
    )


FIRED = [tell("scheduled"), tell("fired", 1), tell("fired", 2), tell("fired", 3), tell("completed")]
BEATEN = [beaten(1), beaten(2), beaten(3)]


@pytest.mark.parametrize(
    "wrong",
    [
        [beaten(1, last_ms=NOW_MS), *BEATEN[1:]],
        [BEATEN[0], beaten(2, last_ms=0), BEATEN[2]],
        [BEATEN[0], beaten(2, last_ms=NOW_MS + EVERY_MS + 4), BEATEN[2]],
        [beaten(1, ahead=False), *BEATEN[1:]],
    ],
)
def test_a_delivery_that_is_wrong_about_the_fire_before_or_after_it_is_noticed(
    wrong: list[Delivered],
) -> None:
    only(audit([beat()], wrong, events=FIRED), "inconsistent")


def changed(events: list[Delivered], number: int, **facts: Any) -> list[Delivered]:
    """The events, with other facts in one of them; None takes one out."""
    body = json.loads(events[number].value or b"") | facts
    value = json.dumps({name: fact for name, fact in body.items() if fact is not None}).encode()
    event = Delivered("events", 0, 0, b"x", value, [], NOW_MS, body["at_ms"])
    return [*events[:number], event, *events[number + 1 :]]


def test_a_schedule_whose_every_time_fires_is_clean() -> None:
    report = audit([beat()], BEATEN, events=FIRED, circumstances=Circumstances(request_partitions=1))
    assert report.ok, report


@pytest.mark.parametrize(
    ("number", "facts"),
    [
        (0, {"revision": 2}),
        (0, {"definition": {"destination": "other"}}),
        (1, {"status": "paused"}),
        (1, {"next_at_ms": None}),
        (1, {"next_at_ms": NOW_MS}),
        (1, {"lateness_ms": 4}),
        (1, {"fired_at_ms": NOW_MS + EVERY_MS + 4}),
        (1, {"destination": "late"}),
        (1, {"destination_partition": 1}),
        (1, {"fire_count": 2}),
        (1, {"skipped": 1}),
        (1, {"source": "orders/0/7"}),
        (1, {"schedule_id": "y"}),
        (4, {"fire_count": 2}),
    ],
)
def test_an_event_that_is_not_true_is_noticed(number: int, facts: dict[str, Any]) -> None:
    circumstances = Circumstances(request_partitions=1)
    report = audit([beat()], BEATEN, events=changed(FIRED, number, **facts), circumstances=circumstances)
    assert not report.ok


def test_times_that_are_told_to_be_skipped_or_missed_are_accounted_for() -> None:
    asker = beat(grace_ms=1_500)
    at: dict[str, Any] = {"at_ms": NOW_MS + 3 * EVERY_MS + 3, "status": "completed", "next_at_ms": None}
    missed, skipped = tell("missed", 1, **at), tell("skipped", 2, **at)
    events = [
        tell("scheduled", request=asker),
        missed,
        skipped,
        tell("fired", 3, fire_count=1, skipped=1),
        tell("completed", fire_count=1),
    ]
    report = audit([asker], [beaten(3, 1, skipped=1, last_ms=0)], events=events)
    assert report.ok, report
    # With more grace, nothing was late; where all are to be caught up on, none is skipped.
    for other in (beat(grace_ms=2_500), beat(grace_ms=1_500, catch_up="all")):
        events[0] = tell("scheduled", request=other)
        only(audit([other], [beaten(3, 1, skipped=1, last_ms=0)], events=events), "inconsistent")


def test_a_time_that_is_skipped_before_another_is_due_is_noticed() -> None:
    events = [
        FIRED[0],
        tell("skipped", 1),
        tell("fired", 2, fire_count=1, skipped=1),
        tell("fired", 3, fire_count=2),
        tell("completed", fire_count=2),
    ]
    only(audit([beat()], [beaten(2, 1, skipped=1), beaten(3, 2)], events=events), "inconsistent")


def test_a_time_that_fires_although_a_later_one_is_due_is_noticed() -> None:
    def late(number: int) -> Delivered:
        return tell("fired", number, at_ms=at_ms, fired_at_ms=at_ms, lateness_ms=at_ms - NOW_MS - 1_000)

    at_ms = NOW_MS + 2 * EVERY_MS + 1
    events = [FIRED[0], late(1), *FIRED[2:]]
    deliveries = [beaten(1, late_ms=1_001), beaten(2, last_ms=NOW_MS + EVERY_MS + 1_001), beaten(3)]
    only(audit([beat()], deliveries, events=events), "inconsistent")
    asker = beat(catch_up="all")
    events[0] = tell("scheduled", request=asker)
    assert audit([asker], deliveries, events=events).ok


def test_a_time_that_fires_beyond_its_grace_is_noticed() -> None:
    asker = beat(grace_ms=2)
    events = [tell("scheduled", request=asker), *FIRED[1:]]
    only(audit([asker], BEATEN, events=events), "inconsistent")


def test_a_schedule_with_jitter_fires_at_the_end_of_it() -> None:
    when = Beat(EVERY_MS, NOW_MS, NOW_MS, NOW_MS + 3 * EVERY_MS, jitter_ms=90)
    assert {when.due(NOW_MS, fire_id(number)) - NOW_MS for number in range(100)} <= set(range(91))
    early = audit([beat(beat=when)], BEATEN, events=FIRED, circumstances=Circumstances(request_partitions=1))
    assert "early" in early.wrong


def test_a_time_that_is_neither_fired_nor_told_of_is_noticed() -> None:
    events = [FIRED[0], FIRED[1], tell("fired", 3, fire_count=2), tell("completed", fire_count=2)]
    only(audit([beat()], [beaten(1), beaten(3, 2)], events=events), "inconsistent")


def test_a_time_that_is_fired_and_told_to_be_missed_is_noticed() -> None:
    events = [*FIRED[:2], tell("missed", 1), *FIRED[2:]]
    only(audit([beat()], BEATEN, events=events), "inconsistent")


def test_a_schedule_that_stops_half_way_is_lost() -> None:
    only(audit([beat()], [beaten(1)], events=FIRED[:2]), "lost")


def test_a_schedule_whose_completion_is_not_told_is_noticed() -> None:
    only(audit([beat()], BEATEN, events=FIRED[:4]), "lost")


def test_a_delivery_that_no_event_tells_of_is_noticed() -> None:
    only(audit([beat()], [*BEATEN, beaten(4)], events=FIRED), "inconsistent")


def test_a_fire_that_is_told_of_and_not_delivered_is_lost() -> None:
    only(audit([beat()], [beaten(1), beaten(3)], events=FIRED), "lost")


def test_a_one_time_schedule_fires_once_for_each_of_its_times() -> None:
    asker = plan(1, 2)
    scheduled = tell("scheduled", request=asker)
    first = tell("fired", 1, asker, next_at_ms=NOW_MS + 2 * EVERY_MS)
    last = tell("fired", 2, asker, fire_id=fire_id(2, 1), status="fired")
    delivered = [beaten(1, ahead=False), beaten(2, ahead=False)]
    headers = [(name, value.replace(b"r1/0", b"r1/1")) for name, value in delivered[1].headers if value]
    delivered[1].headers = headers
    report = audit([asker], delivered, events=[scheduled, first, last])
    assert report.ok, report
    only(audit([asker], delivered[:1], events=[scheduled, first]), "lost")
    # Each has its own place in the list, which its id gives.
    elsewhere = tell("fired", 2, asker, status="fired")
    report = audit(
        [asker], [beaten(1, ahead=False), beaten(2, ahead=False)], events=[scheduled, first, elsewhere]
    )
    assert "inconsistent" in report.wrong


def test_a_named_fire_is_moved_or_dropped_when_it_is_late_and_not_before() -> None:
    asker = plan(1, on_late="late", grace_ms=2)
    facts = {"due_at_ms": NOW_MS + EVERY_MS, "fire_id": fire_id(1), "destination": "late", "lateness_ms": 3}
    moved = tell("moved", 1, asker, next_at_ms=NOW_MS + EVERY_MS, **facts)
    fired = tell("fired", 1, asker, destination="late", status="fired")
    scheduled = tell("scheduled", request=asker)
    assert audit([asker], [beaten(1, topic="late", ahead=False)], events=[scheduled, moved, fired]).ok
    assert not audit([asker], [beaten(1, ahead=False)], events=[scheduled, moved, fired]).ok
    assert not audit([asker], [beaten(1, topic="late", ahead=False)], events=[scheduled, fired]).ok
    asker.grace_ms = 3
    only(
        audit([asker], [beaten(1, topic="late", ahead=False)], events=[scheduled, moved, fired]),
        "inconsistent",
    )
    asker = plan(1, on_late="drop", grace_ms=2)
    expired = tell("expired", 1, asker, status="dropped")
    assert audit([asker], [], events=[scheduled, expired]).ok
    asker.grace_ms = 3
    only(audit([asker], [], events=[scheduled, expired]), "inconsistent")


def command(action: str, offset: int = 1, **changes: Any) -> Asked:
    return asked(offset, **{"id": "x", "action": action, "due_ms": (), **changes})


def test_a_command_has_one_outcome_and_its_receipt_says_the_same() -> None:
    cancel = command("cancel")
    cancelled = tell("cancelled", request=cancel, status="cancelled")
    both = [beat(), cancel]
    assert audit(both, [], events=[FIRED[0], cancelled]).ok
    assert audit(both, [], events=[FIRED[0]]).wrong.keys() == {"lost"}
    only(audit(both, [], events=[FIRED[0], cancelled, cancelled]), "duplicated")
    told = [receipt(cancel, "too-late", status="cancelled")]
    cancel.receipt_expected = True
    only(audit(both, [], events=[FIRED[0], cancelled], receipts=told), "inconsistent")


def test_who_gets_no_receipt_is_told_so_with_the_outcome() -> None:
    cancel = command("cancel", receipt_refused=True)
    both, cancelled = [beat(), cancel], tell("cancelled", request=cancel, status="cancelled")
    told = tell("cancelled", request=cancel, status="cancelled", no_receipt="letters: it is denied")
    assert audit(both, [], events=[FIRED[0], told]).ok
    only(audit(both, [], events=[FIRED[0], cancelled]), "inconsistent")
    written = [receipt(cancel, "cancelled", status="cancelled", version=2)]
    assert not audit(both, [], events=[FIRED[0], told], receipts=written).ok
    cancel.receipt_expected, cancel.receipt_refused = True, False
    assert audit(both, [], events=[FIRED[0], cancelled], receipts=written).ok
    only(audit(both, [], events=[FIRED[0], cancelled]), "lost")
    only(audit(both, [], events=[FIRED[0], told]), "inconsistent")
    hindered = Circumstances(receipts_hindered=True)
    assert audit(both, [], events=[FIRED[0], told], circumstances=hindered).ok
    only(audit(both, [], events=[FIRED[0], cancelled], circumstances=hindered), "lost")


def test_a_description_may_be_missing_where_others_are_told_that_theirs_is() -> None:
    cancel, look = command("cancel"), command("describe", 2)
    cancel.receipt_expected = look.receipt_expected = True
    every = [beat(), cancel, look]
    told = tell("cancelled", request=cancel, status="cancelled", no_receipt="letters: it has no leader")
    cancelled = tell("cancelled", request=cancel, status="cancelled")
    written = [receipt(cancel, "cancelled", status="cancelled", version=2)]
    hindered = Circumstances(receipts_hindered=True)
    assert audit(every, [], events=[FIRED[0], told], circumstances=hindered).ok
    only(audit(every, [], events=[FIRED[0], cancelled], receipts=written, circumstances=hindered), "lost")
    only(audit(every, [], events=[FIRED[0], cancelled], receipts=written), "lost")
    look.timestamp_ms = cancel.timestamp_ms + 600_000
    only(audit(every, [], events=[FIRED[0], told], circumstances=hindered), "lost")


def test_an_outcome_that_a_command_cannot_have_is_noticed() -> None:
    cancel = command("cancel")
    unchanged = tell("unchanged", request=cancel, next_at_ms=NOW_MS + EVERY_MS)
    report = audit([beat(), cancel], BEATEN, events=[FIRED[0], unchanged, *FIRED[1:]])
    only(report, "inconsistent")


def test_a_cancelled_schedule_that_fires_is_inconsistent() -> None:
    cancel = command("cancel")
    cancelled = tell("cancelled", request=cancel, status="cancelled")
    both = [beat(), cancel]
    only(audit(both, [beaten(1)], events=[FIRED[0], cancelled]), "inconsistent")
    fired = tell("fired", 1, status="cancelled", next_at_ms=None)
    only(audit(both, [beaten(1)], events=[FIRED[0], cancelled, fired]), "inconsistent")


def test_a_command_that_came_too_late_names_the_last_fire() -> None:
    cancel = command("cancel")
    late = tell("too-late", 4, cancel, status="completed", fire_id=fire_id(3), version=1)
    assert audit([beat(), cancel], BEATEN, events=[*FIRED, late]).ok
    late = tell("too-late", 4, cancel, status="completed", fire_id=fire_id(2), version=1)
    only(audit([beat(), cancel], BEATEN, events=[*FIRED, late]), "inconsistent")
    assert "inconsistent" in audit([beat(), cancel], [], events=[FIRED[0], late]).wrong


def test_a_replaced_schedule_does_not_fire_and_its_successor_does() -> None:
    old, new = plan(1), plan(1, source="orders/0/1", value=b"v0")
    scheduled = tell("scheduled", request=old)
    defined: dict[str, Any] = {"definition": {"destination": "out", "due_at_ms": [NOW_MS + EVERY_MS]}}
    replaced = tell("replaced", request=new, revision=2, next_at_ms=NOW_MS + EVERY_MS, **defined)
    newer = fire_id(1).replace("r1", "r2")
    fired = tell("fired", 1, new, revision=2, fire_id=newer, status="fired")
    delivered = beaten(1, ahead=False)
    names = {"delaystream-fire-id": newer.encode(), "delaystream-source": b"orders/0/1"}
    delivered.headers = [(name, names.get(name, value)) for name, value in delivered.headers]
    assert audit([old, new], [delivered], events=[scheduled, replaced, fired]).ok
    assert "lost" in audit([old, new], [], events=[scheduled, replaced]).wrong
    only(audit([old, new], [delivered, beaten(1)], events=[scheduled, replaced, fired]), "inconsistent")
    new.if_exists = "keep"
    only(audit([old, new], [delivered], events=[scheduled, replaced, fired]), "inconsistent")


def test_a_request_is_refused_only_for_what_is_so() -> None:
    new = plan(1, source="orders/0/1", if_exists="reject", errors={"already-exists"})
    refused = tell("rejected", request=new, code="already-exists", status=None, revision=None)
    letters = [letter(new, "already-exists")]
    report = audit([beat(), new], BEATEN, events=[FIRED[0], refused, *FIRED[1:]], dead_letters=letters)
    assert report.ok, report
    only(audit([beat(), new], BEATEN, events=[*FIRED, refused], dead_letters=letters), "inconsistent")


def test_an_id_is_forgotten_in_time_and_not_before() -> None:
    cancel = command("cancel")
    unknown = tell("unknown", 4, cancel, status="forestalled", version=2)
    only(audit([beat(), cancel], BEATEN, events=[*FIRED, unknown]), "inconsistent")
    soon = Circumstances(id_retention_ms=EVERY_MS)
    assert audit([beat(), cancel], BEATEN, events=[*FIRED, unknown], circumstances=soon).ok


def test_a_paused_schedule_that_fires_is_noticed() -> None:
    pause = command("pause")
    events = [FIRED[0], tell("paused", request=pause, status="paused", next_at_ms=None)]
    assert audit([beat(), pause], [], events=events).ok
    only(audit([beat(), pause], [], events=events, circumstances=Circumstances(drained=True)), "lost")
    events.append(tell("fired", 1, status="paused", next_at_ms=None))
    only(audit([beat(), pause], [beaten(1)], events=events), "inconsistent")


def test_a_triggered_fire_is_named_after_its_command() -> None:
    trigger, cancel = command("trigger"), command("cancel", 2)
    named = f"orders/r1/t0.1/{NOW_MS + 3}/x"
    facts = {"next_at_ms": NOW_MS + EVERY_MS, "due_at_ms": NOW_MS + 3}
    cancelled = tell("cancelled", request=cancel, status="cancelled", next_at_ms=None)

    def report(fire_id: str) -> Report:
        triggered = tell("triggered", request=trigger, fire_id=fire_id, **facts)
        return audit([beat(), trigger, cancel], [], events=[FIRED[0], triggered, cancelled])

    assert report(named).ok
    only(report(named.replace("t0.1", "t0.0")), "inconsistent")


# -- what a request says beside what it asks for


def paused(request: Asked, **facts: Any) -> Delivered:
    return tell("paused", request=request, **{"status": "paused", "next_at_ms": None, **facts})


@pytest.mark.parametrize("version", [1, None])
def test_a_command_that_changes_anything_changes_the_version(version: int | None) -> None:
    pause = command("pause")
    assert audit([beat(), pause], [], events=[FIRED[0], paused(pause)]).ok
    only(audit([beat(), pause], [], events=[FIRED[0], paused(pause, version=version)]), "inconsistent")


def test_what_changes_nothing_leaves_the_version() -> None:
    resume = command("resume")
    same = tell("unchanged", request=resume, version=1, next_at_ms=NOW_MS + EVERY_MS)
    assert audit([beat(), resume], BEATEN, events=[FIRED[0], same, *FIRED[1:]]).ok
    other = tell("unchanged", request=resume, version=2, next_at_ms=NOW_MS + EVERY_MS)
    only(audit([beat(), resume], BEATEN, events=[FIRED[0], other, *FIRED[1:]]), "inconsistent")


def test_a_repeated_request_changes_nothing_and_is_answered_as_before() -> None:
    first, again = command("pause", request_id="a"), command("pause", 2, request_id="a")
    all_of = [beat(), first, again]
    events = [FIRED[0], paused(first, request_id="a")]
    repeated = tell("repeated", request=again, request_id="a", version=2, status="paused", next_at_ms=None)
    facts = {"status": "paused", "version": 2}
    again.receipt_expected = True
    answer = receipt(again, "paused", repeated=True, **facts)
    assert audit(all_of, [], events=[*events, repeated], receipts=[answer]).ok
    for wrong in (
        receipt(again, "unchanged", repeated=True, **facts),
        receipt(again, "paused", **facts),
        receipt(again, "paused", repeated=True, status="paused", version=1),
    ):
        assert not audit(all_of, [], events=[*events, repeated], receipts=[wrong]).ok
    again.receipt_expected = False
    unchanged = tell("unchanged", request=again, request_id="a", version=2, status="paused", next_at_ms=None)
    only(audit(all_of, [], events=[*events, unchanged]), "inconsistent")
    first.request_id, never = "b", [FIRED[0], paused(first, request_id="b"), repeated]
    only(audit(all_of, [], events=never), "inconsistent")


@pytest.mark.parametrize(("if_version", "holds"), [(1, True), (2, False), (0, False)])
def test_a_command_is_refused_if_and_only_if_it_is_for_another_version(if_version: int, holds: bool) -> None:
    pause = command("pause", if_version=if_version, errors={"version-changed"})
    refused = tell("rejected", request=pause, code="version-changed", status=None, revision=None)
    letters = [letter(pause, "version-changed")]
    carried_out = audit([beat(), pause], [], events=[FIRED[0], paused(pause)])
    report = audit([beat(), pause], BEATEN, events=[FIRED[0], refused, *FIRED[1:]], dead_letters=letters)
    assert (carried_out.ok, report.ok) == (holds, not holds)


@pytest.mark.parametrize(
    ("declared_by", "deploy", "holds"), [("a", 3, True), ("a", 1, False), ("b", 1, True)]
)
def test_a_lower_deploy_is_refused_and_no_other_is(declared_by: str, deploy: int, holds: bool) -> None:
    first = beat(declared_by="a", deploy=2)
    errors = {"deploy-superseded"}
    cancel = command("cancel", declared_by=declared_by, deploy=deploy, errors=errors)
    scheduled = changed(FIRED, 0, declared_by="a", deploy=2)
    cancelled = tell(
        "cancelled",
        request=cancel,
        status="cancelled",
        next_at_ms=None,
        declared_by=declared_by,
        deploy=deploy,
    )
    refused = tell("rejected", request=cancel, code="deploy-superseded", status=None, revision=None)
    letters = [letter(cancel, "deploy-superseded")]
    carried_out = audit([first, cancel], [], events=[scheduled[0], cancelled])
    events = [scheduled[0], refused, *scheduled[1:]]
    report = audit([first, cancel], BEATEN, events=events, dead_letters=letters)
    assert (carried_out.ok, report.ok) == (holds, not holds)


def test_a_pause_ends_by_itself_when_it_was_to_end() -> None:
    pause = command("pause", until_ms=NOW_MS + 500)
    both, begun = [beat(), pause], paused(pause, until_ms=NOW_MS + 500)
    calm = Circumstances(drained=True, calm_ms=NOW_MS)

    def ended(at_ms: int) -> Delivered:
        resumed = tell("resumed", version=2, at_ms=at_ms)
        definition = json.loads(FIRED[0].value or b"")["definition"]
        return changed([resumed], 0, definition=definition)[0]

    events = [FIRED[0], begun, ended(NOW_MS + 500), *FIRED[1:]]
    assert audit(both, BEATEN, events=events, circumstances=calm).ok
    early = [FIRED[0], begun, ended(NOW_MS + 499), *FIRED[1:]]
    only(audit(both, BEATEN, events=early, circumstances=calm), "inconsistent")
    only(
        audit(both, BEATEN, events=[FIRED[0], paused(pause), *events[2:]], circumstances=calm), "inconsistent"
    )
    assert "lost" in audit(both, [], events=events[:2], circumstances=calm).wrong


def test_a_pause_that_was_to_end_is_not_ended_by_a_command_long_after_that() -> None:
    pause = command("pause", until_ms=NOW_MS + 500)
    begun = paused(pause, until_ms=NOW_MS + 500)

    def report(asked_ms: int) -> Report:
        resume = command("resume", 2, timestamp_ms=asked_ms)
        resumed = tell("resumed", request=resume, at_ms=NOW_MS + 600, next_at_ms=NOW_MS + EVERY_MS)
        calm = Circumstances(calm_ms=NOW_MS)
        events = [FIRED[0], begun, resumed, *FIRED[1:]]
        return audit([beat(), pause, resume], BEATEN, events=events, circumstances=calm)

    assert report(NOW_MS + 2_500).ok
    only(report(NOW_MS + 2_501), "lost")


def test_a_description_is_of_what_the_id_was_at_its_turn() -> None:
    ask = command("describe", receipt_expected=True)
    pause = command("pause", 2)
    events = [FIRED[0], paused(pause)]

    def report(outcome: str, **facts: Any) -> Report:
        described = {"fire_count": 0, "triggered": 0, **facts.pop("schedule", {})}
        told = receipt(ask, outcome, schedule=described, **facts)
        return audit([beat(), ask, pause], [], events=events, receipts=[told])

    ahead = {"next_at_ms": NOW_MS + EVERY_MS}
    assert report("described", status="pending", version=1, schedule=ahead).ok
    for wrong in (
        report("unknown"),
        report("described", status="pending", version=1),
        report("described", status="pending", version=2, schedule=ahead),
        report("described", status="pending", version=1, schedule=ahead | {"fire_count": 1}),
        # What its own partition says after it is not before it.
        report("described", status="paused", version=2),
    ):
        only(wrong, "inconsistent")
    only(audit([beat(), ask, pause], [], events=events), "lost")


# -- destinations


def of_destination(type: str, at_ms: int, **facts: Any) -> Delivered:
    body = {"schema_version": 2, "type": type, "at_ms": at_ms, "destination": "out", **facts}
    if type != "rate":
        body |= {"partition": 0, "since_ms": NOW_MS, "reason": "so"}
    return Delivered("events", 0, 0, b"out", json.dumps(body).encode(), [], NOW_MS, at_ms)


def test_a_destination_that_is_parked_could_not_be_written_and_is_released() -> None:
    def report(*types: str, troubled: str = "out") -> Report:
        given = Circumstances(drained=True, troubled=lambda topic, *_: topic == troubled)
        events = [of_destination(type, NOW_MS + n) for n, type in enumerate(types)]
        return audit([], [], events=events, circumstances=given)

    assert report("parked", "released", "parked", "released").ok
    only(report("parked"), "lost")
    only(report("parked", "parked", "released"), "inconsistent")
    only(report("released"), "inconsistent")
    only(report("parked", "released", troubled="other"), "inconsistent")


def test_a_rate_is_told_of_once_as_it_was_asked_for() -> None:
    rate = asked(action="rate", due_ms=(), rate=5.0)

    def report(*rates: float | None) -> Report:
        told = {"request_topic": "orders", "source": rate.source}
        events = [of_destination("rate", NOW_MS, rate=rate, **told) for rate in rates]
        return audit([rate], [], events=events)

    assert report(5.0).ok
    only(report(), "lost")
    only(report(5.0, 5.0), "duplicated")
    only(report(6.0), "inconsistent")
    only(
        audit([], [], events=[of_destination("rate", NOW_MS, rate=1.0, source="orders/0/9")]), "inconsistent"
    )


# -- commands for many


def bulk(action: str, **changes: Any) -> Asked:
    return asked(1, **{"action": action, "prefix": "x", "due_ms": (), **changes})


def sum_of(request: Asked, count: int, number: int = 0) -> Delivered:
    at_ms = NOW_MS + number * EVERY_MS + 3
    body: dict[str, object] = {"schema_version": 2, "type": "bulk", "at_ms": at_ms, "count": count}
    body |= {"request_topic": "orders", "schedule_id": request.source, "source": request.source}
    value = json.dumps(body | {"action": request.action}).encode()
    return Delivered("events", 0, 0, request.source.encode(), value, [], NOW_MS, at_ms)


def test_the_sum_of_a_command_for_many_is_that_of_its_events() -> None:
    cancel = bulk("cancel")
    swept = [FIRED[0], tell("cancelled", request=cancel, status="cancelled", next_at_ms=None)]
    assert audit([beat(), cancel], [], events=[*swept, sum_of(cancel, 1)]).ok
    only(audit([beat(), cancel], [], events=[*swept, sum_of(cancel, 2)]), "inconsistent")
    only(audit([beat(), cancel], [], events=swept), "inconsistent")


@pytest.mark.parametrize("action", ["cancel", "pause"])
def test_a_command_for_many_leaves_out_none_that_was_there(action: str) -> None:
    request = bulk(action, timestamp_ms=NOW_MS + EVERY_MS + 4)
    done = sum_of(request, 0, 1)
    done.appended_ms = NOW_MS + EVERY_MS + 500
    events = [*FIRED[:2], done, *FIRED[2:]]
    only(audit([beat(), request], BEATEN, events=events), "inconsistent")
    # What was asked for after the command is not among those.
    later = beat(source="orders/0/2", value=b"v2")
    events = [event if event is done else _about(later, event) for event in events]
    deliveries = [_delivering(later, record) for record in BEATEN]
    assert audit([later, request], deliveries, events=events).ok


@pytest.mark.parametrize("once", [Once(on_late="drop", grace_ms=0), Once(grace_ms=0), None], ids=str)
def test_what_passed_during_a_pause_goes_by_the_word_of_the_resume(once: Once | None) -> None:
    """For this once, and only by what that says."""
    asker, pause = plan(1), command("pause")
    resume = command("resume", 2, once=once)
    begun = [tell("scheduled", request=asker), paused(pause, next_at_ms=None)]
    resumed = tell("resumed", 2, resume, next_at_ms=NOW_MS + EVERY_MS)
    facts = {"next_at_ms": None, "from_ms": NOW_MS + EVERY_MS, "to_ms": NOW_MS + EVERY_MS}
    expired = tell("expired", 2, asker, status="dropped", **facts)
    dropped = audit([asker, pause, resume], [], events=[*begun, resumed, expired])
    assert dropped.ok is (once is not None and once.on_late == "drop"), dropped
    late_ms = EVERY_MS + 3
    told = {
        "due_at_ms": NOW_MS + EVERY_MS,
        "lateness_ms": late_ms,
        "fired_at_ms": NOW_MS + EVERY_MS + late_ms,
    }
    fired = tell("fired", 2, asker, status="fired", fire_id=fire_id(1), fire_count=1, **told)
    delivered = [beaten(1, ahead=False, late_ms=late_ms)]
    went_out = audit([asker, pause, resume], delivered, events=[*begun, resumed, fired])
    assert went_out.ok is not dropped.ok, went_out


@pytest.mark.parametrize("value", [b"v0", b"new"])
def test_what_is_delivered_is_as_the_last_update_says(value: bytes) -> None:
    asker = plan(1)
    change = command("update", update={"value": b"new", "tags": ("a",)})
    defined: dict[str, Any] = {"destination": "out", "due_at_ms": [NOW_MS + EVERY_MS], "tags": ["a"]}
    when = {"next_at_ms": NOW_MS + EVERY_MS, "revision": 2}
    named = fire_id(1).replace("r1", "r2")
    fired = tell("fired", 1, asker, revision=2, fire_id=named, status="fired")
    delivered = beaten(1, ahead=False)
    names = {"delaystream-fire-id": named.encode()}
    delivered.headers = [(name, names.get(name, content)) for name, content in delivered.headers]
    delivered.value = value

    def report(**facts: Any) -> Report:
        updated = tell("updated", request=change, definition=defined | facts, **when)
        return audit([asker, change], [delivered], events=[tell("scheduled", request=asker), updated, fired])

    assert report().ok is (value == b"new"), report()
    assert "inconsistent" in report(tags=[]).wrong


def test_a_description_by_coordinates_is_of_what_is_pending_then() -> None:
    request = asked(due_ms=(NOW_MS, NOW_MS + 500))
    ask = asked(1, action="describe", subject="orders/0/0", due_ms=(), receipt_expected=True)

    def report(*indexes: int, between: bool = True, outcome: str = "described", **facts: Any) -> Report:
        due_ms = [request.due_ms[index] for index in indexes]
        fires = [
            {"due_at_ms": request.due_ms[index], "fire_id": f"orders/0/0/{index}/{request.due_ms[index]}"}
            for index in indexes
        ]
        told: dict[str, Any] = {"source": request.source, "definition": {"destination": "out"}}
        told |= {"on_late": "fire", "upcoming_at_ms": due_ms, **facts}
        named = {"schedule_id": request.source, "count": len(fires), "fires": fires}
        named["decided_at_ms"] = NOW_MS + 150
        answer = receipt(ask, outcome, schedule=told, status="pending", **named)
        answer.key, answer.appended_ms = request.source.encode(), NOW_MS + 200
        answer.decided_after_ms = NOW_MS + 100
        fired = [fire(request), fire(request, 1, at=1)]
        if between:
            fired[0].decided_after_ms, fired[1].decided_after_ms = NOW_MS - 1, NOW_MS + 300
        return audit([request, ask], fired, events=[], receipts=[answer])

    assert report(1).ok, report(1)
    assert report(0, 1, between=False).wrong.keys() == {"inconsistent"}
    assert not report(0, 1).ok
    assert not report(outcome="too-late").ok
    assert not report(1, definition={"destination": "elsewhere"}).ok
    assert not report(1, upcoming_at_ms=[NOW_MS]).ok
    assert not report(outcome="unknown").ok


@pytest.mark.parametrize(("source", "holds"), [("orders/0/2", False), ("orders/1/2", True)])
def test_a_resume_of_many_lets_nothing_go_that_its_partition_says_later(source: str, holds: bool) -> None:
    """Not what is kept back by a hold that it has ended, either: that was over when the later one came."""
    pause, resume = command("pause", source=source), bulk("resume")
    resumed = tell("resumed", request=resume, next_at_ms=NOW_MS + EVERY_MS, version=9)
    events = [FIRED[0], paused(pause), resumed, sum_of(resume, 1), *FIRED[1:]]
    for event in events[4:]:
        event.value = json.dumps(json.loads(event.value or b"") | {"version": 9}).encode()
    report = audit([beat(), pause, resume], BEATEN, events=events)
    assert report.ok is holds, report
    assert holds or list(report.wrong) == ["inconsistent"]


@pytest.mark.parametrize(("pauses", "left_out"), [("out", False), ("elsewhere", True)])
def test_a_resume_of_many_leaves_what_another_hold_may_keep_back(pauses: str, left_out: bool) -> None:
    """By what it was then, whatever the id is by now."""
    pause = command("pause")
    hold = bulk("pause", source="orders/1/0", prefix=None, selector=Selector(pauses))
    resume = bulk("resume", source="orders/1/1", timestamp_ms=NOW_MS + 20)
    done = sum_of(resume, 0)
    done.appended_ms = NOW_MS + 500
    later = beat(source="orders/0/3", destination="third")
    defined = {"destination": "third", "every_ms": EVERY_MS, "start_at_ms": NOW_MS, "catch_up": "latest"}
    defined |= {"end_at_ms": NOW_MS + 3 * EVERY_MS, "grace_ms": 900_000}
    facts: dict[str, Any] = {"status": "paused", "next_at_ms": None, "definition": defined}
    replaced = tell("replaced", request=later, **facts)
    replaced.appended_ms = NOW_MS + 800
    events = [FIRED[0], paused(pause), sum_of(hold, 0), done, replaced]
    report = audit([beat(), pause, hold, resume, later], [], events=events)
    assert any("left out" in sentence for sentence in report.inconsistent) is left_out, report


def _about(request: Asked, event: Delivered) -> Delivered:
    body = json.loads(event.value or b"") | {"source": request.source}
    return Delivered(
        "events", 0, 0, b"x", json.dumps(body).encode(), [], event.timestamp_ms, event.appended_ms
    )


def _delivering(request: Asked, record: Delivered) -> Delivered:
    ours = {"delaystream-source": request.source.encode()}
    headers = [(name, ours.get(name, value)) for name, value in record.headers]
    return Delivered(record.topic, 0, record.offset, request.key, request.value, headers, record.timestamp_ms)


def test_what_is_too_large_for_its_topic_may_fit_the_one_for_late_fires() -> None:
    large = asked(hopeless=True)
    assert "delivered where nothing can be" in str(audit([large], [fire(large)], events=[]).inconsistent)
    assert large.is_hopeless("out")
    assert not large.is_hopeless("late")
    assert asked(hopeless=True, destination_partition=9).is_hopeless("late")
