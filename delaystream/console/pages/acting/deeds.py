"""What can be done with one thing: what is asked back before, and how it is carried out."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, Protocol

from fastapi import Response
from markupsafe import Markup

from delaystream.codec.envelope import LIVE, Status
from delaystream.console import times
from delaystream.console.api.changing import schedules as changing
from delaystream.console.api.changing.bodies import Noted, Paused, Rescheduled, Resumed
from delaystream.console.api.changing.conditions import Conditions
from delaystream.console.api.models import Json, WrittenBody
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.api.rendering import schedule_body
from delaystream.console.pages.acting.calls import Call
from delaystream.console.pages.acting.panels import Input, note
from delaystream.console.pages.acting.when import kind_of, when_inputs, when_texts
from delaystream.console.pages.rendering import moment, said
from delaystream.core.durations import DurationError, parse_duration
from delaystream.core.instants import format_instant
from delaystream.core.recurrence import CronError, UnknownZoneError, misses
from delaystream.query.partition import StoredSchedule

Sentence = str | Markup

_ENDS: Final = (
    ("", "until somebody resumes it"),
    ("30m", "for 30 minutes"),
    ("1h", "for 1 hour"),
    ("4h", "for 4 hours"),
    ("1d", "for a day"),
    ("7d", "for a week"),
    ("at", "until the time below"),
)


class Deed(Protocol):
    """What can be done with a schedule."""

    #: last part of its path
    name: str
    #: what leads to it
    label: str
    #: what the button says
    button: str
    danger: bool

    def fits(self, schedule: StoredSchedule) -> bool:
        """Whether it makes sense for a schedule as it is."""

    def title(self, schedule: StoredSchedule) -> Sentence:
        """The question."""

    def says(self, schedule: StoredSchedule, now_ms: int) -> Sequence[Sentence]:
        """What will happen."""

    def inputs(self, schedule: StoredSchedule) -> Sequence[Input]:
        """What else can be said."""

    async def carry_out(self, call: Call, schedule: StoredSchedule) -> WrittenBody:
        """Have it done. Raises ProblemError and Refused."""


class Pause:
    """It keeps its times, and none of them fires."""

    name = "pause"
    label = "Pause"
    button = "Pause it"
    danger = False

    def fits(self, schedule: StoredSchedule) -> bool:
        """See Deed."""
        return schedule.row.status is Status.PENDING

    def title(self, schedule: StoredSchedule) -> Sentence:
        """See Deed."""
        return said("Pause {}?", schedule.id)

    def says(self, schedule: StoredSchedule, now_ms: int) -> Sequence[Sentence]:
        """See Deed."""
        return [
            "It does not fire until somebody resumes it, or the pause ends by itself.",
            *_next(schedule, "The next fire that would wait is due"),
            "What comes due meanwhile is decided on when it goes on.",
        ]

    def inputs(self, schedule: StoredSchedule) -> Sequence[Input]:
        """See Deed."""
        return [*end_inputs(), note()]

    async def carry_out(self, call: Call, schedule: StoredSchedule) -> WrittenBody:
        """See Deed."""
        body = Paused(note=call.form.word("note"), until=end_of(call))
        return await changing.pause_schedule(
            call.console, call.request, call.response, call.on, schedule.id, body
        )


class Resume:
    """It fires again."""

    name = "resume"
    label = "Resume"
    button = "Resume it"
    danger = False

    def fits(self, schedule: StoredSchedule) -> bool:
        """See Deed."""
        return schedule.row.status is Status.PAUSED

    def title(self, schedule: StoredSchedule) -> Sentence:
        """See Deed."""
        return said("Resume {}?", schedule.id)

    def says(self, schedule: StoredSchedule, now_ms: int) -> Sequence[Sentence]:
        """See Deed."""
        return [_missed(schedule, now_ms), *_next_after(schedule, now_ms)]

    def inputs(self, schedule: StoredSchedule) -> Sequence[Input]:
        """See Deed."""
        if schedule.row.recurrence is not None:
            return [late_input(recurring=True), note()]
        return [late_input(recurring=False), note()]

    async def carry_out(self, call: Call, schedule: StoredSchedule) -> WrittenBody:
        """See Deed."""
        form = call.form
        body = Resumed(note=form.word("note"), catch_up=form.word("catch_up"), on_late=form.word("on_late"))
        return await changing.resume_schedule(
            call.console, call.request, call.response, call.on, schedule.id, body
        )


class Trigger:
    """It is delivered now: beside its times, or in place of the next one."""

    name = "trigger"
    label = "Send now"
    button = "Send it now"
    danger = False

    def fits(self, schedule: StoredSchedule) -> bool:
        """See Deed."""
        return schedule.row.status in LIVE

    def title(self, schedule: StoredSchedule) -> Sentence:
        """See Deed."""
        return said("Send {} to {} now?", schedule.id, schedule.row.destination)

    def says(self, schedule: StoredSchedule, now_ms: int) -> Sequence[Sentence]:
        """See Deed."""
        paused = schedule.row.status is Status.PAUSED
        return [
            "It is delivered at once, with the value and the headers that it has.",
            *_next(schedule, "Its next own time is"),
            *(["It is paused, and stays so: only this one is sent."] if paused else []),
        ]

    def inputs(self, schedule: StoredSchedule) -> Sequence[Input]:
        """See Deed."""
        if schedule.row.status is Status.PAUSED or not _times(schedule, 1):
            return [note()]
        ahead = _times(schedule, 2)
        once = schedule.row.recurrence is None and len(ahead) == 1
        own = "its own time" if once else "its next time"
        options = [("also", f"also: {own} still comes")]
        # Of what recurs, a time has to be left from which it goes on.
        if schedule.row.recurrence is None or len(ahead) > 1:
            options.append(("instead", f"instead: {own} does not come any more"))
        return [Input("how", "Beside its own times?", "also", "radio", options=options), note()]

    async def carry_out(self, call: Call, schedule: StoredSchedule) -> WrittenBody:
        """See Deed."""
        if call.form.text("how") == "instead":
            return await self._instead(call, schedule)
        return await self._sent(call, schedule)

    async def _sent(self, call: Call, schedule: StoredSchedule) -> WrittenBody:
        body = Noted(note=call.form.word("note"))
        return await changing.trigger_schedule(
            call.console, call.request, call.response, call.on, schedule.id, body
        )

    async def _instead(self, call: Call, schedule: StoredSchedule) -> WrittenBody:
        console, id = call.console, schedule.id
        ahead = _times(schedule, times.MOST)
        if schedule.row.recurrence is None:
            # Its first time is now: one command, so it cannot be sent twice.
            at = [format_instant(console.clock.now_ms()), *map(format_instant, ahead[1:])]
            moved = Rescheduled(note=call.form.word("note"), at=list(at))
            return await changing.reschedule_schedule(
                console, call.request, call.response, call.on, id, moved
            )
        if len(ahead) < 2:
            raise invalid("not-applicable", "There is no time after the next one: send it beside its times.")
        sent = await self._sent(call, schedule)
        on = Conditions(
            console,
            request_topic=schedule.tenant,
            if_match=None if sent.version is None else f'"{sent.version}"',
            idempotency_key=f"{call.form.stamp.key}-skip",
        )
        begins = Rescheduled(note=call.form.word("note"), start=format_instant(ahead[1]))
        try:
            return await changing.reschedule_schedule(console, call.request, Response(), on, id, begins)
        except ProblemError as problem:
            detail = f"It was sent, but its next time still comes: {problem.detail}"
            raise ProblemError(problem.status, problem.code, detail) from None


class Reschedule:
    """It gets other times."""

    name = "reschedule"
    label = "Reschedule"
    button = "Give it these times"
    danger = False

    def fits(self, schedule: StoredSchedule) -> bool:
        """See Deed."""
        return schedule.row.status in LIVE

    def title(self, schedule: StoredSchedule) -> Sentence:
        """See Deed."""
        return said("When shall {} fire?", schedule.id)

    def says(self, schedule: StoredSchedule, now_ms: int) -> Sequence[Sentence]:
        """See Deed."""
        paused = schedule.row.status is Status.PAUSED
        return [
            "The times below take the place of its own. What it delivers, and where to, stays.",
            *_next(schedule, "As it is, it fires next"),
            *(["It is paused, and stays so."] if paused else []),
        ]

    def inputs(self, schedule: StoredSchedule) -> Sequence[Input]:
        """See Deed."""
        return [*when_inputs(when_texts(schedule_body(schedule).definition)), note()]

    async def carry_out(self, call: Call, schedule: StoredSchedule) -> WrittenBody:
        """See Deed."""
        form = call.form
        kind = kind_of(form.texts)
        given: Json = {kind: form.word(kind)}
        if given[kind] is None:
            raise invalid("no-schedule" if kind == "delay" else f"invalid-{kind}", f"{kind} is empty.")
        if kind in {"cron", "at"} and form.word("timezone"):
            given["timezone"] = form.word("timezone")
        body = Rescheduled(note=form.word("note"), **given)
        return await changing.reschedule_schedule(
            call.console, call.request, call.response, call.on, schedule.id, body
        )


class Cancel:
    """Nothing of it fires any more."""

    name = "cancel"
    label = "Cancel"
    button = "Cancel the schedule"
    danger = True

    def fits(self, schedule: StoredSchedule) -> bool:
        """See Deed."""
        return schedule.row.status in LIVE

    def title(self, schedule: StoredSchedule) -> Sentence:
        """See Deed."""
        return said("Cancel {}?", schedule.id)

    def says(self, schedule: StoredSchedule, now_ms: int) -> Sequence[Sentence]:
        """See Deed."""
        return [
            "Nothing of it fires any more, and what it delivers is forgotten.",
            *_next(schedule, "The next fire that will not come is due"),
            "To have it back, it has to be created again: copy it as a request first if it may be needed. "
            "A pause keeps it.",
        ]

    def inputs(self, schedule: StoredSchedule) -> Sequence[Input]:
        """See Deed."""
        return [note()]

    async def carry_out(self, call: Call, schedule: StoredSchedule) -> WrittenBody:
        """See Deed."""
        return await changing.cancel_schedule(
            call.console, call.request, call.response, call.on, schedule.id, call.form.word("note")
        )


DEEDS: Final[Sequence[Deed]] = (Trigger(), Resume(), Pause(), Reschedule(), Cancel())
"""All of them, in the order in which they are offered."""


def end_inputs(what: str = "How long") -> list[Input]:
    """How long a pause or a hold lasts."""
    return [
        Input("lasts", what, "", "select", options=_ENDS),
        Input(
            "until",
            "Until",
            hint="2030-01-31T09:00:00Z",
            help="A time with its offset from UTC, such as 2030-01-31T09:00:00+01:00.",
            shown="of-lasts-at",
        ),
    ]


def end_of(call: Call) -> str | None:
    """When a pause or a hold ends; None: not by itself. Raises ProblemError."""
    lasts = call.form.text("lasts")
    if lasts == "at":
        until = call.form.word("until")
        if until is None:
            raise invalid("invalid-until", "No time is given; expected one such as 2030-01-31T09:00:00Z.")
        return until
    if not lasts:
        return None
    try:
        return format_instant(call.console.clock.now_ms() + parse_duration(lasts))
    except DurationError as error:
        raise invalid("invalid-until", f"{lasts[:60]!r} is no length of time: {error}") from None


def late_input(*, recurring: bool) -> Input:
    """What becomes of fires that came due meanwhile."""
    if recurring:
        options = [
            ("", "as the schedule says"),
            ("latest", "latest: the last one of them"),
            ("all", "all: each of them, in order"),
            ("none", "none: only one that is less than a minute late"),
        ]
        return Input("catch_up", "Times that passed meanwhile", "", "select", options=options)
    options = [("", "as each request says"), ("fire", "fire: send them now"), ("drop", "drop: send none")]
    return Input("on_late", "Fires that came due meanwhile", "", "select", options=options)


def _times(schedule: StoredSchedule, number: int) -> list[int]:
    return [time.at_ms for time in times.upcoming(schedule.row, number)]


def _next(schedule: StoredSchedule, words: str) -> list[Sentence]:
    return [Markup("{} at {}.").format(words, moment(at_ms)) for at_ms in _times(schedule, 1)]


def _next_after(schedule: StoredSchedule, now_ms: int) -> list[Sentence]:
    recurrence = schedule.row.recurrence
    if recurrence is None:
        later = [at_ms for at_ms in _times(schedule, times.MOST) if at_ms > now_ms]
    else:
        later = [time.at_ms for time in times.recurring(recurrence, now_ms, 1)]
    return [Markup("Its next time ahead is {}.").format(moment(later[0]))] if later else []


def _missed(schedule: StoredSchedule, now_ms: int) -> Sentence:
    """How many would fire at once."""
    row = schedule.row
    if row.recurrence is None:
        count = sum(at_ms <= now_ms for at_ms in _times(schedule, times.MOST))
    elif row.next_ms < 0:
        count = 0
    else:
        try:
            count = misses(row.recurrence, row.next_ms - 1, now_ms).number
        except (CronError, UnknownZoneError):
            count = 0
    if not count:
        return "No time passed meanwhile: nothing fires at once."
    if row.recurrence is None:
        return f"{count} of its times came due meanwhile, and {'fires' if count == 1 else 'fire'} at once."
    passed = f"{count} of its times passed meanwhile."
    match row.catch_up.value:
        case "all":
            return f"{passed} As the schedule says (all), those within its grace fire at once."
        case "none":
            return f"{passed} As the schedule says (none), at most one that is less than a minute late fires."
        case _:
            return f"{passed} As the schedule says (latest), the last one fires if it is within its grace."
