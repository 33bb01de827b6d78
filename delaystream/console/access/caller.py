"""Whoever asks: a name, and what it may see and do by request topic. Pure.

A caller is made once for each request, where the request comes in. Everything that reads takes one, so that
nothing is read for nobody in particular.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import StrEnum
from typing import Final

import msgspec

from delaystream.core.globs import matches_glob

EVERY_TOPIC: Final = "*"
"""The glob of a grant that holds for what belongs to no single request topic, too."""


class Role(StrEnum):
    """A caller's role; each role includes those before it."""

    #: see schedules, events and numbers
    VIEWER = "viewer"
    #: change schedules: pause, resume, trigger, cancel, write, one by one or many at once
    OPERATOR = "operator"
    #: change what holds for all of a request topic: rates, holds, many dead letters
    ADMIN = "admin"

    def includes(self, other: Role) -> bool:
        """Whether whoever has this role may do what the other may."""
        return _RANKS[self] >= _RANKS[other]


_RANKS: Final = {role: rank for rank, role in enumerate(Role)}


class Kind(StrEnum):
    """How somebody has shown who they are."""

    #: nobody was asked
    ANONYMOUS = "anonymous"
    #: nothing was shown, or nothing that is taken
    UNKNOWN = "unknown"
    #: a token of the file
    TOKEN = "token"
    #: signed in with the provider of identities
    OIDC = "oidc"
    #: a token of the provider, for a service
    SERVICE = "service"
    #: the console, for nobody
    CONSOLE = "console"


class Who(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever does something, as it is remembered of them when the request is over."""

    #: for people, and the actor of what is written
    name: str
    kind: Kind
    #: within the issuer's; of a token its name
    subject: str = ""
    #: None: this console
    issuer: str | None = None
    #: where the request came from; empty where there was none
    address: str = ""

    @property
    def actor(self) -> str:
        """Who asks, for events: `console` where nobody is asked who they are."""
        return ITSELF.name if self.kind is Kind.ANONYMOUS else self.name

    @property
    def unique(self) -> str:
        """Tells them from all others, whatever they are called."""
        return self.name if self.issuer is None else f"{self.issuer}\n{self.subject}"


class Grant(msgspec.Struct, frozen=True):
    """A role on the request topics that match a glob (`delaystream.core.globs`)."""

    topics: str
    role: Role


class Exceptions(msgspec.Struct, frozen=True):
    """Request topics for which something holds: all but some, or none but some."""

    by_default: bool = False
    but: frozenset[str] = frozenset()

    def __contains__(self, topic: object) -> bool:
        return (topic in self.but) != self.by_default


NONE: Final = Exceptions()
"""No request topic."""


class Caller(msgspec.Struct, frozen=True, kw_only=True):
    """Whoever asks. Grants add up, whatever their order: the highest role that matches a topic counts."""

    #: for people, for logs, and as the actor of what is written
    name: str
    grants: tuple[Grant, ...] = ()
    #: may see values and headers on the topics that it sees
    payload: bool = False
    #: proved who it is; False where nobody is asked to
    authenticated: bool = True
    #: tells what it showed from the others of its name, and is no secret
    credential: str = ""
    #: request topics whose keys are shown only with the right to payloads
    hidden_keys: Exceptions = NONE
    kind: Kind = Kind.TOKEN
    #: within the issuer's; None: its name
    subject: str | None = None
    #: None: this console
    issuer: str | None = None
    #: where this request came from; empty where there is none
    address: str = ""
    #: the digest of the session by which it came; empty where it came by none
    session: str = ""
    #: from when on it is let in no more, ms; None: it is not known beforehand
    expires_ms: int | None = None

    @property
    def who(self) -> Who:
        """Who it is, for what outlives the request: the audit log, work that goes on in the background."""
        return Who(
            name=self.name,
            kind=self.kind,
            subject=self.name if self.subject is None else self.subject,
            issuer=self.issuer,
            address=self.address,
        )

    def may(self, role: Role, topic: str | None) -> bool:
        """Whether it may do what a role may on a request topic; None: on what belongs to none of them."""
        return any(
            grant.role.includes(role)
            and (grant.topics == EVERY_TOPIC or (topic is not None and matches_glob(topic, grant.topics)))
            for grant in self.grants
        )

    def may_everywhere(self, role: Role) -> bool:
        """Whether it may do that on every request topic, those too that do not exist yet."""
        return self.may(role, None)

    def may_somewhere(self, role: Role) -> bool:
        """Whether it may do that on any request topic, be it one that does not exist."""
        return any(grant.role.includes(role) for grant in self.grants)

    def sees(self, topic: str | None) -> bool:
        """Whether it may see what belongs to a request topic; None: what belongs to none of them."""
        return self.may(Role.VIEWER, topic)

    @property
    def sees_everything(self) -> bool:
        """Whether it sees every request topic."""
        return self.sees(None)

    def reads_payload(self, topic: str | None) -> bool:
        """Whether it may see values and headers of what belongs to a request topic."""
        return self.payload and self.sees(topic)

    def reads_key(self, topic: str | None) -> bool:
        """Whether it may see keys of what belongs to a request topic."""
        return self.sees(topic) and (self.payload or topic not in self.hidden_keys)

    def seen(self, topics: Iterable[str] | None) -> Topics | frozenset[str] | None:
        """Those of some request topics that it sees, None for any; None: all of them, whatever they are."""
        if topics is not None:
            return frozenset(topic for topic in topics if self.sees(topic))
        return None if self.sees_everything else Topics(self)


class Topics:
    """The request topics that a caller sees."""

    def __init__(self, caller: Caller) -> None:
        self._caller = caller

    def __contains__(self, topic: object) -> bool:
        return isinstance(topic, str) and self._caller.sees(topic)


def _everything(name: str, kind: Kind) -> Caller:
    grants = (Grant(EVERY_TOPIC, Role.ADMIN),)
    authenticated = kind is not Kind.ANONYMOUS
    return Caller(name=name, grants=grants, payload=True, authenticated=authenticated, kind=kind)


ANYBODY: Final = _everything("anonymous", Kind.ANONYMOUS)
"""Whoever reaches a console that asks nobody who they are."""
STRANGER: Final = Caller(name="stranger", authenticated=False, kind=Kind.UNKNOWN)
"""Whoever has not said who they are: may see nothing."""
ITSELF: Final = _everything("console", Kind.CONSOLE)
"""The console, where it reads for no request."""
