"""A worker with tracing on sends its spans to a collector, as OpenTelemetry's variables say."""

from __future__ import annotations

import gzip
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest
from opentelemetry.proto.collector.trace.v1.trace_service_pb2 import ExportTraceServiceRequest

from tests.integration.harness_fixtures import Deploy

TRACEPARENT = b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"


class Collector:
    """Takes spans by OTLP over HTTP."""

    def __init__(self) -> None:
        self.spans: list[Any] = []
        self.services: set[str] = set()
        collector = self

        class Handler(BaseHTTPRequestHandler):
            def do_POST(self) -> None:
                body = self.rfile.read(int(self.headers["content-length"]))
                if self.headers.get("content-encoding") == "gzip":
                    body = gzip.decompress(body)
                collector.take(ExportTraceServiceRequest.FromString(body))
                self.send_response(200)
                self.send_header("content-type", "application/x-protobuf")
                self.end_headers()

            def log_message(self, *_: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self.server.server_port}"
        threading.Thread(target=self.server.serve_forever, daemon=True).start()

    def take(self, request: Any) -> None:
        for resource in request.resource_spans:
            attributes = {pair.key: pair.value.string_value for pair in resource.resource.attributes}
            self.services.add(attributes["service.name"])
            for scope in resource.scope_spans:
                self.spans += scope.spans


@pytest.fixture
def collector() -> Iterator[Collector]:
    collector = Collector()
    yield collector
    collector.server.shutdown()
    collector.server.server_close()


def test_spans_of_accept_and_fire_reach_the_collector_linked(deploy: Deploy, collector: Collector) -> None:
    """By the worker's command and its environment alone; the sender's headers arrive as they were."""
    app = deploy(
        DELAYSTREAM_TRACING="otlp",
        OTEL_EXPORTER_OTLP_ENDPOINT=collector.url,
        OTEL_BSP_SCHEDULE_DELAY="200",
        OTEL_SERVICE_NAME="delays",
    ).apply_topics()
    out = app.destination()
    worker = app.worker().wait_ready()
    foreign = [("traceparent", TRACEPARENT), ("tracestate", b"vendor=1")]
    app.request(b"traced", {"destination": out, "delay": "300ms"}, headers=foreign)
    app.request(b"not traced", {"destination": out, "delay": "300ms"})
    delivered = {delivery.value: delivery for delivery in app.kafka.read(out, 2)}
    assert delivered[b"traced"].foreign == foreign
    deadline = time.monotonic() + 20
    while len(collector.spans) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
    assert worker.terminate() == 0
    assert collector.services == {"delays"}
    by_name = {span.name: span for span in collector.spans}
    assert len(by_name) == len(collector.spans) == 2
    accept, fire = by_name[f"accept {app.requests}"], by_name[f"fire {out}"]
    for span in (accept, fire):
        assert span.trace_id.hex() == TRACEPARENT[3:35].decode()
        assert span.parent_span_id.hex() == TRACEPARENT[36:52].decode()
    assert [link.span_id for link in fire.links] == [accept.span_id]


def test_a_collector_that_is_away_costs_spans_and_nothing_else(deploy: Deploy) -> None:
    """Deliveries go on, and the worker ends in time."""
    app = deploy(DELAYSTREAM_TRACING="otlp", OTEL_EXPORTER_OTLP_ENDPOINT="http://127.0.0.1:9").apply_topics()
    out = app.destination()
    worker = app.worker().wait_ready()
    app.request(b"traced", {"destination": out, "delay": "0"}, headers=[("traceparent", TRACEPARENT)])
    assert [delivery.value for delivery in app.kafka.read(out, 1)] == [b"traced"]
    assert worker.terminate(15) == 0
