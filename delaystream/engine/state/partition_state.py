"""The state of one partition, as the step in hand sees it: the store, and on top of it the step's changes.

Everything here that is not in the store (interned numbers, heads, counters, watermarks) is derived from it.
Deciding changes it in place, ahead of the commit; when the transaction fails the whole object is thrown away
and a new one is loaded.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import partial
from itertools import islice
from typing import Final

from delaystream.codec import keys
from delaystream.codec.envelope import (
    FORMAT,
    Envelope,
    Meta,
    Schedule,
    SourceName,
    SourcePosition,
    TransferState,
    decode_meta,
    decode_position,
    decode_source,
    encode,
)
from delaystream.core.request import Coordinates
from delaystream.core.wheel import WheelHeads
from delaystream.engine.failures import Misconfigured
from delaystream.engine.ports import Marker, StateStore
from delaystream.engine.state.pending import HOUR_MS, PendingChange, PendingCounts
from delaystream.engine.state.step import Step
from delaystream.query.rows import CHUNK_BYTES, everything, payload_of
from delaystream.query.view import PendingFire

#: Names of destinations that are kept although nothing refers to them, and how many are looked at in a step.
_NAMES_KEPT: Final = 1_000
_NAMES_LOOKED_AT: Final = 100


class PartitionState:
    """The schedules, wheels and source positions of one partition."""

    def __init__(
        self,
        store: StateStore,
        partitions: int,
        app_id: str,
        lane: Callable[[str, str], str] | None = None,
    ) -> None:
        self.store = store
        #: which wheel of a destination a tenant's entries go to: its own ('tenant') or the common one ('')
        self._lane = lane
        self.heads = WheelHeads()
        #: destination topics by number; number 0 is the wheel of housekeeping
        self.destinations: list[str] = [""]
        #: for each of them, the tenant whose own wheel it is; '' for the common one
        self.lanes: list[str] = [""]
        #: and the name of the hold that keeps its entries back; '' for none
        self.withheld_by: list[str] = [""]
        #: of wheels whose entries were kept back, until when; not known of those of an earlier life
        self.released_ms: dict[int, int] = {}
        #: of wheels that something kept back: until when they could not be drained, whoever noticed it when
        self.kept_until_ms: dict[int, int] = {}
        #: of wheels into which something came that was due already: since when it counts as waiting, ms
        self.arrived_ms: dict[int, int] = {}
        #: the names of all that keeps entries back now
        self._withholding: set[str] = set()
        self._destination_numbers: dict[str, int] = {}
        self._wheels: dict[str, list[int]] = {}
        #: numbers that were forgotten
        self._free: list[int] = []
        #: request partitions by number, as ``place/partition/`` in bytes, and as (topic, partition, origin)
        self.source_texts: list[bytes] = []
        self.sources: list[tuple[str, int, str]] = []
        self._source_numbers: dict[tuple[str, int, str], int] = {}
        self._texts: dict[tuple[str, int, str], bytes] = {}
        #: next offset to apply, by source topic
        self.positions: dict[str, SourcePosition] = {}
        self.counts = PendingCounts()
        #: no live key of a wheel lies below its watermark
        self._watermarks: dict[int, bytes] = {}
        #: per wheel, the least key that the step in hand has added
        self._added: dict[int, bytes] = {}
        #: wheels that the step in hand has taken entries out of, from their beginning on
        self._drained: set[int] = set()
        self._app_id = app_id
        self._load(partitions)

    # -- loading ------------------------------------------------------------------------------

    def _load(self, partitions: int) -> None:
        store = self.store
        meta = store.get(keys.META)
        if meta is not None:
            made_for = decode_meta(meta)
            refuse_layout(made_for)
            refuse_transferred(made_for)
            if made_for.partitions != partitions:
                raise Misconfigured(
                    f"the state was made for {made_for.partitions} partitions and the topics have "
                    f"{partitions}: ids would be looked for in partitions that do not own them. Restore the "
                    "partition count, or move to new topics"
                )
            if made_for.app_id not in ("", self._app_id):
                raise Misconfigured(
                    f"the changelog belongs to the application {made_for.app_id}, and this is "
                    f"{self._app_id}: they would not fence each other. Give each its own topics"
                )
        self.meta_stored = meta is not None
        for key, value in everything(store, b"d", b"e"):
            self._intern_destination(value.decode(), keys.split_number(key))
        for key, value in everything(store, b"n", b"o"):
            number = keys.split_number(key)
            assert number == len(self.sources), "source numbers are dense"
            source = decode_source(value)
            self._intern_source(source.topic, source.partition, source.origin)
        for key, value in everything(store, b"o", b"p"):
            self.positions[keys.split_offset_key(key)] = decode_position(value)
        self.counts.load(store, self.destinations)
        for wheel in (keys.HOUSEKEEPING, *self._destination_numbers.values()):
            self.heads.set(wheel, self._first_due(wheel, 0))

    def _first_due(self, wheel: int, after_ms: int) -> int | None:
        first = self.store.scan(keys.wheel_bound(wheel, after_ms), keys.wheel_bound(wheel + 1), 1)
        return keys.due_of(first[0][0]) if first else None

    # -- reading ------------------------------------------------------------------------------

    def get(self, step: Step, key: bytes) -> bytes | None:
        """A value, as the step has left it so far."""
        if key in step.changes:
            return step.changes[key]
        return self.store.get(key)

    def payload(self, step: Step, id: str, schedule: Schedule) -> Envelope:
        """The payload of a live schedule, from its own row or from the one beside it."""
        payload = payload_of(partial(self.get, step), id, schedule)
        assert payload is not None, "a live schedule has its payload"
        return payload

    def scan_due(self, wheel: int, start: bytes | None, now_ms: int, limit: int) -> list[tuple[bytes, bytes]]:
        """Stored entries of a wheel that are due, in due order; the step's own changes are not in it.

        There may be more, where `is_cut` by `CHUNK_BYTES`.
        """
        if start is None:
            start = self.first_key(wheel)
        return self.store.scan(start, keys.wheel_bound(wheel, now_ms + 1), limit, CHUNK_BYTES)

    # -- changing -----------------------------------------------------------------------------

    def wheel_number(self, step: Step, topic: str, tenant: str = "", withheld_by: str = "") -> int:
        """The number of a destination's wheel for a tenant's entries, interned at its first use.

        Entries that a hold keeps back (`withheld_by`) have a wheel of its own, drained after its end.
        """
        name = topic
        lane = self._lane(tenant, topic) if self._lane is not None and tenant else ""
        if lane or withheld_by:
            name = keys.wheel_name(topic, lane, withheld_by)
        number = self._destination_numbers.get(name)
        if number is None:
            number = self._intern_destination(name)
            step.names[keys.destination_key(number)] = name.encode()
        return number

    def common_wheel(self, topic: str) -> int | None:
        """The number of a destination's common wheel, if it has one."""
        return self._destination_numbers.get(topic)

    def own_wheel(self, topic: str, tenant: str) -> int | None:
        """The number of a destination's wheel for a tenant's own entries, if there is one."""
        return self._destination_numbers.get(keys.wheel_name(topic, tenant, ""))

    def use_lanes(self, lane: Callable[[str, str], str] | None) -> None:
        """From now on tenants' entries go to the wheels that `lane` says; None: all to the common ones."""
        self._lane = lane

    def wheels(self, topics: Iterable[str]) -> set[int]:
        """The numbers of all wheels of those topics."""
        return {number for topic in topics for number in self._wheels.get(topic, ())}

    def withhold(self, name: str) -> None:
        """Keep back the entries of the wheels of that name, now and from now on."""
        self._withholding.add(name)
        for wheel, withheld_by in enumerate(self.withheld_by):
            if withheld_by == name:
                self.heads.withhold(wheel)

    def release(self, step: Step, name: str, over_ms: int | None = None) -> None:
        """Have the wheels of that name drained like any other; their entries keep their due times.

        It was kept back until ``over_ms``; None: until now.
        """
        self._withholding.discard(name)
        for wheel, withheld_by in enumerate(self.withheld_by):
            if withheld_by == name:
                self.heads.release(wheel)
                self.released_ms[wheel] = step.now_ms
                self.kept_until_ms[wheel] = step.now_ms if over_ms is None else min(over_ms, step.now_ms)

    def held(self, name: str) -> int:
        """How many entries are in the wheels of that name."""
        return sum(self.counts.of_wheel(wheel) for wheel, by in enumerate(self.withheld_by) if by == name)

    def first_key(self, wheel: int) -> bytes:
        """No live key of a wheel lies below this one."""
        return self._watermarks.get(wheel) or keys.wheel_bound(wheel)

    def source_number(self, source: tuple[str, int, str]) -> int | None:
        """The number of a request partition; None where nothing of it was ever pending here."""
        return self._source_numbers.get(source)

    def source(self, step: Step, topic: str, partition: int, origin: str = "") -> int:
        """The number of a request partition, interned at its first use."""
        number = self._source_numbers.get((topic, partition, origin))
        if number is None:
            number = self._intern_source(topic, partition, origin)
            step.names[keys.source_key(number)] = encode(SourceName(topic, partition, origin))
        return number

    def source_text(self, source: Coordinates) -> bytes:
        """``place/partition/`` in bytes, also of a request partition without a number."""
        request_partition = source.topic, source.partition, source.origin
        text = self._texts.get(request_partition)
        if text is None:
            text = self._texts[request_partition] = f"{source.place}/{source.partition}/".encode()
        return text

    def coordinates(self, number: int, offset: int) -> Coordinates:
        """Where a request stood, by what a wheel key says of it."""
        topic, partition, origin = self.sources[number]
        return Coordinates(topic, partition, offset, origin)

    def fire(self, key: bytes) -> PendingFire:
        """An entry of a wheel, by its key."""
        wheel, due_ms, source, offset, index = keys.split_wheel_key(key)
        return PendingFire(
            self.destinations[wheel],
            due_ms,
            self.coordinates(source, offset),
            index,
            self.lanes[wheel] or None,
            self.withheld_by[wheel] or None,
        )

    def _intern_destination(self, name: str, number: int = 0) -> int:
        """Note a name under the number that it is stored with, or under a free one (0)."""
        number = number or (self._free.pop() if self._free else len(self.destinations))
        for between in range(len(self.destinations), number + 1):
            self.destinations.append("")
            self.lanes.append("")
            self.withheld_by.append("")
            if between != number:
                self._free.append(between)
        self._destination_numbers[name] = number
        topic, lane, withheld_by = keys.split_wheel_name(name)
        self.destinations[number] = topic
        self.lanes[number] = lane
        self.withheld_by[number] = withheld_by
        if withheld_by in self._withholding:
            self.heads.withhold(number)
        self._wheels.setdefault(topic, []).append(number)
        return number

    def forget_names(self, step: Step) -> list[tuple[str, str]]:
        """Where there are many names, forget some that nothing refers to any more; (topic, tenant) of each.

        Anybody can have a request for any name: without an end to them they would fill the memory.
        """
        if len(self._destination_numbers) <= _NAMES_KEPT:
            return []
        used = {route.wheel for route in step.routes.values() if route is not None}
        forgotten: list[tuple[str, str]] = []
        for name in list(islice(self._destination_numbers, _NAMES_LOOKED_AT)):
            number = self._destination_numbers.pop(name)
            key = keys.destination_key(number)
            if number in used or key in step.names or not self.counts.empty(number):
                # To the end: the others have their turn.
                self._destination_numbers[name] = number
                continue
            topic, lane, _ = keys.split_wheel_name(name)
            step.names[key] = None
            self.heads.set(number, None)
            self.heads.open(number)
            self.heads.release(number)
            self.released_ms.pop(number, None)
            self.kept_until_ms.pop(number, None)
            self.arrived_ms.pop(number, None)
            self._watermarks.pop(number, None)
            self._drained.discard(number)
            self._wheels[topic].remove(number)
            if not self._wheels[topic]:
                del self._wheels[topic]
            self.destinations[number] = self.lanes[number] = self.withheld_by[number] = ""
            self._free.append(number)
            forgotten.append((topic, lane))
        return forgotten

    def _intern_source(self, topic: str, partition: int, origin: str) -> int:
        number = self._source_numbers[topic, partition, origin] = len(self.sources)
        self.sources.append((topic, partition, origin))
        self.source_texts.append(self.source_text(Coordinates(topic, partition, 0, origin)))
        self.counts.source(topic)
        return number

    def add_entry(
        self, step: Step, key: bytes, value: bytes, wheel: int, due_ms: int, source: int = -1
    ) -> None:
        """Put an envelope in a wheel, new there; ``source`` is that of its key, where it is at hand."""
        step.changes[key] = value
        self._enter(step.now_ms, key, wheel, due_ms, source)

    def add_pointer(
        self, step: Step, key: bytes, value: bytes, wheel: int, due_ms: int, source: int = -1
    ) -> None:
        """Put a pointer in a wheel, as `add_entry`; the caller stores the row that it follows from."""
        step.local[key] = value
        self._enter(step.now_ms, key, wheel, due_ms, source)

    def _enter(self, now_ms: int, key: bytes, wheel: int, due_ms: int, source: int) -> None:
        least = self._added.get(wheel)
        if least is None or key < least:
            if due_ms < now_ms:
                head = self.heads.head(wheel)
                if head is None or head > now_ms:
                    self.arrived_ms[wheel] = now_ms
                elif due_ms < head:
                    # What was due there goes on waiting; what came is not older than that.
                    self.arrived_ms[wheel] = max(head, self.arrived_ms.get(wheel, 0))
            self._added[wheel] = key
            self.heads.add(wheel, due_ms)
            watermark = self._watermarks.get(wheel)
            if watermark is not None and key < watermark:
                self._watermarks[wheel] = key
        if wheel:
            self.counts.add(wheel, due_ms // HOUR_MS, source if source >= 0 else keys.source_of(key), 1)

    def keep_back(self, step: Step, key: bytes, stored: bytes, tenant: str, name: str) -> bytes:
        """Put an entry that is out of its wheel in that of what keeps it back; its new key."""
        wheel = self.wheel_number(step, self.destinations[keys.wheel_of(key)], tenant, name)
        kept = keys.in_wheel(key, wheel)
        self.add_entry(step, kept, stored, wheel, keys.due_of(key))
        return kept

    def remove_entry(self, step: Step, key: bytes) -> None:
        """Take out an envelope that is in a wheel."""
        step.changes[key] = None
        self._leave(key)

    def remove(self, step: Step, key: bytes) -> None:
        """Take out an entry of either kind, which may be one that cannot be read."""
        # A tombstone for a key that the changelog does not have does no harm.
        step.local[key] = None
        self.remove_entry(step, key)

    def remove_pointer(self, step: Step, key: bytes) -> None:
        """Take out a pointer that is in a wheel; the caller stores the row that it follows from."""
        step.local[key] = None
        self._leave(key)

    def _leave(self, key: bytes) -> None:
        wheel, due_ms, source, _, _ = keys.split_wheel_key(key)
        self.counts.add(wheel, due_ms // HOUR_MS, source, -1)

    def drained(self, step: Step, wheel: int, last_key: bytes, *, exhausted: bool) -> None:
        """Every entry of a wheel up to ``last_key`` is taken out; ``exhausted``: and nothing else is due."""
        self._drained.add(wheel)
        added = self._added.get(wheel)
        behind = last_key + b"\0"
        # Entries that this step has added are not in the store yet, so they were not drained with the rest.
        self._watermarks[wheel] = behind if added is None else min(added, behind)
        last_due_ms = keys.due_of(last_key)
        self.looked_at(wheel, self._first_due(wheel, step.now_ms + 1) if exhausted else last_due_ms)

    def looked_at(self, wheel: int, due_ms: int | None) -> None:
        """The stored part of a wheel begins at ``due_ms``; what the step added counts too."""
        added = self._added.get(wheel)
        if added is not None:
            added_due_ms = keys.due_of(added)
            due_ms = added_due_ms if due_ms is None else min(added_due_ms, due_ms)
        self.heads.set(wheel, due_ms)

    def first_due_after(self, step: Step, wheel: int) -> int | None:
        """Due time of a wheel's first stored entry that is not due yet."""
        return self._first_due(wheel, step.now_ms + 1)

    # -- sealing and applying -----------------------------------------------------------------

    def seal(self, step: Step, topic_ids: dict[str, str], partitions: int) -> None:
        """Add what every committed step holds: the source positions, last of all, and once the metadata."""
        if not self.meta_stored and not step.empty:
            step.changes[keys.META] = encode(Meta(partitions, FORMAT, self._app_id))
            self.meta_stored = True
        for topic, next_offset in step.positions.items():
            position = SourcePosition(next_offset, topic_ids[topic])
            self.positions[topic] = position
            step.changes[keys.offset_key(topic)] = encode(position)

    def apply(self, step: Step, marker: Marker) -> PendingChange:
        """Write a committed step to the local store, in one batch; which counts it has changed."""
        counts, change = self.counts.apply(self.destinations)
        self.store.write(step.rows(), [*step.local.items(), *counts], marker)
        self._added.clear()
        for wheel in self._drained:
            self.store.drop_range(keys.wheel_bound(wheel), self._watermarks[wheel])
        self._drained.clear()
        return change


def refuse_layout(meta: Meta) -> None:
    """Raise Misconfigured for rows that this version would not understand."""
    if meta.format != FORMAT:
        raise Misconfigured(
            f"the changelog's rows have layout {meta.format}, and this version reads layout {FORMAT}: go on "
            "with the version that wrote them, or begin with new topics"
        )


def refuse_transferred(meta: Meta) -> None:
    """Raise Misconfigured unless the state is all here, and only here."""
    if meta.transfer_state == TransferState.EXPORTED:
        raise Misconfigured(
            f"what is pending was exported for good (transfer {meta.transfer}): it fires where it was "
            "imported, and would fire twice if it did here as well. `delaystream export --reopen` takes that "
            "back, if it was imported nowhere"
        )
    if meta.transfer_state == TransferState.IMPORTING:
        raise Misconfigured(
            f"the import of transfer {meta.transfer} has not ended: run `delaystream import` with the same "
            "file again, it goes on where it stopped"
        )
