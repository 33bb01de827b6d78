"""Connections that are bounded before there is a request: how many, how slow, and how long a head may be.

The server has no bound of its own on the time that a request's head takes, and keeps each connection that is
opened: whoever opens many and sends a byte now and then would use up the process's files.
"""

from __future__ import annotations

import asyncio
from typing import Any, Final

import h11
import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

HEAD_S: Final = 10.0
"""So long the head of a request may take, from the connection or from its first byte on."""
MOST: Final = 1_000
"""So many connections may be open; further ones are closed at once."""
_LINE_BYTES: Final = 1_024
"""Of a head, beside its path, query and headers: framing."""


class BoundedConnection(H11Protocol):
    """One connection."""

    _late: asyncio.TimerHandle | None = None

    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        """See asyncio."""
        super().connection_made(transport)
        if len(self.connections) > MOST:
            transport.abort()
            return
        self._wait()

    def data_received(self, data: bytes) -> None:
        """See asyncio."""
        super().data_received(data)
        if self.conn.their_state is not h11.IDLE:
            self._stop_waiting()
        elif self._late is None:
            self._wait()

    def connection_lost(self, exc: Exception | None) -> None:
        """See asyncio."""
        self._stop_waiting()
        super().connection_lost(exc)

    def _wait(self) -> None:
        self._late = self.loop.call_later(HEAD_S, self.transport.abort)

    def _stop_waiting(self) -> None:
        if self._late is not None:
            self._late.cancel()
            self._late = None


def server_config(app: Any, url_bytes: int, header_bytes: int) -> uvicorn.Config:
    """How a console is served: HTTP/1.1 alone, by h11, which bounds a head; no proxy is believed."""
    return uvicorn.Config(
        app,
        http=BoundedConnection,
        ws="none",
        # A head that is too long is refused by the gate, with a sentence; beyond twice that by h11.
        h11_max_incomplete_event_size=2 * (url_bytes + header_bytes) + _LINE_BYTES,
        log_config=None,
        access_log=False,
        lifespan="off",
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
