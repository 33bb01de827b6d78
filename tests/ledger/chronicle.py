"""The events about an id are its chronicle: a course that can have happened, and all that did happen.

What the id must be after each event is worked out here from the requests alone: its status, what is ahead of
it, its counts. The events are held against that, field by field; the deliveries and receipts against both.

* Each scheduled time of a recurring schedule is in exactly one place: a fire, a run of skipped or missed
  ones, or given up; in order, without a gap, until the schedule is over or cut short by a command. Each due
  time of a one-time schedule is, too.
* Each fire that is told of was delivered, and each delivery is told of, once, with the same facts.
* Each request has exactly one outcome, one that it can have, and the receipt says the same.
* A command for many has one event for each schedule that it changed, and one sum, which is right. It left
  none out that was there all the while.
"""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping
from dataclasses import replace
from itertools import groupby
from typing import TYPE_CHECKING, Any

from delaystream.core.identity import named_fire_id, revision, split_fire_id, trigger_index
from tests.ledger.descriptions import State, describe
from tests.ledger.records import PASSED, Asked, Beat, Delivered, Once, Told
from tests.ledger.terms import Terms

if TYPE_CHECKING:
    from tests.ledger.audit import Audit

_DEFAULT_GRACE_MS = 15 * 60 * 1000
#: after a pause was to end, in a system that nothing befalls
_ENDED_WITHIN_MS = 2_000
_LIVE = frozenset({"pending", "paused"})
_CANCELLED = frozenset({"cancelled", "forestalled"})
_OVER = frozenset({"fired", "completed", "dropped", "quarantined"})

#: the statuses that each outcome of each action may find; None: an id that nobody knows
_FINDS: dict[str, dict[str, frozenset[str | None]]] = {
    "schedule": {
        "scheduled": _OVER | _CANCELLED | {None},
        "replaced": _LIVE,
        "kept": _LIVE,
        "unchanged": _LIVE,
    },
    "cancel": {
        "cancelled": _LIVE | {"cancelled"},
        "too-late": _OVER,
        "unknown": frozenset({None, "forestalled"}),
    },
    "pause": {"paused": _LIVE, "unchanged": frozenset({"paused"})},
    "resume": {"resumed": frozenset({"paused"}), "unchanged": frozenset({"pending"})},
    "trigger": {"triggered": _LIVE},
    "reschedule": {"rescheduled": _LIVE},
    "update": {"updated": _LIVE},
    "describe": {},
}
_DEFINING = ("scheduled", "replaced", "rescheduled", "updated")
for _command in ("pause", "resume", "trigger", "reschedule", "update"):
    _FINDS[_command]["too-late"] = _OVER | {"cancelled"}
    _FINDS[_command]["unknown"] = frozenset({None, "forestalled"})
#: what a command for many makes of those that it changes, and the statuses that it changes
_SWEEPS = {
    "cancel": ("cancelled", _LIVE),
    "pause": ("paused", frozenset({"pending"})),
    "resume": ("resumed", frozenset({"paused"})),
}
_MATCHED = ("matched", "anonymous", "holds")
_IF_EXISTS = {"replaced": "replace", "kept": "keep"}


