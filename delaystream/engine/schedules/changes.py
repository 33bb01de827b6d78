"""Changing a schedule: `reschedule`, which changes its times, and `update`, which may change anything.

Only the fields that a request gives change. Payload, pause, counters, history and equal times stay. If a hold
with `match-new` stands, it also holds a schedule that is changed.
"""

from __future__ import annotations

from contextlib import suppress

import msgspec
from msgspec import UNSET
from msgspec.structs import replace

from delaystream.codec.envelope import (
    Envelope,
    Fire,
    Past,
    Pointer,
    Schedule,
    Status,
    Triggered,
    encode,
    envelope_of,
    kept_key,
)
from delaystream.codec.event import EventType, WhyPassed
from delaystream.codec.keys import due_of, in_wheel, schedule_key
from delaystream.codec.outgoing import Outcome
from delaystream.codec.requests.names import PREFIX
from delaystream.core.identity import named_fire_id, revision
from delaystream.core.misfire import run_until
from delaystream.core.recurrence import (
    NO_TIMING,
    CronError,
    Recurrence,
    Timing,
    UnknownZoneError,
    check,
    next_after,
    retimed,
)
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import ON_LATE_FIRE, Action, Request, Update
from delaystream.engine.output.events import Passed
from delaystream.engine.policy.context import Context
from delaystream.engine.schedules import terms
from delaystream.engine.schedules.answers import Answers
from delaystream.engine.schedules.arming import Arming
from delaystream.engine.schedules.immediate import Deliveries
from delaystream.engine.state.pointers import trigger_of
from delaystream.engine.state.step import Step


class _Times(msgspec.Struct, frozen=True):
    """When a schedule fires from now on."""

    recurrence: Recurrence | None
    #: (due ms, list index); of a recurring one its next scheduled time
    fires: list[tuple[int, int]]
    #: for how many earlier ones that stands
    skipped: int = 0
    #: whether deliveries are counted anew against `max_fires`
    counts_anew: bool = True


