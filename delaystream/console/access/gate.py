"""Where every request comes in: before any route it is settled who asks, and that it is not too much."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from http import HTTPStatus
from typing import Final
from urllib.parse import quote, urlsplit

from msgspec.structs import replace
from starlette.datastructures import Headers
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from delaystream.console.access import attempts
from delaystream.console.access.caller import ANYBODY, STRANGER, Caller
from delaystream.console.access.entrance import Entrance, Shown
from delaystream.console.access.proxies import NOBODY
from delaystream.console.access.refused import Refused

CALLER: Final = "delaystream.caller"
"""Where the caller stands in the scope of a request."""
_ADDRESS: Final = "delaystream.address"
PUBLIC: Final = frozenset({"/health/live", "/health/ready"})
"""Paths that anybody may ask: for whoever restarts a console, or routes to it."""
SIGN_IN: Final = "/sign-in"
SIGN_OUT: Final = "/sign-out"
CALLBACK: Final = f"{SIGN_IN}/callback"
_SIGNING: Final = frozenset({SIGN_IN, f"{SIGN_IN}/provider", CALLBACK})
#: The same for everybody: what a page needs to look like one.
_STATIC: Final = "/static/"
_ROOMS_OF_SERVICES: Final = ("/v1/", "/compat/", "/metrics")

BODY_S: Final = 30.0
"""So long a body may take."""

SAFE: Final = frozenset({"GET", "HEAD", "OPTIONS"})
"""Methods of requests that change nothing (RFC 9110, section 9.2.1)."""
_OWN_SITE: Final = frozenset({"same-origin", "none"})
_POLICY_VIOLATED: Final = 1008


def address_of(scope: Scope) -> str:
    """Where a request comes from, once it has come to the gate."""
    address: str = scope.get(_ADDRESS, NOBODY)
    return address


def _netloc(url: str) -> str:
    try:
        return urlsplit(url).netloc.lower()
    except ValueError:
        return ""


def _opens_page(scope: Scope, headers: Headers) -> bool:
    """Whether somebody opens a page, or a page asks for a part of one."""
    return (
        scope["method"] in SAFE
        and not scope["path"].startswith(_ROOMS_OF_SERVICES)
        and ("text/html" in headers.get("accept", "") or "hx-request" in headers)
    )


def _sends_to_sign_in(scope: Scope, refused: Refused) -> None:
    """Have a browser go where people sign in, and come back after."""
    headers = Headers(scope=scope)
    if not _opens_page(scope, headers):
        return
    raw: bytes = scope.get("raw_path") or scope["path"].encode("utf-8", "replace")
    query = b"?" + scope["query_string"] if scope["query_string"] else b""
    place = f"{SIGN_IN}?to={quote((raw + query).decode('ascii', 'replace'), safe='')}"
    if "hx-request" in headers:
        refused.headers = {**(refused.headers or {}), "HX-Redirect": SIGN_IN}
        return
    refused.status = HTTPStatus.SEE_OTHER
    refused.headers = {"Location": place, "Cache-Control": "no-store"}


class Gate:
    """Lets requests through to an application, with their caller; answers those that are refused."""

    def __init__(self, app: ASGIApp, entrance: Entrance, answer: Callable[[Refused], ASGIApp]) -> None:
        self._app = app
        self._entrance = entrance
        self._answer = answer

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """See ASGI."""
        if scope["type"] == "websocket":
            await send({"type": "websocket.close", "code": _POLICY_VIOLATED})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        peer: str | None = (scope.get("client") or (None,))[0]
        forwarded = Headers(scope=scope).getlist("x-forwarded-for")
        scope[_ADDRESS] = self._entrance.proxies.address(peer, forwarded)
        try:
            # In the scope itself: who stands before the gate reads there which route it came to.
            scope[CALLER], read = await self._let_in(scope, receive)
        except Refused as refused:
            self._entrance.refused[refused.code] += 1
            attempts.refused(refused.code)
            if refused.status == HTTPStatus.UNAUTHORIZED and self._can_sign_in:
                _sends_to_sign_in(scope, refused)
            # Whatever else is being sent on the connection is not read: there may be no end of it.
            refused.headers = {**(refused.headers or {}), "Connection": "close"}
            await self._answer(refused)(scope, receive, send)
            return
        await self._app(scope, read, send)

    @property
    def _can_sign_in(self) -> bool:
        return self._entrance.sessions is not None

    async def _let_in(self, scope: Scope, receive: Receive) -> tuple[Caller, Receive]:
        """Its caller, and what reads its body within a bound. Raises Refused."""
        headers, path = Headers(scope=scope), scope["path"]
        address = address_of(scope)
        stranger = STRANGER if self._entrance.asks else ANYBODY
        self._bound(scope, headers)
        if path in PUBLIC:
            caller = stranger
        else:
            self._check_site(scope, headers)
            if self._can_sign_in and (path in _SIGNING or path.startswith(_STATIC)):
                caller = stranger
                own = True
            else:
                shown = Shown(
                    address,
                    headers.getlist("authorization"),
                    headers.get("cookie"),
                    self._can_sign_in and _opens_page(scope, headers),
                )
                caller = await self._entrance.enter(shown)
                # A browser shows a cookie unasked, whoever has it ask; a token it does not.
                own = bool(caller.session)
            if own and scope["method"] not in SAFE:
                self._check_own(headers)
        return replace(caller, address=address), self._read(headers, receive)

    def _check_own(self, headers: Headers) -> None:
        """Refuse what no page of the console itself asks, as far as the browser says so."""
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        hosts = {headers.get("host", "").lower(), _netloc(self._entrance.public_url or "")}
        own = site == "same-origin" if origin is None else _netloc(origin) in hosts - {""}
        if not own:
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "cross-site",
                "Only the console's own pages may send this from a browser.",
            )

    def _bound(self, scope: Scope, headers: Headers) -> None:
        bounds = self._entrance.limits.bounds
        url_bytes = len(scope.get("raw_path") or scope["path"].encode()) + len(scope["query_string"])
        if url_bytes > bounds.url_bytes:
            detail = f"Path and query have {url_bytes} bytes: expected {bounds.url_bytes} at most."
            raise Refused(HTTPStatus.REQUEST_URI_TOO_LONG, "url-too-long", detail)
        header_bytes = sum(len(name) + len(value) for name, value in headers.raw)
        if header_bytes > bounds.header_bytes:
            detail = f"The headers have {header_bytes} bytes: expected {bounds.header_bytes} at most."
            raise Refused(HTTPStatus.REQUEST_HEADER_FIELDS_TOO_LARGE, "headers-too-large", detail)

    def _check_site(self, scope: Scope, headers: Headers) -> None:
        """Refuse what a page of another site has a browser ask."""
        hosts, host = self._entrance.hosts, headers.get("host", "")
        if hosts is None:
            return
        if not hosts.allows(host):
            raise Refused(
                HTTPStatus.MISDIRECTED_REQUEST,
                "unknown-host",
                f"Host is {host!r}: expected a name of loopback, or one of console_allowed_hosts.",
            )
        if scope["method"] in SAFE:
            return
        origin, site = headers.get("origin"), headers.get("sec-fetch-site")
        if (origin is not None and not hosts.allows_origin(origin, host)) or (
            origin is None and site is not None and site not in _OWN_SITE
        ):
            raise Refused(
                HTTPStatus.FORBIDDEN,
                "cross-site",
                "The request comes from a page of another site: only the console's own pages may send it.",
            )

    def _read(self, headers: Headers, receive: Receive) -> Receive:
        """Receive a body of bounded size. Raises Refused, now or while it is read."""
        most = self._entrance.limits.bounds.body_bytes
        told = headers.get("content-length", "")
        if told.isdigit() and (len(told) > len(str(most)) + 1 or int(told) > most):
            raise self._too_large(most)
        seen = 0
        more = True
        until_s: float | None = None

        async def read() -> Message:
            nonlocal seen, more, until_s
            if not more:
                # What comes now is the end of the connection.
                return await receive()
            loop = asyncio.get_running_loop()
            if until_s is None:
                until_s = loop.time() + BODY_S
            try:
                async with asyncio.timeout_at(until_s):
                    message = await receive()
            except TimeoutError:
                detail = f"The body took longer than {BODY_S:g} seconds."
                raise self._counted(Refused(HTTPStatus.REQUEST_TIMEOUT, "body-too-slow", detail)) from None
            more = message.get("more_body", False)
            seen += len(message.get("body", b""))
            if seen > most:
                raise self._counted(self._too_large(most))
            return message

        return read

    def _counted(self, refused: Refused) -> Refused:
        """One that an application answers."""
        self._entrance.refused[refused.code] += 1
        return refused

    def _too_large(self, most: int) -> Refused:
        detail = f"The body is too large: expected {most} bytes at most."
        return Refused(HTTPStatus.REQUEST_ENTITY_TOO_LARGE, "body-too-large", detail)
