"""Signing in and out."""

from __future__ import annotations

from http import HTTPStatus
from typing import Final
from urllib.parse import parse_qs

from fastapi import Request
from starlette.responses import RedirectResponse, Response

from delaystream.console.access import attempts
from delaystream.console.access.caller import Kind
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.gate import CALLBACK, SIGN_IN, SIGN_OUT
from delaystream.console.access.refused import Refused
from delaystream.console.access.sessions import SESSION, local_path
from delaystream.console.api.asking import Asked, CallerOf, Entered
from delaystream.console.api.problems import ProblemError
from delaystream.console.pages.answering import router
from delaystream.console.pages.rendering import pages_of
from delaystream.console.service import Console
from delaystream.console.signing.service import Return, Signing
from delaystream.console.signing.sessions import SIGN_IN_MS

_COMING_BACK: Final = "delaystream-sign-in"
_FORM: Final = "application/x-www-form-urlencoded"
_FIELDS: Final = 4


@router.get(SIGN_IN)
async def show(request: Request, console: Asked, to: str | None = None) -> Response:
    """Where people sign in."""
    if console.caller.kind is Kind.ANONYMOUS:
        return _gone("/")
    return _page(request, console, local_path(to))


@router.post(SIGN_IN)
async def sign_in(request: Request, console: Asked, entrance: Entered) -> Response:
    """Sign in with a token."""
    signing = _signing(console)
    if not request.headers.get("content-type", "").lower().startswith(_FORM):
        raise ProblemError(
            HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "unsupported-media-type", f"Content-Type is not {_FORM}."
        )
    try:
        form = parse_qs((await request.body()).decode("ascii"), max_num_fields=_FIELDS)
    except ValueError:
        form = {}
    to = local_path(form.get("to", [None])[0])
    token = form.get("token", [""])[0].strip()
    before = entrance.cookies.found(SESSION, request.headers.get("cookie"))
    try:
        secret = await signing.by_token(token, console.caller.address, before)
    except Refused as refused:
        return _page(request, console, to, refused)
    return _begun(entrance, signing, secret, to)


@router.get(f"{SIGN_IN}/provider")
async def start(request: Request, console: Asked, entrance: Entered, to: str | None = None) -> Response:
    """Go to the provider."""
    signing = _signing(console)
    address, secret = await signing.start(
        local_path(to), _redirect_uri(request, entrance), console.caller.address
    )
    answer = _gone(address)
    answer.headers.append("Set-Cookie", entrance.cookies.made(_COMING_BACK, secret, SIGN_IN_MS // 1_000))
    return answer


@router.get(CALLBACK)
async def finish(
    request: Request,
    console: Asked,
    entrance: Entered,
    code: str | None = None,
    state: str | None = None,
    error: str | None = None,
    iss: str | None = None,
) -> Response:
    """Come back from the provider."""
    signing = _signing(console)
    cookies, header = entrance.cookies, request.headers.get("cookie")
    back = Return(secret=cookies.found(_COMING_BACK, header), code=code, state=state, error=error, issuer=iss)
    uri = _redirect_uri(request, entrance)
    try:
        signed = await signing.finish(back, uri, console.caller.address, cookies.found(SESSION, header))
    except Refused as refused:
        answer = _page(request, console, "/", refused)
        answer.headers.append("Set-Cookie", cookies.made(_COMING_BACK, "", 0))
        return answer
    answer = _begun(entrance, signing, signed.secret, signed.to)
    answer.headers.append("Set-Cookie", cookies.made(_COMING_BACK, "", 0))
    return answer


@router.post(SIGN_OUT)
async def sign_out(request: Request, console: Asked, caller: CallerOf, entrance: Entered) -> Response:
    """End the session."""
    secret = entrance.cookies.found(SESSION, request.headers.get("cookie"))
    if secret is not None:
        await _signing(console).out(caller, secret)
    answer = _gone(SIGN_IN)
    answer.headers.append("Set-Cookie", entrance.cookies.made(SESSION, "", 0))
    return answer


def _signing(console: Console) -> Signing:
    if console.signing is None:
        raise ProblemError(HTTPStatus.NOT_FOUND, "unknown", "Nobody signs in here.")
    return console.signing


def _redirect_uri(request: Request, entrance: Entrance) -> str:
    """Where the provider sends the browser back to; where it came to, unless the settings say it."""
    base = entrance.public_url or f"http://{request.headers.get('host', '')}"
    return base.rstrip("/") + CALLBACK


def _gone(address: str) -> RedirectResponse:
    headers = {"Cache-Control": "no-store", "Referrer-Policy": "no-referrer"}
    return RedirectResponse(address, HTTPStatus.SEE_OTHER, headers)


def _begun(entrance: Entrance, signing: Signing, secret: str, to: str) -> Response:
    answer = _gone(to)
    seconds = signing.sessions.lifetimes.absolute_ms // 1_000
    answer.headers.append("Set-Cookie", entrance.cookies.made(SESSION, secret, seconds))
    return answer


def _page(request: Request, console: Console, to: str, refused: Refused | None = None) -> Response:
    signing = _signing(console)
    identities = signing.identities
    if refused is not None:
        attempts.refused(refused.code)
    values = {
        "to": to,
        "refused": refused,
        "tokens": signing.takes_tokens,
        "issuer": None if identities is None else identities.claims.issuer,
    }
    status = HTTPStatus.OK if refused is None else refused.status
    answer = pages_of(request).page("sign_in.html", console, values, status)
    if refused is not None and refused.headers and "Retry-After" in refused.headers:
        answer.headers["Retry-After"] = refused.headers["Retry-After"]
    return answer
