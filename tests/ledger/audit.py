"""The audit: deliveries, events, dead letters and receipts held against what was asked for."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter, defaultdict
from collections.abc import Iterable
from typing import Any

import msgspec

from delaystream.codec.event import decode_event
from delaystream.core.identity import split_fire_id
from delaystream.core.partitioning import partition_for_key
from tests.ledger.anonymous import judge_anonymous
from tests.ledger.chronicle import Chronicle
from tests.ledger.descriptions import describe_unnamed
from tests.ledger.destinations import judge_destinations
from tests.ledger.order import judge_order
from tests.ledger.records import PASSED, Asked, Circumstances, Delivered, Fire, Report, Told
from tests.ledger.selections import Selections

_json = msgspec.json.Decoder()
#: of our headers on a delivery, without their prefix
_OURS = ["schedule-id", "fire-id", "due-at", "fired-at", "source", "fire-count"]
#: bytes that a delivery or a dead letter may have beside the key, the value and the foreign headers
_ADDED_BYTES = 700
#: those that come after them, when there is something to say
_SOMETIMES = ("skipped", "last-fired-at", "next-at")
#: between two requests that may find the same topic for receipts out of reach: the longest backoff
_HINDERED_MS = 60_000
_OF_NO_SCHEDULE = frozenset({"parked", "released", "rate"})


def audit(
    asked: Iterable[Asked],
    deliveries: Iterable[Delivered],
    *,
    events: Iterable[Delivered],
    dead_letters: Iterable[Delivered] = (),
    receipts: Iterable[Delivered] = (),
    circumstances: Circumstances | None = None,
) -> Report:
    """Hold deliveries, events, dead letters and receipts against what was asked for.

    The records of one partition are in the order of their offsets.
    """
    books = Audit(asked, circumstances or Circumstances())
    return books.run(deliveries, events, dead_letters, receipts)


class Audit:
    """The books of one audit."""

    def __init__(self, asked: Iterable[Asked], circumstances: Circumstances) -> None:
        self.asked = {request.source: request for request in asked}
        self.circumstances = circumstances
        self.report = Report(requests=len(self.asked))
        #: topics that resumes name for what is late
        self.late_topics = {r.once.on_late for r in self.asked.values() if r.once is not None}
        #: by fire id
        self.deliveries: dict[str, Fire] = {}
        #: of requests without an id
        self.fires: dict[str, list[Fire]] = defaultdict(list)
        self.letters: dict[str, list[Delivered]] = defaultdict(list)
        self.receipts: dict[str, dict[str, Any]] = {}
        self.receipt_records: dict[str, Delivered] = {}
        self.told: list[Told] = []
        #: the same by the source that they name
        self.told_of: dict[str, list[Told]] = defaultdict(list)
        #: what is told of destinations
        self.of_no_schedule: list[Told] = []
        #: when requests were made of which an event says that they got no receipt
        self.unanswered_ms: list[int] = []

    def run(
        self,
        deliveries: Iterable[Delivered],
        events: Iterable[Delivered],
        dead_letters: Iterable[Delivered],
        receipts: Iterable[Delivered],
    ) -> Report:
        self._deliveries(deliveries)
        self._dead_letters(dead_letters)
        self._receipts(receipts)
        self._events(events)
        self._letters_are_told()
        self._missing_receipts()
        self.selections = Selections(self)
        anonymous: dict[str, list[Told]] = defaultdict(list)
        for told in self.told:
            if "id" not in told.facts and told.kind != "bulk":
                anonymous[told.facts["source"]].append(told)
        for request in self.asked.values():
            named = request.id is not None or request.is_for_many or request.subject is not None
            if not named and not request.is_of_no_schedule:
                judge_anonymous(self, request, anonymous[request.source])
        self.selections.judge()
        for request in self.selections.described:
            describe_unnamed(self, request)
        Chronicle(self).judge()
        judge_destinations(self)
        judge_order(self)
        return self.report

    def wrong(self, what: object, why: str) -> None:
        """Note something that does not fit with the rest."""
        self.report.inconsistent.append(f"{what}: {why}")

    def count_refused(self, request: Asked) -> list[str]:
        """The codes with which a request was refused, each of them noted."""
        codes = [letter.header("error") for letter in self.letters[request.source]]
        codes = [code for code in codes if code != "quarantined"]
        self.report.refused += len(codes)
        if len(codes) > 1:
            self.report.duplicated.append(f"{request.source}: refused as {codes}")
        for code in codes:
            if code not in request.errors:
                self.wrong(request.source, f"refused as {code}, not {set(request.errors)}")
        return codes

    def is_impossible(self, request: Asked, topic: str, due_ms: int, at_ms: int) -> bool:
        """Whether a fire could not be delivered to a topic, and was not to be waited for any longer."""
        given = self.circumstances
        if request.destination_partition is not None:
            partitions = given.partitions.get(topic)
            if partitions is not None and request.destination_partition >= partitions:
                return True
        if (largest := given.largest.get(topic)) is not None and _size(request) + _ADDED_BYTES > largest:
            return True
        if given.gives_up_after_ms is None or at_ms - due_ms < given.gives_up_after_ms:
            return False
        until_ms = at_ms - given.gives_up_after_ms + given.clock_ahead_ms + given.clock_behind_ms
        return given.troubled(topic, request.timestamp_ms - 60_000, until_ms)

    def known_time(self, what: object, at_ms: int, record: Delivered) -> None:
        """The time at which something was decided is between the commit before it and its own append."""
        given = self.circumstances
        if record.appended_ms is not None and at_ms > record.appended_ms + given.clock_ahead_ms:
            self.wrong(what, f"decided at {at_ms}, and the broker had it at {record.appended_ms}")
        earliest_ms = record.decided_after_ms
        if earliest_ms is not None and at_ms + given.clock_behind_ms < earliest_ms:
            self.wrong(what, f"decided at {at_ms}, and the step before it was committed at {earliest_ms}")

    # -- deliveries

    def _deliveries(self, deliveries: Iterable[Delivered]) -> None:
        report = self.report
        for record in deliveries:
            report.delivered += 1
            source, fire_id = record.header("source"), record.header("fire-id")
            what = f"{record.where}: {fire_id}"
            if fire_id in self.deliveries:
                report.duplicated.append(f"{what} again")
                continue
            request = self.asked.get(source)
            try:
                due_ms, fired_ms = int(record.header("due-at")), int(record.header("fired-at"))
            except ValueError:
                report.damaged.append(f"{what}: headers {record.headers}")
                continue
            fire = self.deliveries[fire_id] = Fire(record, fire_id, due_ms, fired_ms)
            if request is None:
                self.wrong(what, f"delivered for {source}, which nobody asked for")
                continue
            if request.id is None:
                self.fires[source].append(fire)
                self.content(request, fire)
            # What an id delivers may have been changed: its chronicle knows.
            self._on_time(fire, what)

    def _on_time(self, fire: Fire, what: str) -> None:
        report, record, due_ms = self.report, fire.record, fire.due_ms
        if fire.fired_ms < due_ms:
            report.early.append(f"{what}: fired {due_ms - fire.fired_ms} ms before it was due")
        appended_ms = record.appended_ms
        if appended_ms is not None and appended_ms + self.circumstances.clock_ahead_ms < due_ms:
            report.early.append(f"{what}: appended {due_ms - appended_ms} ms before it was due")
        else:
            self.known_time(what, fire.fired_ms, record)
        if record.timestamp_ms != fire.fired_ms:
            report.damaged.append(f"{what}: timestamp {record.timestamp_ms}, fired at {fire.fired_ms}")

    def content(self, request: Asked, fire: Fire) -> None:
        """It is what was asked for, where it was asked for."""
        report, record = self.report, fire.record
        what = f"{record.where}: {fire.fire_id}"
        if record.topic not in (request.destination, request.on_late, *self.late_topics):
            report.damaged.append(f"{what}: is for {request.destination}")
        key = request.delivered_key if request.has_delivered_key else request.key
        if record.key != key or record.value != request.value:
            report.damaged.append(f"{what}: key or value are not what was asked for")
        if record.foreign != [tuple(header) for header in request.headers]:
            report.damaged.append(f"{what}: headers {record.foreign}, asked for {request.headers}")
        ours = [name for name in record.ours if name not in _SOMETIMES]
        if ours != _OURS or record.ours[len(_OURS) :] != [n for n in _SOMETIMES if n in record.ours]:
            report.damaged.append(f"{what}: headers of ours {record.ours}")
        if record.header("schedule-id") != (request.source if request.id is None else request.id):
            report.damaged.append(f"{what}: schedule id {record.header('schedule-id')!r}")
        name = split_fire_id(fire.fire_id)
        if name is None or (name.id, name.due_ms) != (request.id, fire.due_ms):
            report.damaged.append(f"{what}: due at {fire.due_ms}")
        partitions = self.circumstances.partitions
        expected = request.destination_partition
        if expected is None and key is not None and record.topic in partitions:
            expected = partition_for_key(key, partitions[record.topic])
        if expected is not None and record.partition != expected:
            report.damaged.append(f"{what}: on partition {record.partition}, not {expected}")

    # -- dead letters

    def _dead_letters(self, dead_letters: Iterable[Delivered]) -> None:
        for record in dead_letters:
            source = "/".join(record.header(f"error-{part}") for part in ("topic", "partition", "offset"))
            request = self.asked.get(source)
            if request is None:
                self.wrong(record.where, f"dead letter for {source}, which nobody asked for")
                continue
            self.letters[source].append(record)
            self._letter(request, record, f"dead letter of {source}")

    def _letter(self, request: Asked, record: Delivered, what: str) -> None:
        damaged = self.report.damaged
        if not record.header("error-detail"):
            damaged.append(f"{what}: no detail")
        if record.header("error-timestamp") != str(request.timestamp_ms):
            damaged.append(f"{what}: error-timestamp {record.header('error-timestamp')}")
        given = self.circumstances
        partitions = given.partitions.get(record.topic)
        if partitions is not None and record.partition != request.partition[1] % partitions:
            damaged.append(f"{what}: on partition {record.partition}")
        if request.id is None or record.header("error") != "quarantined":
            self.letter_holds(request, record)

    def letter_holds(self, request: Asked, record: Delivered) -> None:
        """A dead letter has what was asked for, where its topic takes that."""
        given = self.circumstances
        foreign = iter(record.foreign)
        whole = (record.key, record.value) == (request.key, request.value) and all(
            (name, value) in foreign for name, value in request.headers
        )
        largest = given.largest.get(record.topic)
        bare = record.key is None and record.value is None and not record.foreign
        if not whole and not (bare and largest is not None and _size(request) + _ADDED_BYTES > largest):
            what = f"dead letter of {request.source}"
            self.report.damaged.append(f"{what}: key, value or headers are not the request's: {record}")

    def _letters_are_told(self) -> None:
        """Each dead letter has one event with its code, about the same fire; each event has its letter."""
        told: dict[str, list[Told]] = defaultdict(list)
        for event in self.told:
            if event.kind in ("rejected", "quarantined"):
                told[event.facts["source"]].append(event)
        for source in self.letters.keys() | told.keys():
            letters, events = self.letters[source], told[source]
            found = Counter(letter.header("error") for letter in letters)
            named = Counter(str(event.facts.get("code")) for event in events)
            if found != named:
                self.wrong(source, f"dead letters {dict(found)}, events {dict(named)}")
            fires = {event.facts.get("fire_id"): event for event in events}
            for letter in letters:
                fire_id = letter.header("fire-id")
                if letter.header("error") == "quarantined" and fire_id:
                    self._letter_is_as_told(letter, fires.pop(fire_id, None), fire_id)

    def _letter_is_as_told(self, letter: Delivered, event: Told | None, fire_id: str) -> None:
        if event is None:
            self.wrong(fire_id, "its dead letter has no event of its own")
            return
        facts = event.facts
        told = (facts["schedule_id"], facts["destination"], str(facts["due_at_ms"]), facts["detail"])
        found = tuple(
            letter.header(name) for name in ("schedule-id", "destination", "due-at", "error-detail")
        )
        # A letter without its bytes says so behind the event's sentence.
        if told[:-1] != found[:-1] or not str(found[-1]).startswith(str(told[-1])):
            self.wrong(event, f"the dead letter has {found}")

    # -- receipts

    def _receipts(self, receipts: Iterable[Delivered]) -> None:
        for record in receipts:
            body = _json.decode(record.value or b"{}")
            source, outcome = body.get("source", ""), body.get("outcome", "")
            request = self.asked.get(source)
            if request is None:
                self.wrong(record.where, f"receipt for {source}, which nobody asked for")
            elif source in self.receipts:
                before = self.receipts[source]["outcome"]
                self.report.duplicated.append(f"receipt of {source}: {before}, then {outcome}")
            else:
                self.receipts[source] = body
                self.receipt_records[source] = record
                self._receipt(request, body, record)

    def _missing_receipts(self) -> None:
        """Who asked for a receipt has it, or is told with the outcome that there is none."""
        told_of: set[str] = set()
        for told in self.told:
            source, missing = told.facts["source"], told.facts.get("no_receipt")
            request = self.asked[source]
            by_itself = request.action == "schedule" and told.kind in ("cancelled", "paused", "resumed")
            answers = (
                not by_itself
                and told.kind not in PASSED
                and (not request.is_for_many or told.kind in ("bulk", "rejected"))
            )
            if missing is None:
                if answers and request.receipt_refused:
                    self.wrong(told, "no word of the receipt that it may not have")
                continue
            told_of.add(source)
            hindered = request.receipt_expected and self.circumstances.receipts_hindered
            if not answers or source in self.receipts or not (request.receipt_refused or hindered):
                self.wrong(told, "a receipt could be written, or was, or nobody asked for one")
        self.unanswered_ms = sorted(self.asked[source].timestamp_ms for source in told_of)
        for request in self.asked.values():
            source = request.source
            missing = request.receipt_expected and source not in self.receipts and source not in told_of
            if missing and not self.may_be_unanswered(request):
                self.report.lost.append(f"the receipt of {source}")

    def may_be_unanswered(self, request: Asked) -> bool:
        """Whether a description may be missing: no event tells that, and events tell it of others then."""
        if request.action != "describe" or not self.circumstances.receipts_hindered:
            return False
        place = bisect_left(self.unanswered_ms, request.timestamp_ms - _HINDERED_MS)
        near = self.unanswered_ms[place : place + 1]
        return bool(near) and near[0] <= request.timestamp_ms + _HINDERED_MS

    def _receipt(self, request: Asked, body: dict[str, Any], record: Delivered) -> None:
        what = f"receipt of {request.source}"
        self.known_time(what, body["decided_at_ms"], record)
        if not request.receipt_expected:
            self.wrong(what, "it did not ask for one")
        named = request.subject or (request.source if request.id is None else request.id)
        if request.subject is not None and body["outcome"] == "rejected":
            named = request.source
        told = (body["schedule_id"], body["request_topic"], body.get("id"), record.header("receipt"))
        if told != (named, request.partition[0], request.id, body["outcome"]):
            self.wrong(what, f"names {told}")
        if record.key != named.encode():
            self.wrong(what, f"key {record.key!r}")

    def receipt_names(self, request: Asked, fires: list[tuple[int, str]]) -> None:
        """The receipt of a request, if there is one, names these fires and no others."""
        receipt = self.receipts.get(request.source)
        if receipt is not None:
            named = [(fire["due_at_ms"], fire["fire_id"]) for fire in receipt.get("fires", ())]
            if named != fires:
                self.wrong(f"receipt of {request.source}", f"names {named}, and its fires are {fires}")

    # -- events

    def _events(self, events: Iterable[Delivered]) -> None:
        for record in events:
            value = record.value or b"{}"
            try:
                decode_event(value)
            except msgspec.ValidationError as error:
                self.report.damaged.append(f"{record.where}: event {value!r}: {error}")
            told = Told(_json.decode(value), record)
            facts = told.facts
            if told.kind in _OF_NO_SCHEDULE:
                self._of_no_schedule(told)
                continue
            request = self.asked.get(facts.get("source", ""))
            if request is None:
                self.wrong(told, "nobody asked for it")
                continue
            self.told.append(told)
            self.told_of[request.source].append(told)
            self.known_time(told, told.at_ms, record)
            named = facts["source"] if "id" not in facts else facts["id"]
            if request.subject is not None and told.kind != "rejected":
                named = request.subject
            names = (facts["request_topic"], facts["schedule_id"], record.key)
            if names != (request.partition[0], named, named.encode()):
                self.wrong(told, f"names {names}")
            # An event of a bulk command is about some id, and one about a schedule has the id of its request.
            if not request.is_for_many and facts.get("id") != request.id:
                self.wrong(told, f"the id is {request.id}")

    def _of_no_schedule(self, told: Told) -> None:
        """What is told of a destination is kept by its name, and names no schedule."""
        facts = told.facts
        self.of_no_schedule.append(told)
        self.known_time(told, told.at_ms, told.record)
        if told.record.key != facts["destination"].encode() or "schedule_id" in facts:
            self.wrong(told, f"its key is {told.record.key!r}")


def _size(request: Asked) -> int:
    size = len(request.key or b"") + len(request.value or b"") + len(request.delivered_key or b"")
    return size + sum(len(name) + len(content or b"") for name, content in request.headers)
