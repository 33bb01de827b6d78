"""Who is let in: credentials become a caller, or a refusal."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Sequence
from http import HTTPStatus
from secrets import token_bytes
from time import monotonic
from typing import Final, Literal, Protocol

import msgspec
from msgspec.structs import replace

from delaystream.console.access.caller import ANYBODY, Caller, Kind
from delaystream.console.access.claims import Claims
from delaystream.console.access.hosts import Hosts
from delaystream.console.access.limits import Bounds, Limits
from delaystream.console.access.proxies import Proxies
from delaystream.console.access.refused import Refused, too_many, unauthenticated
from delaystream.console.access.sessions import SESSION, Cookies, Session, Sessions
from delaystream.console.access.token_file import TokenFile
from delaystream.console.access.tokens import Entry

logger = logging.getLogger(__name__)

SECRET_BYTES: Final = 32
_SCHEME: Final = "bearer"
_LOOK_EVERY_S: Final = 5.0
_MOST_LOOKED_AT: Final = 1_000
_PARTS_OF_JWT: Final = 3


UNBOUNDED: Final = Bounds()

Authentication = Literal["none", "tokens", "oidc"]


class Services(Protocol):
    """Knows the tokens that a provider of identities has given to services."""

    async def service(self, token: str) -> Caller:
        """Whose token it is. Raises Refused."""


class Shown(msgspec.Struct, frozen=True):
    """The credentials that a request shows."""

    address: str
    #: all the values of `Authorization`
    authorization: Sequence[str] = ()
    #: the header
    cookie: str | None = None
    #: somebody opens a page: whoever shows nothing is asked, and has not failed
    opens_page: bool = False


class Entrance:
    """Everything about access that one console has; without tokens and provider it asks nobody."""

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
        #: how the provider's claims become callers; None: there is no provider
        self.claims: Claims | None = None
        #: None: tokens of the provider are not taken
        self.services: Services | None = None
        #: None: nobody signs in
        self.sessions: Sessions | None = None
        self.cookies = Cookies()
        #: who may say whom a request is by
        self.proxies = Proxies()
        #: where browsers reach the console, scheme and host; None: where they say
        self.public_url: str | None = None
        self._now_ms = now_ms
        self._now_s = now_s
        self._looked_at: dict[str, tuple[float, bool]] = {}

    @property
    def asks(self) -> bool:
        """Whether callers have to say who they are."""
        return self.tokens is not None or self.claims is not None

    @property
    def authentication(self) -> Authentication:
        """How callers say who they are; with `oidc` there may be tokens, too."""
        return "oidc" if self.claims is not None else "none" if self.tokens is None else "tokens"

    @property
    def problem(self) -> str | None:
        """The fault of the file of tokens, as a sentence; None: no fault."""
        if self.tokens is None or self.tokens.problem is None:
            return None
        return f"the file of tokens is rejected, the previous tokens stay in force: {self.tokens.problem}"

    async def enter(self, shown: Shown) -> Caller:
        """Whoever asks, counted against its rate. Raises Refused."""
        try:
            caller = await self._identified(shown)
        except Refused as refused:
            nothing_shown = shown.opens_page and not shown.authorization
            if refused.status != HTTPStatus.UNAUTHORIZED or nothing_shown:
                raise
            raise self.failed(refused, shown.address) from None
        wait_s = self.limits.request(caller.who.unique, self._now_s())
        if wait_s:
            rate = self.limits.bounds.requests_per_second
            detail = f"{caller.name} sends more than {rate} requests a second."
            raise too_many("too-many-requests", detail, wait_s)
        return caller

    def failed(self, refused: Refused, address: str) -> Refused:
        """How somebody is refused who has not shown who they are: counted, and told to wait after a while."""
        wait_s = self.limits.failure(address, self._now_s())
        if wait_s:
            return too_many(
                "too-many-failures",
                "Too many requests from this address had no valid credentials.",
                wait_s,
            )
        logger.warning("%s was refused: %s", address, refused.code)
        return refused

    def begins(self, address: str) -> None:
        """Count a sign-in with the provider that is begun: those under way are bounded. Raises Refused."""
        wait_s = self.limits.sign_in(address, self._now_s())
        if wait_s:
            raise too_many("too-many-sign-ins", "Too many sign-ins were begun from this address.", wait_s)

    async def stands(self, caller: Caller) -> bool:
        """Whether a caller that was let in would be let in again, with the same rights."""
        now_ms = self._now_ms()
        if not self.asks:
            return True
        if caller.expires_ms is not None and now_ms >= caller.expires_ms:
            return False
        if caller.kind is Kind.TOKEN and (
            self.tokens is None or not self.tokens.tokens.stands(caller, now_ms)
        ):
            return False
        return not caller.session or await self._session_stands(caller.session)

    async def _session_stands(self, digest: str) -> bool:
        now_s = self._now_s()
        at_s, stood = self._looked_at.get(digest, (-_LOOK_EVERY_S, True))
        if now_s - at_s < _LOOK_EVERY_S:
            return stood
        stands = self.sessions is not None and await asyncio.to_thread(self.sessions.stands, digest)
        if len(self._looked_at) >= _MOST_LOOKED_AT:
            self._looked_at.clear()
        self._looked_at[digest] = (now_s, stands)
        return stands

    def entry(self, token: str) -> Entry:
        """The entry of a token in the file. Raises Refused."""
        found = None if self.tokens is None else self.tokens.tokens.find(token)
        if found is None:
            raise unauthenticated("invalid-token", "The token is not known.", "invalid_token")
        if found.expired(self._now_ms()):
            raise unauthenticated("expired-token", "The token has expired.", "invalid_token")
        return found

    def named_by_token(self, name: str) -> bool:
        """Whether an entry of the file has a name: nobody else may have it."""
        return self.tokens is not None and any(one.caller.name == name for one in self.tokens.tokens.entries)

    async def _identified(self, shown: Shown) -> Caller:
        if not self.asks:
            return ANYBODY
        if shown.authorization:
            return await self._of_authorization(shown.authorization)
        secret = self.cookies.found(SESSION, shown.cookie)
        if secret is not None and self.sessions is not None:
            session = await asyncio.to_thread(self.sessions.find, secret)
            caller = None if session is None else self.of_session(session)
            if caller is not None:
                return caller
            raise unauthenticated("session-over", "The session is over: sign in again.")
        raise unauthenticated("unauthenticated", "Say who you are: Authorization: Bearer TOKEN.")

    async def _of_authorization(self, authorization: Sequence[str]) -> Caller:
        scheme, _, token = authorization[0].strip().partition(" ")
        token = token.strip()
        if len(authorization) > 1 or scheme.lower() != _SCHEME:
            raise unauthenticated(
                "unauthenticated", "Authorization is not understood: expected one header, Bearer TOKEN."
            )
        if self.services is not None and len(token.split(".")) == _PARTS_OF_JWT:
            caller = await self.services.service(token)
            if self.named_by_token(caller.name):
                raise name_taken(caller.name)
            return caller
        return self.entry(token).caller

    def of_session(self, session: Session) -> Caller | None:
        """Whoever has signed in, with the rights that they have now; None: they are not let in any more."""
        caller: Caller | None = None
        if session.kind is Kind.TOKEN and self.tokens is not None:
            for entry in self.tokens.tokens.entries:
                if entry.digest.hex() == session.subject and not entry.expired(self._now_ms()):
                    caller = entry.caller
        claims = self.claims
        if claims is not None and session.issuer == claims.issuer and not self.named_by_token(session.name):
            caller = claims.caller(session.kind, session.name, session.subject, session.roles)
        if caller is None:
            return None
        return replace(caller, session=session.digest, expires_ms=session.expires_ms)


def name_taken(name: str) -> Refused:
    """401: somebody of the provider is called as a token of the file is."""
    return unauthenticated(
        "name-taken", f"A token of this console already has the name {name}: the sign-in is refused."
    )
