"""As what a change has to come.

The gate has refused what a page of another site sends with a browser's own headers. Beside that, a change
comes as JSON: no page of another origin can send that without asking first (CORS), and nothing lets one.
"""

from __future__ import annotations

from http import HTTPStatus
from typing import Final

from fastapi import Request

from delaystream.console.api.asking import CallerOf
from delaystream.console.api.problems import ProblemError

_JSON: Final = frozenset({"application/json", "application/merge-patch+json"})
_NEEDS_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


async def guard(request: Request, _caller: CallerOf) -> None:
    """Refuse what a page of another site could send unasked. Raises ProblemError."""
    if request.method in _NEEDS_BODY:
        content_type = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in _JSON:
            raise ProblemError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                f"Content-Type is {content_type[:60]!r}; expected application/json, with or without a body.",
            )
