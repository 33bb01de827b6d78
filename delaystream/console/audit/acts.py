"""An act of a caller and its outcome. Pure."""

from __future__ import annotations

from typing import Final

import msgspec

from delaystream.console.access.caller import Who

BEGUN: Final = "begun"
"""About to be sent. Where a console ended then, nobody knows whether it was."""
SENT: Final = "sent"
"""It stands on its topic; a worker has not decided on it yet, as far as is known."""
FAILED: Final = "failed"
"""Kafka or the database did not take it."""
REFUSED: Final = "refused"
"""The console refused it; nothing was changed."""
DONE: Final = "done"
"""The console has done it, and no worker has a part in it."""


class Act(msgspec.Struct, frozen=True, kw_only=True):
    """Something that somebody wants done."""

    who: Who
    #: a verb: `cancel`, `pause`, `sign-in`; of a request that came to nothing its method and path
    action: str
    #: None: it is about none, or it is not known
    request_topic: str | None = None
    #: the id or the coordinates; None: it is about several
    about: str | None = None
    #: why, in the caller's words
    note: str | None = None
    #: that of the record, where one is written
    request_id: str | None = None


class Outcome(msgspec.Struct, frozen=True):
    """The outcome."""

    #: one of this module's, or that of the receipt
    word: str
    #: why it was refused, by the console or by a worker
    code: str | None = None
    #: `topic/partition/offset` of the record that was written for it
    source: str | None = None


class Entry(msgspec.Struct, frozen=True, kw_only=True):
    """One line of the log."""

    #: grows from entry to entry
    number: int
    at_ms: int
    act: Act
    outcome: Outcome


class EntryFilter(msgspec.Struct, frozen=True, kw_only=True):
    """Which entries are meant; None: any."""

    name: str | None = None
    action: str | None = None
    request_topics: tuple[str, ...] | None = None
    about: str | None = None
    outcome: str | None = None
    code: str | None = None
    source: str | None = None
    request_id: str | None = None
    from_ms: int | None = None
    to_ms: int | None = None
