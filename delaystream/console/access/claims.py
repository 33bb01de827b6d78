"""A provider's claims about a person, as a caller. Pure."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

import msgspec

from delaystream.console.access.caller import (
    ANYBODY,
    ITSELF,
    NONE,
    STRANGER,
    Caller,
    Exceptions,
    Grant,
    Kind,
    Role,
)
from delaystream.core.globs import MOST_CHARACTERS

MOST_ROLES: Final = 200
"""Values of the claim that are looked at."""
_LONGEST_NAME: Final = 128
_RESERVED: Final = frozenset({ANYBODY.name, ITSELF.name, STRANGER.name})
_UNSEEN: Final = re.compile(
    r"[\x00-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ufeff\ud800-\udfff]"
)
_WHERE: Final = "expected ROLE:GLOB=VALUE, such as operator:orders-*=support"


class NoName(Exception):
    """A provider gives somebody no name that can be shown."""


class Claims(msgspec.Struct, frozen=True, kw_only=True):
    """How claims become callers."""

    issuer: str
    #: the value of the claim of roles, and what it grants
    grants: tuple[tuple[str, Grant], ...]
    #: values of that claim that let their owner see values and headers
    payload: frozenset[str] = frozenset()
    #: a dot goes into an object: `realm_access.roles`
    roles_claim: str = "groups"
    name_claim: str = "preferred_username"
    hidden_keys: Exceptions = NONE

    def roles(self, claims: Mapping[str, Any]) -> tuple[str, ...]:
        """Those values of the claim of roles that grant something."""
        found: Any = claims
        if self.roles_claim in claims:
            # Names such as `https://example.com/roles` have dots of their own.
            found = claims[self.roles_claim]
        else:
            for part in self.roles_claim.split("."):
                found = found.get(part) if isinstance(found, Mapping) else None
        said = [found] if isinstance(found, str) else found if isinstance(found, list) else []
        known = {value for value, _ in self.grants} | self.payload
        return tuple(one for one in said[:MOST_ROLES] if isinstance(one, str) and one in known)

    def name(self, claims: Mapping[str, Any]) -> str:
        """The person's name; the subject if there is none. Raises NoName."""
        for claim in (self.name_claim, "sub"):
            name = claims.get(claim)
            if not isinstance(name, str) or not name.strip():
                continue
            if _UNSEEN.search(name) or len(name) > _LONGEST_NAME or name != name.strip() or name in _RESERVED:
                raise NoName(f"the claim {claim} is not a name of {_LONGEST_NAME} visible characters at most")
            return name
        raise NoName(f"there is neither the claim {self.name_claim} nor sub")

    def caller(self, kind: Kind, name: str, subject: str, roles: Iterable[str]) -> Caller:
        """Whoever a provider vouches for, with what the settings grant now."""
        has = frozenset(roles)
        return Caller(
            name=name,
            grants=tuple(grant for value, grant in self.grants if value in has),
            payload=bool(has & self.payload),
            hidden_keys=self.hidden_keys,
            kind=kind,
            subject=subject,
            issuer=self.issuer,
        )


def parse_grant(text: str) -> tuple[str, Grant]:
    """A value of the claim of roles, and what it grants. Raises ValueError."""
    role, colon, rest = text.partition(":")
    glob, equals, value = rest.partition("=")
    if not colon or not equals or not value:
        raise ValueError(f"{text!r} grants nothing; {_WHERE}")
    if role not in list(Role):
        raise ValueError(f"{text!r} has no role {role!r}; expected {', '.join(Role)}")
    if not 0 < len(glob) <= MOST_CHARACTERS:
        raise ValueError(f"{text!r}: a glob has 1 to {MOST_CHARACTERS} characters; {_WHERE}")
    return value, Grant(glob, Role(role))
