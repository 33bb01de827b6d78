"""The events about an id are its chronicle: a course that can have happened, and all that did happen.

* Each scheduled time of a recurring schedule is in exactly one place: a fire, a run of skipped or missed
  ones, or given up; in order, without a gap, until the schedule is over or cut short by a command. Each due
  time of a one-time schedule is, too.
* Each fire that is told of was delivered, and each delivery is told of, once, with the same facts.
* Each command has exactly one outcome: one event, and the receipt says the same. A trigger ends in one fire.
* A command for many has one event for each schedule that it changed, and one sum, which is right. Nothing
  that it cancelled fires after that.
"""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from tests.ledger.records import Asked, Beat, Delivered

if TYPE_CHECKING:
    from tests.ledger.audit import Audit

_LIVE = frozenset({"pending", "paused"})
_KNOWN = frozenset({"pending", "paused", "fired", "completed", "cancelled", "dropped", "quarantined"})
_OVER = _KNOWN - _LIVE
_GONE = frozenset({None, "forestalled"})

#: the statuses of an id that an outcome may find
_FINDS: dict[str, frozenset[str | None]] = {
    "scheduled": _OVER | _GONE,
    "replaced": _LIVE,
    "kept": _LIVE,
    "rejected": _KNOWN | _GONE,
    "rescheduled": _LIVE,
    "paused": frozenset({"pending"}),
    "resumed": frozenset({"paused"}),
    "triggered": _LIVE,
    "cancelled": _LIVE | {"cancelled"},
    "unchanged": _LIVE,
    "too-late": _OVER,
    "unknown": _GONE,
}
_PASSED = ("fired", "skipped", "missed", "expired", "moved", "quarantined", "completed")
_DEFINING = ("scheduled", "replaced", "rescheduled")


class Chronicle:
    """The events about the ids of chronicled requests."""

    def __init__(self, audit: Audit, requests: list[Asked]) -> None:
        self.audit = audit
        self.report = audit.report
        self.asked = {request.source: request for request in requests}
        self.ids = {(request.partition[0], request.id) for request in requests if request.id is not None}
        self.cancels = [r for r in requests if r.prefix is not None and r.action == "cancel"]
        self.outcomes: dict[str, list[str]] = defaultdict(list)
        #: schedules that a command for many changed
        self.swept: dict[str, Counter[str]] = defaultdict(Counter)
        self.sums: dict[str, list[tuple[int, int]]] = defaultdict(list)
        self.unseen = dict(audit.chronicled)

    def judge(self, events: Iterable[Delivered]) -> None:
        lives: dict[tuple[str, str], list[tuple[dict[str, Any], int]]] = defaultdict(list)
        for record in events:
            event = json.loads(record.value or b"{}")
            if event["type"] == "bulk":
                self.sums[event["source"]].append((event["count"], record.appended_ms or 0))
            elif (event["request_topic"], event.get("id")) in self.ids:
                # An event's key is its id, so those of one id are in order.
                lives[event["request_topic"], event["id"]].append((event, record.appended_ms or 0))
        for (_, id), told in lives.items():
            _Life(self, id).judge(told)
        for fire_id in self.unseen:
            self.report.inconsistent.append(f"{fire_id} was delivered, and no event tells of it")
        for request in self.asked.values():
            self._outcome(request)

    def _outcome(self, request: Asked) -> None:
        """A request has one outcome, and its receipt says the same."""
        report, source = self.report, request.source
        receipt = self.audit.outcomes.get(source)
        if request.prefix is not None:
            sums = [count for count, _ in self.sums[source]]
            changed = self.swept[source]
            if sums != [sum(changed.values())] or any(count > 1 for count in changed.values()):
                report.inconsistent.append(
                    f"{source}: it changed {dict(changed)}, and is told to have {sums}"
                )
            return
        outcomes = self.outcomes[source]
        if not outcomes:
            report.lost.append(f"{source}: the outcome of {request.action} {request.id}")
        elif len(outcomes) > 1:
            report.duplicated.append(f"{source}: {request.action} {request.id} has outcomes {outcomes}")
        elif receipt is not None and receipt != outcomes[0]:
            report.inconsistent.append(f"{source}: the receipt says {receipt}, the event {outcomes[0]}")
        refusals = [code for code in self.audit.refusals[source] if code != "quarantined"]
        if len(refusals) != outcomes.count("rejected") or not request.errors.issuperset(refusals):
            report.inconsistent.append(f"{source}: {outcomes}, dead letters {refusals}")
        report.refused += len(refusals)


