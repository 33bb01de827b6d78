"""Ids in paths: an id holds what its producer gave it, slashes too."""

from __future__ import annotations

import re
from typing import Final
from urllib.parse import unquote

from fastapi import FastAPI
from starlette.convertors import PathConvertor
from starlette.types import ASGIApp, Receive, Scope, Send

#: What stands for a quoted slash until a route is found: no text that was UTF-8 has it.
_QUOTED: Final = "\udc2f"
_slash = re.compile(rb"%2f", re.IGNORECASE)
#: An id follows; nothing else does.
_rooms = re.compile(r"(/v1|/compat(/[a-z0-9/]*)?)?/schedules/")


class Whole(PathConvertor):
    """The rest of a path, whatever characters it holds: an id may hold line breaks."""

    regex = r"(?s:.*)"

    def convert(self, value: str) -> str:
        """The id, as it was before it was quoted."""
        return value.replace(_QUOTED, "/")


class _QuotedSlashes:
    """Has routes found by the slashes that are not quoted (RFC 3986, section 2.2).

    So `a%2Ffires` is the id `a/fires`, and `a/fires` is what became of `a`. A server hands out paths in which
    the two are the same.
    """

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "http" and scope.get("raw_path"):
            parts = _slash.split(scope["raw_path"])
            path = _QUOTED.join(unquote(part.decode("ascii", "replace")) for part in parts)
            if len(parts) > 1 and _rooms.match(path):
                scope = {**scope, "path": path}
        await self._app(scope, receive, send)


def install(app: FastAPI) -> None:
    """Have quoted slashes told from others."""
    app.add_middleware(_QuotedSlashes)
