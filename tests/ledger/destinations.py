"""What is told of destinations: those that a partition has set aside, and the rates that commands have set.

A destination that a partition sets aside could not be written, and is in use again before the end. What the
partition tells of it goes to and fro, but while the events topic itself could not be written.
"""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from tests.ledger.records import Asked, Told

if TYPE_CHECKING:
    from tests.ledger.audit import Audit

#: for how long a topic that could not be written may be taken for one afterwards
_REMEMBERED_MS = 60_000


def judge_destinations(audit: Audit) -> None:
    """Each command has its rate, and each destination that is parked is released."""
    rates: dict[str, list[Told]] = defaultdict(list)
    parked: dict[tuple[str, int], list[Told]] = defaultdict(list)
    for told in audit.of_no_schedule:
        if told.kind == "rate":
            rates[told.facts["source"]].append(told)
        else:
            # An event's key is the destination, so those of one destination are in order.
            parked[told.facts["destination"], told.facts["partition"]].append(told)
    commands = {request.source: request for request in audit.asked.values() if request.is_of_no_schedule}
    for source in rates.keys() - commands.keys():
        audit.wrong(source, f"nobody asked for the rate that is told: {rates[source]}")
    for command in commands.values():
        _judge_rate(audit, command, rates[command.source])
    for events in parked.values():
        _judge_parked(audit, events)


def _judge_rate(audit: Audit, command: Asked, told: list[Told]) -> None:
    """A command about a rate has one outcome: that it is in force, or its refusal."""
    outcomes = ["rejected"] * len(audit.count_refused(command)) + ["rate-set"] * len(told)
    if not outcomes:
        audit.report.lost.append(f"{command.source}: the outcome of a rate for {command.destination}")
    elif len(outcomes) > 1:
        audit.report.duplicated.append(f"{command.source}: a rate has outcomes {outcomes}")
    for event in told:
        facts = event.facts
        found = (facts["destination"], facts.get("rate"), facts["request_topic"])
        if found != (command.destination, command.rate, command.partition[0]):
            audit.wrong(event, f"asked for is {command.rate} a second for {command.destination}")
    receipt = audit.receipts.get(command.source)
    if receipt is not None and [receipt["outcome"]] != outcomes:
        audit.wrong(command.source, f"the receipt says {receipt['outcome']}, events {outcomes}")


def _judge_parked(audit: Audit, events: list[Told]) -> None:
    """What one partition tells of one destination, in order."""
    given = audit.circumstances
    before: Told | None = None
    for told in [*events, None]:
        was_parked = before is not None and before.kind == "parked"
        if told is None:
            if was_parked and given.drained and not _untold(audit, before, None):
                audit.report.lost.append(f"the event that tells that it is released: {before}")
            return
        if was_parked != (told.kind == "released") and not _untold(audit, before, told):
            audit.wrong(told, f"told was before: {before}")
        if told.kind == "parked" and given.drained:
            _was_in_trouble(audit, told)
        before = told


def _was_in_trouble(audit: Audit, told: Told) -> None:
    given, facts = audit.circumstances, told.facts
    now_ms = told.record.appended_ms
    if now_ms is None:
        return
    if facts["since_ms"] > told.at_ms + given.clock_ahead_ms + given.clock_behind_ms:
        audit.wrong(told, "it is parked since a time that is yet to come")
    if not given.troubled(facts["destination"], now_ms - _REMEMBERED_MS, now_ms):
        audit.wrong(told, "it could be written")


def _untold(audit: Audit, before: Told | None, told: Told | None) -> bool:
    """Whether an event between two may have been left out: the events topic itself could not be written."""
    if not audit.circumstances.drained:
        return True  # nobody knows what has befallen it
    from_ms = 0 if before is None else (before.record.appended_ms or 0)
    to_ms = 1 << 60 if told is None else (told.record.appended_ms or 0)
    known = told or before
    topic = "" if known is None else known.record.topic
    return audit.circumstances.troubled(topic, from_ms - _REMEMBERED_MS, to_ms)
