"""What a description says of an id, held against what the id was at the description's turn.

A description is no event: it lies somewhere between the events of its id. Before it are those of steps that
were committed before its own, and the outcomes of what its own request partition said earlier; after it are
those of later steps, and of what was said later.

Of a request without an id it names the fires that are pending: none that had an end in an earlier step, and
all that have theirs in a later one.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from delaystream.core.identity import fire_id
from tests.ledger.records import Asked, Delivered, Told
from tests.ledger.selections import ends

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
    possible = [state for state in _possible(request, receipt, states, audit) if _is_meant(request, state)]
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


def _is_meant(request: Asked, state: State) -> bool:
    """Whether a description may be of a state, by the version that it asks for."""
    if request.if_version is None:
        return True
    if request.if_version == 0:
        return state.status not in _LIVE
    return state.status not in (None, "forestalled") and state.version == request.if_version


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


def describe_unnamed(audit: Audit, command: Asked) -> None:
    """The description of a request without an id is that of what was pending of it, as asked for."""
    receipt, request = audit.receipts.get(command.source), audit.asked.get(command.subject or "")
    refused = audit.count_refused(command)
    if any(told.kind != "rejected" for told in audit.told_of[command.source]):
        audit.wrong(command.source, "it is told of, and nothing has happened")
    if receipt is None or request is None:
        return
    outcome = receipt["outcome"]
    if refused or outcome == "rejected":
        if not refused or outcome != "rejected":
            audit.wrong(command.source, f"refused as {refused}, and the receipt says {outcome}")
        return
    named = {fire["fire_id"]: fire["due_at_ms"] for fire in receipt.get("fires", ())}
    made = ("described",) if named else ("too-late", "unknown")
    if outcome not in made or receipt["count"] != len(named):
        audit.wrong(command.source, f"described is {receipt}")
    if outcome == "unknown" and command.partition == request.partition and request.offset < command.offset:
        audit.wrong(command.source, f"{request.source} had been read by then")
    _is_pending(audit, command, request, named)
    if outcome == "described":
        _is_as_asked(audit, command, request, receipt)


def _is_pending(audit: Audit, command: Asked, request: Asked, named: dict[str, int]) -> None:
    """What is described had no end yet, and what is not had one."""
    record, about = audit.receipt_records[command.source], audit.selections.about.get(request.source, [])
    for fire, end in _ends(audit, request):
        if fire in named and _is_earlier(end, record):
            audit.wrong(command.source, f"{fire} is described as pending, and had its end at {end.where}")
        accepted_ms, since_ms = request.accepted_ms, record.decided_after_ms
        known = None not in (accepted_ms, since_ms) and (accepted_ms or 0) < (since_ms or 0)
        if known and not about and fire not in named and _is_earlier(record, end):
            audit.wrong(command.source, f"{fire} was pending, and described is {named}")


def _ends(audit: Audit, request: Asked) -> list[tuple[str, Delivered]]:
    """The fires of a request without an id that have an end, each with the record that tells of it."""
    over = ("expired", "quarantined", "cancelled")
    told = [event for event in audit.told_of[request.source] if event.kind in over]
    return [
        *((fire.fire_id, fire.record) for fire in audit.fires[request.source]),
        *((event.facts["fire_id"], event.record) for event in told if "fire_id" in event.facts),
    ]


def _is_earlier(one: Delivered, other: Delivered) -> bool:
    """Whether a record is of a step that was committed before that of the other one was decided."""
    return None not in (one.appended_ms, other.decided_after_ms) and (
        (one.appended_ms or 0) < (other.decided_after_ms or 0)
    )


def _is_as_asked(audit: Audit, command: Asked, request: Asked, receipt: dict[str, Any]) -> None:
    selections, described = audit.selections, receipt["schedule"]
    about = selections.about.get(request.source, [])
    fires = [(fire["due_at_ms"], fire["fire_id"]) for fire in receipt["fires"]]
    times, _ = ends(request, about)
    possible = {(due, fire_id(request.source, index, due)) for index in times for due in times[index]}
    definition = described["definition"]
    found = (
        definition["destination"],
        tuple(definition.get("tags", ())),
        definition.get("grace_ms"),
        described["on_late"],
        described["source"],
        described["upcoming_at_ms"],
    )
    expected = (
        request.destination,
        request.tags,
        request.grace_ms,
        request.on_late,
        request.source,
        [due_ms for due_ms, _ in fires],
    )
    if found != expected or not {*fires} <= possible:
        audit.wrong(command.source, f"described is {receipt}, and asked for {request}")
    # What a command has triggered goes out whatever holds it.
    if any(event.kind == "triggered" for event in about):
        return
    record, status = audit.receipt_records[command.source], receipt["status"]
    pause = selections.in_force(record, request)
    if (status == "pending" and pause) or (status == "paused" and not selections.may_hold(request)):
        audit.wrong(command.source, f"described is {receipt}, and held it is by {pause}")
