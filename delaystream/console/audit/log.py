"""The audit log: one table, in the history's database."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable, Sequence
from time import monotonic
from typing import Any, Final

import msgspec
from sqlalchemy import Connection, delete, func, insert, select, update

from delaystream.console.access import attempts
from delaystream.console.access.caller import Kind, Who
from delaystream.console.access.limits import MOST_ADDRESSES, Buckets, network
from delaystream.console.audit.acts import REFUSED, Act, Entry, EntryFilter, Outcome
from delaystream.console.history.database import Database
from delaystream.console.history.schema import audit

logger = logging.getLogger(__name__)

_TEXT: Final = 512
_AT_ONCE: Final = 10_000
_EVERYBODY: Final = "everybody"


class Bounds(msgspec.Struct, frozen=True, kw_only=True):
    """How much of the log is kept. What was refused is bounded by number, too: anybody may have it grow."""

    #: how long an entry is kept, ms
    kept_ms: int = 400 * 86_400_000
    refused_most: int = 100_000
    #: of one caller, or of one address that is nobody's
    refused_per_minute: int = 60
    #: of all together
    refused_per_minute_of_all: int = 600


DEFAULT: Final = Bounds()


class AuditLog:
    """Who did what. Methods block, may be called from any thread, and raise DatabaseError."""

    def __init__(
        self,
        database: Database,
        now_ms: Callable[[], int],
        bounds: Bounds = DEFAULT,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        self.database = database
        self._now_ms = now_ms
        self._bounds = bounds
        self._now_s = now_s
        of_one, of_all = bounds.refused_per_minute, bounds.refused_per_minute_of_all
        self._of_one = Buckets(of_one / 60, of_one, MOST_ADDRESSES)
        self._of_all = Buckets(of_all / 60, of_all, 1)
        #: refusals that were not recorded, because there were too many
        self.left_out = 0

    # -- writing -----------------------------------------------------------------------------------

    def note(self, connection: Connection, act: Act, outcome: Outcome) -> int:
        """Record something in a transaction of the caller's; returns the entry's number."""
        row = {"at_ms": self._now_ms(), **_columns(act), **_outcome_columns(outcome)}
        made = connection.execute(insert(audit).values(**row).returning(audit.c.number)).scalar_one()
        attempts.recorded()
        return int(made)

    def settle(self, connection: Connection, number: int, outcome: Outcome) -> None:
        """Record what came of an entry, likewise."""
        connection.execute(update(audit).where(audit.c.number == number).values(**_outcome_columns(outcome)))

    def record(self, act: Act, outcome: Outcome) -> None:
        """Record something in a transaction of its own; of refusals so many as are bounded."""
        if outcome.word == REFUSED and not self._may_record(act.who):
            self.left_out += 1
            return
        with self.database.writing() as connection:
            self.note(connection, act, outcome)

    def _may_record(self, who: Who) -> bool:
        now_s = self._now_s()
        one = network(who.address) if who.kind is Kind.UNKNOWN else who.unique
        return not self._of_one.take(one, now_s) and not self._of_all.take(_EVERYBODY, now_s)

    def forget(self) -> int:
        """Delete some of what is too old, or too much; how many entries: call again while it is not 0."""
        with self.database.writing() as connection:
            old = (
                select(audit.c.number)
                .where(audit.c.at_ms < self._now_ms() - self._bounds.kept_ms)
                .limit(_AT_ONCE)
            )
            gone = connection.execute(delete(audit).where(audit.c.number.in_(old))).rowcount
            last_kept = (
                select(audit.c.number)
                .where(audit.c.outcome == REFUSED)
                .order_by(audit.c.number.desc())
                .offset(self._bounds.refused_most)
                .limit(1)
            )
            number = connection.execute(last_kept).scalar()
            if number is not None:
                refused = (
                    select(audit.c.number)
                    .where(audit.c.outcome == REFUSED, audit.c.number <= number)
                    .limit(_AT_ONCE)
                )
                gone += connection.execute(delete(audit).where(audit.c.number.in_(refused))).rowcount
        return int(gone)

    # -- reading -----------------------------------------------------------------------------------

    def page(self, wanted: EntryFilter, limit: int, before: int | None = None) -> Sequence[Entry]:
        """Entries, the latest first: those before a number; None: the latest."""
        asked = select(audit).order_by(audit.c.number.desc()).limit(limit)
        for name in ("name", "action", "about", "outcome", "code", "source", "request_id"):
            if (value := getattr(wanted, name)) is not None:
                asked = asked.where(audit.c[name] == _text(value))
        if wanted.request_topics is not None:
            asked = asked.where(audit.c.request_topic.in_([_text(topic) for topic in wanted.request_topics]))
        if wanted.from_ms is not None:
            asked = asked.where(audit.c.at_ms >= wanted.from_ms)
        if wanted.to_ms is not None:
            asked = asked.where(audit.c.at_ms < wanted.to_ms)
        if before is not None:
            asked = asked.where(audit.c.number < before)
        with self.database.reading() as connection:
            return [_entry(row) for row in connection.execute(asked)]

    def kept_since_ms(self) -> int | None:
        """When the oldest entry is of; None where there is none."""
        first = select(func.min(audit.c.number)).scalar_subquery()
        with self.database.reading() as connection:
            at_ms: int | None = connection.execute(
                select(audit.c.at_ms).where(audit.c.number == first)
            ).scalar()
        return at_ms


def verified(connection: Connection, told: Iterable[tuple[str, str]]) -> frozenset[tuple[str, str]]:
    """Of pairs of an event's `source` and `actor` those that a console has written for a caller of that name.

    Where nobody was asked who they are, nobody is.
    """
    wanted = frozenset(told)
    if not wanted:
        return wanted
    sources = {_text(source) for source, _ in wanted}
    found = connection.execute(
        select(audit.c.source, audit.c.name).where(
            audit.c.source.in_(sources), audit.c.kind != Kind.ANONYMOUS.value
        )
    )
    known = {(row.source, row.name) for row in found}
    return frozenset(pair for pair in wanted if (_text(pair[0]), _text(pair[1])) in known)


def _columns(act: Act) -> dict[str, Any]:
    return {
        "name": _text(act.who.name),
        "kind": act.who.kind.value,
        "subject": _text(act.who.subject),
        "issuer": _text(act.who.issuer),
        "address": _text(act.who.address),
        "action": _text(act.action),
        "request_topic": _text(act.request_topic),
        "about": _text(act.about or None),
        "note": _text(act.note),
        "request_id": _text(act.request_id),
    }


def _outcome_columns(outcome: Outcome) -> dict[str, Any]:
    return {"outcome": outcome.word, "code": _text(outcome.code), "source": _text(outcome.source)}


def _entry(row: Any) -> Entry:
    who = Who(name=row.name, kind=Kind(row.kind), subject=row.subject, issuer=row.issuer, address=row.address)
    act = Act(
        who=who,
        action=row.action,
        request_topic=row.request_topic,
        about=row.about,
        note=row.note,
        request_id=row.request_id,
    )
    outcome = Outcome(row.outcome, row.code, row.source)
    return Entry(number=row.number, at_ms=row.at_ms, act=act, outcome=outcome)


def _text(text: str | None) -> str | None:
    """A text as it stands in its column, and as it is asked for."""
    if text is None:
        return None
    return text[:_TEXT].encode("utf-8", "replace").decode().replace("\0", "\ufffd")
