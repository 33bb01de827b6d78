"""/metrics and /health, in a thread of their own, so that they answer while the event loop is busy.

Liveness is about this process: it fails with a dead event loop or client. Readiness is about the partitions:
all that are owned here have recovered. Neither checks Kafka: a restart of workers does not cure a broker that
is down.
"""

from __future__ import annotations

import contextlib
import socket
import threading
import time
from collections.abc import Callable
from typing import Any

import structlog
import uvicorn
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from delaystream.adapters.operate.metrics import CONTENT_TYPE
from delaystream.adapters.operate.watchdog import Report

logger = structlog.get_logger(__name__)

#: A report older than this is out of date.
_FRESH_S = 10.0
_STOP_S = 2.0
_BACKLOG = 128


class HttpError(Exception):
    """The address cannot be listened on."""


def bound(host: str, port: int, *, listens: bool = False) -> socket.socket:
    """A socket that is bound, and listens if asked to; port 0 means a free one.

    Raises HttpError when the address cannot be used.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    found = socket.socket(family, socket.SOCK_STREAM)
    found.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    try:
        found.bind((host, port))
        if listens:
            found.listen(_BACKLOG)
    except OSError as error:
        found.close()
        raise HttpError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    return found


class HttpServer:
    """Serves one worker. ``report`` gives the latest report, ``exposition`` the metrics.

    Raises HttpError when the address is in use; port 0 means a free one, see :attr:`port`.
    """

    def __init__(
        self, host: str, port: int, report: Callable[[], Report], exposition: Callable[[], bytes]
    ) -> None:
        self._report = report
        self._exposition = exposition
        self._socket = bound(host, port)
        self.host = host
        self.port: int = self._socket.getsockname()[1]
        config = uvicorn.Config(
            self._application(),
            log_config=None,
            access_log=False,
            lifespan="off",
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(target=self._serve, name="http", daemon=True)

    def start(self) -> None:
        """Listen from now on."""
        self._socket.listen(_BACKLOG)
        self._thread.start()
        logger.info("http server listens", host=self.host, port=self.port)

    def stop(self) -> None:
        """HoldEnd the port, within seconds."""
        self._server.should_exit = True
        if self._thread.is_alive():
            self._thread.join(_STOP_S)
        with contextlib.suppress(OSError):
            self._socket.close()

    def _serve(self) -> None:
        self._server.run(sockets=[self._socket])

    def _application(self) -> Starlette:
        return Starlette(
            routes=[
                Route("/metrics", self._metrics),
                Route("/health/live", self._live),
                Route("/health/ready", self._ready),
            ]
        )

    async def _metrics(self, _: Request) -> Response:
        return Response(self._exposition(), media_type=CONTENT_TYPE)

    async def _live(self, _: Request) -> Response:
        report = self._report()
        age_s = time.monotonic() - report.at_s
        live = age_s < _FRESH_S
        content = {"live": live, "event_loop_silent_s": round(age_s, 1), "complaints": report.complaints}
        return JSONResponse(content, 200 if live else 503)

    async def _ready(self, _: Request) -> Response:
        report = self._report()
        ready = report.ready and time.monotonic() - report.at_s < _FRESH_S
        return JSONResponse(_readiness(report, ready), 200 if ready else 503)


def _readiness(report: Report, ready: bool) -> dict[str, Any]:
    return {
        "ready": ready,
        "joined": report.joined,
        "membership_confirmed": report.membership_confirmed,
        "stopping": report.stopping,
        "partitions": [
            {
                "partition": status.partition,
                "assigned": status.assigned,
                "phase": status.phase or "none",
                "stalled_ms": status.stalled_ms,
            }
            for status in report.partitions
        ],
        "complaints": report.complaints,
    }
