"""What a caller asks of a console: who, about what, and under which conditions. Pure."""

from __future__ import annotations

from hashlib import blake2b
from typing import Final, TypeAlias
from uuid import uuid4

import msgspec

from delaystream.client.requests.records import RequestRecord
from delaystream.console.access.caller import Who
from delaystream.core.request import Coordinates

WAIT_S: Final = 5.0
"""How long an outcome is waited for, unless the caller says otherwise."""
LONGEST_WAIT_S: Final = 60.0
KEY_CHARACTERS: Final = 255
"""Longest idempotency key."""

About: TypeAlias = str | Coordinates
"""What one command is about: a schedule by its id, or a request without an id by its coordinates."""

_ID_BYTES: Final = 16


class Asked(msgspec.Struct, frozen=True):
    """Who asks, and under which conditions."""

    who: Who
    """For the audit log; its name is the actor of events. It is a part of every request id that follows from
    a key."""
    request_topic: str
    wait_s: float = WAIT_S
    """Longest wait for the outcome."""
    key: str | None = None
    """The idempotency key: the same key by the same caller on the same topic is the same request."""
    if_version: int | None = None
    """Act only on this version of the id; 0: only where there is no such id."""
    note: str | None = None
    name: str | None = None
    """The name of the request, where it follows from what is asked for, whoever asks."""

    @property
    def actor(self) -> str:
        """Who asks, for events."""
        return self.who.actor

    @property
    def request_id(self) -> str:
        """The name of the request: it follows from the key; without one it is a new one each time."""
        if self.name is not None:
            return self.name
        return uuid4().hex if self.key is None else self._derived(b"request")

    @property
    def made_up_id(self) -> str:
        """An id for a schedule that is created without one."""
        return uuid4().hex if self.key is None else self._derived(b"schedule")

    def _derived(self, purpose: bytes) -> str:
        assert self.key is not None
        # Lengths and not separators: a name may hold any character.
        # Of a caller of an issuer what is unique: it may be called as another one is.
        caller = self.actor if self.who.issuer is None else self.who.unique
        said = (caller, self.request_topic, self.key)
        parts = [part.encode("utf-8", "surrogatepass") for part in said]
        told = b"".join(b"%d:%b" % (len(part), part) for part in parts)
        return blake2b(told, digest_size=_ID_BYTES, person=purpose).hexdigest()


def fingerprint(record: RequestRecord) -> str:
    """What a request asks for, in short: a key that is used again has to come with the same."""
    asked = (record.topic, record.key, record.value, record.headers, record.partition, record.id)
    return blake2b(msgspec.msgpack.encode(asked), digest_size=_ID_BYTES).hexdigest()


def about_text(about: About | None) -> str:
    """What a request is about, as text; empty where it is about several."""
    if about is None:
        return ""
    return about if isinstance(about, str) else about.text
