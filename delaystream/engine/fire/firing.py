"""Deciding on what is due: draining the wheels into the step. No await, no clock, no I/O.

Wheels with something due share a step round-robin, each in due order. An entry leaves its wheel in the step
that fires it, drops it, moves it to the topic for late ones, or puts it among the dead letters.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager
from heapq import heappop, heappush
from typing import Final

from delaystream.codec.envelope import Entry, Envelope, Pointer, Trigger, decode_entry
from delaystream.codec.keys import HOUSEKEEPING, due_of, source_of, split_wheel_key, wheel_of
from delaystream.codec.outgoing import anonymous_delivery_headers
from delaystream.core.rates import room
from delaystream.engine.accept.doubts import Doubts
from delaystream.engine.failures import Undecided, about_the_record
from delaystream.engine.fire.cursor import WheelCursor, one_in_trouble
from delaystream.engine.fire.fireable import Fireable
from delaystream.engine.fire.named import NamedFires
from delaystream.engine.fire.undeliverable import Undeliverable
from delaystream.engine.output.events import Events
from delaystream.engine.pace import AT_ONCE
from delaystream.engine.policy.context import Context
from delaystream.engine.state.pending import HOUR_MS
from delaystream.engine.state.step import Step
from delaystream.engine.suspects import Stage
from delaystream.query.rows import CHUNK_BYTES, size_of

#: Most entries read from a wheel at once: what is read is held in memory.
_CHUNK: Final = 512
#: Entries of the first chunk, when nothing is known of their size.
_FIRST_CHUNK: Final = 32
#: Most wheels of one step: the destinations of all of them may have to be looked up first.
_WHEELS_AT_ONCE: Final = 256
#: Most wheels among them whose destination cannot be written to, as far as is known.
_TRIED_AT_ONCE: Final = 64


class Firing:
    """Drains wheels into steps."""

    def __init__(
        self,
        context: Context,
        named: NamedFires,
        undeliverable: Undeliverable,
        events: Events,
        doubts: Doubts,
    ) -> None:
        self._doubts = doubts
        self._holds = context.holds
        self._partition = context.partition
        self._settings = context.settings
        self._state = context.state
        self._destinations = context.destinations
        self._health = context.health
        self._undeliverable = undeliverable
        self._named = named
        self._observer = context.observer
        self._events = events
        self._tenants = context.tenants
        self._rates = context.rates
        self._suspects = context.suspects
        self.fireable = Fireable(context)
        self._chunk = _FIRST_CHUNK
        #: the wheels that the next step drains
        self._chosen: list[int] = []
        #: of closed wheels: when each may be drained again, the event loop's ms
        self._openings: list[tuple[float, int]] = []

    def choose(self, now_ms: int, loop_ms: float) -> list[str]:
        """Choose what the next step drains; the destinations of that, which have to be known by then.

        The number of wheels is bounded; those with the earliest due times come first. The others stay due,
        and have their turn when these are drained or closed. Only a few destinations that seem unwritable are
        tried, so that they do not take the place of all others.
        """
        self._reopen(loop_ms)
        names = self._state.destinations
        tried = 0
        chosen: list[int] = []
        with closing(self._state.heads.due(now_ms)) as due:
            for wheel in due:
                if self._closed(wheel, loop_ms):
                    continue
                if wheel and not self._destinations.partitions(names[wheel]):
                    tried += 1
                    if tried > _TRIED_AT_ONCE:
                        self._close(wheel, loop_ms)
                        continue
                chosen.append(wheel)
                if len(chosen) == _WHEELS_AT_ONCE:
                    break
        self._chosen = chosen
        self.fireable.take(chosen)
        return [names[wheel] for wheel in chosen if wheel]

    def _closed(self, wheel: int, loop_ms: float) -> bool:
        """Whether a wheel is not to be drained now; then it is left out until it may be."""
        until = self._closed_until(wheel, loop_ms)
        if until is None:
            return False
        self._close(wheel, until)
        return True

    def _close(self, wheel: int, until: float) -> None:
        self._state.heads.close(wheel)
        heappush(self._openings, (until, wheel))

    def _closed_until(self, wheel: int, loop_ms: float) -> float | None:
        """Until when a wheel's destination is set aside, or gets no more; None: it may be drained."""
        if wheel == HOUSEKEEPING:
            return None
        topic = self._state.destinations[wheel]
        until = self._health.parked_until(topic, loop_ms)
        if until is None and self._rates.active:
            until = self._rates.closed_until(topic, self._state.lanes[wheel], loop_ms)
        return until

    def _reopen(self, loop_ms: float) -> None:
        openings = self._openings
        for _ in range(_TRIED_AT_ONCE):
            if not openings or openings[0][0] > loop_ms:
                break
            self._state.heads.open(heappop(openings)[1])

    def unpark(self, topic: str) -> None:
        """A destination is in use again, sooner than it was to be tried."""
        for wheel in self._state.wheels([topic]):
            self._state.heads.open(wheel)

    def next_opening(self) -> float | None:
        """When the next closed wheel that has something due may be drained, the event loop's ms."""
        return self._openings[0][0] if self._openings else None

    def next_due_ms(self, now_ms: int, loop_ms: float) -> int | None:
        """When the next entry is due, of the wheels that may be drained now."""
        self._reopen(loop_ms)
        while (first := self._state.heads.first()) is not None:
            due_ms, wheel = first
            if due_ms > now_ms or not self._closed(wheel, loop_ms):
                return due_ms
        return None

    def fire(self, step: Step) -> None:
        """Drain what is due, round-robin over the wheels, until the step is full.

        A share of the step is reserved for fires, so that a flood of requests cannot delay them.
        """
        step.leave_room()
        cursors = [self._begun(step, wheel) for wheel in self._chosen]
        # Where the last step ran out of room, this one begins with another wheel.
        turn = step.number % len(cursors) if cursors else 0
        # Requeued entries may be due before those of their new wheel; from tenants' own they may go on.
        cursors = one_in_trouble(sorted(cursors[turn:] + cursors[:turn], key=self._rank))
        while cursors:
            quota = -(-(step.max_records - step.records) // len(cursors))
            for cursor in cursors:
                if step.full:
                    cursors = []
                    break
                if cursor.topic in step.requeued and not cursor.requeued:
                    cursor.done = True
                    continue
                self._drain(step, cursor, min(quota, self._chunk))
            cursors = [cursor for cursor in cursors if not cursor.done]

    def fire_alone(self, step: Step, key: bytes) -> None:
        """Decide on a suspect and on nothing else, if it is the first of its wheel now."""
        wheel = wheel_of(key)
        first = self._state.scan_due(wheel, None, step.now_ms, 1)
        if not first or first[0][0] != key:
            if self._state.store.get(key) is None:
                self._suspects.clear([key])
            return
        if self._closed_until(wheel, step.loop_ms) is not None or self._state.heads.is_withheld(wheel):
            return
        step.alone = True
        cursor = self._begun(step, wheel)
        cursor.limit, cursor.most_fired = 1, step.fires(cursor.topic) + 1
        last: bytes | None = key
        with _blamed(cursor):
            if self._suspects.stage(key) is Stage.ALONE:
                last = self._decide(step, cursor, first)
            else:
                cursor.at = key
                self._give_up_suspect(step, cursor, key, first[0][1])
        if last is not None:
            self._state.drained(step, wheel, last, exhausted=False)
            step.cleared.append(key)

    def _give_up_suspect(self, step: Step, cursor: WheelCursor, key: bytes, stored: bytes) -> None:
        """Take an entry on which deciding failed out of its wheel, and put it among the dead letters."""
        rejection = self._suspects.rejection(key)
        step.records += 1
        step.size_bytes += len(stored)
        if self._suspects.stage(key) is Stage.AS_BYTES or cursor.wheel == HOUSEKEEPING:
            self._state.remove(step, key)
            self._undeliverable.dead_letter_bytes(step, key, stored, rejection)
            return
        entry = decode_entry(stored)
        if type(entry) is Envelope:
            self._state.remove_entry(step, key)
            self._undeliverable.quarantine(step, cursor, key, entry, rejection)
        else:
            assert type(entry) is Pointer or type(entry) is Trigger
            self._state.remove_pointer(step, key)
            due = self._named.due(step, key, stored, entry, self._named.ahead.alone(step, entry))
            self._named.give_up(step, due, rejection)

    def _before_suspect(
        self, entries: list[tuple[bytes, bytes]]
    ) -> tuple[list[tuple[bytes, bytes]], bytes | None]:
        """The entries before the first that has to be decided on alone, and the key of that one."""
        for number, (key, _) in enumerate(entries):
            if key in self._suspects:
                return entries[:number], key
        return entries, None

    # -- one wheel ----------------------------------------------------------------------------

    def _begun(self, step: Step, wheel: int) -> WheelCursor:
        topic = self._state.destinations[wheel]
        if wheel == HOUSEKEEPING:
            return WheelCursor(wheel, topic, None, self._tenants.denial(topic), 0)
        health = self._health
        partitions = self._destinations.partitions(topic)
        cursor = WheelCursor(wheel, topic, health.get(topic), self._tenants.denial(topic), partitions)
        if health.poisoned:
            cursor.suspicious = True
        cursor.released_ms = self._state.released_ms.get(wheel, 0)
        cursor.fireable_ms = self.fireable.since_ms(wheel, step.now_ms, step.loop_ms)
        if self._holds.any:
            cursor.holds = self._holds.of(topic)
        if self._holds.any_ended:
            cursor.ended = self._holds.ended_of(topic)
        if self._rates.active:
            lane = self._state.lanes[wheel]
            cursor.buckets = self._rates.buckets(topic, lane, step.loop_ms)
            if not lane:
                # That of a hold, too: the rate may have come while the hold stood.
                cursor.leaving = self._leaving(topic)
        if (lane := self._state.lanes[wheel]) and not self._rates.lane(lane, topic):
            cursor.leaving = self._sources_of(lane)
        return cursor

    def _rank(self, cursor: WheelCursor) -> int:
        if not cursor.leaving:
            return 2
        return 0 if self._state.lanes[cursor.wheel] else 1

    def _leaving(self, topic: str) -> frozenset[int]:
        """Sources of the tenants that have a rate of their own for a destination."""
        lane = self._rates.lane
        return frozenset(
            [number for number, (tenant, _, _) in enumerate(self._state.sources) if lane(tenant, topic)]
        )

    def _sources_of(self, tenant: str) -> frozenset[int]:
        return frozenset([number for number, (of, _, _) in enumerate(self._state.sources) if of == tenant])

    def _drain(self, step: Step, cursor: WheelCursor, quota: int) -> None:
        """Take up to ``quota`` due entries out of one wheel, fewer where the step is full before that."""
        quota = self._bounded(step, cursor, quota)
        if not quota:
            cursor.done = True
            return
        state = self._state
        entries = state.scan_due(cursor.wheel, cursor.position, step.now_ms, quota)
        size_bytes = size_of(entries)
        self._adapt_chunk(size_bytes, len(entries))
        exhausted = len(entries) < quota and size_bytes < CHUNK_BYTES
        suspect = None
        if self._suspects:
            entries, suspect = self._before_suspect(entries)
            exhausted = exhausted and suspect is None
        with _blamed(cursor):
            last = self._decide(step, cursor, entries)
        all_left = bool(entries) and last == entries[-1][0]
        if suspect is not None and (all_left or not entries):
            self._suspects.cornered = suspect
        cursor.taken += len(entries)
        if last is not None:
            cursor.position = last + b"\0"
            state.drained(step, cursor.wheel, last, exhausted=exhausted and all_left)
        elif not entries and suspect is None:
            state.looked_at(cursor.wheel, state.first_due_after(step, cursor.wheel))
        is_at_limit = cursor.limit is not None and cursor.taken >= cursor.limit
        cursor.done = exhausted or suspect is not None or not all_left or is_at_limit

    def _bounded(self, step: Step, cursor: WheelCursor, quota: int) -> int:
        """How many of ``quota`` entries may be taken from a destination in trouble, or with a rate."""
        if cursor.limit is not None:
            quota = min(quota, cursor.limit - cursor.taken)
        if cursor.buckets:
            quota = min(quota, room(cursor.buckets, step.loop_ms))
        if quota and (cursor.limit is not None or cursor.buckets):
            # One entry may bring many records: those of a recurring schedule that catches up.
            cursor.most_fired = step.fires(cursor.topic) + quota
        return quota

    def _decide(self, step: Step, cursor: WheelCursor, entries: list[tuple[bytes, bytes]]) -> bytes | None:
        """Decide on entries of one wheel, in due order; the key of the last that left it."""
        if cursor.wheel == HOUSEKEEPING:
            return self._named.housekeep(step, cursor, entries)
        if not cursor.partitions:
            if entries and not (cursor.parked or cursor.denial.everyone):
                self._park(step, cursor)
            return self._give_up_expired(step, cursor, entries)
        fired = step.fires(cursor.topic)
        last = self._deliver(step, cursor, entries)
        if cursor.buckets and (count := step.fires(cursor.topic) - fired):
            self._rates.spend(cursor.buckets, count, step.loop_ms)
        return last

    def _adapt_chunk(self, size_bytes: int, count: int) -> None:
        if size_bytes > CHUNK_BYTES:
            self._chunk = max(1, count * CHUNK_BYTES // size_bytes)
        elif count >= self._chunk:
            self._chunk = min(_CHUNK, self._chunk * 2)

    def _park(self, step: Step, cursor: WheelCursor) -> None:
        reason = self._destinations.problem(cursor.topic) or "not looked up yet"
        cursor.park(self._health.park(cursor.topic, reason, step.now_ms, step.loop_ms))
        self._observer.parked(self._partition, cursor.topic, reason)

    def _deliver(self, step: Step, cursor: WheelCursor, entries: list[tuple[bytes, bytes]]) -> bytes | None:
        """Fire entries of one wheel, in due order, while the step has room; the key of the last that left it.

        Every delivery without an id passes here: what they share is looked up before the loop.
        """
        state, named = self._state, self._named
        changes, local = step.changes, step.local
        texts, topic, partitions, split = state.source_texts, cursor.topic, cursor.partitions, split_wheel_key
        topic_writes = step.writes_to(topic, partitions)
        deliver, fired, fired_at = topic_writes.deliver, topic_writes.fired, step.fired_at
        telling, bulks_at_work = self._events.anonymous, named.bulks_at_work
        # Most entries of most wheels are delivered: only the others cost a call.
        divertible = cursor.suspicious or bool(cursor.holds or cursor.ended)
        leaving, fireable_ms = cursor.leaving, cursor.fireable_ms
        max_records, max_bytes, most_fired = step.max_records, step.max_bytes, cursor.most_fired
        removed: list[tuple[int, int]] = []
        last: bytes | None = None
        decoded = _decoded(cursor, entries)
        named.ahead.of(decoded)
        for number, ((key, stored), entry) in enumerate(zip(entries, decoded, strict=True)):
            if step.size_bytes >= max_bytes or step.records >= max_records or len(fired) >= most_fired:
                break
            cursor.at = key
            # Taken out by a request of this very step, or by a command for many that is on its way.
            if (
                key in changes
                or key in local
                or (bulks_at_work and named.called_off(step, key, stored, entry))
            ):
                last = key
                continue
            _, due_ms, source, offset, index = split(key)
            if type(entry) is not Envelope or (leaving and source in leaving):
                if not self._deliver_named_or_requeue(step, cursor, key, stored, entry, number):
                    break
                last = key
                removed.append((due_ms // HOUR_MS, source))
                if not number % AT_ONCE and step.turn_over():
                    break
                continue
            is_beyond = entry.destination_partition >= partitions
            if is_beyond and self._waits(topic, entry):
                break
            last = key
            changes[key] = None
            removed.append((due_ms // HOUR_MS, source))
            step.records += 1
            step.size_bytes += len(stored)
            if (divertible or is_beyond or entry.grace_ms >= 0) and self._diverted(
                step, cursor, key, stored, entry
            ):
                continue
            partition = deliver(
                entry,
                anonymous_delivery_headers(
                    entry.headers, b"%b%d" % (texts[source], offset), index, due_ms, fired_at
                ),
                due_ms,
                fireable_ms,
                entry.destination_partition,
                key,
            )
            if telling:
                self._events.fired_anonymous(step, state.fire(key), partition, entry)
        # Their number by hour and source: the counters of what is pending.
        for (hour, source), count in Counter(removed).items():
            state.counts.add(cursor.wheel, hour, source, -count)
        return last

    def _diverted(self, step: Step, cursor: WheelCursor, key: bytes, stored: bytes, entry: Envelope) -> bool:
        """Deal with an entry without an id that is out of its wheel, if it is not to be delivered.

        The first that applies: a hold keeps it back; it is too late, so it is dropped or moved; it is
        impossible, so it is given up.
        """
        hold = self._holds.matching(cursor.holds, key, entry) if cursor.holds else None
        if hold is not None:
            self._named.rekeyed(step, key, self._holds.keep(step, hold, key, stored), entry)
            return True
        due_ms = due_of(key)
        late = self._holds.for_once(cursor.ended, cursor.wheel, key, entry) if cursor.ended else entry
        if self._undeliverable.is_late(step, cursor, due_ms, late):
            self._undeliverable.apply_on_late(step, cursor, key, self._named.with_swept(key, late))
            return True
        rejection = self._undeliverable.refusal(step, cursor, key, due_ms, entry)
        if rejection is not None:
            self._undeliverable.quarantine(step, cursor, key, entry, rejection)
        return rejection is not None

    def _deliver_named_or_requeue(
        self, step: Step, cursor: WheelCursor, key: bytes, stored: bytes, entry: Entry, number: int
    ) -> bool:
        """Fire an entry of a named schedule, or requeue an entry in the wheel that its tenant has by now.

        False: it stays in its wheel, because its destination has to be looked up first.
        """
        step.records += 1
        leaves = bool(cursor.leaving) and source_of(key) in cursor.leaving
        if leaves:
            step.requeued.add(cursor.topic)
            cursor.requeued = True
        if type(entry) is Envelope:
            step.changes[key] = None
            step.size_bytes += len(stored)
            self._undeliverable.requeue(step, key, stored, cursor.topic)
            return True
        assert type(entry) is Pointer or type(entry) is Trigger
        # Before what follows: of a schedule with jitter, the next entry may have the key of this one.
        step.local[key] = None
        due = self._named.due(step, key, stored, entry, self._named.ahead.at(step, number))
        if leaves:
            self._named.requeue(step, cursor, due)
        elif due.payload.destination_partition >= cursor.partitions and self._waits(
            cursor.topic, due.payload
        ):
            del step.local[key]
            return False
        else:
            self._named.fire(step, cursor, due)
        return True

    def _waits(self, topic: str, entry: Envelope) -> bool:
        """Whether a fire waits for a look-up, because its destination seems to lack the partition."""
        if not self._doubts.missing(topic, entry.destination_partition):
            return False
        self._doubts.wait(topic)
        return True

    def _give_up_expired(
        self, step: Step, cursor: WheelCursor, entries: Iterable[tuple[bytes, bytes]]
    ) -> bytes | None:
        """Give up the entries of an unusable destination that have waited long enough, in due order."""
        undeliverable, named = self._undeliverable, self._named
        last: bytes | None = None
        for key, stored in entries:
            if step.size_bytes >= step.max_bytes:
                break
            if key in step.changes or key in step.local:
                last = key
                continue
            cursor.at = key
            step.records += 1
            due_ms = due_of(key)
            entry = decode_entry(stored)
            if named.bulks_at_work and named.called_off(step, key, stored, entry):
                last = key
                continue
            if type(entry) is Pointer or type(entry) is Trigger:
                due = named.due(step, key, stored, entry, named.ahead.alone(step, entry))
                if undeliverable.refusal(step, cursor, key, due_ms, due.payload) is None:
                    break
                self._state.remove_pointer(step, key)
                named.fire(step, cursor, due)
            else:
                assert type(entry) is Envelope
                held = bool(cursor.holds) and self._holds.matching(cursor.holds, key, entry) is not None
                if not held and undeliverable.refusal(step, cursor, key, due_ms, entry) is None:
                    break
                self._state.remove_entry(step, key)
                step.size_bytes += len(stored)
                self._diverted(step, cursor, key, stored, entry)
            last = key
        return last


@contextmanager
def _blamed(cursor: WheelCursor) -> Iterator[None]:
    """Raise Undecided where deciding on an entry of the wheel fails, with the key of that entry."""
    cursor.at = None
    try:
        yield
    except Exception as failure:
        if cursor.at is not None and about_the_record(failure):
            raise Undecided(cursor.at) from failure
        raise


def _decoded(cursor: WheelCursor, entries: list[tuple[bytes, bytes]]) -> list[Entry]:
    """The stored entries, decoded."""
    try:
        return [decode_entry(stored) for _, stored in entries]
    except Exception:
        # One at a time, until the culprit is found.
        for cursor.at, stored in entries:
            decode_entry(stored)
        raise
