"""Requests without an id: each fire by itself, and what is told of it."""

from __future__ import annotations

from collections import defaultdict
from typing import TYPE_CHECKING

from delaystream.core.identity import fire_id
from tests.ledger.records import Asked, Delivered, Fire, Told
from tests.ledger.selections import ends

if TYPE_CHECKING:
    from tests.ledger.audit import Audit

_NOT_AS_ASKED = ("expired", "moved", "quarantined")


def judge_anonymous(audit: Audit, request: Asked, told: list[Told]) -> None:
    """A request is refused, or each of its fires ends in exactly one way."""
    report, source = audit.report, request.source
    about = audit.selections.about.get(source, [])
    times, merged = ends(request, about)
    fires = {fire_id(source, index, due_ms): index for index in times for due_ms in times[index]}
    delivered = {fire.fire_id: fire for fire in audit.fires[source]}
    by_fire: dict[str, list[Told]] = defaultdict(list)
    acceptances = []
    for event in told:
        if event.kind in (*_NOT_AS_ASKED, "fired", "cancelled"):
            by_fire[event.facts.get("fire_id", "")].append(event)
        elif event.kind != "rejected":
            acceptances.append(event)
    for name in delivered.keys() - fires.keys():
        report.damaged.append(f"{name}: is delivered, and asked for is {request.due_ms}")
    for name in by_fire.keys() - fires.keys():
        audit.wrong(name, f"is told of, and asked for is {request.due_ms}")
    refused = audit.count_refused(request)
    if refused:
        if delivered or by_fire or acceptances:
            audit.wrong(source, f"refused as {refused}, {len(delivered)} fires, events {told}")
        _receipt(audit, request, [])
        return
    if not request.due_ms:
        report.lost.append(f"{source}: neither delivered nor among the dead letters")
        return
    _accepted(audit, request, acceptances)
    _receipt(audit, request, [fire_id(source, index, due_ms) for index, due_ms in enumerate(request.due_ms)])
    missing = 0
    for index, due_times in times.items():
        seen = [
            (name, due_ms)
            for due_ms in sorted(due_times)
            if (name := fire_id(source, index, due_ms)) in delivered or by_fire[name]
        ]
        if len(seen) > 1:
            report.duplicated.append(f"{source}: {seen} have one place in the list")
        if not seen and merged:
            missing += 1
            continue
        asked_ms = request.due_ms[index]
        for name, due_ms in seen or [(fire_id(source, index, asked_ms), asked_ms)]:
            _Fire(audit, request, name, index, due_ms).judge(delivered.get(name), by_fire[name])
    if missing != merged:
        report.lost.append(f"{source}: {missing} fires have no end, and {merged} were merged with others")


def _accepted(audit: Audit, request: Asked, told: list[Told]) -> None:
    expected = ["scheduled"] if audit.circumstances.events_anonymous else []
    if [event.kind for event in told] != expected:
        audit.wrong(request.source, f"events {[event.kind for event in told]}, expected {expected}")
    for event in told:
        facts = (event.facts.get("next_at_ms"), event.facts.get("destination"))
        if facts != (min(request.due_ms), request.destination):
            audit.wrong(event, "is not as it was asked for")


def _receipt(audit: Audit, request: Asked, fires: list[str]) -> None:
    receipt = audit.receipts.get(request.source)
    if receipt is None:
        return
    audit.receipt_names(request, list(zip(request.due_ms, fires, strict=False)))
    if receipt["outcome"] != ("scheduled" if fires else "rejected"):
        audit.wrong(request.source, f"the receipt says {receipt['outcome']}")


