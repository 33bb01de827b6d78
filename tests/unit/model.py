"""What one id's life ought to be: a reference model, plain and slow, that shares no code with the engine.

Scheduled times are tried one by one, everything is kept in lists, and nothing is ever stored or restarted.
`told` is every event of the id as (type, status after it, what), `delivered` every delivery as (topic, due
time or "trigger", value, fire count, how many it stands for, whether it tells of a fire before it, the next
time that it tells); `answers` are the outcomes of the requests. A run of times that did not fire is in the
history as (kind, first, last, how many, by which definition).
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any

DEFAULT_GRACE_MS = 15 * 60_000
NONE_GRACE_MS = 2_200  # the engine's misfire_threshold_ms in the test
RETENTION_MS = 30_250
HISTORY = 3
LIVE = ("pending", "paused")


@dataclass
class Beat:
    """A recurrence: every so often from an anchor on, within bounds."""

    every_ms: int
    anchor_ms: int
    start_ms: int
    end_ms: int | None = None
    max_fires: int = 0
    cron: bool = False

    def after(self, time_ms: int) -> int | None:
        found = self.anchor_ms
        while found <= time_ms or found < self.start_ms:
            found += self.every_ms
        return found if self.end_ms is None or found <= self.end_ms else None


@dataclass
class Plan:
    """What a request asks for; `dues` or `beat`."""

    value: bytes = b""
    destination: str = "orders"
    dues: list[int] = field(default_factory=list)
    beat: Beat | None = None
    on_late: str = "fire"
    grace_ms: int | None = None
    catch_up: str = "latest"
    if_exists: str = "replace"


@dataclass(frozen=True)
class Terms:
    """What a request says beside what it asks for."""

    request_id: str | None = None
    #: "same": the version that there is, "other": another one, "none": that there is no such id
    if_version: str | None = None
    #: whose schedule it is, and which deployment
    declared: tuple[str, int] | None = None


NO_TERMS = Terms()


@dataclass
class Model:
    """The id; `status` is None while nobody has heard of it."""

    status: str | None = None
    plan: Plan = field(default_factory=Plan)
    ahead: list[tuple[int, int]] = field(default_factory=list)  # one-time: (due, index)
    beat: Beat | None = None  # recurring; this and what follows
    next_ms: int | None = None
    grace_ms: int | None = None
    fires: int = 0
    runs: int = 0
    missed: int = 0
    resumed_ms: int = -1
    history: list[Any] = field(default_factory=list)
    revision: int = 0
    created_ms: int = 0
    updated_ms: int = 0
    forget_ms: int = 0
    until_ms: int | None = None
    #: how often anything was changed: the engine's version is another number for each
    version: int = 0
    #: the requests that named themselves, and their outcomes
    known: list[tuple[str, str]] = field(default_factory=list)
    declared: tuple[str, int] | None = None
    terms: Terms = NO_TERMS
    #: what was asked for last, if it means the same when it is sent again, and nothing has changed it since
    defined: Any = None
    told: list[Any] = field(default_factory=list)
    delivered: list[Any] = field(default_factory=list)
    answers: list[str] = field(default_factory=list)
    #: of each outcome that is told, the version after it; 0 where none is told
    versions: list[int] = field(default_factory=list)

    # -- requests

    def admits(self, terms: Terms) -> bool:
        """Whether a request is decided on; one that is not has its answer by this."""
        self.terms = terms
        outcome = dict(self.known).get(terms.request_id or "")
        if outcome is not None:
            self.answers.append(outcome)
            self._tell("repeated")
            return False
        if terms.declared is not None and self.declared is not None:
            (by, deploy), (known_by, known) = terms.declared, self.declared
            if by == known_by and deploy < known:
                self._refuse()
                return False
        if terms.if_version is not None and not self._is_of(terms.if_version):
            self._refuse()
            return False
        return True

    def _is_of(self, version: str) -> bool:
        if self.status in (None, "forestalled"):
            return version == "none"
        return version == "same" or (version == "none" and self.status not in LIVE)

    def _refuse(self) -> None:
        self.answers.append("rejected")
        self.told.append(("rejected", None, None))
        self.versions.append(0)

    def describe(self) -> None:
        """It is told, and nothing happens."""
        self.answers.append("unknown" if self.status in (None, "forestalled") else "described")

    def schedule(
        self,
        plan: Plan,
        timestamp_ms: int,
        now_ms: int,
        definition: Any = None,
        wanted: str | None = None,
        terms: Terms = NO_TERMS,
    ) -> None:
        first_ms = self._first(plan, timestamp_ms)
        if first_ms is None:
            self._refuse()
            return
        if not self.admits(terms):
            return
        if self.status in LIVE and plan.if_exists == "reject":
            self._refuse()
            return
        if self.status in LIVE and plan.if_exists == "keep":
            self._answer("kept")
            return
        same = definition is not None and definition == self.defined
        if self.status in LIVE and same and wanted in (None, self.status):
            self._answer("unchanged")
            return
        outcome = "replaced" if self.status in LIVE else "scheduled"
        paused = wanted == "paused" or (wanted is None and self.status == "paused")
        if self.status not in LIVE:
            self.created_ms = timestamp_ms
        carried = self._carried_on(plan.beat, timestamp_ms)
        self._owe(carried, first_ms if plan.beat else None, now_ms)
        self.revision += 1
        self._changed(timestamp_ms)
        resumed = self.status == "paused" and not paused and plan.beat is not None
        resumed_ms = now_ms if resumed else -1
        self.defined = definition
        self.plan, self.fires, self.runs, self.missed, self.resumed_ms = plan, 0, 0, 0, resumed_ms
        self._set(plan.beat, plan.dues, first_ms, carried)
        at_once = [(due, n) for due, n in self.ahead if due <= now_ms and not self._late(due, now_ms)]
        if paused:
            at_once = []
        self.ahead = [entry for entry in self.ahead if entry not in at_once]
        self.until_ms = self.until_ms if paused else None
        live = "paused" if paused else "pending"
        self.status = live if self.ahead or self.next_ms is not None else "fired"
        self._answer(outcome)
        for due_ms, _ in at_once:
            self._deliver(due_ms, plan.destination)
        if self.status == "fired":
            self._over("fired", now_ms)
        self.tick(now_ms)

    def command(
        self,
        action: str,
        now_ms: int,
        *,
        bulk: bool = False,
        until_ms: int | None = None,
        terms: Terms = NO_TERMS,
    ) -> None:
        if not self.admits(terms):
            return
        live = self.status in LIVE
        timestamp_ms = now_ms // 1_000 * 1_000
        if bulk and not (live and (action, self.status) not in (("pause", "paused"), ("resume", "pending"))):
            return
        if action == "cancel" and (live or self.status == "cancelled"):
            if live:
                self._changed(timestamp_ms)
            self._over("cancelled", now_ms)
            self._answer("cancelled")
        elif self.status in (None, "forestalled"):
            if action == "cancel":
                if self.status is None:
                    self.created_ms = timestamp_ms
                    self._changed(timestamp_ms)
                self._over("forestalled", now_ms)
            self._answer("unknown", noted=action == "cancel")
        elif not live:
            self._answer("too-late")
        elif action == "trigger":
            self._changed(timestamp_ms)
            self._answer("triggered")
            next_ms = self.next_ms if self.status == "pending" else None
            self._deliver("trigger", self.plan.destination, next_ms=next_ms)
        elif (action, self.status) in (("pause", "pending"), ("resume", "paused")):
            self._changed(timestamp_ms)
            self.status = "paused" if action == "pause" else "pending"
            self.until_ms = until_ms
            self.resumed_ms = now_ms if action == "resume" else self.resumed_ms
            self._answer(action + "d")
            self.tick(now_ms)
        elif action == "pause" and until_ms != self.until_ms:
            self._changed(timestamp_ms)
            self.until_ms = until_ms
            self._answer("paused")
        else:
            self._answer("unchanged")

    def change(
        self,
        outcome: str,
        plan: Plan,
        given: set[str],
        timestamp_ms: int,
        now_ms: int,
        value: bytes | None = None,
        terms: Terms = NO_TERMS,
    ) -> None:
        """Of a plan's times what is `given`, and of a payload where there is one; the rest stays."""
        if not self.admits(terms):
            return
        if self.status in (None, "forestalled"):
            self._answer("unknown", noted=False)
            return
        if self.status not in LIVE:
            self._answer("too-late")
            return
        timed = plan.beat is not None or bool(plan.dues)
        first_ms = None
        if timed:
            if plan.beat is not None:
                plan = replace(plan, beat=self._merged(plan.beat, given))
            first_ms = self._first(plan, timestamp_ms)
            kept = self.beat is not None and plan.beat is not None and "max_fires" not in given
            over = kept and plan.beat is not None and 0 < plan.beat.max_fires <= self.runs
            if first_ms is None or over:
                self._refuse()
                return
        self.defined = None
        if value is not None:
            self.plan = replace(self.plan, value=value)
        if timed and first_ms is not None:
            carried = self._carried_on(plan.beat, timestamp_ms)
            self.missed += self._owe(carried, first_ms if plan.beat else None, now_ms)
            self._set(plan.beat, plan.dues, first_ms, carried)
            self.runs = self.runs if kept else 0
        self.revision += 1
        self._changed(timestamp_ms)
        self._answer(outcome)
        self.tick(now_ms)

    def _merged(self, beat: Beat, given: set[str]) -> Beat:
        """A beat with the bounds of the old one, where it has none of its own."""
        old = self.beat
        if old is None:
            return beat
        start_ms = beat.start_ms if "start" in given else old.start_ms
        return replace(
            beat,
            start_ms=start_ms,
            anchor_ms=min(beat.anchor_ms, start_ms // 60_000 * 60_000) if beat.cron else start_ms,
            end_ms=beat.end_ms if "end" in given else old.end_ms,
            max_fires=beat.max_fires if "max_fires" in given else old.max_fires,
        )

    def _owe(self, carried: tuple[Beat, int] | None, first_ms: int | None, now_ms: int) -> int:
        """Scheduled times that have passed, and that nobody decides on any more; how many."""
        if carried is not None:
            first_ms = carried[1]
        owed = []
        if self.beat is not None and self.status in LIVE and first_ms != self.next_ms:
            time = self.next_ms
            while time is not None and time <= now_ms:
                owed.append(time)
                time = self.beat.after(time)
        if owed:
            self.told.append(("missed", self.status, (owed[0], owed[-1], len(owed), "replaced")))
            self._pass("missed", owed)
        return len(owed)

    # -- time

    def tick(self, now_ms: int) -> None:
        """The worker looks at what is due."""
        if self.status == "paused" and self.until_ms is not None and self.until_ms <= now_ms:
            self.status, self.until_ms, self.resumed_ms = "pending", None, now_ms
            self._tell("resumed")
        if self.status == "pending" and self.beat is not None:
            self._tick_recurring(self.beat, now_ms)
        elif self.status == "pending":
            due = sorted(entry for entry in self.ahead if entry[0] <= now_ms)
            late = [entry for entry in due if self._late(entry[0], now_ms)]
            moved = late if self.plan.on_late != "drop" else []
            for entry in due:
                if entry in moved:
                    # It is moved in its turn, and goes out after what is not late.
                    self.told.append(("moved", self.status, entry[0]))
                    continue
                self.ahead.remove(entry)
                if entry in late:
                    self.missed += 1
                    self._pass("missed", [entry[0]])
                    self._close("fired" if self.fires else "dropped", now_ms)
                    self.told.append(("expired", self.status, (entry[0], entry[0], 1, "late")))
                    continue
                self._close("fired", now_ms)
                self._deliver(entry[0], self.plan.destination)
            for entry in moved:
                self.ahead.remove(entry)
                self._close("fired", now_ms)
                self._deliver(entry[0], self.plan.on_late)
        elif self.status is not None and self.status not in LIVE and now_ms >= self.forget_ms:
            self.status, self.history, self.fires, self.missed = None, [], 0, 0
            self.known, self.declared = [], None

    def _tick_recurring(self, beat: Beat, now_ms: int) -> None:
        times: list[int] = []
        while self.next_ms is not None and self.next_ms <= now_ms:
            times.append(self.next_ms)
            self.next_ms = beat.after(self.next_ms)
        if not times:
            return
        grace_ms = DEFAULT_GRACE_MS if self.grace_ms is None else self.grace_ms
        if self.plan.catch_up == "none":
            grace_ms = min(grace_ms, NONE_GRACE_MS)
        missed = [time for time in times if time < now_ms - grace_ms]
        skipped: list[int] = []
        fired = times[len(missed) :]
        if self.plan.catch_up != "all" and fired:
            missed, skipped, fired = [], times[:-1], times[-1:]
        if beat.max_fires and self.runs + len(fired) >= beat.max_fires:
            if self.plan.catch_up == "all":
                fired = fired[: beat.max_fires - self.runs]
            self.next_ms = None
        self.runs += len(fired)
        self.missed += len(missed) + len(skipped)
        self._close("completed", now_ms)
        for kind, run in (("missed", missed), ("skipped", skipped)):
            if run:
                self._pass(kind, run)
                reason = "paused" if run[-1] <= self.resumed_ms else "late"
                self.told.append((kind, self.status, (run[0], run[-1], len(run), reason)))
        for time, next_ms in zip(fired, [*fired[1:], self.next_ms], strict=False):
            self._deliver(time, self.plan.destination, len(skipped), next_ms)
        if self.status == "completed":
            why = "max-fires" if beat.max_fires and self.runs >= beat.max_fires else "end"
            self.told.append(("completed", "completed", why))

    # -- what they share

    @staticmethod
    def _first(plan: Plan, timestamp_ms: int) -> int | None:
        """The first time that is asked for; None: a recurring schedule without any."""
        if plan.beat is None:
            return min(plan.dues)
        return plan.beat.after(max(timestamp_ms, plan.beat.start_ms - 1))

    def _carried_on(self, beat: Beat | None, timestamp_ms: int) -> tuple[Beat, int] | None:
        """The same times as those of the live schedule: it goes on with the first that is not decided."""
        old = self.beat
        if beat is None or old is None or self.status not in LIVE or self.next_ms is None:
            return None
        if (beat.cron, beat.every_ms) != (old.cron, old.every_ms):
            return None
        if beat.start_ms == timestamp_ms and (beat.cron or beat.start_ms != old.start_ms):
            if old.start_ms > timestamp_ms:
                return None
            anchor_ms = min(beat.anchor_ms, old.anchor_ms) if beat.cron else old.anchor_ms
            beat = replace(beat, start_ms=old.start_ms, anchor_ms=anchor_ms)
        elif not beat.cron and beat.start_ms != old.start_ms:
            return None
        first_ms = beat.after(self.next_ms - 1)
        return None if first_ms is None else (beat, first_ms)

    def _set(
        self, beat: Beat | None, dues: list[int], first_ms: int, carried: tuple[Beat, int] | None
    ) -> None:
        if carried is not None:
            beat, first_ms = carried
        self.beat = beat
        self.grace_ms = self.plan.grace_ms
        self.ahead = [] if beat else [(due, index) for index, due in enumerate(dues)]
        self.next_ms = first_ms if beat else None

    def _late(self, due_ms: int, now_ms: int) -> bool:
        plan = self.plan
        return plan.on_late != "fire" and plan.grace_ms is not None and now_ms - due_ms > plan.grace_ms

    def _answer(self, outcome: str, *, noted: bool = True) -> None:
        self.answers.append(outcome)
        self._tell(outcome)
        if noted and self.terms.request_id is not None:
            self.known = [*self.known, (self.terms.request_id, outcome)]
        if noted and self.terms.declared is not None:
            self.declared = self.terms.declared

    def _tell(self, outcome: str) -> None:
        self.told.append((outcome, self.status, None))
        self.versions.append(0 if self.status is None else self.version)

    def _changed(self, timestamp_ms: int) -> None:
        self.updated_ms = timestamp_ms
        self.version += 1

    def _remember(self, what: Any) -> None:
        self.history = [*self.history, what][-HISTORY:]

    def _pass(self, kind: str, run: list[int]) -> None:
        """Times that do not fire: one entry of the history, together with the one before it."""
        from_ms, count = run[0], len(run)
        last = self.history[-1] if self.history else None
        if isinstance(last, tuple) and (last[0], last[4]) == (kind, self.revision):
            from_ms, count = last[1], last[3] + count
            self.history.pop()
        self._remember((kind, from_ms, run[-1], count, self.revision))

    def _deliver(self, due: Any, topic: str, skipped: int = 0, next_ms: int | None = None) -> None:
        self.fires += 1
        before = self.fires > 1
        self.delivered.append((topic, due, self.plan.value, self.fires, skipped, before, next_ms))
        self._remember(due)
        self.told.append(("fired", self.status, due))

    def _close(self, status: str, now_ms: int) -> None:
        if not self.ahead and self.next_ms is None:
            self._over(status, now_ms)

    def _over(self, status: str, now_ms: int) -> None:
        self.status, self.ahead, self.next_ms, self.until_ms = status, [], None, None
        self.forget_ms = now_ms + RETENTION_MS
