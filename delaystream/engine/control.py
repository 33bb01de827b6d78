"""Deciding on requests that name an id: one id's life, from its first request until it is forgotten.

======================  ============================  ==========================  =====================
the id is               schedule                      cancel                      its last fire
======================  ============================  ==========================  =====================
unknown                 pending, ``scheduled``        forestalled, ``unknown``
pending                 replace: ``replaced``;        cancelled, ``cancelled``    fired
                        keep: ``kept``; reject:
                        ``rejected``
fired, dropped,         pending, ``scheduled``        ``too-late``
quarantined
cancelled, forestalled  older: ``rejected``;          ``cancelled``, ``unknown``
                        newer: ``scheduled``
======================  ============================  ==========================  =====================

An id that is over is remembered for ``id_retention_ms``, by an entry of the housekeeping wheel.
"""

from __future__ import annotations

from msgspec.structs import replace

from delaystream.codec.envelope import (
    Forget,
    Pointer,
    Schedule,
    Status,
    decode_schedule,
    encode,
    envelope_of,
)
from delaystream.codec.keys import HOUSEKEEPING, payload_key, schedule_key, wheel_key
from delaystream.codec.outgoing import Outcome, delivery_headers
from delaystream.core.identity import fire_id, schedule_id
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import Action, IfExists, Request
from delaystream.engine.deliveries import Deliveries
from delaystream.engine.letters import Letters
from delaystream.engine.quota import Quotas
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state import PartitionState
from delaystream.engine.step import Step


