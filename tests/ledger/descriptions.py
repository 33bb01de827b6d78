"""What a description says of an id, held against what the id was at the description's turn.

A description is no event: it lies somewhere between the events of its id. Before it are those of steps that
were committed before its own, and the outcomes of what its own request partition said earlier; after it are
those of later steps, and of what was said later.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from tests.ledger.records import Asked, Told

if TYPE_CHECKING:
    from tests.ledger.audit import Audit

_LIVE = frozenset({"pending", "paused"})


@dataclass(frozen=True, slots=True, kw_only=True)
class State:
    """What an id is after an event."""

    told: Told | None = None
    """The event; None: before the first."""
    request: Asked | None = None
    """The request or command whose outcome that is, if it is one."""
    status: str | None = None
    version: int | None = None
    next_ms: int | None = None
    until_ms: int | None = None
    fires: int = 0
    triggered: int = 0
    forgotten_ms: int | None = None
    """From when on an id that is over is forgotten, by the worker's clock."""


def describe(audit: Audit, request: Asked, states: Sequence[State]) -> None:
    """The description that a request got is that of a state which the id may have had then."""
    receipt = audit.receipts.get(request.source)
    if receipt is None or receipt["outcome"] == "rejected":
        return
    possible = _possible(request, receipt, states, audit)
    if not any(_fits(receipt, state, audit) for state in possible):
        audit.wrong(request.source, f"described is {receipt}, and {request.id} was one of {possible}")


def _possible(
    request: Asked, receipt: dict[str, Any], states: Sequence[State], audit: Audit
) -> Sequence[State]:
    """The states between which a description lies."""
    record = audit.receipt_records[request.source]
    first, last = 0, len(states) - 1
    for number, state in enumerate(states):
        if state.told is None:
            continue
        event, said = state.told.record, state.request
        same = said is not None and said.partition == request.partition and not said.is_for_many
        before = same and said is not None and said.offset < request.offset
        after = same and said is not None and said.offset > request.offset
        if None not in (event.appended_ms, record.decided_after_ms):
            before = before or (event.appended_ms or 0) < (record.decided_after_ms or 0)
        if None not in (event.decided_after_ms, record.appended_ms):
            after = after or (event.decided_after_ms or 0) > (record.appended_ms or 0)
        if before:
            first = number
        elif after:
            last = min(last, number - 1)
    return states[first : max(first, last) + 1]


def _fits(receipt: dict[str, Any], state: State, audit: Audit) -> bool:
    given, described = audit.circumstances, receipt.get("schedule")
    if receipt["outcome"] == "unknown":
        latest_ms = receipt["decided_at_ms"] + given.clock_ahead_ms + given.clock_behind_ms
        forgotten = state.forgotten_ms is not None and state.forgotten_ms <= latest_ms
        return described is None and (state.status in (None, "forestalled") or forgotten)
    if described is None or receipt["outcome"] != "described":
        return False
    stands = (state.status, state.version, state.fires, state.triggered, state.until_ms)
    found = (
        receipt.get("status"),
        receipt.get("version"),
        described["fire_count"],
        described["triggered"],
        described.get("until_ms"),
    )
    if state.status not in _LIVE:
        # What was cancelled keeps its counts, and nothing of it is ahead.
        ended = (*stands[:2], 0, None) == (*found[:2], *found[3:])
        return ended and described.get("next_at_ms") == state.next_ms
    return stands == found and described.get("next_at_ms") == state.next_ms
