"""Commands that reach requests without an id: what they may do to a fire, and what they must.

A hold is known to be in force from the moment on at which the pause has told its sum, until the first resume
that may have ended it is produced, or until it ends by itself. In between, nothing that it is about may be
decided to go out, and no schedule that it meets is resumed but by its id.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

from tests.ledger.records import Asked, Delivered, Fire, Told

if TYPE_CHECKING:
    from tests.ledger.audit import Audit

_OUTCOMES = {"cancel": "cancelled", "reschedule": "rescheduled", "trigger": "triggered"}


class Selections:
    """Holds, cancels of many, and commands about one request, as their events tell of them."""

    def __init__(self, audit: Audit) -> None:
        self.audit = audit
        self.sums: dict[str, Told] = {}
        #: what was told of commands about a request, by its source, in order
        self.about: dict[str, list[Told]] = defaultdict(list)
        for told in audit.told:
            request = audit.asked[told.facts["source"]]
            if told.kind == "bulk":
                self.sums[request.source] = told
            elif request.subject is not None and told.kind != "rejected":
                self.about[told.facts["schedule_id"]].append(told)
        selectors = [request for request in audit.asked.values() if request.selector is not None]
        self.pauses = [request for request in selectors if request.action == "pause"]
        self.cancels = [
            request
            for request in selectors
            if request.action == "cancel" and request.selector is not None and request.selector.anonymous
        ]
        self.resumes = [request for request in selectors if request.action == "resume"]
        #: those that say something of what is late
        self.spoken = [request for request in self.resumes if request.once is not None]
        subjects = [request for request in audit.asked.values() if request.subject is not None]
        #: commands about one request; that somebody asks changes nothing
        self.commands = [request for request in subjects if request.action != "describe"]
        self.described = [request for request in subjects if request.action == "describe"]

    # -- holds

    def may_hold(self, request: Asked) -> bool:
        """Whether any pause, or a command about it, may have changed when it goes out."""
        return (
            bool(self.about.get(request.source))
            or any(_meets(pause, request) for pause in self.pauses)
        )  # fmt: skip

    def may_pause(self, request: Asked) -> bool:
        """Whether a request with an id may have met a hold on its arrival."""
        return any(_arriving(pause) and _meets(pause, request) for pause in self.pauses)

    def may_keep(self, request: Asked | None, until_ms: int | None, command: Asked | None = None) -> bool:
        """Whether a hold that ends at `until_ms` (None: by a resume alone) may keep back what is paused.

        At the turn of a `command`: what its partition has asked for later is not there yet.
        """
        return request is not None and any(
            pause.until_ms == until_ms
            and _meets(pause, request)
            and (command is None or pause.partition != command.partition or pause.offset <= command.offset)
            for pause in self.pauses
        )

    def released(self, record: Delivered, request: Asked) -> str | None:
        """The pause that was in force when a fire was decided on, if one was."""
        # What was moved is for another destination.
        return self.in_force(record, request) if record.topic == request.destination else None

    def in_force(self, record: Delivered, request: Asked, *, arriving: bool = False) -> str | None:
        """The pause that was in force when a record was decided on, if one was; `arriving`: only such."""
        since_ms, appended_ms = record.decided_after_ms, record.appended_ms
        if since_ms is None or appended_ms is None:
            return None
        for pause in self.pauses:
            told = self.sums.get(pause.source)
            if told is None or not _meets(pause, request) or (arriving and not _arriving(pause)):
                continue
            begun_ms = told.record.appended_ms
            concerned = _arriving(pause) or _is_before(request, pause)
            if concerned and begun_ms is not None and begun_ms < since_ms and appended_ms < self._end(pause):
                return pause.source
        return None

    def _end(self, pause: Asked) -> float:
        """The earliest moment at which a hold may have ended, by a resume or by itself."""
        ends = []
        for resume in self.resumes:
            told = self.sums.get(resume.source)
            done_ms = None if told is None else told.record.appended_ms
            if _covers(resume, pause) and (done_ms is None or done_ms >= pause.timestamp_ms):
                ends.append(max(resume.timestamp_ms, pause.timestamp_ms))
        # A later pause may have said when it ends.
        ends += [
            other.until_ms - self.audit.circumstances.clock_ahead_ms
            for other in self.pauses
            if other.until_ms is not None and _covers(other, pause)
        ]
        return min(ends, default=float("inf"))

    # -- what is late

    def words(self, request: Asked, due_ms: int, record: Delivered) -> list[Asked]:
        """What may be said of a fire that is decided on with a record: by its request, or by a resume.

        One that was held when it was due, and let go by a resume, goes by the word of that alone.
        """
        if not self.spoken:
            return [request]
        asked = record.appended_ms
        pauses = [
            pause
            for pause in self.pauses
            if _meets(pause, request) and (asked is None or pause.timestamp_ms <= asked)
        ]
        spoken = [resume.once for resume in self.spoken if any(_covers(resume, pause) for pause in pauses)]
        if not spoken:
            return [request]
        if (resume := self._let_go(pauses, request, due_ms, record)) is not None:
            return [request.by(resume.once)]
        return [request, *(request.by(once) for once in spoken)]

    def _let_go(self, pauses: list[Asked], request: Asked, due_ms: int, record: Delivered) -> Asked | None:
        """The resume that has ended all that held something back when it was due, if that is known."""
        given, decided_ms = self.audit.circumstances, record.appended_ms
        ending = any(pause.until_ms is not None for pause in pauses)
        if decided_ms is None or ending or self.about.get(request.source):
            return None
        held_ms = due_ms + given.clock_behind_ms + given.clock_ahead_ms
        for resume in self.resumes:
            from_ms = resume.timestamp_ms
            if held_ms >= from_ms or from_ms > decided_ms:
                continue
            stood = [pause for pause in pauses if self._is_done(pause, from_ms) and _covers(resume, pause)]
            first_ms = max((pause.timestamp_ms for pause in stood), default=0)
            others = [other for other in self.resumes if other is not resume]
            if (
                len(stood) == len(pauses)
                and any(_arriving(pause) or _is_before(request, pause) for pause in stood)
                # Others had ended before the last of these pauses, or came too late, or to nothing.
                and all(
                    self._is_done(other, first_ms)
                    or other.timestamp_ms > decided_ms
                    or self._is_done(resume, other.timestamp_ms)
                    for other in others
                )
            ):
                return resume
        return None

    def _is_done(self, command: Asked, by_ms: int) -> bool:
        """Whether a command for many has told its sum before a moment."""
        told = self.sums.get(command.source)
        return told is not None and told.record.appended_ms is not None and told.record.appended_ms < by_ms

    # -- cancels

    def may_cancel(self, request: Asked) -> bool:
        """Whether a command may have cancelled it."""
        return any(_meets(cancel, request) and _is_before(request, cancel) for cancel in self.cancels) or any(
            command.subject == request.source and command.action == "cancel" for command in self.commands
        )

    def left_out(self, request: Asked, fire: Fire) -> str | None:
        """The command that should have cancelled a fire that was delivered, if there is one."""
        since_ms = fire.record.decided_after_ms
        if since_ms is None or fire.record.topic != request.destination:
            return None
        for cancel in self.cancels:
            told = self.sums.get(cancel.source)
            if (
                told is not None
                and (told.record.appended_ms or 0) < since_ms
                and _meets(cancel, request)
                and _is_before(request, cancel)
                and request.accepted_ms is not None
                and request.accepted_ms < cancel.timestamp_ms
            ):
                return cancel.source
        for told in self.about.get(request.source, ()):
            if told.kind in ("cancelled", "too-late") and (told.record.appended_ms or 0) < since_ms:
                return str(told.facts["source"])
        return None

    # -- what they say

    def judge(self) -> None:
        """Each command about one request has one outcome, and what all say that they cancelled was told."""
        audit = self.audit
        told_of = {told.facts["source"]: told for about in self.about.values() for told in about}
        for command in self.commands:
            refused = audit.count_refused(command)
            told = told_of.get(command.source)
            if told is None:
                if not refused:
                    audit.report.lost.append(f"{command.source}: the outcome of {command.action}")
                continue
            found = told.facts.get("count", 0)
            made = (_OUTCOMES[command.action],) if found else ("too-late", "unknown")
            if refused or told.kind not in made or told.facts["schedule_id"] != command.subject:
                audit.wrong(told, f"asked for is {command.action} of {command.subject}")
            receipt = audit.receipts.get(command.source)
            if receipt is not None and (receipt["outcome"], receipt["count"]) != (told.kind, found):
                audit.wrong(told, f"the receipt says {receipt}")
        told_cancelled = sum(
            told.kind == "cancelled" and "id" not in told.facts and "fire_id" in told.facts
            for told in audit.told
        )
        counted = sum(
            self.sums[cancel.source].facts.get("anonymous", 0)
            for cancel in self.cancels
            if cancel.source in self.sums
        ) + sum(told.facts["count"] for told in told_of.values() if told.kind == "cancelled")
        if told_cancelled != counted:
            audit.wrong("commands", f"cancelled {counted} fires, and {told_cancelled} are told of")


def ends(request: Asked, about: Sequence[Told]) -> tuple[dict[int, set[int]], int]:
    """By list index, the due times that a fire of a request may end with; and how many fires are merged."""
    due_ms: dict[int, set[int]] = {index: {due} for index, due in enumerate(request.due_ms)}
    merged = 0
    for told in about:
        if told.kind in ("rescheduled", "triggered"):
            new_ms = told.facts["next_at_ms"]
            for times in due_ms.values():
                times.add(new_ms)
        if told.kind == "rescheduled":
            merged += told.facts["count"] - 1
    return due_ms, merged


def _arriving(pause: Asked) -> bool:
    return pause.selector is not None and pause.selector.arriving


def _meets(command: Asked, request: Asked) -> bool:
    return command.partition[0] == request.partition[0] and command.selects(None, request)


def _covers(command: Asked, pause: Asked) -> bool:
    """Whether a command is about all that a pause is about."""
    wide, narrow = command.selector, pause.selector
    if wide is None or narrow is None or command.partition[0] != pause.partition[0]:
        return False
    return (
        wide.tag in (None, narrow.tag)
        and wide.key in (None, narrow.key)
        and (
            wide.destination in (None, "*", narrow.destination)
            or (narrow.destination is not None and fnmatchcase(narrow.destination, wide.destination or ""))
        )
    )


def _is_before(request: Asked, command: Asked) -> bool:
    if request.partition == command.partition:
        return request.offset < command.offset
    return request.timestamp_ms <= command.timestamp_ms
