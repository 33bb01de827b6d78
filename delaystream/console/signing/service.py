"""Signing in and out, as the pages and the gate ask for it: each with its entry in the audit log."""

from __future__ import annotations

import asyncio
import hmac
import logging
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from delaystream.console.access.caller import Caller, Kind, Who
from delaystream.console.access.claims import Claims, NoName
from delaystream.console.access.entrance import Entrance, name_taken
from delaystream.console.access.refused import Refused, forbidden, unauthenticated
from delaystream.console.access.sessions import Session, new_secret
from delaystream.console.audit.acts import DONE, REFUSED, Act, Outcome
from delaystream.console.audit.log import AuditLog
from delaystream.console.history.database import DatabaseError
from delaystream.console.signing.provider import Provider, ProviderAway, TokenRefused, shown_code
from delaystream.console.signing.sessions import SignIn, StoredSessions

logger = logging.getLogger(__name__)

SIGNS_IN: Final = "sign-in"
SIGNS_OUT: Final = "sign-out"
_THREADS: Final = 4


class Return(msgspec.Struct, frozen=True, kw_only=True):
    """What a browser comes back with from the provider."""

    #: of the cookie
    secret: str | None
    code: str | None = None
    state: str | None = None
    error: str | None = None
    issuer: str | None = None


class SignedIn(msgspec.Struct, frozen=True):
    """A new session."""

    secret: str
    to: str


class Identities:
    """A provider, and what its claims grant; for one event loop."""

    def __init__(self, provider: Provider, claims: Claims) -> None:
        self.provider = provider
        self.claims = claims
        # Its own threads: a provider that hangs keeps nobody else waiting.
        self._threads = ThreadPoolExecutor(_THREADS, "provider")

    async def service(self, token: str) -> Caller:
        """Whose token it is. Raises Refused."""
        try:
            claims = await self._asked(self.provider.service, token)
            caller = self._caller(Kind.SERVICE, claims)
        except TokenRefused as error:
            raise unauthenticated("invalid-token", str(error), "invalid_token") from None
        return replace(caller, expires_ms=int(claims["exp"] * 1_000))

    async def address(self, sign_in: SignIn, redirect_uri: str) -> str:
        """Where a browser goes to sign in. Raises Refused."""
        found: str = await self._asked(self.provider.address, sign_in, redirect_uri)
        return found

    async def person(
        self, back: Return, sign_in: SignIn, redirect_uri: str
    ) -> tuple[Caller, tuple[str, ...]]:
        """Whoever has come back, and what the provider says of their roles. Raises Refused, TokenRefused."""
        claims = await self._asked(self.provider.person, back.code, sign_in, redirect_uri, back.issuer)
        return self._caller(Kind.OIDC, claims), self.claims.roles(claims)

    def _caller(self, kind: Kind, claims: Mapping[str, Any]) -> Caller:
        """Raises TokenRefused for whoever has no name."""
        try:
            name = self.claims.name(claims)
        except NoName as error:
            raise TokenRefused(f"The provider gives no name that can be shown: {error}.") from None
        return self.claims.caller(kind, name, claims["sub"], self.claims.roles(claims))

    async def _asked(self, work: Any, *arguments: Any) -> Any:
        try:
            return await asyncio.get_running_loop().run_in_executor(self._threads, work, *arguments)
        except ProviderAway as away:
            logger.warning("the provider of identities: %s", away)
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "provider-unavailable",
                f"The provider of identities cannot be reached: {away} Tokens and open sessions are still "
                "accepted.",
                {"Retry-After": "5"},
            ) from None

    def close(self) -> None:
        """Let go of the threads."""
        self._threads.shutdown(wait=False, cancel_futures=True)


