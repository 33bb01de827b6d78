"""An answer that refuses: with a status, a stable code and a sentence."""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus
from math import ceil

from starlette.exceptions import HTTPException


class Refused(HTTPException):
    """The request is not answered.

    It is one of Starlette's exceptions, because those pass through the reading of a body as they are.
    """

    def __init__(
        self, status: HTTPStatus, code: str, detail: str, headers: Mapping[str, str] | None = None
    ) -> None:
        super().__init__(status, detail, headers)
        self.status = status
        self.code = code


def unauthenticated(code: str, detail: str, error: str | None = None) -> Refused:
    """401 with a challenge (RFC 6750, section 3); ``error`` is its error code, where there was a token."""
    challenge = 'Bearer realm="delaystream"'
    if error is not None:
        challenge += f', error="{error}", error_description="{detail}"'
    return Refused(HTTPStatus.UNAUTHORIZED, code, detail, {"WWW-Authenticate": challenge})


def forbidden(code: str, detail: str) -> Refused:
    """403, for a caller whose rights are too low."""
    challenge = 'Bearer realm="delaystream", error="insufficient_scope"'
    return Refused(HTTPStatus.FORBIDDEN, code, detail, {"WWW-Authenticate": challenge})


def too_many(code: str, detail: str, retry_after_s: float) -> Refused:
    """429."""
    headers = {"Retry-After": str(max(1, ceil(retry_after_s)))}
    return Refused(HTTPStatus.TOO_MANY_REQUESTS, code, detail, headers)
