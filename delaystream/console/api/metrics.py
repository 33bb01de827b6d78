"""What Prometheus is told of a console: how far its copies are, and what is asked of it."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from typing import Final

from fastapi import FastAPI, Response
from prometheus_client import (
    CollectorRegistry,
    Counter,
    Gauge,
    Histogram,
    disable_created_metrics,
    generate_latest,
)
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, Metric
from prometheus_client.exposition import CONTENT_TYPE_LATEST
from prometheus_client.registry import Collector
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from delaystream.adapters.operate.metrics_labels import OfApplication
from delaystream.codec.envelope import Status
from delaystream.console.access.entrance import Entrance
from delaystream.console.api.asking import AskedWhole
from delaystream.console.replica.follower import Phase
from delaystream.console.service import Console

_BUCKETS: Final = (0.005, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 5.0)
_ROOMS: Final = ("/v1", "/compat")
_METHODS: Final = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS"})


class ConsoleMetrics:
    """The metrics of one console, in a registry of their own; each series says of which application."""

    def __init__(self, console: Console, entrance: Entrance) -> None:
        # A sample for the creation of each series would double their number.
        disable_created_metrics()  # type: ignore[no-untyped-call]
        self.registry = CollectorRegistry()
        self._exposed = OfApplication(self.registry, console.app_id)
        self.requests = Counter(
            "delaystream_console_requests",
            "Requests that were answered, by route.",
            ["route", "method", "status"],
            registry=self.registry,
        )
        self.seconds = Histogram(
            "delaystream_console_request_seconds",
            "From a request to its last byte, but for streams.",
            ["route"],
            buckets=_BUCKETS,
            registry=self.registry,
        )
        self.streams = Gauge("delaystream_console_streams", "Open streams of events.", registry=self.registry)
        self.streams.set_function(lambda: console.tail.streams)
        self.registry.register(_Copies(console))
        self.registry.register(_Access(entrance))

    def exposition(self) -> bytes:
        """All of it as text."""
        return generate_latest(self._exposed)


class _Copies(Collector):
    """How far copies and history are, when it is asked."""

    def __init__(self, console: Console) -> None:
        self._console = console

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        console = self._console
        now_ms = console.clock.now_ms()
        copies = console.statuses
        yield _gauge(
            "copy_lag_records",
            "Offsets of the changelog that a partition's copy is behind.",
            [(status.partition, status.end - status.position) for status in copies],
        )
        yield _gauge(
            "copy_age_seconds",
            "Since when something may be missing of a partition's copy.",
            [
                (status.partition, max(0, now_ms - status.as_of_ms) / 1000)
                for status in copies
                if status.as_of_ms is not None
            ],
        )
        yield _gauge(
            "copy_following",
            "Whether a partition's copy has caught up since the console started.",
            [(status.partition, status.phase is Phase.FOLLOWING) for status in copies],
        )
        yield _gauge(
            "history_lag_records",
            "Offsets of the events' topic that the history is behind.",
            [(status.partition, status.end - status.position) for status in console.history_statuses],
        )
        yield _gauge(
            "history_lost_events",
            "Events that were gone from their topic before they were read.",
            [(status.partition, status.lost) for status in console.history_statuses],
        )
        yield _gauge(
            "dead_letters_lag_records",
            "Offsets of the dead letters' topic that are not read.",
            [(status.partition, status.end - status.position) for status in console.letters.statuses],
        )
        yield _gauge(
            "dead_letters_skipped_records",
            "Offsets of the dead letters' topic in batches that cannot be read, since the last start.",
            [(status.partition, status.skipped) for status in console.letters.statuses],
        )
        rows = GaugeMetricFamily(
            "delaystream_console_schedules", "Named schedules by status.", labels=["status"]
        )
        counted = dict.fromkeys(Status, 0)
        for _, _, status, count in console.catalog.counts():
            counted[status] += count
        for name, count in sorted(counted.items()):
            rows.add_metric([name.value], count)
        yield rows
        unnamed = GaugeMetricFamily("delaystream_console_unnamed", "Pending events without an id.")
        unnamed.add_metric([], sum(count for _, _, count in console.pending.counts()))
        yield unnamed


class _Access(Collector):
    """Who was let in, and who was not."""

    def __init__(self, entrance: Entrance) -> None:
        self._entrance = entrance

    def collect(self) -> Iterator[Metric]:
        """See prometheus_client."""
        refused = CounterMetricFamily(
            "delaystream_console_refused",
            "Requests that were refused before they were looked at, or for their size, by code.",
            labels=["code"],
        )
        for code, count in sorted(self._entrance.refused.items()):
            refused.add_metric([code], count)
        yield refused
        tokens = self._entrance.tokens
        if tokens is None:
            return
        known = GaugeMetricFamily("delaystream_console_tokens", "Tokens that are in force, or have expired.")
        known.add_metric([], len(tokens.tokens.entries))
        yield known
        taken = GaugeMetricFamily(
            "delaystream_console_tokens_file_taken", "Whether the file of tokens, as it is now, is in force."
        )
        taken.add_metric([], tokens.problem is None)
        yield taken


def _gauge(name: str, text: str, values: Iterable[tuple[int, float]]) -> GaugeMetricFamily:
    family = GaugeMetricFamily(f"delaystream_console_{name}", text, labels=["partition"])
    for partition, value in values:
        family.add_metric([str(partition)], value)
    return family


class _Counted:
    """Counts and times what an application answers; by route: ids in paths are no labels."""

    def __init__(self, app: ASGIApp, metrics: ConsoleMetrics) -> None:
        self._app = app
        self._metrics = metrics

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        started_s = time.monotonic()
        status, streams = 500, False

        async def sent(message: Message) -> None:
            nonlocal status, streams
            if message["type"] == "http.response.start":
                status = message["status"]
                streams = any(value.startswith(b"text/event-stream") for _, value in message["headers"])
            await send(message)

        try:
            await self._app(scope, receive, sent)
        finally:
            route = _label(scope)
            method = scope["method"] if scope["method"] in _METHODS else "other"
            self._metrics.requests.labels(route, method, status).inc()
            if not streams:
                self._metrics.seconds.labels(route).observe(time.monotonic() - started_s)


def _label(scope: Scope) -> str:
    """The route of a request: what of its path is not of the caller's making."""
    route: str = getattr(scope.get("route"), "path_format", "none")
    for room in _ROOMS:
        # A route of a router is told without what the router is included under.
        if scope["path"].startswith(f"{room}/") and not route.startswith(f"{room}/"):
            return room + route
    return route


def install(app: FastAPI, console: Console, entrance: Entrance) -> None:
    """Have requests counted, and the metrics served."""
    metrics = ConsoleMetrics(console, entrance)
    app.add_middleware(_Counted, metrics=metrics)

    @app.get("/metrics", include_in_schema=False)
    async def told(_: AskedWhole) -> Response:
        return Response(metrics.exposition(), media_type=CONTENT_TYPE_LATEST)