class Signing:
    """Begins and ends sessions. Raises Refused, and DatabaseError."""

    def __init__(
        self,
        sessions: StoredSessions,
        audit: AuditLog,
        entrance: Entrance,
        identities: Identities | None = None,
    ) -> None:
        self.sessions = sessions
        self.identities = identities
        self._audit = audit
        self._entrance = entrance

    @property
    def takes_tokens(self) -> bool:
        """Whether people may sign in with a token of the file."""
        return self._entrance.tokens is not None

    async def by_token(self, token: str, address: str, before: str | None) -> str:
        """Begin a session of a token's; returns the secret of its cookie. `before` is that of another one."""
        try:
            entry = self._entrance.entry(token)
        except Refused as refused:
            raise self._entrance.failed(refused, address) from None
        caller = replace(entry.caller, address=address)
        session = Session(
            digest="",
            kind=Kind.TOKEN,
            name=caller.name,
            subject=entry.digest.hex(),
            expires_ms=entry.expires_ms or 0,
        )
        return await asyncio.to_thread(self._begun, caller.who, session, before)

    async def start(self, to: str, redirect_uri: str, origin: str) -> tuple[str, str]:
        """Begin to sign in at the provider: the address there, and the secret of a cookie to return with.

        `origin` is the address that the browser comes from.
        """
        identities = self._with_identities()
        self._entrance.begins(origin)
        sign_in = SignIn(new_secret(), new_secret(), new_secret(), to)
        address = await identities.address(sign_in, redirect_uri)
        return address, await asyncio.to_thread(self.sessions.start, sign_in)

    async def finish(self, back: Return, redirect_uri: str, address: str, before: str | None) -> SignedIn:
        """Begin a session of whoever comes back from the provider."""
        identities = self._with_identities()
        try:
            return await self._finished(identities, back, redirect_uri, address, before)
        except Refused as refused:
            who = Who(name="stranger", kind=Kind.UNKNOWN, address=address)
            act = Act(who=who, action=SIGNS_IN, note=refused.detail)
            try:
                await asyncio.to_thread(self._audit.record, act, Outcome(REFUSED, refused.code))
            except DatabaseError as problem:
                logger.warning("a refused sign-in is not in the audit log: %s", problem)
            raise

    async def _finished(
        self, identities: Identities, back: Return, redirect_uri: str, address: str, before: str | None
    ) -> SignedIn:
        sign_in = None if back.secret is None else await asyncio.to_thread(self.sessions.finish, back.secret)
        if (
            sign_in is None
            or back.state is None
            or not hmac.compare_digest(sign_in.state.encode(), back.state.encode("utf-8", "replace"))
        ):
            raise self._entrance.failed(
                unauthenticated(
                    "unknown-sign-in",
                    "This browser did not begin this sign-in, or it has expired: sign in again.",
                ),
                address,
            )
        if back.error is not None or not back.code:
            why = shown_code(back.error, ": {}")
            raise unauthenticated("sign-in-refused", f"The provider refused the sign-in{why}.")
        try:
            caller, roles = await identities.person(back, sign_in, redirect_uri)
        except TokenRefused as error:
            raise unauthenticated("invalid-token", str(error)) from None
        if self._entrance.named_by_token(caller.name):
            raise name_taken(caller.name)
        if not caller.grants:
            raise forbidden(
                "no-role",
                f"{caller.name} has no role here: the claim {identities.claims.roles_claim} has none that "
                "the console's settings grant something to.",
            )
        session = Session(
            digest="",
            kind=Kind.OIDC,
            name=caller.name,
            subject=caller.who.subject,
            issuer=caller.issuer,
            roles=roles,
        )
        who = replace(caller, address=address).who
        return SignedIn(await asyncio.to_thread(self._begun, who, session, before), sign_in.to)

    async def out(self, caller: Caller, secret: str) -> None:
        """End a session."""
        await asyncio.to_thread(self._ended, caller.who, secret)

    def _begun(self, who: Who, session: Session, before: str | None) -> str:
        with self._audit.database.writing() as connection:
            if before is not None:
                # Whoever has put a cookie into the browser has nothing of the session that begins.
                self.sessions.end(before, connection)
            secret = self.sessions.begin(session, connection)
            self._audit.note(connection, Act(who=who, action=SIGNS_IN), Outcome(DONE))
        return secret

    def _ended(self, who: Who, secret: str) -> None:
        with self._audit.database.writing() as connection:
            if self.sessions.end(secret, connection) is not None:
                self._audit.note(connection, Act(who=who, action=SIGNS_OUT), Outcome(DONE))

    def _with_identities(self) -> Identities:
        if self.identities is None:
            raise Refused(HTTPStatus.NOT_FOUND, "no-provider", "This console has no provider of identities.")
        return self.identities