class _Life:
    """One id, event by event."""

    def __init__(self, chronicle: Chronicle, id: str) -> None:
        self.chronicle = chronicle
        self.report = chronicle.report
        self.id = id
        self.status: str | None = None
        self.definition: Asked | None = None
        """The request that says when it fires."""
        self.payload: Asked | None = None
        """The request that says what, and where to."""
        self.next_ms: int | None = None
        self.ahead: Counter[int] = Counter()
        self.triggered: dict[str, int] = {}
        self.moved: dict[str, str] = {}
        """Where fires that were too late are to go, by fire id."""
        self.runs = self.skipped = self.fires = 0

    def judge(self, told: list[tuple[dict[str, Any], int]]) -> None:
        for event, appended_ms in told:
            kind = event["type"]
            if kind in _PASSED and (kind != "quarantined" or "due_at_ms" in event):
                self._passed(event, appended_ms)
            else:
                self._outcome(event)
            if kind != "rejected":
                self.status = event.get("status")
        if self.status != "paused":
            self._all_told()

    def _all_told(self) -> None:
        """Nothing that was to come was left out."""
        ahead = [*self.ahead.elements(), *self.triggered]
        if self.next_ms is not None:
            ahead.append(self.next_ms)
        if ahead:
            self.report.lost.append(f"{self.id}: {ahead}, and it is {self.status}")

    def _wrong(self, event: dict[str, Any], why: str) -> None:
        facts = {name: event[name] for name in event if name not in ("schema_version", "definition")}
        self.report.inconsistent.append(f"{self.id}: {why}: {facts}")

    # -- outcomes

    def _outcome(self, event: dict[str, Any]) -> None:
        chronicle, kind, source = self.chronicle, event["type"], event["source"]
        request = chronicle.asked.get(source)
        if request is None:
            self._wrong(event, "nobody asked for it")
            return
        if request.prefix is not None:
            chronicle.swept[source][self.id] += 1
            if not self.id.startswith(request.prefix):
                self._wrong(event, f"a command about {request.prefix}*")
        else:
            chronicle.outcomes[source].append(kind)
        forgotten = chronicle.audit.forgets_ids and self.status in _OVER and None in _FINDS[kind]
        if self.status not in _FINDS[kind] and not forgotten:
            self._wrong(event, f"it was {self.status}")
        if kind in ("scheduled", "too-late"):
            self._all_told()
        if kind in _DEFINING:
            self._define(event, request)
        elif kind == "triggered":
            self.triggered[event["fire_id"]] = event["due_at_ms"]
        elif kind in ("cancelled", "unknown"):
            self._cut()

    def _cut(self) -> None:
        self.next_ms, self.ahead = None, Counter()
        self.triggered.clear()

    def _define(self, event: dict[str, Any], request: Asked) -> None:
        carried = self._carried_on(request)
        if event["type"] != "rescheduled":
            self._cut()
            self.payload, self.fires, self.skipped = request, 0, 0
        self.definition, self.runs = request, 0
        beat = request.beat
        self.next_ms = beat.after(request.timestamp_ms) if beat is not None else None
        if beat is not None and carried is not None:
            self.definition, self.next_ms = replace(request, beat=carried[0]), carried[1]
        self.ahead = Counter(request.due_ms)
        definition = event["definition"]
        if self.payload is not None and definition["destination"] != self.payload.destination:
            self._wrong(event, f"it is for {self.payload.destination}")
        if beat is not None and (definition.get("end_at_ms"), definition.get("max_fires", 0)) != (
            beat.end_ms,
            beat.max_fires,
        ):
            self._wrong(event, f"asked for {beat}")

    def _carried_on(self, request: Asked) -> tuple[Beat, int] | None:
        """What a request becomes that has the times of the live schedule whose place it takes."""
        old = self.definition.beat if self.definition is not None else None
        spent = old is not None and 0 < old.max_fires <= self.runs
        if self.status not in _LIVE or request.beat is None or old is None or self.next_ms is None or spent:
            return None
        return request.beat.carried_on(old, self.next_ms, request.timestamp_ms)

    # -- what happened

    def _passed(self, event: dict[str, Any], appended_ms: int) -> None:
        kind = event["type"]
        if kind in ("skipped", "missed"):
            self._run(event)
        elif kind == "completed":
            beat = self.definition.beat if self.definition is not None else None
            spent = beat is not None and beat.max_fires and self.runs >= beat.max_fires
            if self.next_ms is not None and not spent:
                self._wrong(event, f"{self.next_ms} is neither fired nor accounted for")
            self.next_ms = None
        elif kind == "expired":
            self._take(event, event["from_ms"])
            self.report.dropped += 1
        elif kind == "moved":
            self.moved[event["fire_id"]] = event["destination"]
        elif kind == "quarantined":
            self._given_up(event)
        else:
            self._fired(event, appended_ms)

    def _run(self, event: dict[str, Any]) -> None:
        beat = self.definition.beat if self.definition is not None else None
        if beat is None or event["from_ms"] != self.next_ms:
            self._wrong(event, f"the next one is {self.next_ms}")
            return
        if event["to_ms"] != event["from_ms"] + (event["count"] - 1) * beat.every_ms:
            self._wrong(event, f"one every {beat.every_ms} ms")
        self.next_ms = beat.after(event["to_ms"])
        if event["type"] == "skipped":
            self.skipped += event["count"]

    def _take(self, event: dict[str, Any], due_ms: int) -> None:
        """A time is dealt with, of whichever kind of schedule."""
        beat = self.definition.beat if self.definition is not None else None
        if beat is not None:
            if due_ms != self.next_ms:
                self._wrong(event, f"the next one is {self.next_ms}")
            self.next_ms = beat.after(due_ms)
        elif self.ahead[due_ms]:
            self.ahead[due_ms] -= 1
            self.ahead += Counter()
        else:
            self._wrong(event, f"ahead are {[*self.ahead.elements()]}")

    def _given_up(self, event: dict[str, Any]) -> None:
        self.report.quarantined += 1
        due_ms = event["due_at_ms"]
        if due_ms != self.next_ms and not self.ahead[due_ms]:
            for fire_id, triggered_ms in self.triggered.items():
                if triggered_ms == due_ms:
                    del self.triggered[fire_id]
                    return
        self._take(event, due_ms)

    def _fired(self, event: dict[str, Any], appended_ms: int) -> None:
        fire_id, due_ms = event["fire_id"], event["due_at_ms"]
        self.fires += 1
        if fire_id.split("/")[2].startswith("t"):
            if self.triggered.pop(fire_id, None) != due_ms:
                self._wrong(event, f"triggered are {self.triggered}")
        else:
            if self.status == "paused":
                self._wrong(event, "it is paused")
            self._take(event, due_ms)
            self.runs += 1
            if event.get("skipped", 0) != self.skipped:
                self._wrong(event, f"{self.skipped} were skipped before it")
            self.skipped = 0
            beat = self.definition.beat if self.definition is not None else None
            if beat is not None and 0 < beat.max_fires < self.runs:
                self._wrong(event, f"at most {beat.max_fires} fires")
        self._delivered(event, fire_id, due_ms)
        self._not_cancelled(event, appended_ms)

    def _delivered(self, event: dict[str, Any], fire_id: str, due_ms: int) -> None:
        """The delivery that is told of is there, and is what is told."""
        record = self.chronicle.unseen.pop(fire_id, None)
        if record is None:
            again = fire_id in self.chronicle.audit.chronicled
            (self.report.duplicated if again else self.report.lost).append(f"{self.id}: the fire {fire_id}")
            return
        told = (
            event["destination"],
            event["destination_partition"],
            due_ms,
            event["fired_at_ms"],
            event["fire_count"],
            event.get("skipped", 0),
        )
        found = (
            record.topic,
            record.partition,
            int(record.header("due-at")),
            int(record.header("fired-at")),
            int(record.header("fire-count")),
            int(record.header("skipped") or 0),
        )
        if told != found:
            self._wrong(event, f"delivered was {found}")
        if event["fired_at_ms"] < due_ms:
            self.report.early.append(f"{fire_id}: {due_ms - event['fired_at_ms']} ms before it was due")
        appended_ms = record.appended_ms
        if appended_ms is not None and appended_ms + self.chronicle.audit.clock_ahead_ms < due_ms:
            self.report.early.append(f"{fire_id}: appended {due_ms - appended_ms} ms before it was due")
        payload = self.payload
        if payload is not None and record.header("source") != payload.source:
            self._wrong(event, f"delivered what {record.header('source')} asked for, not {payload.source}")
        if payload is not None and record.topic != self.moved.pop(fire_id, payload.destination):
            self._wrong(event, f"delivered to {record.topic}, asked for {payload.destination}")
        if event["fire_count"] != self.fires:
            self._wrong(event, f"it is the {self.fires}. fire")

    def _not_cancelled(self, event: dict[str, Any], appended_ms: int) -> None:
        """Nothing fires that was there before a cancel of many, once that is said to be done."""
        payload = self.payload
        for request in self.chronicle.cancels:
            done = self.chronicle.sums[request.source]
            if (
                payload is not None
                and request.partition == payload.partition
                and payload.offset < request.offset
                and self.id.startswith(request.prefix or "")
                and done
                and done[0][1] < appended_ms
            ):
                self._wrong(event, f"cancelled by {request.source}")
