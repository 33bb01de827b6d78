"""Spans: an accept and a fire for each sampled request, linked, in its own trace; none for the rest."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

from opentelemetry.sdk.trace import ReadableSpan
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from delaystream.adapters.operate.tracing import TracedTopics, Tracing, _accept_id
from delaystream.testing import MemoryProducer, MemorySources, VirtualTimeLoop
from tests.unit.engine import OWN, REQUESTS, Engine, header

TRACE = 0x4BF92F3577B34DA6A3CE929D0E0E4736
PARENT = 0x00F067AA0BA902B7
SAMPLED = [("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")]
TOPICS = TracedTopics(
    frozenset({REQUESTS}), "delay-wheel-changelog", "delay-dead-letters", frozenset({REQUESTS, *OWN})
)


def traced(test: Callable[[Engine], Coroutine[Any, Any, None]], partitions: int = 1) -> list[ReadableSpan]:
    """Run a test on an engine that is traced; the spans in the order of their ends."""
    exporter = InMemorySpanExporter()
    tracing = Tracing(TOPICS, exporter)
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            engine = Engine(loop, partitions)
            topics = [REQUESTS, "delay-commands"]
            engine.start(
                lambda partition: tracing.sources(partition, MemorySources(engine.log, topics, partition)),
                new_producer=lambda partition: tracing.producer(
                    partition, MemoryProducer(engine.log, f"delaystream-{partition}", "delaystream")
                ),
            )
            await test(engine)
            await engine.stop()

        loop.run_until_complete(run())
    tracing.close()
    return list(exporter.get_finished_spans())


def test_accept_and_fire_are_children_of_the_sender_and_linked() -> None:
    """However long there is between them, and by whichever worker each was."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1h", foreign=SAMPLED)
        await asyncio.sleep(3_700)

    accept, fire = traced(test)
    assert (accept.name, accept.kind) == (f"accept {REQUESTS}", SpanKind.CONSUMER)
    assert (fire.name, fire.kind) == ("fire orders", SpanKind.PRODUCER)
    for span in (accept, fire):
        assert span.parent is not None
        assert (span.parent.trace_id, span.parent.span_id) == (TRACE, PARENT)
        assert span.context.trace_id == TRACE
        assert (span.start_time or 0) <= (span.end_time or 0)
    [link] = fire.links
    assert link.context == accept.context or link.context.span_id == accept.context.span_id
    assert link.context.trace_id == TRACE
    assert fire.attributes is not None
    assert fire.attributes["messaging.destination.name"] == "orders"
    assert fire.attributes["messaging.kafka.offset"] == 0
    assert fire.attributes["delaystream.source"] == f"{REQUESTS}/0/0"
    assert 0 <= int(str(fire.attributes["delaystream.lateness_ms"])) < 100


def test_each_fire_of_a_list_and_of_an_id_links_to_its_accept() -> None:
    """A list is accepted once; a request by id is accepted where it was read."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1s,2s,0", foreign=SAMPLED)
        engine.request(destination="emails", delay="1s", id="x", foreign=SAMPLED)
        await asyncio.sleep(5)

    spans = traced(test, partitions=2)
    accepts = {span.context.span_id for span in spans if span.name.startswith("accept")}
    fires = [span for span in spans if span.name.startswith("fire")]
    assert (len(accepts), len(fires)) == (2, 4)
    assert {link.context.span_id for span in fires for link in span.links} == accepts


def test_a_fire_of_what_was_moved_links_to_its_accept_elsewhere() -> None:
    """Which knew nothing of the origin that the fire's source is marked with here."""
    assert _accept_id(b"orders@w2WxZ0kXSyGk1zvVnXbVhA/3/17") == _accept_id(b"orders/3/17")
    assert _accept_id(b"orders/3/17") != _accept_id(b"orders/3/18")


def test_a_refused_request_has_an_accept_that_failed() -> None:
    """With the code of its dead letter."""

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="soon", foreign=SAMPLED)
        engine.request(destination="orders", delay="0", foreign=SAMPLED)
        await asyncio.sleep(1)

    spans = traced(test)
    failed = [span for span in spans if span.status.status_code is StatusCode.ERROR]
    assert [span.status.description for span in failed] == ["invalid-delay"]
    assert len(spans) == 3


def test_what_nobody_samples_has_no_spans() -> None:
    """No traceparent, one that says no, and none that could be read."""

    async def test(engine: Engine) -> None:
        for value in (None, SAMPLED[0][1][:-1] + b"0", b"00-x", b"", b"00-" + b"z" * 52, b"\xff" * 55):
            engine.request(destination="orders", delay="0", foreign=[("traceparent", value)])
        engine.request(destination="orders", delay="0")
        await asyncio.sleep(1)

    assert traced(test) == []


def test_a_transaction_that_failed_has_no_spans_and_its_repetition_has_them_once() -> None:
    """Spans tell what was committed."""

    async def test(engine: Engine) -> None:
        engine.log.topics["orders"].refusal = "not authorized, for a while"
        engine.request(destination="orders", delay="0", foreign=SAMPLED)
        await asyncio.sleep(5)
        engine.log.topics["orders"].refusal = None
        await asyncio.sleep(120)
        assert len(engine.read("orders")) == 1

    assert sorted(span.name for span in traced(test)) == [f"accept {REQUESTS}", "fire orders"]


def test_the_senders_trace_passes_through_untouched() -> None:
    """Byte for byte, in order, repeats included; traced or not."""
    foreign = [
        ("tracestate", b"a=1"),
        *SAMPLED,
        ("baggage", b"k=v"),
        ("traceparent", b"second"),
        ("tracestate", None),
    ]

    async def test(engine: Engine) -> None:
        engine.request(destination="orders", delay="1s", foreign=foreign)
        engine.request(destination="orders", delay="1s", id="x", foreign=foreign)
        await asyncio.sleep(3)
        for record in engine.read("orders"):
            assert [h for h in record.headers if not h[0].startswith("delaystream-")] == foreign
            assert header(record, "fire-count") == "1"
        assert len(engine.read("orders")) == 2

    assert len(traced(test)) == 4
