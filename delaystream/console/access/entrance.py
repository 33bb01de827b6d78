"""Who is let in: credentials become a caller, or a refusal."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Callable, Sequence
from secrets import token_bytes
from time import monotonic
from typing import Final, Literal

from delaystream.console.access.caller import ANYBODY, Caller
from delaystream.console.access.hosts import Hosts
from delaystream.console.access.limits import Bounds, Limits
from delaystream.console.access.refused import Refused, too_many, unauthenticated
from delaystream.console.access.token_file import TokenFile

logger = logging.getLogger(__name__)

SECRET_BYTES: Final = 32
_SCHEME: Final = "bearer"


UNBOUNDED: Final = Bounds()


class Entrance:
    """Everything about access that one console has; without tokens it asks nobody who they are."""

    def __init__(
        self,
        now_ms: Callable[[], int],
        *,
        tokens: TokenFile | None = None,
        hosts: Hosts | None = None,
        bounds: Bounds = UNBOUNDED,
        secret: bytes | None = None,
        now_s: Callable[[], float] = monotonic,
    ) -> None:
        """Without ``hosts`` a request may say any name; without ``secret`` there is one for this process."""
        self.hosts = hosts
        self.limits = Limits(bounds)
        self.secret = token_bytes(SECRET_BYTES) if secret is None else secret
        self.tokens = tokens
        #: how many requests were refused since the start, by code
        self.refused: Counter[str] = Counter()
        self._now_ms = now_ms
        self._now_s = now_s

    @property
    def authentication(self) -> Literal["none", "tokens"]:
        """How callers say who they are."""
        return "none" if self.tokens is None else "tokens"

    @property
    def problem(self) -> str | None:
        """What is wrong with the file of tokens, as a sentence; None: nothing."""
        if self.tokens is None or self.tokens.problem is None:
            return None
        return f"the file of tokens is not taken, the tokens before stay in force: {self.tokens.problem}"

    def enter(self, authorization: Sequence[str], address: str) -> Caller:
        """Whoever asks, by all the values of `Authorization`, counted against its rate. Raises Refused."""
        try:
            caller = self._identified(authorization)
        except Refused as refused:
            wait_s = self.limits.failure(address, self._now_s())
            if wait_s:
                raise too_many(
                    "too-many-failures",
                    "Too many requests from this address had no credentials that are taken.",
                    wait_s,
                ) from None
            logger.warning("%s was not let in: %s", address, refused.code)
            raise
        wait_s = self.limits.request(caller.name, self._now_s())
        if wait_s:
            rate = self.limits.bounds.requests_per_second
            detail = f"{caller.name} asks more than {rate} times a second."
            raise too_many("too-many-requests", detail, wait_s)
        return caller

    def stands(self, caller: Caller) -> bool:
        """Whether a caller that was let in would be let in again, with the same rights."""
        return self.tokens is None or self.tokens.tokens.stands(caller, self._now_ms())

    def _identified(self, authorization: Sequence[str]) -> Caller:
        if self.tokens is None:
            return ANYBODY
        if not authorization:
            raise unauthenticated("unauthenticated", "Say who you are: Authorization: Bearer TOKEN.")
        scheme, _, token = authorization[0].strip().partition(" ")
        if len(authorization) > 1 or scheme.lower() != _SCHEME:
            raise unauthenticated(
                "unauthenticated", "Authorization is not understood: expected one, Bearer TOKEN."
            )
        entry = self.tokens.tokens.find(token.strip())
        if entry is None:
            raise unauthenticated("invalid-token", "The token is not known.", "invalid_token")
        if entry.expired(self._now_ms()):
            raise unauthenticated("expired-token", "The token has expired.", "invalid_token")
        return entry.caller
