"""The audit: deliveries, dead letters and receipts held against what was asked for."""

from __future__ import annotations

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping

from delaystream.core.partitioning import partition_for_key
from tests.ledger.chronicle import Chronicle
from tests.ledger.named import judge_named
from tests.ledger.order import judge_order
from tests.ledger.records import PREFIX, Asked, Delivered, Fire, Report


def audit(
    asked: Iterable[Asked],
    deliveries: Iterable[Delivered],
    *,
    dead_letters: Iterable[Delivered] = (),
    receipts: Iterable[Delivered] = (),
    events: Iterable[Delivered] = (),
    clock_ahead_ms: int = 0,
    partitions: Mapping[str, int] | None = None,
    forgets_ids: bool = False,
) -> Report:
    """Hold deliveries, dead letters, receipts and events against what was asked for.

    ``clock_ahead_ms``: by how much a worker's clock may have been ahead of the broker's. ``partitions``:
    counts of the destinations, to check that records lie on the partition of their key. ``forgets_ids``: ids
    that are over may be forgotten before the run is.
    """
    return Audit(asked, clock_ahead_ms, partitions or {}, forgets_ids).run(
        deliveries, dead_letters, receipts, events
    )


class Audit:
    """The books of one audit."""

    def __init__(
        self, asked: Iterable[Asked], clock_ahead_ms: int, partitions: Mapping[str, int], forgets_ids: bool
    ) -> None:
        self.forgets_ids = forgets_ids
        self.asked = {request.source: request for request in asked}
        self.clock_ahead_ms = clock_ahead_ms
        self.partitions = partitions
        self.report = Report(requests=len(self.asked))
        self.fires: dict[str, list[Fire]] = defaultdict(list)
        self.refusals: dict[str, list[str]] = defaultdict(list)
        self.outcomes: dict[str, str] = {}
        #: deliveries of requests that are judged by the events about them, by fire id
        self.chronicled: dict[str, Delivered] = {}

    def run(
        self,
        deliveries: Iterable[Delivered],
        dead_letters: Iterable[Delivered],
        receipts: Iterable[Delivered],
        events: Iterable[Delivered],
    ) -> Report:
        self._deliveries(deliveries)
        self._dead_letters(dead_letters)
        self._receipts(receipts)
        named: dict[tuple[str, str], list[Asked]] = defaultdict(list)
        chronicled = [request for request in self.asked.values() if request.chronicled]
        for request in self.asked.values():
            if request.chronicled:
                continue
            if request.id is not None and (request.due_ms or request.cancel):
                named[request.partition[0], request.id].append(request)
            elif request.due_ms:
                self.complete(request)
            else:
                self._refused(request)
        for requests in named.values():
            judge_named(self, requests)
        if chronicled:
            Chronicle(self, chronicled).judge(events)
        judge_order(self)
        return self.report

    # -- reading what came out

    def _deliveries(self, deliveries: Iterable[Delivered]) -> None:
        report = self.report
        fire_ids: Counter[str] = Counter()
        for record in deliveries:
            report.delivered += 1
            source, fire_id = record.header("source"), record.header("fire-id")
            where = f"{record.topic}-{record.partition}@{record.offset}"
            fire_ids[fire_id] += 1
            if fire_ids[fire_id] > 1:
                report.duplicated.append(f"{where}: fire {fire_id} for the {fire_ids[fire_id]}. time")
            request = self.asked.get(source)
            if request is None:
                report.inconsistent.append(f"{where}: delivered for {source}, which nobody asked for")
                continue
            if request.chronicled:
                self.chronicled[fire_id] = record
                self._content(request, record, f"{where}: {fire_id}")
                continue
            parts = fire_id.split("/")
            if len(parts) < 5:
                report.damaged.append(f"{where}: fire id {fire_id!r}")
                continue
            index = int(parts[2] if parts[1].startswith("r") else parts[3])
            fire = Fire(record, index, int(record.header("due-at")), int(record.header("fired-at")))
            if any(other.index == index for other in self.fires[source]) and fire_ids[fire_id] == 1:
                report.duplicated.append(f"{where}: {source}[{index}] again, as another fire {fire_id}")
            self.fires[source].append(fire)
            self._one(request, fire, where)

    def _one(self, request: Asked, fire: Fire, where: str) -> None:
        """What can be said of a delivery by itself."""
        report, record = self.report, fire.record
        what = f"{where}: {request.source}[{fire.index}]"
        if fire.index >= len(request.due_ms) or request.due_ms[fire.index] != fire.due_ms:
            report.damaged.append(f"{what}: due {fire.due_ms}, asked for {request.due_ms}")
            return
        if fire.fired_ms < fire.due_ms:
            report.early.append(f"{what}: fired {fire.due_ms - fire.fired_ms} ms before it was due")
        if record.appended_ms is not None and record.appended_ms + self.clock_ahead_ms < fire.due_ms:
            report.early.append(f"{what}: appended {fire.due_ms - record.appended_ms} ms before it was due")
        late = request.grace_ms is not None and fire.fired_ms - fire.due_ms > request.grace_ms
        if record.topic == request.destination and late and request.on_late != "fire":
            report.inconsistent.append(f"{what}: delivered, {request.on_late} when late, and it was")
        if record.timestamp_ms != fire.fired_ms:
            report.damaged.append(f"{what}: timestamp {record.timestamp_ms}, fired at {fire.fired_ms}")
        self._content(request, record, what)

    def _content(self, request: Asked, record: Delivered, what: str) -> None:
        """It is what was asked for, where it was asked for."""
        report = self.report
        if record.topic not in (request.destination, request.on_late):
            report.damaged.append(f"{what}: is for {request.destination}")
        key = request.delivered_key if request.has_delivered_key else request.key
        if record.key != key or record.value != request.value:
            report.damaged.append(f"{what}: key or value are not what was asked for")
        foreign = [(name, value) for name, value in record.headers if not name.startswith(PREFIX)]
        if foreign != [tuple(header) for header in request.headers]:
            report.damaged.append(f"{what}: headers {foreign}, asked for {request.headers}")
        if record.header("schedule-id") != (request.source if request.id is None else request.id):
            report.damaged.append(f"{what}: schedule id {record.header('schedule-id')!r}")
        expected = request.destination_partition
        if expected is None and key is not None and record.topic in self.partitions:
            expected = partition_for_key(key, self.partitions[record.topic])
        if expected is not None and record.partition != expected:
            report.damaged.append(f"{what}: on partition {record.partition}, not {expected}")

    def _dead_letters(self, dead_letters: Iterable[Delivered]) -> None:
        for record in dead_letters:
            source = "/".join(record.header(f"error-{part}") for part in ("topic", "partition", "offset"))
            request = self.asked.get(source)
            if request is None:
                self.report.inconsistent.append(f"dead letter for {source}, which nobody asked for")
                continue
            self.refusals[source].append(record.header("error"))
            if (record.key, record.value) not in ((request.key, request.value), (None, None)):
                self.report.damaged.append(f"dead letter of {source}: key or value are not the request's")
            foreign = {name for name, _ in record.headers if not name.startswith(PREFIX)}
            if record.value is not None and not {name for name, _ in request.headers} <= foreign:
                self.report.damaged.append(f"dead letter of {source}: headers {record.headers}")

    def _receipts(self, receipts: Iterable[Delivered]) -> None:
        for record in receipts:
            body = json.loads(record.value or b"{}")
            source, outcome = body.get("source", ""), body.get("outcome", "")
            if source not in self.asked:
                self.report.inconsistent.append(f"receipt for {source}, which nobody asked for")
            elif source in self.outcomes:
                self.report.duplicated.append(f"receipt of {source}: {self.outcomes[source]}, then {outcome}")
            else:
                self.outcomes[source] = outcome
        for request in self.asked.values():
            if request.receipt_expected and request.source not in self.outcomes:
                self.report.lost.append(f"the receipt of {request.source}")

    # -- judging requests

    def missing(self, request: Asked) -> int:
        """Fires that neither happened nor were quarantined."""
        indexes = {fire.index for fire in self.fires[request.source]}
        quarantined = self.refusals[request.source].count("quarantined")
        return len(request.due_ms) - len(indexes) - quarantined

    def complete(self, request: Asked) -> None:
        """Every fire of it happened, or stands among the dead letters."""
        report = self.report
        refusals = self.refusals[request.source]
        quarantined = refusals.count("quarantined")
        report.quarantined += quarantined
        fires = self.fires[request.source]
        if refused := [code for code in refusals if code != "quarantined"]:
            report.refused += 1
            if fires or quarantined or len(refused) > 1 or refused[0] not in request.errors:
                report.inconsistent.append(f"{request.source}: refused as {refusals}, {len(fires)} fires")
            return
        if quarantined and not (request.hopeless or request.may_quarantine):
            report.inconsistent.append(f"{request.source}: quarantined")
        if request.hopeless and fires:
            report.inconsistent.append(f"{request.source}: delivered where nothing can be")
        missing = self.missing(request)
        if missing < 0:
            report.duplicated.append(f"{request.source}: {len(fires)} fires and {quarantined} quarantined")
        elif missing and request.on_late == "drop":
            report.dropped += missing
        elif missing:
            report.lost.append(
                f"{request.source}: {missing} of {len(request.due_ms)} fires, due {request.due_ms}"
            )

    def _refused(self, request: Asked) -> None:
        """It was to be refused, and was."""
        refusals = self.refusals[request.source]
        if self.fires[request.source]:
            self.report.inconsistent.append(f"{request.source}: delivered, and was to be refused")
        if not refusals:
            self.report.lost.append(f"{request.source}: neither delivered nor among the dead letters")
        elif len(refusals) > 1:
            self.report.duplicated.append(f"{request.source}: refused {len(refusals)} times")
        elif refusals[0] not in request.errors:
            self.report.inconsistent.append(f"{request.source}: {refusals[0]}, not {set(request.errors)}")
        else:
            self.report.refused += 1