class _Fire:
    """One fire of one request."""

    def __init__(self, audit: Audit, request: Asked, fire_id: str, index: int, due_ms: int) -> None:
        self.audit = audit
        self.request = request
        self.fire_id = fire_id
        self.index = index
        self.due_ms = due_ms

    def judge(self, delivered: Fire | None, told: list[Told]) -> None:
        """It was delivered, dropped or given up; and moved before that, where it is on another topic."""
        audit, report = self.audit, self.audit.report
        kinds = (*_NOT_AS_ASKED, "cancelled")
        events = {kind: [event for event in told if event.kind == kind] for kind in kinds}
        ends = [
            *(["delivered"] if delivered is not None else []),
            *(event.kind for kind in ("expired", "quarantined", "cancelled") for event in events[kind]),
        ]
        if not ends:
            report.lost.append(f"{self.fire_id}: neither delivered, dropped nor given up; events {told}")
        if len(ends) > 1 or len(events["moved"]) > 1:
            report.duplicated.append(f"{self.fire_id}: {ends}, moved {len(events['moved'])} times")
        report.dropped += len(events["expired"])
        report.quarantined += len(events["quarantined"])
        for event in told:
            self._facts(event)
        topic = self.request.destination
        for event in events["moved"]:
            topic = event.facts["destination"]
            self._was_late(event, topic if topic not in ("fire", "drop") else None, topic)
        if events["cancelled"] and not audit.selections.may_cancel(self.request):
            audit.wrong(events["cancelled"][0], "no command is about it")
        for event in events["expired"]:
            self._was_late(event, "drop", self.request.destination)
        for event in events["quarantined"]:
            self._was_impossible(event, topic)
        fires = [event for event in told if event.kind == "fired"]
        if len(fires) != (delivered is not None and audit.circumstances.events_anonymous):
            audit.wrong(self.fire_id, f"fires that are told of: {fires}")
        if delivered is not None:
            self._delivered(delivered, topic, fires, events["moved"])

    def _facts(self, event: Told) -> None:
        facts = event.facts
        if event.kind == "cancelled":
            where = (self.request.destination, self.request.on_late, *self.audit.late_topics)
            if facts["due_at_ms"] != self.due_ms or facts["destination"] not in where:
                self.audit.wrong(event, f"it is due at {self.due_ms}, for {self.request.destination}")
            return
        if (facts["due_at_ms"], facts["lateness_ms"]) != (self.due_ms, event.at_ms - self.due_ms):
            self.audit.wrong(event, f"it is due at {self.due_ms}")
        if event.kind != "quarantined" and ("code" in facts or "detail" in facts):
            self.audit.wrong(event, "it was not given up")

    def _was_late(self, event: Told, on_late: str | None, destination: str) -> None:
        words = [word for word in self._words(event.record) if word.on_late == on_late and word.diverts]
        if not words:
            self.audit.wrong(event, f"asked for is {self.request.on_late}")
        elif not any(word.is_late(self.due_ms, event.at_ms) for word in words):
            self.audit.wrong(event, f"it was not late by then: grace is {words[0].grace_ms} ms")
        if event.facts["destination"] != destination:
            self.audit.wrong(event, f"it is for {destination}")

    def _words(self, record: Delivered) -> list[Asked]:
        """What may have been said of it when it is late, by its request or by a resume."""
        return self.audit.selections.words(self.request, self.due_ms, record)

    def _was_impossible(self, event: Told, topic: str) -> None:
        if event.facts["destination"] != topic:
            self.audit.wrong(event, f"it is for {topic}")
        if not self.audit.is_impossible(self.request, topic, self.due_ms, event.at_ms):
            self.audit.wrong(event, "it could be delivered, or was to be waited for")

    def _delivered(self, fire: Fire, topic: str, fires: list[Told], moved: list[Told]) -> None:
        audit, request, record = self.audit, self.request, fire.record
        commands = audit.selections.about.get(request.source, ())
        if not any(event.kind == "triggered" for event in commands) and (
            pause := audit.selections.released(record, request)
        ):
            audit.wrong(self.fire_id, f"delivered, and {pause} holds it back")
        if cancel := audit.selections.left_out(request, fire):
            audit.wrong(self.fire_id, f"delivered, and {cancel} has cancelled it")
        if request.is_hopeless(record.topic):
            audit.wrong(self.fire_id, "delivered where nothing can be")
        if record.topic != topic:
            audit.wrong(self.fire_id, f"delivered to {record.topic}, and it is for {topic}")
        words = [] if moved else self._words(record)
        if words and all(word.diverts and word.is_late(self.due_ms, fire.fired_ms) for word in words):
            audit.wrong(self.fire_id, f"delivered, {words[-1].on_late} when late, and it was")
        if record.header("fire-count") != str(self.index + 1) or any(
            record.header(name) for name in ("skipped", "last-fired-at", "next-at")
        ):
            audit.wrong(self.fire_id, f"headers {record.headers}")
        for event in fires:
            facts = event.facts
            told = (facts["fired_at_ms"], facts["destination"], facts["destination_partition"])
            if told != (fire.fired_ms, record.topic, record.partition):
                audit.wrong(event, f"delivered was {record}")