class Changes:
    """Carries out changes of live schedules."""

    def __init__(self, context: Context, arming: Arming, answers: Answers, deliveries: Deliveries) -> None:
        self._holds = context.holds
        self._state = context.state
        self._arming = arming
        self._answers = answers
        self._deliveries = deliveries
        self._tenants = context.tenants

    def apply(self, step: Step, request: Request, old: Schedule) -> Rejection | None:
        """Change a live schedule, and tell; a rejection changes nothing."""
        assert request.id is not None
        times = self._times(request, old)
        if isinstance(times, Rejection):
            return replace(times, id=request.id, reply_to=request.reply_to)
        recurring = (old.recurrence if times is None else times.recurrence) is not None
        payload = None
        if request.update is not None:
            payload = self._payload(step, request, old, request.update, recurring)
            rejection = _inapplicable(request.update, recurring=recurring) or self._deliveries.no_partition(
                old.destination if request.update.destination is UNSET else request.update.destination,
                payload.destination_partition,
            )
            if rejection:
                return replace(rejection, id=request.id, reply_to=request.reply_to)
        if times is not None and (not times.recurrence or times.fires[0][0] != old.next_ms):
            old = self.owe(step, request.id, old)
        outcome = Outcome.RESCHEDULED if request.action is Action.RESCHEDULE else Outcome.UPDATED
        schedule = replace(
            self._arming.disarm(step, old),
            revision=revision(request.source.partition, request.source.offset),
            revision_origin=request.source.origin,
            digest=b"",
        )
        if recurring:
            schedule = replace(schedule, grace_ms=self._grace_ms(step, request, old, payload))
        if request.update is not None and payload is not None:
            schedule = self._updated(step, request.id, old, schedule, request.update, payload)
        schedule = terms.stamped(schedule, request, outcome)
        schedule = self._held(step, request.id, old, schedule)
        schedule = self._armed(step, request.id, old, schedule, times)
        self._arming.count_paused(old, schedule)
        step.changes[schedule_key(schedule.topic, request.id)] = encode(schedule)
        ahead = schedule.ahead if times is None else times.fires
        fires = [
            (due_ms, named_fire_id(schedule.revision_place, schedule.revision, index, due_ms, request.id))
            for due_ms, index in ahead
        ]
        self._answers.tell(step, request, outcome, schedule, fires)
        return None

    def owe(self, step: Step, id: str, old: Schedule) -> Schedule:
        """Tell of scheduled times that have passed, and that nobody decides on any more.

        They were waiting: for their jitter, for a resume, or for their destination. Returns the schedule with
        these among what it has missed, in its count and its history; the caller stores what comes of it.
        """
        if old.recurrence is None or not 0 <= old.next_ms <= step.now_ms:
            return old
        with suppress(CronError, UnknownZoneError):
            run = run_until(old.recurrence, old.next_ms, step.now_ms)
            step.missed[WhyPassed.REPLACED, old.destination] += run.number
            passed = Passed(EventType.MISSED, run, WhyPassed.REPLACED)
            self._answers.events.passed(step, id, passed, old)
            missed = Fire(
                run.from_ms,
                step.now_ms,
                old.revision,
                0,
                old.revision_origin,
                Past.MISSED,
                run.to_ms,
                run.number,
            )
            return replace(
                old,
                missed_count=old.missed_count + run.number,
                history=self._arming.remembered(old.history, missed),
            )
        return old

    def _held(self, step: Step, id: str, old: Schedule, schedule: Schedule) -> Schedule:
        """The schedule paused, if it was pending and a hold of what arrives meets it as it is now."""
        if schedule.status is not Status.PENDING or not self._holds.any:
            return schedule
        hold = self._holds.keeping(step, id, schedule, arriving=True)
        if hold is None:
            return schedule
        held = old.ahead if old.recurrence is None else []
        schedule = replace(
            schedule, status=Status.PAUSED, paused_ms=step.now_ms, held=held, held_by=hold.name
        )
        return self._arming.wake(step, id, schedule, hold.until_ms)

    # -- when -----------------------------------------------------------------------------------

    def _times(self, request: Request, old: Schedule) -> _Times | Rejection | None:
        """When the schedule fires after this; None: as before."""
        if request.due_ms:
            return _Times(None, [(due_ms, index) for index, due_ms in enumerate(request.due_ms)])
        timing, asked_ms = request.timing or NO_TIMING, request.timestamp_ms
        if timing == NO_TIMING:
            return None
        if old.recurrence is None and not timing.recurs:
            given = next(name for name in timing.__struct_fields__ if getattr(timing, name) is not UNSET)
            return Rejection(
                Code.NOT_APPLICABLE,
                f"{_header(given)} is given, and id {shown(request.id or '')} is a one-time schedule; "
                "expected it with every or cron",
            )
        recurrence = retimed(old.recurrence, timing, asked_ms, request.defaults.cron_zone)
        if rejection := self._refusal(request, timing, recurrence):
            return rejection
        anew = old.recurrence is None or timing.max_fires is not UNSET
        if not anew and 0 < recurrence.max_fires <= old.run_count:
            return Rejection(
                Code.NEVER_FIRES,
                f"id {shown(request.id or '')} has fired {old.run_count} times, and its max-fires is "
                f"{recurrence.max_fires}; expected max-fires with it, by which its fires are counted anew",
            )
        recurrence, first_ms, skipped = self._arming.begun(old, recurrence, asked_ms)
        return _Times(recurrence, [(first_ms, 0)], skipped, anew)

    def _refusal(self, request: Request, timing: Timing, recurrence: Recurrence) -> Rejection | None:
        """Why a schedule cannot recur as it would after this."""
        calendar = timing.timezone, timing.dst_gap, timing.dst_overlap
        if recurrence.cron is None and any(value is not UNSET for value in calendar):
            return Rejection(
                Code.NOT_APPLICABLE,
                f"a time zone is given, and id {shown(request.id or '')} has an interval; expected a cron "
                "expression with it",
            )
        limits = self._tenants.of(request.source.topic).parser.limits
        rejection = check(
            recurrence, min_interval_ms=limits.min_interval_ms, max_expression=limits.max_cron_characters
        )
        if rejection is None and next_after(recurrence, request.timestamp_ms) is None:
            return Rejection(
                Code.NEVER_FIRES, "the schedule would have no time to fire any more; expected one"
            )
        return rejection

    def _armed(
        self, step: Step, id: str, old: Schedule, schedule: Schedule, times: _Times | None
    ) -> Schedule:
        """The schedule with its entries, or with what it would have there if it were not paused."""
        paused = schedule.status is Status.PAUSED
        if times is None:
            if paused:
                return schedule
            if old.recurrence is None:
                return self._arming.arm_all(step, id, schedule, old.ahead)
            # Where its jitter has put it.
            pointer = encode(Pointer(schedule.topic, id, schedule.revision))
            pending = [self._arming.point(step, schedule, due_of(key), pointer) for key in old.pending]
            return replace(schedule, pending=pending)
        schedule = replace(
            schedule,
            recurrence=times.recurrence,
            next_ms=-1,
            skipped=times.skipped,
            held=[],
            run_count=0 if times.counts_anew else old.run_count,
        )
        if times.recurrence is None:
            if paused:
                return replace(schedule, held=times.fires)
            return self._arming.arm_all(step, id, schedule, times.fires)
        first_ms = times.fires[0][0]
        return (
            replace(schedule, next_ms=first_ms) if paused else self._arming.arm(step, id, schedule, first_ms)
        )

    # -- what -----------------------------------------------------------------------------------

    def _payload(
        self, step: Step, request: Request, old: Schedule, update: Update, recurring: bool
    ) -> Envelope:
        """The payload after the change."""
        assert request.id is not None
        payload = self._state.payload(step, request.id, old)
        if update.replaces_payload:
            new = envelope_of(request)
            payload = replace(
                payload, key=new.key, value=new.value, headers=new.headers, timestamp_ms=new.timestamp_ms
            )
        if update.destination_partition is not UNSET:
            payload = replace(payload, destination_partition=update.destination_partition)
        if update.destination_key is not UNSET:
            payload = replace(payload, has_destination_key=True, destination_key=update.destination_key)
        if update.on_late is not UNSET:
            payload = replace(payload, on_late=update.on_late or ON_LATE_FIRE)
        if update.grace_ms is not UNSET:
            payload = replace(payload, grace_ms=_stored(update.grace_ms))
        if payload.grace_ms < 0 and (update.on_late is not UNSET or update.grace_ms is not UNSET):
            diverts = payload.on_late != ON_LATE_FIRE
            default_ms = request.defaults.grace_of(recurs=recurring, diverts=diverts)
            payload = replace(payload, grace_ms=_stored(default_ms))
        return payload

    def _grace_ms(self, step: Step, request: Request, old: Schedule, payload: Envelope | None) -> int:
        """The grace of a schedule that recurs after the change; -1: neither it nor its topic has one.

        `payload` is what an update delivers after this. One that was for one time keeps what grace it had.
        """
        assert request.id is not None
        given = request.update is not None and request.update.grace_ms is not UNSET
        if old.recurrence is not None and not given:
            return old.grace_ms
        grace_ms = (payload or self._state.payload(step, request.id, old)).grace_ms
        return grace_ms if grace_ms >= 0 else _stored(request.defaults.grace_of(recurs=True, diverts=False))

    def _updated(
        self,
        step: Step,
        id: str,
        old: Schedule,
        schedule: Schedule,
        update: Update,
        payload: Envelope,
    ) -> Schedule:
        if update.name is not UNSET:
            schedule = replace(schedule, name=update.name)
        if update.description is not UNSET:
            schedule = replace(schedule, description=update.description)
        if update.tags is not UNSET:
            schedule = replace(schedule, tags=list(update.tags))
        if update.catch_up is not UNSET:
            schedule = replace(schedule, catch_up=update.catch_up)
        if update.destination is not UNSET and update.destination != old.destination:
            schedule = replace(schedule, destination=update.destination)
            schedule = replace(schedule, triggers=self._moved(step, id, schedule))
        schedule = replace(schedule, key=kept_key(payload.delivered_key))
        self._arming.drop_payload(step, old.topic, id, old)
        return replace(schedule, payload=self._arming.keep_payload(step, old.topic, id, payload))

    def _moved(self, step: Step, schedule_id: str, schedule: Schedule) -> list[Triggered]:
        """Triggered fires that wait go to the new destination as well."""
        state = self._state
        wheel = state.wheel_number(step, schedule.destination, schedule.topic)
        refiled = []
        for waiting in schedule.triggers:
            state.remove_pointer(step, waiting.key)
            there = replace(waiting, key=in_wheel(waiting.key, wheel))
            entry = encode(trigger_of(schedule.topic, schedule_id, there))
            state.add_pointer(step, there.key, entry, wheel, due_of(there.key))
            refiled.append(there)
        return refiled


def _inapplicable(update: Update, *, recurring: bool) -> Rejection | None:
    """Why a change means nothing to what the schedule is; None where it does."""
    if recurring and update.on_late not in (UNSET, None, ON_LATE_FIRE):
        return Rejection(
            Code.NOT_APPLICABLE,
            f"{PREFIX}on-late is given for a recurring schedule; expected catch-up there",
        )
    if not recurring and update.catch_up is not UNSET:
        return Rejection(
            Code.NOT_APPLICABLE,
            f"{PREFIX}catch-up is given for a one-time schedule; expected on-late there",
        )
    return None


def _stored(grace_ms: int | None) -> int:
    return -1 if grace_ms is None else grace_ms


def _header(field: str) -> str:
    """The header that a field of a timing comes from."""
    return PREFIX + field.removesuffix("_ms").replace("_", "-")
