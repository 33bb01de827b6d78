"""Requests that name an id: the receipts must be a course of events that can have happened."""

from __future__ import annotations

from operator import attrgetter
from typing import TYPE_CHECKING

from tests.ledger.records import Asked

if TYPE_CHECKING:
    from tests.ledger.audit import Audit


def judge_named(audit: Audit, requests: list[Asked]) -> None:
    requests = sorted(requests, key=attrgetter("offset"))
    told = all(request.source in audit.outcomes for request in requests)
    if told and len({request.partition for request in requests}) == 1:
        _told_in_order(audit, requests)
    else:
        _told_in_any_order(audit, requests)


def _told_in_order(audit: Audit, requests: list[Asked]) -> None:
    """One request partition: the receipts must be a course of events that can have happened."""
    live: Asked | None = None  # the schedule that was defined last and not cut short
    cancelled = seen = False
    for request in requests:
        outcome = audit.outcomes[request.source]
        undelivered = audit.missing(live) if live is not None else 0
        match (request.cancel, outcome):
            case (True, "cancelled"):
                fits = cancelled or (live is not None and undelivered > 0)
                live, cancelled = None, True
            case (True, "too-late"):
                fits = live is not None and _all_over(audit, live)
            case (True, "unknown"):
                fits = not seen or (audit.forgets_ids and (live is None or _all_over(audit, live)))
            case (False, "scheduled"):
                fits = live is None or _all_over(audit, live)
                live, cancelled, seen = request, False, True
            case (False, "replaced"):
                fits = live is not None and undelivered > 0 and request.if_exists == "replace"
                live, seen = request, True
            case (False, "kept"):
                fits = live is not None and request.if_exists == "keep"
            case (False, "rejected"):
                fits = live is not None and request.if_exists == "reject"
                fits = fits or bool(set(audit.refusals[request.source]) & request.errors)
            case _:
                fits = False
        if not fits:
            was = f"{live.source} with {undelivered} fires to go" if live is not None else "none"
            audit.report.inconsistent.append(f"{request.source} (id {request.id}): {outcome}; live: {was}")
        if outcome not in ("scheduled", "replaced"):
            _never_fired(audit, request, outcome)
        elif request.source in audit.outcomes and audit.missing(request) < 0:
            audit.report.duplicated.append(f"{request.source}: more fires than due times")
    if live is not None:
        audit.complete(live)


def _all_over(audit: Audit, request: Asked) -> bool:
    return audit.missing(request) <= 0 or request.on_late == "drop"


def _never_fired(audit: Audit, request: Asked, outcome: str) -> None:
    if audit.fires[request.source]:
        audit.report.inconsistent.append(f"{request.source}: delivered, though {outcome}")
    refusals = audit.refusals[request.source]
    if len(refusals) != (outcome == "rejected"):
        audit.report.inconsistent.append(f"{request.source}: {outcome}, dead letters {refusals}")


def _told_in_any_order(audit: Audit, requests: list[Asked]) -> None:
    """Several partitions, or not every receipt: nothing may be missing that nobody can have taken out."""
    outcomes = [audit.outcomes.get(request.source) for request in requests]
    cuts = sum(outcome in ("cancelled", "replaced", None) for outcome in outcomes)
    if len(requests) == 1 and not requests[0].cancel:
        cuts = 0
    short = 0
    for request, outcome in zip(requests, outcomes, strict=True):
        missing = audit.missing(request)
        if outcome in ("kept", "rejected"):
            _never_fired(audit, request, outcome)
        elif missing < 0:
            audit.report.duplicated.append(f"{request.source}: more fires than due times")
        elif (
            missing and request.on_late != "drop" and not set(audit.refusals[request.source]) & request.errors
        ):
            short += 1
    if short > cuts:
        sources = ", ".join(request.source for request in requests)
        audit.report.lost.append(f"{short} of {sources} (id {requests[0].id}), and {cuts} were cut short")
