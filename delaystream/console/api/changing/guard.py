"""Who may have something written: no page of another site, and nobody without the right to.

A console on loopback asks nobody who they are. A browser on the same machine reaches it for any page that is
open there, so each request that changes something must show that no foreign page has made it. What a page of
another origin can send without asking first (CORS) has no JSON content type; its `Origin` and
`Sec-Fetch-Site` tell of it; and a name that is resolved anew to 127.0.0.1 (DNS rebinding) is in its `Host`.
"""

from __future__ import annotations

from http import HTTPStatus
from ipaddress import ip_address
from typing import Annotated, Final
from urllib.parse import urlsplit

from fastapi import Depends, Request

from delaystream.console.api.problems import ProblemError

ACTOR: Final = "console"
"""Who asks, where nobody is asked who they are."""
_JSON: Final = frozenset({"application/json", "application/merge-patch+json"})
_SAME_SITE: Final = frozenset({"same-origin", "none"})
_NEEDS_BODY: Final = frozenset({"POST", "PUT", "PATCH"})


def guard(request: Request) -> None:
    """Refuse what a page of another site may have sent. Raises ProblemError."""
    headers = request.headers
    host = headers.get("host", "")
    if not _is_loopback(host):
        raise _forbidden(
            f"Host is {host[:60]!r}, which is none of this console's names; expected its address on loopback."
        )
    if (site := headers.get("sec-fetch-site")) is not None and site not in _SAME_SITE:
        raise _forbidden(f"Sec-Fetch-Site is {site[:60]!r}: a page of another site has sent this.")
    if (origin := headers.get("origin")) is not None and urlsplit(origin).netloc != host:
        raise _forbidden(
            f"Origin is {origin[:60]!r}, and Host is {host!r}: a page of another site has sent this."
        )
    if request.method in _NEEDS_BODY:
        content_type = headers.get("content-type", "").partition(";")[0].strip().lower()
        if content_type not in _JSON:
            raise ProblemError(
                HTTPStatus.UNSUPPORTED_MEDIA_TYPE,
                "unsupported-media-type",
                f"Content-Type is {content_type[:60]!r}; expected application/json, with or without a body.",
            )


def _is_loopback(host: str) -> bool:
    try:
        name = urlsplit(f"//{host}").hostname or ""
        return name == "localhost" or ip_address(name).is_loopback
    except ValueError:
        return False


def _forbidden(detail: str) -> ProblemError:
    return ProblemError(HTTPStatus.FORBIDDEN, "cross-site", detail)


def actor(_: Request) -> str:
    """The name of who asks."""
    return ACTOR


def permit(_request: Request, _topic: str) -> None:
    """Whether the caller may have requests of a topic written; the one place that decides it."""


Actor = Annotated[str, Depends(actor)]
