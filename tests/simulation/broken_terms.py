"""Engines that forget, or do not heed, what requests say beside what they ask for; and what is told of rates.

They decide wrongly, and what they store and commit is sound.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any
from unittest.mock import patch
from weakref import WeakKeyDictionary

from msgspec.structs import replace

from delaystream.codec.envelope import Schedule, Status, Wake, decode_schedule, encode
from delaystream.codec.keys import due_of, schedule_key, wheel_of
from delaystream.codec.outgoing import Outcome
from delaystream.core.request import Action, Request
from delaystream.engine.accept.unnamed import Unnamed, where
from delaystream.engine.fire import recurring
from delaystream.engine.fire.recurring import RecurringFires
from delaystream.engine.output.standing import Standing
from delaystream.engine.policy import lateness as policy
from delaystream.engine.policy.holds import Holds
from delaystream.engine.policy.rates import Rates
from delaystream.engine.schedules import terms
from delaystream.engine.schedules.arming import Arming
from delaystream.engine.schedules.commands import Commands
from delaystream.engine.schedules.schedules import Schedules
from tests.simulation.broken import Breakage
from tests.simulation.world import Engine

# -- what an id remembers


@contextlib.contextmanager
def answers_are_forgotten_by_the_next_owner() -> Iterator[Engine]:
    """A worker knows of the requests with a `request-id` that it has carried out itself, and of no others."""
    lives: WeakKeyDictionary[Schedules, set[str]] = WeakKeyDictionary()
    current: list[set[str]] = []
    apply, answered = Schedules.apply, terms.answered

    def carry_out(self: Schedules, step: Any, request: Request) -> Any:
        current[:] = [lives.setdefault(self, set())]
        rejection = apply(self, step, request)
        if rejection is None and request.terms.request_id is not None:
            current[0].add(request.terms.request_id)
        return rejection

    def known(request: Request, schedule: Schedule | None) -> Any:
        return answered(request, schedule) if request.terms.request_id in current[0] else None

    with patch.object(Schedules, "apply", carry_out), patch.object(terms, "answered", known):
        yield Engine()


@contextlib.contextmanager
def what_is_repeated_is_carried_out_again() -> Iterator[Engine]:
    """`request-id` means nothing."""
    with patch.object(terms, "answered", lambda *_: None):
        yield Engine()


@contextlib.contextmanager
def if_version_is_not_heeded() -> Iterator[Engine]:
    """A command is carried out whatever the version is that it is meant for."""
    with patch.object(terms, "_changed", lambda *_: None):
        yield Engine()


@contextlib.contextmanager
def what_exists_has_no_version() -> Iterator[Engine]:
    """`if-version: 0` is taken for no condition."""
    original = terms._changed

    def changed(request: Request, schedule: Schedule | None, expected: int) -> str | None:
        return None if expected == 0 else original(request, schedule, expected)

    with patch.object(terms, "_changed", changed):
        yield Engine()


@contextlib.contextmanager
def cancels_remember_no_deploy() -> Iterator[Engine]:
    """A schedule of a deployment that a later one has pruned is accepted again."""
    original = terms.refusal

    def refusal(request: Request, schedule: Schedule | None) -> Any:
        if schedule is not None and schedule.status in (Status.CANCELLED, Status.FORESTALLED):
            schedule = replace(schedule, deploy=-1)
        return original(request, schedule)

    with patch.object(terms, "refusal", refusal):
        yield Engine()


@contextlib.contextmanager
def pauses_change_no_version() -> Iterator[Engine]:
    """What is paused or resumed has the version that it had."""
    original = terms.stamped

    def stamped(schedule: Schedule, request: Request, outcome: Outcome) -> Schedule:
        changed = original(schedule, request, outcome)
        same = outcome in (Outcome.PAUSED, Outcome.RESUMED)
        return replace(changed, version=schedule.version) if same else changed

    with patch.object(terms, "stamped", stamped):
        yield Engine()


# -- pauses that end by themselves


@contextlib.contextmanager
def ends_of_pauses_are_forgotten_by_the_next_owner() -> Iterator[Engine]:
    """A worker ends the pauses that it has begun itself, and no others."""
    lives: WeakKeyDictionary[Arming, set[bytes | None]] = WeakKeyDictionary()
    arm, wake = Arming.wake, Commands.wake

    def note(self: Arming, *rest: Any) -> Schedule:
        schedule = arm(self, *rest)
        lives.setdefault(self, set()).add(schedule.until_key)
        return schedule

    def end(self: Commands, step: Any, key: bytes, entry: Wake) -> None:
        if key in lives.get(self._arming, ()):
            wake(self, step, key, entry)
            return
        at = schedule_key(entry.tenant, entry.id)
        stored = self._state.get(step, at)
        assert stored is not None
        step.changes[at] = encode(replace(decode_schedule(stored), until_key=None))

    with patch.object(Arming, "wake", note), patch.object(Commands, "wake", end):
        yield Engine()


@contextlib.contextmanager
def pauses_end_early() -> Iterator[Engine]:
    """A pause ends a while before it was to end, and says that it was to end then."""
    original = Arming.wake

    def wake(self: Arming, step: Any, id: str, schedule: Schedule, until_ms: int | None) -> Schedule:
        return original(self, step, id, schedule, None if until_ms is None else until_ms - 90)

    def told(self: Schedule) -> int | None:
        return None if self.until_key is None else due_of(self.until_key) + 90

    with (
        patch.object(Arming, "wake", wake),
        patch.object(Schedule, "until_ms", property(told)),
    ):
        yield Engine()


# -- what a resume says of what is late


@contextlib.contextmanager
def resumes_say_nothing_of_schedules() -> Iterator[Engine]:
    """What a resume says of what is late is taken, and a schedule goes by its own word."""
    original = Commands.switch

    def switch(self: Commands, step: Any, id: str, schedule: Schedule, *rest: Any) -> Schedule | None:
        return original(self, step, id, schedule, *rest[:2])

    with patch.object(Commands, "switch", switch):
        yield Engine()


@contextlib.contextmanager
def resumes_say_nothing_of_what_has_no_id() -> Iterator[Engine]:
    """What a resume says of what is late is for schedules alone."""
    with patch.object(Holds, "for_once", lambda _self, _ended, _wheel, _key, entry: entry):
        yield Engine()


@contextlib.contextmanager
def the_word_of_a_resume_lasts() -> Iterator[Engine]:
    """What a resume says of what is late holds for what comes after it, too."""

    def misfire_policy(schedule: Schedule, settings: Any) -> Any:
        return policy.misfire_policy(replace(schedule, resumed_ms=1 << 60), settings)

    original = RecurringFires._close

    def close(
        self: RecurringFires, step: Any, due: Any, account: Any, pending: Any, next_ms: int | None
    ) -> None:
        once = due.schedule.once
        original(self, step, due, account, pending, next_ms)
        stored = step.changes.get(due.schedule_key)
        if stored is not None and once is not None:
            step.changes[due.schedule_key] = encode(replace(decode_schedule(stored), once=once))

    with (
        patch.object(recurring, "misfire_policy", misfire_policy),
        patch.object(RecurringFires, "_close", close),
    ):
        yield Engine()


# -- descriptions


@contextlib.contextmanager
def descriptions_are_of_the_step_before() -> Iterator[Engine]:
    """What is described is what was stored, whatever its own step has done since."""
    original = Commands._describe

    def describe(self: Commands, step: Any, request: Request, schedule: Schedule | None) -> None:
        assert request.id is not None
        stored = self._state.store.get(schedule_key(request.source.topic, request.id))
        original(self, step, request, None if stored is None else decode_schedule(stored))

    with patch.object(Commands, "_describe", describe):
        yield Engine()


@contextlib.contextmanager
def descriptions_change_what_they_describe() -> Iterator[Engine]:
    """A pause that is asked about ends."""
    original = Commands._describe

    def describe(self: Commands, step: Any, request: Request, schedule: Schedule | None) -> None:
        original(self, step, request, schedule)
        if schedule is not None and schedule.status is Status.PAUSED:
            assert request.id is not None
            self.switch(step, request.id, schedule, Action.RESUME)

    with patch.object(Commands, "_describe", describe):
        yield Engine()


@contextlib.contextmanager
def descriptions_by_coordinates_leave_out_what_came_due() -> Iterator[Engine]:
    """What is set aside while a request is looked for is not described."""
    original = Unnamed._describe

    def describe(self: Unnamed, step: Any, bulk: Any, found: Any) -> None:
        aside = where(bulk)
        original(
            self,
            step,
            bulk,
            [(key, stored) for key, stored in found if self._state.withheld_by[wheel_of(key)] != aside],
        )

    with patch.object(Unnamed, "_describe", describe):
        yield Engine()


@contextlib.contextmanager
def descriptions_by_coordinates_know_no_holds() -> Iterator[Engine]:
    """What a hold keeps back is described as pending."""
    with patch.object(Unnamed, "_held_by", lambda *_: None):
        yield Engine()


# -- destinations


@contextlib.contextmanager
def rates_are_forgotten_by_the_next_owner() -> Iterator[Engine]:
    """A worker keeps to the rates that it was told of itself, and to no others."""
    with patch.object(Rates, "load", lambda *_: None):
        yield Engine()


@contextlib.contextmanager
def rates_are_not_lifted() -> Iterator[Engine]:
    """`none` is answered, and the rate stays."""
    original = Rates.command

    def command(self: Rates, row: Any, loop_ms: float) -> None:
        if row.rate is not None:
            original(self, row, loop_ms)

    with patch.object(Rates, "command", command):
        yield Engine()


@contextlib.contextmanager
def releases_are_untold() -> Iterator[Engine]:
    """A row that says that a destination is parked is not renewed when it is not any more."""
    original = Standing._differs

    def differs(self: Standing) -> bool:
        stored, found = self._stored, original(self)
        if not found or stored is None:
            return found
        now = self._now(stored.written_ms)
        return now.owner != stored.owner or not {p.destination for p in now.parked} < {
            p.destination for p in stored.parked
        }

    with patch.object(Standing, "_differs", differs):
        yield Engine()


@contextlib.contextmanager
def owners_are_untold() -> Iterator[Engine]:
    """The next owner of a partition leaves the row as it is until it has something else to tell."""
    original = Standing._now

    def now(self: Standing, now_ms: int) -> Any:
        status = original(self, now_ms)
        return status if self._stored is None else replace(status, owner=self._stored.owner)

    with patch.object(Standing, "_now", now):
        yield Engine()


TERMS: list[Breakage] = [
    answers_are_forgotten_by_the_next_owner,
    what_is_repeated_is_carried_out_again,
    if_version_is_not_heeded,
    what_exists_has_no_version,
    cancels_remember_no_deploy,
    pauses_change_no_version,
    ends_of_pauses_are_forgotten_by_the_next_owner,
    pauses_end_early,
    resumes_say_nothing_of_schedules,
    resumes_say_nothing_of_what_has_no_id,
    the_word_of_a_resume_lasts,
    descriptions_by_coordinates_leave_out_what_came_due,
    descriptions_by_coordinates_know_no_holds,
    descriptions_are_of_the_step_before,
    descriptions_change_what_they_describe,
    rates_are_forgotten_by_the_next_owner,
    rates_are_not_lifted,
    releases_are_untold,
    owners_are_untold,
]
