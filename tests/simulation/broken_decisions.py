"""Engines that decide or tell wrongly in one way each; what they store and commit is sound.

Each is a fault that the ledger once did not see, or might lose sight of.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch

from msgspec import UNSET
from msgspec.structs import replace

from delaystream.codec.envelope import (
    LIVE,
    Forget,
    Schedule,
    decode_entry,
    decode_schedule,
    encode,
    envelope_of,
)
from delaystream.codec.event import EventType
from delaystream.codec.keys import wheel_of
from delaystream.codec.outgoing import Answer, anonymous_delivery_headers
from delaystream.core.misfire import Verdict, decide_passed
from delaystream.core.rates import Bucket
from delaystream.core.recurrence import timing
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import ON_LATE_DROP, Action, CatchUp, Request
from delaystream.engine.accept import bulk
from delaystream.engine.accept.bulk import Bulks
from delaystream.engine.accept.intake import Intake
from delaystream.engine.accept.unnamed import Unnamed
from delaystream.engine.fire import firing
from delaystream.engine.fire import named as named_fires
from delaystream.engine.fire import recurring as recurring_fires
from delaystream.engine.fire.named import NamedFires
from delaystream.engine.fire.recurring import RecurringFires
from delaystream.engine.fire.undeliverable import Undeliverable
from delaystream.engine.incarnation import Incarnation
from delaystream.engine.output.events import Events
from delaystream.engine.output.letters import Letters
from delaystream.engine.policy import holds
from delaystream.engine.policy.holds import Holds
from delaystream.engine.ports import Transaction
from delaystream.engine.schedules import changes, commands
from delaystream.engine.schedules import definitions as control
from delaystream.engine.schedules.arming import Arming
from delaystream.engine.schedules.changes import Changes
from delaystream.engine.schedules.definitions import Definitions
from delaystream.engine.schedules.immediate import Deliveries
from delaystream.engine.schedules.quotas import Quotas
from tests.simulation.broken import Breakage
from tests.simulation.weather import LateProducer
from tests.simulation.world import Engine

# -- late ones


@contextlib.contextmanager
def droppable_requests_are_not_stored() -> Iterator[Engine]:
    """A request with `on-late: drop` is accepted, and nothing more is heard of it."""
    original = Intake._schedule

    def schedule(self: Intake, step: Any, request: Any) -> Any:
        return None if request.on_late == ON_LATE_DROP else original(self, step, request)

    with patch.object(Intake, "_schedule", schedule):
        yield Engine()


@contextlib.contextmanager
def droppable_fires_are_dropped_untold() -> Iterator[Engine]:
    """A fire with `on-late: drop` is always taken for late, and no event tells of it."""
    original = Undeliverable.is_late

    def is_late(self: Undeliverable, step: Any, drain: Any, due_ms: int, entry: Any) -> bool:
        return entry.on_late == ON_LATE_DROP or original(self, step, drain, due_ms, entry)

    with (
        patch.object(Undeliverable, "is_late", is_late),
        patch.object(Events, "undelivered_anonymous", lambda *_: None),
    ):
        yield Engine()


@contextlib.contextmanager
def movable_fires_are_moved_in_time() -> Iterator[Engine]:
    """A fire that may go to a topic for late ones always does."""
    original = Undeliverable.is_late

    def is_late(self: Undeliverable, step: Any, drain: Any, due_ms: int, entry: Any) -> bool:
        movable = entry.on_late not in ("drop", "fire", drain.topic)
        return movable or original(self, step, drain, due_ms, entry)

    with patch.object(Undeliverable, "is_late", is_late):
        yield Engine()


@contextlib.contextmanager
def catch_up_all_skips() -> Iterator[Engine]:
    """`catch-up: all` is taken for `latest`."""

    def decide(recurrence: Any, scheduled_ms: int, now_ms: int, policy: Any, *rest: Any) -> Verdict:
        return decide_passed(
            recurrence, scheduled_ms, now_ms, policy._replace(catch_up=CatchUp.LATEST), *rest
        )

    with patch.object(recurring_fires, "decide_passed", decide):
        yield Engine()


@contextlib.contextmanager
def every_late_time_is_missed() -> Iterator[Engine]:
    """Scheduled times that are late are missed, whatever their grace."""

    def decide(recurrence: Any, scheduled_ms: int, now_ms: int, policy: Any, due: Any, *most: Any) -> Verdict:
        strict = policy._replace(grace_ms=min(policy.grace_ms, 20))
        return decide_passed(recurrence, scheduled_ms, now_ms, strict, due, *most)

    with patch.object(recurring_fires, "decide_passed", decide):
        yield Engine()


# -- commit, time and order


class _LeavesEventsOut(LateProducer):
    """Commits without the events that their topic refuses."""

    async def commit(self, transaction: Transaction) -> Any:
        events = self.member.world.settings.events_topic
        topic = self._log.topics.get(events)
        if topic is not None and topic.refusal is not None:
            kept = {at: rows for at, rows in transaction.writes.items() if at.topic != events}
            transaction = Transaction(kept, transaction.offsets)
        return await super().commit(transaction)


@contextlib.contextmanager
def refused_events_are_left_out() -> Iterator[Engine]:
    """What the events topic refuses is committed over."""
    yield Engine(producer=_LeavesEventsOut)


@contextlib.contextmanager
def time_is_that_of_the_step_before() -> Iterator[Engine]:
    """A step tells the time at which the one before it was decided, where nothing is early by that."""
    original = Incarnation.decide

    async def decide(self: Incarnation, inbox: Any) -> Any:
        clock = self._ports.clock
        now_ms, stale_ms = clock.now_ms(), getattr(self, "_before_ms", None)
        self._before_ms = now_ms  # type: ignore[attr-defined]
        heads = self._firing._state.heads
        if stale_ms is None or inbox or heads.oldest() is None:
            return await original(self, inbox)
        due_ms = heads.next_due() or now_ms
        held = max(stale_ms, min(due_ms, now_ms))
        with patch.object(type(clock), "now_ms", lambda _: held):
            return await original(self, inbox)

    with patch.object(Incarnation, "decide", decide):
        yield Engine()


@contextlib.contextmanager
def jitter_is_left_out() -> Iterator[Engine]:
    """Schedules with a jitter fire without it."""
    with patch.object(Arming, "due", lambda _self, _id, _schedule, scheduled_ms: scheduled_ms):
        yield Engine()


@contextlib.contextmanager
def keyless_requests_overtake() -> Iterator[Engine]:
    """A request without a key is delivered at once, whatever older one waits for the destination."""
    original = Deliveries._held
    asking: list[Any] = []
    original_route = Deliveries.route

    def route(self: Deliveries, step: Any, request: Any, due_ms: int) -> Any:
        asking[:] = [request.key]
        return original_route(self, step, request, due_ms)

    def held(self: Deliveries, *rest: Any) -> bool:
        return asking != [None] and original(self, *rest)

    with patch.object(Deliveries, "route", route), patch.object(Deliveries, "_held", held):
        yield Engine()


# -- what a delivery says


@contextlib.contextmanager
def control_headers_leak() -> Iterator[Engine]:
    """Deliveries carry a header that was meant for delaystream."""
    original = anonymous_delivery_headers

    def headers(own: Any, *rest: Any) -> Any:
        return original([*own, ("delaystream-destination", b"dest-a")], *rest)

    with patch.object(firing, "anonymous_delivery_headers", headers):
        yield Engine()


@contextlib.contextmanager
def every_fire_is_the_first() -> Iterator[Engine]:
    """The fires of a list all say that they are the first."""
    original = anonymous_delivery_headers

    def headers(own: Any, *rest: Any) -> Any:
        written = original(own, *rest)
        return [*written[:-1], ("delaystream-fire-count", b"1")]

    with patch.object(firing, "anonymous_delivery_headers", headers):
        yield Engine()


@contextlib.contextmanager
def resumed_lists_lose_their_places() -> Iterator[Engine]:
    """What a pause has held goes back into the wheels without its place in the list."""
    original = Arming.arm_all

    def arm_all(self: Arming, step: Any, id: str, schedule: Schedule, fires: Any) -> Schedule:
        fires = list(fires)
        if schedule.status == "paused":
            fires = [(due_ms, 7 + number) for number, (due_ms, _) in enumerate(fires)]
        return original(self, step, id, schedule, fires)

    with patch.object(Arming, "arm_all", arm_all):
        yield Engine()


@contextlib.contextmanager
def triggers_have_no_names() -> Iterator[Engine]:
    """The ids of triggered fires do not say which command they come from."""
    nameless = lambda *_: "t0.0"  # noqa: E731
    with (
        patch.object(commands, "trigger_index", nameless),
        patch.object(named_fires, "trigger_index", nameless),
    ):
        yield Engine()


# -- refusals, letters, receipts and events


@contextlib.contextmanager
def the_quota_refuses_all() -> Iterator[Engine]:
    """Where a tenant has a quota, nothing of it is accepted."""

    def judge(self: Quotas, request: Any, room: int, more: int) -> Rejection | None:
        return Rejection(Code.QUOTA_EXCEEDED, "full", id=request.id, reply_to=request.reply_to)

    with patch.object(Quotas, "_judge", judge):
        yield Engine()


@contextlib.contextmanager
def letters_are_empty() -> Iterator[Engine]:
    """Dead letters hold coordinates alone, however small the record was."""
    original = Letters.dead_letter

    def dead_letter(self: Letters, step: Any, *rest: Any) -> None:
        with patch.object(self._health, "letter_max_bytes", lambda loop_ms: 0):
            original(self, step, *rest)

    with patch.object(Letters, "dead_letter", dead_letter):
        yield Engine()


@contextlib.contextmanager
def impossible_fires_are_given_up_untold() -> Iterator[Engine]:
    """No event tells of a fire without an id that is among the dead letters."""
    original = Events.undelivered_anonymous

    def undelivered(self: Events, step: Any, source: Any, fire: Any, entry: Any) -> None:
        if fire.type is not EventType.QUARANTINED:
            original(self, step, source, fire, entry)

    with patch.object(Events, "undelivered_anonymous", undelivered):
        yield Engine()


@contextlib.contextmanager
def fires_are_given_up_at_the_first_trouble() -> Iterator[Engine]:
    """A destination that cannot be written is not waited for; only where anything is ever given up."""
    original = Undeliverable.refusal

    def refusal(self: Undeliverable, step: Any, drain: Any, *rest: Any) -> Any:
        settings = self._settings
        if settings.destination_timeout_ms < 10_000:
            self._settings = replace(settings, destination_timeout_ms=0)
        try:
            return original(self, step, drain, *rest)
        finally:
            self._settings = settings

    with patch.object(Undeliverable, "refusal", refusal):
        yield Engine()


@contextlib.contextmanager
def receipts_name_other_fires() -> Iterator[Engine]:
    """A receipt gives the fires of a request the ids of others."""
    original = Letters.receipt

    def receipt(self: Letters, step: Any, request: Any, answer: Answer) -> str | None:
        others = [(due_ms, f"{fire}0") for due_ms, fire in answer.fires]
        return original(self, step, request, replace(answer, fires=others))

    with patch.object(Letters, "receipt", receipt):
        yield Engine()


@contextlib.contextmanager
def missing_receipts_are_untold() -> Iterator[Engine]:
    """No event says that a request gets no receipt."""
    original = Events.emit

    def emit(self: Events, step: Any, event: Any) -> None:
        original(self, step, replace(event, no_receipt=None))

    with patch.object(Events, "emit", emit):
        yield Engine()


@contextlib.contextmanager
def receipts_are_left_out_with_an_excuse() -> Iterator[Engine]:
    """Nobody gets a receipt, and each event says so."""
    with patch.object(Letters, "_reply", lambda _self, step, topic, _row: f"{topic}: it is Monday"):
        yield Engine()


@contextlib.contextmanager
def denied_receipts_undo_their_requests() -> Iterator[Engine]:
    """A request that asks for a receipt where none may be written is refused."""
    original = Intake._decide

    def decide(self: Intake, step: Any, record: Any, request: Any) -> bool:
        if type(request) is Request and request.no_receipt is not None:
            rejection = Rejection(Code.INVALID_REPLY_TO, request.no_receipt, id=request.id)
            self._letters.refuse(step, record, request, rejection)
            return False
        return original(self, step, record, request)

    with patch.object(Intake, "_decide", decide):
        yield Engine()


@contextlib.contextmanager
def schedules_that_are_sent_again_begin_anew() -> Iterator[Engine]:
    """The times of a schedule in whose place the same one comes are forgotten."""
    original = Arming.begun
    with patch.object(Arming, "begun", staticmethod(lambda _old, *rest: original(None, *rest))):
        yield Engine()


@contextlib.contextmanager
def bulk_pauses_reach_nobody() -> Iterator[Engine]:
    """A command to pause or to resume many changes none, and says so."""
    original = bulk._concerned

    def concerned(command: Any, schedule: Any) -> bool:
        return command.action is Action.CANCEL and original(command, schedule)

    with patch.object(bulk, "_concerned", concerned):
        yield Engine()


@contextlib.contextmanager
def events_forget_the_next_time() -> Iterator[Engine]:
    """Events of fires do not say when the next one is due."""
    original = Events.fired

    def fired(self: Events, step: Any, delivered: Any, schedule: Any) -> None:
        original(self, step, delivered, replace(schedule, pending=[]))

    with patch.object(Events, "fired", fired):
        yield Engine()


# -- ids


@contextlib.contextmanager
def keys_of_named_fires_are_those_of_their_requests() -> Iterator[Engine]:
    """`destination-key` is not taken notice of where a request has an id."""
    original = envelope_of

    def envelope(request: Any) -> Any:
        return replace(original(request), has_destination_key=False)

    with patch.object(control, "envelope_of", envelope):
        yield Engine()


@contextlib.contextmanager
def ids_are_never_forgotten() -> Iterator[Engine]:
    """What is over is remembered for ever."""
    original = NamedFires.housekeep

    def housekeep(self: NamedFires, step: Any, drain: Any, entries: Any) -> Any:
        entries = list(entries)
        kept = [entry for entry in entries if not isinstance(decode_entry(entry[1]), Forget)]
        for key, _ in entries:
            step.local[key] = None
        for key, _ in kept:
            del step.local[key]
        original(self, step, drain, kept)
        return entries[-1][0] if entries else None

    with patch.object(NamedFires, "housekeep", housekeep):
        yield Engine()


@contextlib.contextmanager
def a_cancel_forestalls_nothing() -> Iterator[Engine]:
    """A schedule that was cancelled before it arrived is accepted."""
    with patch.object(control, "newer", lambda *_: False):
        yield Engine()


@contextlib.contextmanager
def bulks_reach_what_came_after_them() -> Iterator[Engine]:
    """A command for many takes schedules along that were asked for after it."""

    def concerned(command: Any, schedule: Any) -> bool:
        return schedule.status in LIVE

    with patch.object(bulk, "_concerned", concerned):
        yield Engine()


@contextlib.contextmanager
def misfires_wait_for_their_grace() -> Iterator[Engine]:
    """With `catch-up: none` what is late fires for as long as with `latest`."""
    original = RecurringFires.fire

    def fire(self: RecurringFires, *rest: Any) -> None:
        settings = self._settings
        self._settings = replace(settings, misfire_threshold_ms=1 << 40)
        try:
            original(self, *rest)
        finally:
            self._settings = settings

    with patch.object(RecurringFires, "fire", fire):
        yield Engine()


@contextlib.contextmanager
def sweeps_do_not_settle() -> Iterator[Engine]:
    """What comes after a command for many may be decided on before it."""
    with patch.object(bulk.Bulks, "flush", lambda *_: None):
        yield Engine()


@contextlib.contextmanager
def sweeps_pass_an_id_twice() -> Iterator[Engine]:
    """What was carried out ahead of its sweep is carried out again by it."""
    original = bulk.Bulks._flush

    def flush_again(self: bulk.Bulks, step: Any, key: bytes, stored: bytes, sweeping: Any = None) -> Any:
        forgetful = encode(replace(decode_schedule(stored), swept=[]))
        return original(self, step, key, forgetful, sweeping)

    with patch.object(bulk.Bulks, "_flush", flush_again):
        yield Engine()


@contextlib.contextmanager
def what_is_sent_again_is_armed_anew() -> Iterator[Engine]:
    """The same definition counts as a new one."""
    with patch.object(control, "digest_of", lambda _: b""):
        yield Engine()


@contextlib.contextmanager
def what_is_sent_again_moves_its_anchor() -> Iterator[Engine]:
    """The same definition is answered as unchanged, and its interval begins with the new request."""
    original = Definitions._stay

    def stay(self: Definitions, step: Any, request: Any, old: Schedule) -> None:
        recurrence = old.recurrence
        if recurrence is not None and recurrence.cron is None:
            moved = replace(recurrence, start_ms=request.timestamp_ms)
            old = replace(old, recurrence=moved)
        original(self, step, request, old)

    with patch.object(Definitions, "_stay", stay):
        yield Engine()


@contextlib.contextmanager
def deployments_resume_what_is_paused() -> Iterator[Engine]:
    """A schedule for a paused id makes it pending."""
    with patch.object(control, "_paused_since", lambda *_: None):
        yield Engine()


@contextlib.contextmanager
def what_is_owed_is_left_out() -> Iterator[Engine]:
    """Scheduled times that a new definition does not decide on are not told of."""
    with patch.object(Changes, "owe", lambda _self, _step, _id, old: old):
        yield Engine()


@contextlib.contextmanager
def changes_reset_what_they_do_not_give() -> Iterator[Engine]:
    """A reschedule has the bounds that it gives, and no others."""
    original = timing.retimed

    def retimed(old: Any, new: Any, *rest: Any) -> Any:
        return original(None if new.recurs else old, new, *rest)

    with patch.object(changes, "retimed", retimed):
        yield Engine()


def _updates_without(**left_out: Any) -> contextlib.AbstractContextManager[Any]:
    """Updates that leave out what they give of some fields."""
    payload, updated = Changes._payload, Changes._updated

    def new_payload(self: Changes, step: Any, request: Any, old: Any, update: Any, recurring: bool) -> Any:
        return payload(self, step, request, old, replace(update, **left_out), recurring)

    def new_row(self: Changes, step: Any, id: str, old: Any, schedule: Any, update: Any, payload: Any) -> Any:
        return updated(self, step, id, old, schedule, replace(update, **left_out), payload)

    stack = contextlib.ExitStack()
    stack.enter_context(patch.object(Changes, "_payload", new_payload))
    stack.enter_context(patch.object(Changes, "_updated", new_row))
    return stack


@contextlib.contextmanager
def updates_keep_the_payload() -> Iterator[Engine]:
    """`payload: replace` is taken for `keep`."""
    with _updates_without(replaces_payload=False):
        yield Engine()


@contextlib.contextmanager
def updates_keep_the_key() -> Iterator[Engine]:
    """An update does not change the key that is delivered."""
    with _updates_without(destination_key=UNSET):
        yield Engine()


@contextlib.contextmanager
def updates_keep_the_tags() -> Iterator[Engine]:
    """An update does not change what a selector finds a schedule by."""
    with _updates_without(tags=UNSET):
        yield Engine()


@contextlib.contextmanager
def updates_keep_the_destination() -> Iterator[Engine]:
    """An update does not change where a schedule delivers to."""
    with _updates_without(destination=UNSET):
        yield Engine()


# -- what has no id


@contextlib.contextmanager
def holds_are_forgotten_by_the_next_owner() -> Iterator[Engine]:
    """A worker knows of the pauses that it has read itself, and of no others."""
    original = Bulks.end_hold

    def end_hold(self: Bulks, step: Any, key: bytes, entry: Any) -> None:
        if entry.key in {*self._holds._standing, *self._holds._ended}:
            original(self, step, key, entry)

    with patch.object(holds, "everything", lambda *_: []), patch.object(Bulks, "end_hold", end_hold):
        yield Engine()


@contextlib.contextmanager
def holds_let_pass_what_arrives() -> Iterator[Engine]:
    """`match-new` means nothing."""
    original = Holds.matching

    def matching(self: Holds, standing: Any, *entry: Any) -> Any:
        blind = [replace(hold, match=replace(hold.match, arriving=False)) for hold in standing]
        return original(self, blind, *entry)

    with patch.object(Holds, "matching_arrival", lambda *_: None), patch.object(Holds, "matching", matching):
        yield Engine()


@contextlib.contextmanager
def schedules_are_let_go_by_the_first_of_two_holds() -> Iterator[Engine]:
    """A schedule is resumed when what has paused it ends, whatever else holds it back."""
    with patch.object(Holds, "keeping", lambda *_, **__: None):
        yield Engine()


@contextlib.contextmanager
def sweeps_look_at_later_holds() -> Iterator[Engine]:
    """A command for many that is at work finds the holds as they are by now."""
    with patch.object(Bulks, "_known", lambda self, *_: [*self._holds._standing.values()]):
        yield Engine()


@contextlib.contextmanager
def too_many_commands_are_refused_too_soon() -> Iterator[Engine]:
    """One command at work fewer than may be is too many already."""
    original = Bulks._refusal

    def refusal(self: Bulks, request: Any) -> Any:
        settings = self._settings
        self._settings = replace(settings, max_commands_at_work=settings.max_commands_at_work - 1)
        try:
            return original(self, request)
        finally:
            self._settings = settings

    with patch.object(Bulks, "_refusal", refusal):
        yield Engine()


@contextlib.contextmanager
def remembered_cancels_are_not_counted() -> Iterator[Engine]:
    """Any number of cancels of unknown ids is taken."""
    with patch.object(Quotas, "cancel_refusal", lambda *_: None):
        yield Engine()


@contextlib.contextmanager
def sweeps_pass_an_entry_twice() -> Iterator[Engine]:
    """A cancel counts each fire without an id that it comes by for two."""
    original = Unnamed._pass
    with patch.object(Unnamed, "_pass", lambda *rest: 2 * original(*rest)):
        yield Engine()


@contextlib.contextmanager
def cancels_leave_what_is_held() -> Iterator[Engine]:
    """A cancel of many does not look into the wheels of holds."""
    original = Unnamed._wheels

    def wheels(self: Unnamed, command: Any) -> Iterator[Any]:
        for start, stop in original(self, command):
            if command.subject is not None or not self._state.withheld_by[wheel_of(start)]:
                yield start, stop

    with patch.object(Unnamed, "_wheels", wheels):
        yield Engine()


# -- rates


@contextlib.contextmanager
def rates_are_not_kept() -> Iterator[Engine]:
    """Nothing is ever taken out of a bucket."""
    with patch.object(Bucket, "spend", lambda *_: False):
        yield Engine()


DECISIONS: list[Breakage] = [
    droppable_requests_are_not_stored,
    droppable_fires_are_dropped_untold,
    movable_fires_are_moved_in_time,
    catch_up_all_skips,
    every_late_time_is_missed,
    refused_events_are_left_out,
    time_is_that_of_the_step_before,
    jitter_is_left_out,
    keyless_requests_overtake,
    control_headers_leak,
    every_fire_is_the_first,
    resumed_lists_lose_their_places,
    triggers_have_no_names,
    the_quota_refuses_all,
    letters_are_empty,
    impossible_fires_are_given_up_untold,
    fires_are_given_up_at_the_first_trouble,
    receipts_name_other_fires,
    missing_receipts_are_untold,
    receipts_are_left_out_with_an_excuse,
    denied_receipts_undo_their_requests,
    schedules_that_are_sent_again_begin_anew,
    bulk_pauses_reach_nobody,
    events_forget_the_next_time,
    keys_of_named_fires_are_those_of_their_requests,
    ids_are_never_forgotten,
    a_cancel_forestalls_nothing,
    bulks_reach_what_came_after_them,
    sweeps_do_not_settle,
    sweeps_pass_an_id_twice,
    what_is_sent_again_is_armed_anew,
    what_is_sent_again_moves_its_anchor,
    deployments_resume_what_is_paused,
    what_is_owed_is_left_out,
    changes_reset_what_they_do_not_give,
    updates_keep_the_payload,
    updates_keep_the_key,
    updates_keep_the_tags,
    updates_keep_the_destination,
    misfires_wait_for_their_grace,
    holds_are_forgotten_by_the_next_owner,
    holds_let_pass_what_arrives,
    schedules_are_let_go_by_the_first_of_two_holds,
    sweeps_look_at_later_holds,
    too_many_commands_are_refused_too_soon,
    remembered_cancels_are_not_counted,
    sweeps_pass_an_entry_twice,
    cancels_leave_what_is_held,
    rates_are_not_kept,
]