class Chronicle:
    """The events about the ids of all requests."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self.report = audit.report
        named = [r for r in audit.asked.values() if r.id is not None or r.is_for_many]
        self.asked = {request.source: request for request in named}
        self.bulks = [request for request in named if request.is_for_many]
        self.outcomes: dict[str, list[str]] = defaultdict(list)
        #: schedules that a command for many changed, each by its id and how often that was forgotten before
        self.swept: dict[str, Counter[tuple[str, int]]] = defaultdict(Counter)
        self.sums: dict[str, list[Told]] = defaultdict(list)
        #: the requests to describe an id
        self.described: dict[tuple[str, str], list[Asked]] = defaultdict(list)
        self.unseen = {
            fire_id: fire.record
            for fire_id, fire in audit.deliveries.items()
            if fire.record.header("source") in self.asked
        }

    def judge(self) -> None:
        lives: dict[tuple[str, str], list[Told]] = defaultdict(list)
        for request in self.asked.values():
            if request.action == "describe" and request.id is not None:
                self.described[request.partition[0], request.id].append(request)
                lives[request.partition[0], request.id] = []
        for told in self.audit.told:
            if told.kind == "bulk":
                self.sums[told.facts["source"]].append(told)
            elif "id" in told.facts:
                # An event's key is its id, so those of one id are in order.
                lives[told.facts["request_topic"], told.facts["id"]].append(told)
        for (topic, id), events in lives.items():
            life = _Life(self, id)
            life.judge(events)
            for request in self.described[topic, id]:
                describe(self.audit, request, life.states)
        for fire_id in self.unseen:
            self.audit.wrong(fire_id, "was delivered, and no event tells of it")
        for request in self.asked.values():
            if request.is_for_many:
                self._sum(request)
            else:
                self._outcome(request)

    def _sum(self, request: Asked) -> None:
        """A command for many is refused, or has one sum; and its receipt says the same."""
        source, changed = request.source, self.swept[request.source]
        refused = self.audit.count_refused(request)
        receipt = self.audit.receipts.get(source)
        sums = [(told.facts["count"], told.facts["action"]) for told in self.sums[source]]
        if refused:
            if sums or changed or (receipt is not None and receipt["outcome"] != "rejected"):
                self.audit.wrong(source, f"it was refused, and changed {dict(changed)}, and tells {sums}")
            return
        if sums != [(sum(changed.values()), request.action)] or any(count > 1 for count in changed.values()):
            self.audit.wrong(source, f"{request.action}: it changed {dict(changed)}, and tells {sums}")
        if receipt is not None:
            told = (receipt["outcome"], receipt.get("count"))
            facts = self.sums[source][0].facts if self.sums[source] else {}
            found = [facts.get(name) for name in _MATCHED]
            made = _SWEEPS[request.action][0] if self._matched(request, facts) else "no-match"
            if told != (made, sum(changed.values())) or found != [receipt.get(name) for name in _MATCHED]:
                self.audit.wrong(source, f"{request.action}: it changed {dict(changed)}; receipt {receipt}")

    @staticmethod
    def _matched(request: Asked, facts: Mapping[str, Any]) -> bool:
        """Whether a command for many was about anything."""
        ended = facts.get("holds", 0) if request.action == "resume" else 0
        return bool(facts.get("matched", 0) or facts.get("anonymous", 0) or ended)

    def _outcome(self, request: Asked) -> None:
        """A request has one outcome, and its receipt says the same."""
        report, source = self.report, request.source
        outcomes = self.outcomes[source]
        receipt = self.audit.receipts.get(source)
        if request.action == "describe" and not outcomes and receipt is not None:
            # It is no event that somebody asks.
            outcomes = [receipt["outcome"]] if receipt["outcome"] in ("described", "unknown") else []
        if not outcomes and receipt is None and self.audit.may_be_unanswered(request):
            return
        if not outcomes:
            report.lost.append(f"{source}: the outcome of {request.action} {request.id}")
        elif len(outcomes) > 1:
            report.duplicated.append(f"{source}: {request.action} {request.id} has outcomes {outcomes}")
        repeated = outcomes == ["repeated"] and receipt is not None and receipt.get("repeated")
        if receipt is not None and not repeated and receipt["outcome"] not in outcomes:
            self.audit.wrong(source, f"the receipt says {receipt['outcome']}, events {outcomes}")
        refusals = self.audit.count_refused(request)
        if len(refusals) != outcomes.count("rejected"):
            self.audit.wrong(source, f"{outcomes}, dead letters {refusals}")


class _Life:
    """One id, event by event."""

    def __init__(self, chronicle: Chronicle, id: str) -> None:
        self.chronicle = chronicle
        self.audit = chronicle.audit
        self.given = chronicle.audit.circumstances
        self.report = chronicle.report
        self.id = id
        self.status: str | None = None
        self.over_ms = 0
        """When it was last over, by the worker's clock."""
        self.last_fired_ms: int | None = None
        self.definition: Asked | None = None
        """The request that says when it fires."""
        self.payload: Asked | None = None
        """The request that says what, and where to."""
        self.stands_for: Asked | None = None
        #: timestamp of the bulk command that cancelled it last, as it is now
        self.swept_ms = 0
        self.stood_for: Asked | None = None
        """The request that says what is older: that of the schedule, or a cancel of it."""
        self.revision = -1
        self.catch_up, self.grace_ms = "latest", _DEFAULT_GRACE_MS
        """Of a recurring schedule."""
        self.next_ms: int | None = None
        self.ahead: dict[int, int] = {}
        """Due times of a one-time schedule by their place in the list."""
        self.moved: dict[int, str] = {}
        """Which of them are on their way to a topic for late ones."""
        self.stays: tuple[int, int] | None = None
        """A scheduled time, and when it is due: where an update has left it."""
        self.triggered: dict[str, int] = {}
        self.runs = self.skipped = self.fires = 0
        self.decided: dict[tuple[str, int], int] = {}
        """By request partition, the offset of the last of its requests that was decided on."""
        self.changed = False
        """Whether when it fires was changed since it was scheduled."""
        self.owed: Told | None = None
        """A run of times that are said to be replaced; the event of what replaces them is next."""
        self.last_fire: str | None = None
        self.resumed_ms = -1
        self.once: Once | None = None
        """What the last resume has said of what was late by then."""
        self.looked = self.by_once = False
        """Whether what has passed of it was looked at, and whether that began before the resume."""
        self.held = False
        """Whether it is paused because a hold met it when it arrived."""
        self.kept = False
        """Whether it is known to be kept back by a hold, and not only paused by itself."""
        self.incomplete = False
        """Whether `completed` has to be the next event."""
        self.course: list[tuple[int, str | None, Asked | None]] = []
        """Since when, by the broker's clock, it has had which status and payload."""
        self.terms = Terms(self.audit, id)
        self.forgotten = 0
        """How often it may have been forgotten, and was as good as new when it was scheduled."""
        self.until_ms: int | None = None
        """When its pause ends by itself."""
        self.states = [State()]
        """What it was before the first event, and after each."""

    @property
    def beat(self) -> Beat | None:
        """When it recurs, if it does."""
        return self.definition.beat if self.definition is not None else None

    def judge(self, events: list[Told]) -> None:
        for _, group in groupby(events, key=lambda told: told.at_ms):
            stating = None
            for told in group:
                if self.incomplete and told.kind != "completed":
                    self._wrong(told, "it has no further time, and nothing says that it is completed")
                    self.incomplete = False
                if told.kind in PASSED:
                    self._passed(told)
                else:
                    self._outcome(told)
                if told.kind != "rejected":
                    stating = told
                self.course.append((told.record.appended_ms or 0, self.status, self.payload))
                self.states.append(self._state(told))
            # What one step tells of an id says where it stands after the step.
            if stating is not None:
                self._standing(stating)
            self._looked_through()
        if self.incomplete:
            self.report.lost.append(f"{self.id}: no event says that it is completed")
        if self.status != "paused" or self.given.drained:
            self._all_told()
        if self.status == "paused" and self.until_ms is not None and self.given.drained:
            self.report.lost.append(f"{self.id}: the end of its pause, at {self.until_ms}")
        for request in self.chronicle.bulks:
            self._not_left_out(request)

    def _all_told(self) -> None:
        """Nothing that was to come was left out."""
        ahead: list[Any] = [*self.ahead.values(), *self.triggered]
        if self.next_ms is not None:
            ahead.append(self.next_ms)
        if ahead:
            self.report.lost.append(f"{self.id}: {ahead} ahead, and it is {self.status}")

    def _wrong(self, told: Told, why: str) -> None:
        self.audit.wrong(self.id, f"{why}: {told}")

    @property
    def _due_ms(self) -> int | None:
        """When the next of its own fires is due."""
        if self.status != "pending":
            return None
        if self.next_ms is not None and self.beat is not None:
            return self._moment(self.beat, self.next_ms)
        return min(self.ahead.values(), default=None)

    def _moment(self, beat: Beat, scheduled_ms: int, fire_id: str | None = None) -> int:
        """When a scheduled time is due; that of a fire that is told of, by its own id."""
        if self.stays is not None and self.stays[0] == scheduled_ms:
            return self.stays[1]
        return beat.due(scheduled_ms, fire_id or self._fire_id(0, scheduled_ms))

    def _state(self, told: Told) -> State:
        """What it is after an event."""
        request = self.chronicle.asked.get(told.facts["source"])
        outcome = request if told.kind not in PASSED and told.kind != "rejected" else None
        forgotten_ms = None if self.status in _LIVE else self.over_ms + self.given.id_retention_ms
        return State(
            told=told,
            request=None if self._ends_by_itself(told) else outcome,
            status=self.status,
            version=self.terms.version,
            next_ms=self._due_ms,
            until_ms=self.until_ms,
            fires=self.fires,
            triggered=len(self.triggered),
            forgotten_ms=forgotten_ms,
        )

    def _looked_through(self) -> None:
        """The word of a resume is over once all that had passed by then is decided on."""
        if self.looked and self.beat is not None and (self.next_ms is None or self.next_ms > self.resumed_ms):
            self.once = None
        self.looked = self.by_once = False

    def _standing(self, told: Told) -> None:
        """Where it stands, as it was told and as it must be."""
        stands = (self.status, self._due_ms)
        found = (told.facts.get("status"), told.facts.get("next_at_ms"))
        if self.given.request_partitions is None and self.beat is not None and self.beat.jitter_ms:
            # Without revisions nobody knows its jitter.
            stands, found = stands[:1], found[:1]  # type: ignore[assignment]
        if stands != found:
            self._wrong(told, f"is {found}, and must be {stands}")

    def _fire_id(self, index: int | str, due_ms: int) -> str:
        assert self.payload is not None
        return named_fire_id(self.payload.partition[0], self.revision, index, due_ms, self.id)

    # -- outcomes

    def _outcome(self, told: Told) -> None:
        kind, source = told.kind, told.facts["source"]
        request = self.chronicle.asked[source]
        self._looked_through()
        if self._ends_by_itself(told):
            self._ended(told)
            return
        if request.is_for_many and request.offset < self.decided.get(request.partition, -1):
            self._wrong(told, "the partition has said something later of it, which was decided on before")
        if kind in ("scheduled", "replaced"):
            # What was said of what the id stood for before is done with.
            self.decided = {}
        if kind != "rejected":
            # That may be where it was read, and not where its id belongs.
            self.decided[request.partition] = max(request.offset, self.decided.get(request.partition, -1))
        if request.is_for_many:
            self._swept(told, request)
            return
        self.chronicle.outcomes[source].append(kind)
        forgotten = self.status not in _LIVE and self.over_ms + self.given.id_retention_ms <= (
            told.at_ms + self.given.clock_ahead_ms + self.given.clock_behind_ms
        )
        if self.terms.judge(told, request, self.status, forgotten=forgotten):
            self._receipt_status(told, request)
            return
        if kind == "rejected":
            self._rejected(told, request)
            return
        before = self.status
        self._decided(told, request, forgotten=forgotten)
        self.terms.happened(told, request, before, self.status)
        if self.status != "paused":
            self.until_ms = None
        self._ends(told)

    def _decided(self, told: Told, request: Asked, *, forgotten: bool) -> None:
        """A request was accepted, in one way or another."""
        kind = told.kind
        if kind == "scheduled" and (forgotten or self.status is None):
            self.forgotten += 1
        finds = _FINDS[request.action].get(kind, frozenset())
        if self.status not in finds and not (forgotten and None in finds):
            self._wrong(told, f"it was {self.status}, and asked for is {request.action}")
        if kind in _IF_EXISTS and request.if_exists != _IF_EXISTS[kind]:
            self._wrong(told, f"if-exists is {request.if_exists}")
        if kind == "scheduled" and self.status in _CANCELLED and not forgotten and self._is_older(request):
            self._wrong(told, "it was cancelled by a later request")
        if kind == "unchanged" and request.action == "schedule":
            self._sent_again(told, request)
            return
        if kind in _DEFINING:
            self._define(told, request)
        elif kind == "triggered":
            self._triggered(told, request)
        elif kind == "cancelled":
            self._cancel(told, request)
        elif kind == "unknown":
            if request.action == "cancel":
                self._cut()
                self.status, self.over_ms = "forestalled", told.at_ms
                if self.stands_for is None or forgotten or not self._is_older(request):
                    # By the clocks it may be forgotten, or may not be: then the newer of the two counts.
                    self.stood_for = self.stands_for if forgotten and self._is_older(request) else None
                    self.stands_for, self.swept_ms = request, 0
            elif self.status != "forestalled" or "status" not in told.facts:
                # Forgotten, or never known.
                self._cut()
                self.status = None
        elif kind == "too-late" and told.facts.get("fire_id") != self.last_fire:
            self._wrong(told, f"the last fire was {self.last_fire}")
        elif kind in ("paused", "resumed"):
            self._switch(kind, told, request)
        elif kind == "unchanged" and request.action == "pause" and request.until_ms != self.until_ms:
            self._wrong(told, f"its pause ends at {self.until_ms}, and is to end at {request.until_ms}")
        if kind not in (*_DEFINING, "triggered"):
            self.audit.receipt_names(request, [])
        self._receipt_status(told, request)

    def _receipt_status(self, told: Told, request: Asked) -> None:
        receipt = self.audit.receipts.get(request.source)
        if receipt is None:
            return
        names = ["status", "version"] + ["fire_id"] * (told.kind == "too-late")
        if any(receipt.get(name) != told.facts.get(name) for name in names):
            self._wrong(told, f"the receipt says {receipt}")

    def _is_older(self, request: Asked) -> bool:
        """Whether a request is older than what the id stands for, or than the bulk command that ended it."""
        other = self.stands_for
        if (
            other is not None
            and other.partition != request.partition
            and request.timestamp_ms < self.swept_ms
        ):
            return True
        return self._is_before(request, other)

    @staticmethod
    def _is_before(request: Asked, other: Asked | None) -> bool:
        if other is None:
            return False
        if other.partition == request.partition:
            return request.offset < other.offset
        return request.timestamp_ms < other.timestamp_ms

    def _rejected(self, told: Told, request: Asked) -> None:
        code = told.facts["code"]
        if code not in request.errors:
            self._wrong(told, f"it may be refused as {set(request.errors)}")
        elif code == "already-exists" and not (self.status in _LIVE and request.if_exists == "reject"):
            self._wrong(told, f"it was {self.status}, and if-exists is {request.if_exists}")
        elif code == "cancelled-earlier" and not (
            self.status in _CANCELLED
            and (self._is_older(request) or self._is_before(request, self.stood_for))
        ):
            self._wrong(told, f"it was {self.status} by {self.stands_for}")
        self.audit.receipt_names(request, [])

    def _switch(self, kind: str, told: Told, request: Asked | None) -> None:
        """It is paused or resumed, by a request or by itself."""
        if kind == "paused":
            until_ms = None if request is None else self._until_ms(told, request)
            if self.status == "paused" and until_ms == self.until_ms:
                self._wrong(told, f"it is paused, until {self.until_ms}")
            self.until_ms = until_ms
        elif request is not None:
            self._resumed_in_time(told, request)
        if kind == "resumed" or self.status != "paused":
            self.held = self.kept = False
        self.status, self.stays = "paused" if kind == "paused" else "pending", None
        if kind == "resumed":
            self.resumed_ms, self.once = told.at_ms, None if request is None else request.once
        # What is held goes back to where it was: a fire that was moved is decided on anew.
        self.moved.clear()

    def _until_ms(self, told: Told, request: Asked) -> int | None:
        """When the pause of a command ends; that of many ends with the last hold that meets the schedule."""
        until_ms, told_ms = request.until_ms, told.facts.get("until_ms")
        later = until_ms is not None and (told_ms is None or told_ms > until_ms)
        if request.is_for_many and later and self.audit.selections.may_keep(self.payload, told_ms, request):
            return told_ms
        return until_ms

    def _passes(self, told: Told, request: Asked | None = None) -> None:
        """What has paused it is over, or would be, and a hold keeps it back: at the turn of a resume."""
        until_ms = told.facts.get("until_ms")
        if self.status != "paused" or not self.audit.selections.may_keep(self.payload, until_ms, request):
            self._wrong(told, f"it was {self.status}, and no hold keeps it back until {until_ms}")
        self.until_ms, self.held, self.kept = until_ms, True, True

    def _let_go(self, told: Told) -> None:
        """It was resumed, and not by its id: no hold may meet it."""
        if self.payload is not None and (pause := self.audit.selections.in_force(told.record, self.payload)):
            self._wrong(told, f"{pause} holds it back")

    def _ends_by_itself(self, told: Told) -> bool:
        """Whether an event tells that a pause is over, and no command's doing."""
        request = self.chronicle.asked.get(told.facts["source"])
        return (
            told.kind in ("paused", "resumed") and request is not None and request.action == "schedule"
        )  # fmt: skip

    def _ended(self, told: Told) -> None:
        """A pause has ended by itself: when it was to, and not before."""
        if self.payload is None or told.facts["source"] != self.payload.source:
            self._wrong(told, f"it is what {self.payload and self.payload.source} asked for")
        if self.status != "paused" or self.until_ms is None or told.at_ms < self.until_ms:
            self._wrong(told, f"it was {self.status}, until {self.until_ms}")
        if told.kind == "paused":
            self._passes(told)
        else:
            self._let_go(told)
            self._switch("resumed", told, None)
            self.until_ms = None
        self.terms.stays(told)
        self._ends(told)

    def _ends(self, told: Told) -> None:
        """An outcome says when the pause ends."""
        if told.facts.get("until_ms") != self.until_ms:
            self._wrong(told, f"its pause ends at {self.until_ms}")

    def _resumed_in_time(self, told: Told, request: Asked) -> None:
        """Where nothing befalls the system, who resumes what was to go on by itself finds that it has."""
        calm_ms, until_ms = self.given.calm_ms, self.until_ms
        if until_ms is None or calm_ms is None or self.status != "paused":
            return
        if request.timestamp_ms > max(until_ms + self.given.clock_behind_ms, calm_ms) + _ENDED_WITHIN_MS:
            self.report.lost.append(f"{self.id}: its pause was to end at {until_ms}, and did by {told}")

    def _cancel(self, told: Told, request: Asked) -> None:
        if self.status in _LIVE or not self._is_older(request):
            self.stands_for, self.swept_ms = request, 0
        self._cut()
        self.status, self.over_ms = "cancelled", told.at_ms

    def _sent_again(self, told: Told, request: Asked) -> None:
        """The same definition once more: nothing moves but whose outcome the next ones are."""
        assert self.payload is not None
        if not self._is_same(request):
            self._wrong(told, f"it was defined by {self.payload}, and asked for is {request}")
        self.payload = self.stands_for = request
        self.swept_ms = 0
        self.audit.receipt_names(request, self._named())
        self._receipt_status(told, request)

    def _is_same(self, request: Asked) -> bool:
        """Whether a request asks for the very thing that is there."""
        payload, beat, old = self.payload, request.beat, self.beat
        if payload is None or self.changed or request.relative or (beat is None) != (old is None):
            return False
        if beat is not None and old is not None and beat.start_ms == request.timestamp_ms:
            # It says no start, as the first of them did not.
            beat = replace(beat, start_ms=old.start_ms, anchor_ms=old.anchor_ms)
        same = request.defines(beat) == payload.defines(old)
        return same and request.wanted in (None, self.status)

    def _cut(self) -> None:
        self.next_ms = None
        self.ahead, self.moved = {}, {}
        self.triggered.clear()

    def _swept(self, told: Told, request: Asked) -> None:
        chronicle, kind = self.chronicle, told.kind
        makes, finds = _SWEEPS[request.action]
        if request.action == "pause" and self.until_ms != self._until_ms(told, request):
            # It says when the pause of what is paused ends, too.
            finds |= {"paused"}
        passes = request.action == "resume" and kind == "paused"
        if passes:
            makes = "paused"
        else:
            chronicle.swept[request.source][self.id, self.forgotten] += 1
        if not request.selects(self.id, self.payload) or kind != makes or self.status not in finds:
            self._wrong(
                told, f"it was {self.status}; {request.action} of {request.prefix}* {request.selector}"
            )
        if not self._was_there(self.payload, request) and not (self.held and request.action == "resume"):
            self._wrong(told, "it was asked for after the command")
        if kind == "resumed" and self.kept:
            self._let_go(told)
        if kind == "cancelled":
            self._cut()
            self.status, self.over_ms = "cancelled", told.at_ms
            self.swept_ms = request.timestamp_ms
        elif passes:
            self._passes(told, request)
        else:
            self._switch(kind, told, request)
        if self.status != "paused":
            self.until_ms = None
        self.terms.changed(told)
        self._ends(told)

    @staticmethod
    def _was_there(payload: Asked | None, request: Asked) -> bool:
        """Whether a schedule was asked for before a command for many."""
        if payload is None:
            return False
        if payload.partition == request.partition:
            return payload.offset < request.offset
        return payload.partition[0] == request.partition[0] and payload.timestamp_ms <= request.timestamp_ms

    def _not_left_out(self, request: Asked) -> None:
        """A command for many changed it, if it was there to be changed from its production to its sum."""
        done = self.chronicle.sums[request.source]
        if not done:
            return
        finds = _SWEEPS[request.action][1]
        done_ms = done[0].record.appended_ms
        if done_ms is None:
            return
        began_ms = request.timestamp_ms
        selections = self.audit.selections
        before = [entry for entry in self.course if entry[0] < began_ms][-1:]
        during = [entry for entry in self.course if began_ms <= entry[0] <= done_ms]
        if request.action == "resume" and any(
            payload is not None and selections.may_hold(payload) for _, _, payload in before + during
        ):
            # Another hold may have kept it back.
            return
        if before and all(
            status in finds and self._was_there(payload, request) and request.selects(self.id, payload)
            for _, status, payload in before + during
        ):
            self.audit.wrong(self.id, f"left out by {request.action} {request.source}")

    def _define(self, told: Told, request: Asked) -> None:
        anew = told.kind in ("scheduled", "replaced")
        if told.kind == "updated" and self.payload is not None:
            self.payload = self.payload.changed(request)
            if request.beat is None and not request.due_ms:
                self._redefine(told, request)
                return
        paused = told.facts.get("status") == "paused" and self.status == "pending"
        met = paused and self.audit.selections.may_pause(request)
        if told.kind == "replaced" and self._is_same(request) and request.beat is not None and not met:
            self._wrong(told, "it was the same")
        beat = request.beat
        old = self.beat if self.status in _LIVE else None
        kept = not anew and old is not None and beat is not None
        if kept and old is not None and beat is not None:
            kept = not beat.max_fires
            request = replace(request, beat=beat.merged(old, request.timestamp_ms))
            beat = request.beat
        undecided_ms = self.next_ms
        carried = self._carried_on(request)
        if anew:
            # Times that passed while the old one was paused are those of the new one, if it carries it on.
            was_paused = self.status == "paused"
            paused = request.wanted == "paused" or (was_paused and request.wanted is None)
            resumed = was_paused and not paused and beat is not None
            self.resumed_ms, self.once = told.at_ms if resumed else -1, None
            self._cut()
            self.changed = False
            self.payload = self.stands_for = request
            self.swept_ms = 0
            self.fires = 0
            self.last_fire, self.status = None, "paused" if paused else "pending"
            self.last_fired_ms = None
            if was_paused and request.wanted != "pending":
                self._arrived(told, request, self.until_ms)
            else:
                self._arrived(told, request, None if request.wanted == "paused" else -1)
            self.catch_up, self.grace_ms = request.catch_up, _DEFAULT_GRACE_MS
            if request.grace_ms is not None:
                self.grace_ms = request.grace_ms
            if beat is None:
                self.catch_up = "latest"
        elif self.status == "pending" and self.payload is not None:
            self._arrived(told, self.payload, -1)
        self.changed = self.changed or not anew
        self.definition, self.runs = request, self.runs if kept else 0
        self._revise(told, request)
        self.ahead, self.moved = dict(enumerate(request.due_ms)), {}
        self.next_ms = beat.after(request.timestamp_ms) if beat is not None else None
        if carried is None:
            self.skipped = 0
        else:
            beat, self.next_ms = carried
            self.definition = replace(request, beat=beat)
        self._owes(told, old, undecided_ms)
        times = list(request.due_ms) if beat is None else [self.next_ms]
        if times == [] or times == [None]:
            self._wrong(told, "it never fires, and was to be refused")
            return
        fires = [
            (due_ms, self._fire_id(index, due_ms)) for index, due_ms in enumerate(times) if due_ms is not None
        ]
        self.audit.receipt_names(request, fires)
        self._definition(told, beat)

    def _redefine(self, told: Told, request: Asked) -> None:
        """What it delivers has changed, or where to, and not when."""
        self.changed, self.moved = True, {}
        due_ms = self._due_ms
        stays = None if self.next_ms is None or due_ms is None else (self.next_ms, due_ms)
        if self.status == "pending" and self.payload is not None:
            self._arrived(told, self.payload, -1)
        self._revise(told, request)
        self.stays = stays if self.status == "pending" else None
        self._owes(told, None, None)
        self.audit.receipt_names(request, self._named())
        self._definition(told, self.beat)

    def _revise(self, told: Told, request: Asked) -> None:
        self.revision, self.stays = told.facts["revision"], None
        if self.given.request_partitions is not None:
            expected = revision(request.partition[1], request.offset)
            if expected != self.revision:
                self._wrong(told, f"the revision is {expected}")
            self.revision = expected

    def _named(self) -> list[tuple[int, str]]:
        """Its fires that are ahead, but for triggered ones."""
        fires = [(self.next_ms, 0)] if self.next_ms is not None else []
        fires += sorted((due_ms, index) for index, due_ms in self.ahead.items())
        return [(due_ms, self._fire_id(index, due_ms)) for due_ms, index in fires if due_ms is not None]

    def _owes(self, told: Told, old: Beat | None, undecided_ms: int | None) -> None:
        """Times that had passed, and that the new definition does not decide on, are told of as replaced."""
        owed, self.owed = self.owed, None
        passed = undecided_ms is not None and undecided_ms <= told.at_ms and self.next_ms != undecided_ms
        if old is None or not passed or undecided_ms is None:
            if owed is not None:
                self._wrong(owed, "nothing was owed")
            return
        last_ms = undecided_ms
        while (later_ms := old.after(last_ms)) is not None and later_ms <= told.at_ms:
            last_ms = later_ms
        found = None if owed is None else (owed.facts["from_ms"], owed.facts["to_ms"])
        if found != (undecided_ms, last_ms):
            self._wrong(told, f"owed are {undecided_ms} to {last_ms}, told is {found}")

    def _arrived(self, told: Told, request: Asked, until_ms: int | None) -> None:
        """A hold may have met it on its arrival, or must have.

        It was to be paused until `until_ms` (None: until a resume; -1: not at all).
        """
        selections = self.audit.selections
        self.held = told.facts.get("status") == "paused" and selections.may_pause(request)
        pause = selections.in_force(told.record, request, arriving=True)
        self.kept = self.held and pause is not None
        if self.held:
            self.status = "paused"
            told_ms = told.facts.get("until_ms")
            later = until_ms is not None and (told_ms is None or told_ms > until_ms)
            if later and selections.may_keep(request, told_ms):
                until_ms = told_ms
            self.until_ms = None if until_ms == -1 else until_ms
        elif pause is not None:
            self._wrong(told, f"{pause} holds back what arrives")

    def _carried_on(self, request: Asked) -> tuple[Beat, int] | None:
        """What a request becomes that has the times of the live schedule whose place it takes."""
        old = self.beat
        if self.status not in _LIVE or request.beat is None or old is None or self.next_ms is None:
            return None
        return request.beat.carried_on(old, self.next_ms, request.timestamp_ms)

    def _definition(self, told: Told, beat: Beat | None) -> None:
        definition = told.facts["definition"]
        payload = self.payload
        if payload is not None and definition["destination"] != payload.destination:
            self._wrong(told, f"it is for {payload.destination}")
        if payload is not None and tuple(definition.get("tags", ())) != payload.tags:
            self._wrong(told, f"its tags are {payload.tags}")
        if beat is None:
            # Those that are left out went out at once.
            left = Counter(definition.get("due_at_ms", ()))
            if left - Counter(self.ahead.values()):
                self._wrong(told, f"asked for {self.ahead}")
            return
        expected = {
            "cron": beat.cron,
            "every_ms": 0 if beat.cron else beat.every_ms,
            "start_at_ms": beat.start_ms,
            "end_at_ms": beat.end_ms,
            "max_fires": beat.max_fires,
            "jitter_ms": beat.jitter_ms,
            "catch_up": self.catch_up,
            "grace_ms": self.grace_ms,
        }
        numbers = ("every_ms", "max_fires", "jitter_ms")
        found = {name: definition.get(name, 0 if name in numbers else None) for name in expected}
        if found != expected:
            self._wrong(told, f"asked for {expected}, defined is {found}")

    def _triggered(self, told: Told, request: Asked) -> None:
        facts, at_ms = told.facts, told.at_ms
        if self.payload is None:
            return
        fire_id = self._fire_id(trigger_index(request.partition[1], request.offset), at_ms)
        if (facts.get("fire_id"), facts.get("due_at_ms")) != (fire_id, at_ms):
            self._wrong(told, f"its fire is {fire_id}")
        self.triggered[facts["fire_id"]] = facts["due_at_ms"]
        self.audit.receipt_names(request, [(at_ms, fire_id)])

    # -- what happened

    def _passed(self, told: Told) -> None:
        kind = told.kind
        if self.payload is None or (self.status not in _LIVE and kind != "completed"):
            self._wrong(told, f"it is {self.status}")
            self.chronicle.unseen.pop(told.facts.get("fire_id", ""), None)
            return
        if told.facts["source"] != self.payload.source:
            self._wrong(told, f"it delivers what {self.payload.source} asked for")
        if kind in ("skipped", "missed"):
            self._run(told)
            self._over(told, "completed")
        elif kind == "completed":
            if not self.incomplete or told.facts.get("fire_count", 0) != self.fires:
                self._wrong(told, f"{self.next_ms} is ahead, {self.fires} fires")
            self.incomplete = False
        elif kind == "expired":
            self._expired(told)
            self._over(told, "dropped")
        elif kind == "moved":
            self._moved(told)
        elif kind == "quarantined":
            self._given_up(told)
            self._over(told, "quarantined")
        else:
            self._fired(told)
            self._over(told, "fired")

    def _over(self, told: Told, ended: str) -> None:
        """It is over if nothing of it is ahead."""
        if self.next_ms is not None or self.ahead or self.triggered:
            return
        if self.beat is not None:
            self.status, self.incomplete = "completed", True
        else:
            self.status = "fired" if self.fires else ended
        self.over_ms, self.until_ms = told.at_ms, None

    def _run(self, told: Told) -> None:
        facts, beat, at_ms = told.facts, self.beat, told.at_ms
        from_ms, to_ms, count, reason = (facts[name] for name in ("from_ms", "to_ms", "count", "reason"))
        if reason == "replaced":
            if self.owed is not None or beat is None or to_ms != from_ms + (count - 1) * beat.every_ms:
                self._wrong(told, "one run is owed")
            self.owed = told
            return
        if beat is None or from_ms != self.next_ms or self.status == "paused":
            self._wrong(told, f"the next one is {self.next_ms}, and it is {self.status}")
            return
        if count < 1 or to_ms != from_ms + (count - 1) * beat.every_ms:
            self._wrong(told, f"one every {beat.every_ms} ms")
        words = self._words(from_ms)
        self.next_ms = beat.after(to_ms)
        paused = to_ms <= self.resumed_ms
        if paused != (reason == "paused") or reason not in ("paused", "late", "destination"):
            self._wrong(told, f"it was last resumed at {self.resumed_ms}")
        if told.kind == "missed":
            if all(to_ms >= at_ms - grace_ms - beat.jitter_ms for _, grace_ms in words):
                self._wrong(told, f"not all of it was late by then: said is {words}")
            return
        self.skipped += count
        if all(catch_up == "all" for catch_up, _ in words):
            self._wrong(told, "it is to catch up on all")
        if self.next_ms is None or self._moment(beat, self.next_ms) > at_ms:
            self._wrong(told, f"{self.next_ms} was not due by then, and cannot stand for them")

    def _words(self, scheduled_ms: int) -> list[tuple[str, int]]:
        """What may be said of a time that passed: `catch-up`, and how late it may be and still fire.

        What had passed at a resume goes by the word of that, and so does what is decided on together with it.
        """
        self.looked, words = True, []
        passed = scheduled_ms <= self.resumed_ms
        self.by_once = self.by_once or passed
        if self.once is not None and self.by_once:
            words.append((self.once.catch_up, self.once.grace_ms))
        if self.once is None or not passed:
            words.append((None, None))
        said = []
        for catch_up, grace_ms in words:
            kind = catch_up or self.catch_up
            most_ms = self.grace_ms if grace_ms is None else grace_ms
            said.append((kind, min(most_ms, self.given.misfire_threshold_ms) if kind == "none" else most_ms))
        return said

    def _word(self, due_ms: int) -> Asked:
        """What a one-time schedule does when it is late: its own word, or for this once that of a resume."""
        assert self.payload is not None
        return self.payload.by(self.once if due_ms <= self.resumed_ms else None)

    def _expired(self, told: Told) -> None:
        facts = told.facts
        due_ms = facts["from_ms"]
        word = self._word(due_ms)
        self.report.dropped += 1
        self._take_any(told, due_ms)
        if (facts["to_ms"], facts["count"], facts["reason"]) != (due_ms, 1, "late"):
            self._wrong(told, "a due time by itself, and late")
        self._was_late(told, due_ms, word.on_late == "drop")

    def _was_late(self, told: Told, due_ms: int, asked: bool) -> None:
        payload = self._word(due_ms)
        if self.status == "paused":
            self._wrong(told, "it is paused")
        if not asked or not payload.diverts or not payload.is_late(due_ms, told.at_ms):
            self._wrong(told, f"{payload.on_late} when later than {payload.grace_ms} ms")

    def _moved(self, told: Told) -> None:
        facts = told.facts
        due_ms = facts["due_at_ms"]
        word, index = self._word(due_ms), self._place(told)
        if index is None or self.ahead.get(index) != due_ms or index in self.moved:
            self._wrong(told, f"ahead are {self.ahead}, moved {self.moved}")
            return
        self.moved[index] = word.on_late
        self._was_late(told, due_ms, facts["destination"] == word.on_late)
        if facts["lateness_ms"] != told.at_ms - due_ms:
            self._wrong(told, f"it is due at {due_ms}")

    def _place(self, told: Told) -> int | None:
        """The place in the list of a fire, by its id; None when the id is not one that it can have."""
        fire_id, due_ms = told.facts["fire_id"], told.facts["due_at_ms"]
        name = split_fire_id(fire_id)
        if name is None or isinstance(name.index, str) or fire_id != self._fire_id(name.index, due_ms):
            self._wrong(told, f"such as {self._fire_id(0, due_ms)}")
            return None
        return name.index

    def _take_any(self, told: Told, due_ms: int) -> None:
        """A due time is dealt with, whichever of the list has it."""
        index = next((index for index, due in self.ahead.items() if due == due_ms), None)
        if index is None:
            self._wrong(told, f"ahead are {self.ahead}")
        else:
            del self.ahead[index]

    def _take(self, told: Told, due_ms: int) -> str:
        """A fire of whichever kind of schedule is dealt with; the topic that it is for."""
        payload, beat = self.payload, self.beat
        assert payload is not None
        index = self._place(told)
        if self.status == "paused":
            self._wrong(told, "it is paused")
        if beat is not None:
            if due_ms != self.next_ms or index != 0:
                self._wrong(told, f"the next one is {self.next_ms}")
            self.next_ms = beat.after(due_ms)
            return payload.destination
        if index is None or self.ahead.pop(index, None) != due_ms:
            self._wrong(told, f"ahead are {self.ahead}")
        return payload.destination if index is None else self.moved.pop(index, payload.destination)

    def _given_up(self, told: Told) -> None:
        payload, due_ms = self.payload, told.facts["due_at_ms"]
        assert payload is not None
        self.report.quarantined += 1
        if told.facts["fire_id"] in self.triggered:
            del self.triggered[told.facts["fire_id"]]
            topic = payload.destination
        else:
            topic = self._take(told, due_ms)
        if told.facts["destination"] != topic:
            self._wrong(told, f"it is for {topic}")
        if not self.audit.is_impossible(payload, topic, due_ms, told.at_ms):
            self._wrong(told, "it could be delivered, or was to be waited for")
        for letter in self.audit.letters[payload.source]:
            if letter.header("fire-id") == told.facts["fire_id"]:
                self.audit.letter_holds(payload, letter)

    def _fired(self, told: Told) -> None:
        facts, payload = told.facts, self.payload
        assert payload is not None
        fire_id, due_ms, fired_ms = facts["fire_id"], facts["due_at_ms"], facts["fired_at_ms"]
        self.fires += 1
        self.last_fire = fire_id
        ready_ms, topic, skipped = due_ms, payload.destination, 0
        if fire_id in self.triggered:
            if self.triggered.pop(fire_id) != due_ms:
                self._wrong(told, f"triggered are {self.triggered}")
        elif self.beat is not None:
            ready_ms = self._moment(self.beat, due_ms, fire_id)
            skipped, self.skipped = self.skipped, 0
            self._take(told, due_ms)
            self._beaten(told, self.beat, due_ms, fired_ms)
        else:
            topic, word = self._take(told, due_ms), self._word(due_ms)
            if topic == payload.destination and word.diverts and word.is_late(due_ms, fired_ms):
                self._wrong(told, f"{word.on_late} when late, and it was")
        expected = (topic, fired_ms - ready_ms, self.fires, skipped, told.at_ms)
        found = (
            facts["destination"],
            facts["lateness_ms"],
            facts["fire_count"],
            facts.get("skipped", 0),
            fired_ms,
        )
        if found != expected:
            self._wrong(told, f"it is {expected}")
        if fired_ms < ready_ms:
            self.report.early.append(f"{fire_id}: {ready_ms - fired_ms} ms before it was due")
        if payload.is_hopeless(facts["destination"]):
            self._wrong(told, "delivered where nothing can be")
        self._delivered(told, payload)

    def _beaten(self, told: Told, beat: Beat, scheduled_ms: int, fired_ms: int) -> None:
        """A scheduled time may fire: it is not too late, and none that is due comes after it, or all do."""
        words = self._words(scheduled_ms)
        self.runs += 1
        if beat.max_fires and self.runs >= beat.max_fires:
            self.next_ms = None
        if self.runs > beat.max_fires > 0:
            self._wrong(told, f"at most {beat.max_fires} fires")
        if all(scheduled_ms < fired_ms - grace_ms - beat.jitter_ms for _, grace_ms in words):
            self._wrong(told, f"missed when later than {words}, and it was")
        later_ms = beat.after(scheduled_ms)
        if (
            all(catch_up != "all" for catch_up, _ in words)
            and later_ms is not None
            and self._moment(beat, later_ms) <= fired_ms
        ):
            self._wrong(told, f"{later_ms} was due as well, and was to stand for it")

    def _delivered(self, told: Told, payload: Asked) -> None:
        """The delivery that is told of is there, and is what is told."""
        facts = told.facts
        fire_id = facts["fire_id"]
        last_ms, self.last_fired_ms = self.last_fired_ms, facts["fired_at_ms"]
        record: Delivered | None = self.chronicle.unseen.pop(fire_id, None)
        if record is None:
            again = fire_id in self.audit.deliveries
            (self.report.duplicated if again else self.report.lost).append(f"{self.id}: the fire {fire_id}")
            return
        self.audit.content(payload, self.audit.deliveries[fire_id])
        expected = (
            facts["destination"],
            facts["destination_partition"],
            payload.source,
            *(str(facts[name]) for name in ("due_at_ms", "fired_at_ms", "fire_count")),
            str(facts["skipped"]) if facts.get("skipped") else "",
            "" if last_ms is None else str(last_ms),
            "" if self.next_ms is None or self.status == "paused" else str(self.next_ms),
        )
        names = ("source", "due-at", "fired-at", "fire-count", "skipped", "last-fired-at", "next-at")
        found = (record.topic, record.partition, *(record.header(name) for name in names))
        if found != expected:
            self._wrong(told, f"delivered was {found}, told is {expected}")
