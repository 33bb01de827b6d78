"""Sessions, and sign-ins that are under way, in SQL: of their secrets there are hashes alone."""

from __future__ import annotations

import json
from collections.abc import Callable
from http import HTTPStatus
from typing import Any, Final

import msgspec
from msgspec.structs import replace
from sqlalchemy import Connection, delete, func, insert, select, update

from delaystream.console.access.caller import Kind
from delaystream.console.access.refused import Refused
from delaystream.console.access.sessions import Session, new_secret, secret_digest
from delaystream.console.history.database import Database, DatabaseError
from delaystream.console.history.schema import sessions, sign_ins

_SEEN_EVERY_MS: Final = 60_000
_MOST_UNDER_WAY: Final = 10_000
SIGN_IN_MS: Final = 600_000
"""So long somebody may take at the provider."""


class Lifetimes(msgspec.Struct, frozen=True):
    """How long a session lasts, ms."""

    #: without a request
    idle_ms: int = 3_600_000
    #: at most
    absolute_ms: int = 12 * 3_600_000


class SignIn(msgspec.Struct, frozen=True):
    """A sign-in with the provider that is under way."""

    state: str
    nonce: str
    #: of PKCE (RFC 7636)
    verifier: str
    #: the path that the browser goes on to
    to: str


class StoredSessions:
    """Methods block, may be called from any thread, and raise DatabaseError."""

    def __init__(
        self, database: Database, now_ms: Callable[[], int], lifetimes: Lifetimes | None = None
    ) -> None:
        self.lifetimes = Lifetimes() if lifetimes is None else lifetimes
        self._database = database
        self._now_ms = now_ms

    # -- sessions ----------------------------------------------------------------------------------

    def begin(self, session: Session, connection: Connection) -> str:
        """Begin a session in a transaction of the caller's; returns the new secret of its cookie."""
        secret = new_secret()
        now_ms = self._now_ms()
        row = {
            "digest": secret_digest(secret),
            "kind": session.kind.value,
            "name": session.name,
            "subject": session.subject,
            "issuer": session.issuer,
            "roles": json.dumps(session.roles),
            "began_ms": now_ms,
            "seen_ms": now_ms,
            "expires_ms": min(session.expires_ms or now_ms * 2, now_ms + self.lifetimes.absolute_ms),
        }
        connection.execute(insert(sessions).values(**row))
        return secret

    def find(self, secret: str) -> Session | None:
        """The session of a cookie's secret, which is used now; None where there is none, or no more.

        Raises Refused where it cannot be looked up.
        """
        try:
            return self._found(secret)
        except DatabaseError as problem:
            raise Refused(
                HTTPStatus.SERVICE_UNAVAILABLE,
                "sessions-unavailable",
                f"Sessions cannot be looked up now; tokens are still accepted. {problem}",
                {"Retry-After": "2"},
            ) from None

    def _found(self, secret: str) -> Session | None:
        now_ms = self._now_ms()
        digest = secret_digest(secret)
        with self._database.reading() as connection:
            row = connection.execute(select(sessions).where(sessions.c.digest == digest)).first()
        if row is None or not self._lasts(row, now_ms):
            return None
        if now_ms - row.seen_ms >= min(_SEEN_EVERY_MS, self.lifetimes.idle_ms // 2):
            with self._database.writing() as connection:
                seen = update(sessions).where(sessions.c.digest == digest, sessions.c.seen_ms < now_ms)
                connection.execute(seen.values(seen_ms=now_ms))
        return _session(row)

    def stands(self, digest: str) -> bool:
        """Whether a session is not over."""
        with self._database.reading() as connection:
            row = connection.execute(select(sessions).where(sessions.c.digest == digest)).first()
        return row is not None and self._lasts(row, self._now_ms())

    def end(self, secret: str, connection: Connection) -> Session | None:
        """End a session in a transaction of the caller's; returns it, where there was one."""
        gone = delete(sessions).where(sessions.c.digest == secret_digest(secret)).returning(sessions)
        row = connection.execute(gone).first()
        return None if row is None else _session(row)

    def _lasts(self, row: Any, now_ms: int) -> bool:
        return bool(now_ms < row.expires_ms and now_ms - row.seen_ms < self.lifetimes.idle_ms)

    # -- sign-ins that are under way ---------------------------------------------------------------

    def start(self, sign_in: SignIn) -> str:
        """Note a sign-in; returns the secret of the cookie that its browser comes back with.

        There are so many at most: of more the oldest go.
        """
        secret = new_secret()
        now_ms = self._now_ms()
        with self._database.writing() as connection:
            count = connection.execute(select(func.count()).select_from(sign_ins)).scalar_one()
            if count >= _MOST_UNDER_WAY:
                oldest = select(sign_ins.c.digest).order_by(sign_ins.c.began_ms).limit(_MOST_UNDER_WAY // 10)
                connection.execute(delete(sign_ins).where(sign_ins.c.digest.in_(oldest)))
            row = {"digest": secret_digest(secret), "began_ms": now_ms, **msgspec.structs.asdict(sign_in)}
            connection.execute(insert(sign_ins).values(**row))
        return secret

    def finish(self, secret: str) -> SignIn | None:
        """The sign-in of a cookie's secret: once. None where there is none, or no more."""
        with self._database.writing() as connection:
            gone = delete(sign_ins).where(sign_ins.c.digest == secret_digest(secret)).returning(sign_ins)
            row = connection.execute(gone).first()
        if row is None or self._now_ms() - row.began_ms >= SIGN_IN_MS:
            return None
        return SignIn(row.state, row.nonce, row.verifier, row.to)

    def forget(self) -> int:
        """Delete what is over; how much."""
        now_ms = self._now_ms()
        with self._database.writing() as connection:
            over = (sessions.c.expires_ms <= now_ms) | (sessions.c.seen_ms <= now_ms - self.lifetimes.idle_ms)
            gone = connection.execute(delete(sessions).where(over)).rowcount
            late = delete(sign_ins).where(sign_ins.c.began_ms <= now_ms - SIGN_IN_MS)
            gone += connection.execute(late).rowcount
        return int(gone)


def _session(row: Any) -> Session:
    found = Session(
        digest=row.digest,
        kind=Kind(row.kind),
        name=row.name,
        subject=row.subject,
        issuer=row.issuer,
        expires_ms=row.expires_ms,
    )
    return replace(found, roles=tuple(json.loads(row.roles)))