class Control:
    """Applies requests that name an id, on the partition that owns it."""

    def __init__(
        self,
        settings: EngineSettings,
        state: PartitionState,
        deliveries: Deliveries,
        letters: Letters,
        quotas: Quotas,
    ) -> None:
        self._quotas = quotas
        self._settings = settings
        self._state = state
        self._deliveries = deliveries
        self._letters = letters

    def apply(self, step: Step, request: Request) -> Rejection | None:
        """Carry out one request; a rejection changes nothing."""
        assert request.id is not None
        stored = self._state.get(step, schedule_key(request.source.topic, request.id))
        schedule = decode_schedule(stored) if stored is not None else None
        if request.action is Action.CANCEL:
            self._cancel(step, request, schedule)
            return None
        return self._schedule(step, request, schedule)

    # -- schedule -----------------------------------------------------------------------------

    def _schedule(self, step: Step, request: Request, old: Schedule | None) -> Rejection | None:
        assert request.id is not None
        if rejection := self._deliveries.out_of_range(request):
            return rejection
        outcome = Outcome.SCHEDULED
        if old is not None:
            if old.status is Status.PENDING:
                if request.if_exists is IfExists.KEEP:
                    self._letters.receipt(step, request, Outcome.KEPT)
                    return None
                if request.if_exists is IfExists.REJECT:
                    return Rejection(
                        Code.ALREADY_EXISTS,
                        f"id {shown(request.id)} names a pending schedule, and if-exists is 'reject'",
                        id=request.id,
                        reply_to=request.reply_to,
                    )
                outcome = Outcome.REPLACED
            elif old.status in (Status.CANCELLED, Status.FORESTALLED) and _older(request, old):
                return Rejection(
                    Code.CANCELLED_EARLIER,
                    f"id {shown(request.id)} was cancelled by a request with timestamp {old.timestamp_ms}, "
                    f"and this one's is {request.timestamp_ms}; a newer one would be scheduled",
                    id=request.id,
                    reply_to=request.reply_to,
                )
        freed = len(old.pending) if old is not None else 0
        if self._quotas.any and (rejection := self._quotas.refusal(step, request, freed)):
            return rejection
        if old is not None:
            self._clear(step, request.source.topic, request.id, old)
        self._define(step, request, self._revision(request), outcome)
        return None

    def _revision(self, request: Request) -> int:
        """A number that no other request for the id ever gets: it outlives what is remembered of the id.

        A count would begin anew once the id is forgotten, and repeat the fire ids of the same due times.
        """
        source = request.source
        return source.offset * self._settings.partitions + source.partition + 1

    def _define(self, step: Step, request: Request, revision: int, outcome: Outcome) -> None:
        assert request.id is not None
        state = self._state
        source = request.source
        tenant = source.topic
        number = state.source(step, source.topic, source.partition)
        wheel = state.destination(step, request.destination, tenant)
        step.records += len(request.due_ms) - 1
        pending: list[bytes] = []
        fire_ids: list[str] = []
        fire_count = 0
        last_fire_id: str | None = None
        pointer = encode(Pointer(tenant, request.id, revision))
        for index, due_ms in enumerate(request.due_ms):
            fire = fire_id(tenant, source.partition, source.offset, index, due_ms, request.id, revision)
            fire_ids.append(fire)
            if step.size_bytes < step.max_bytes and (
                partitions := self._deliveries.may_deliver(step, request, due_ms)
            ):
                fire_count += 1
                last_fire_id = fire
                headers = delivery_headers(
                    request.headers,
                    request.id,
                    fire,
                    due_ms,
                    step.now_ms,
                    schedule_id(source.topic, source.partition, source.offset),
                    fire_count,
                )
                self._deliveries.write(step, request, headers, due_ms, partitions)
            else:
                key = wheel_key(wheel, due_ms, number, source.offset, index)
                state.add_entry(step, key, pointer, wheel, due_ms)
                pending.append(key)
        schedule = Schedule(
            status=Status.PENDING if pending else Status.FIRED,
            revision=revision,
            topic=source.topic,
            partition=source.partition,
            offset=source.offset,
            timestamp_ms=request.timestamp_ms,
            destination=request.destination,
            pending=pending,
            fire_count=fire_count,
            last_fire_id=last_fire_id,
            name=request.name,
            description=request.description,
            tags=list(request.tags),
        )
        if pending:
            step.changes[payload_key(tenant, request.id)] = encode(envelope_of(request))
            step.changes[schedule_key(tenant, request.id)] = encode(schedule)
        else:
            self.finish(step, tenant, request.id, schedule)
        self._letters.receipt(step, request, outcome, fire_ids)

    # -- cancel -------------------------------------------------------------------------------

    def _cancel(self, step: Step, request: Request, old: Schedule | None) -> None:
        assert request.id is not None
        source = request.source
        if old is None or old.status is Status.FORESTALLED:
            outcome, status = Outcome.UNKNOWN, Status.FORESTALLED
        elif old.status in (Status.PENDING, Status.CANCELLED):
            outcome, status = Outcome.CANCELLED, Status.CANCELLED
        else:
            self._letters.too_late(step, request, old.last_fire_id)
            return
        if old is not None:
            self._clear(step, source.topic, request.id, old)
        newest = old is None or old.status is Status.PENDING or not _older(request, old)
        schedule = Schedule(
            status=status,
            revision=old.revision if old is not None else 0,
            topic=source.topic,
            partition=source.partition if newest or old is None else old.partition,
            offset=source.offset if newest or old is None else old.offset,
            timestamp_ms=request.timestamp_ms if newest or old is None else old.timestamp_ms,
            destination=old.destination if old is not None else "",
            fire_count=old.fire_count if old is not None else 0,
            last_fire_id=old.last_fire_id if old is not None else None,
        )
        self.finish(step, source.topic, request.id, schedule)
        self._letters.receipt(step, request, outcome)

    # -- the end ------------------------------------------------------------------------------

    def _clear(self, step: Step, tenant: str, id: str, old: Schedule) -> None:
        """Take out everything that belongs to the old revision but its record."""
        for key in old.pending:
            self._state.remove_entry(step, key)
        if old.forget_key is not None:
            self._state.remove_entry(step, old.forget_key)
        if old.status is Status.PENDING:
            step.changes[payload_key(tenant, id)] = None

    def finish(self, step: Step, tenant: str, id: str, schedule: Schedule) -> None:
        """Store the record of an id that is over, to be forgotten in time."""
        state = self._state
        number = state.source(step, schedule.topic, schedule.partition)
        due_ms = step.now_ms + self._settings.id_retention_ms
        key = wheel_key(HOUSEKEEPING, due_ms, number, schedule.offset, 0)
        state.add_entry(step, key, encode(Forget(tenant, id, schedule.revision)), HOUSEKEEPING, due_ms)
        step.changes[schedule_key(tenant, id)] = encode(replace(schedule, pending=[], forget_key=key))


def _older(request: Request, old: Schedule) -> bool:
    """Whether a request was produced before the one that the schedule's record stands for.

    Within one request partition the order is that of the offsets; across partitions only the producers'
    timestamps can tell.
    """
    source = request.source
    if (source.topic, source.partition) == (old.topic, old.partition):
        return source.offset < old.offset
    return request.timestamp_ms < old.timestamp_ms
