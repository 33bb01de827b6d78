"""OpenTelemetry spans of requests whose `traceparent` (W3C Trace Context) says `sampled`.

`accept <request topic>` (consumer) goes from the reading of a request to the commit of its transaction;
`fire <destination>` (producer) is the transaction that delivers it. Both are children of the request's
`traceparent`; a fire links to its accept.

Only committed work has spans: they are made from the transaction, after its commit. A fire may come years
after its accept, in another process. So the id of an accept's span is computed from the request's
coordinates, and the fire's link is exact although nothing is stored. Headers pass through untouched, so a
consumer's span is a child of the requester's span. While tracing is off, nothing of this is loaded and
nothing costs time.

OpenTelemetry's own variables (OTEL_EXPORTER_OTLP_ENDPOINT, OTEL_TRACES_SAMPLER, …) say where spans go, and
how many.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping
from hashlib import blake2b
from typing import Any, Final, NamedTuple, cast

from opentelemetry import trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import SERVICE_NAME, SERVICE_VERSION, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor, SpanExporter
from opentelemetry.sdk.trace.id_generator import RandomIdGenerator
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from delaystream import __version__
from delaystream.codec import outgoing
from delaystream.codec.envelope import decode_position
from delaystream.codec.keys import split_offset_key
from delaystream.engine.ports import (
    Accumulator,
    Headers,
    Row,
    SourceBatch,
    Sources,
    TopicPartition,
    Transaction,
    TransactionalProducer,
)

_TRACEPARENT: Final = "traceparent"
_TRACESTATE: Final = "tracestate"
_SAMPLED: Final = 1
_TRACEPARENT_CHARACTERS: Final = 55
_WAITING_MAX: Final = 50_000
"""Most requests of a partition that are remembered between reading and commit; others have no accept span."""

_propagator: Final = TraceContextTextMapPropagator()


class TracedTopics(NamedTuple):
    """The topics by role."""

    requests: frozenset[str]
    changelog: str
    dead_letters: str
    own: frozenset[str]


class Tracing:
    """Spans of one worker. A thread sends them from a bounded queue; spans that do not fit are lost."""

    def __init__(self, topics: TracedTopics, exporter: SpanExporter | None = None) -> None:
        self._topics = topics
        self._ids = _Ids()
        service = Resource.create({SERVICE_NAME: "delaystream", SERVICE_VERSION: __version__})
        # Variables win over values in code: OTEL_SERVICE_NAME names the service.
        resource = service.merge(Resource.create())
        self._provider = TracerProvider(resource=resource, id_generator=self._ids)
        self._provider.add_span_processor(BatchSpanProcessor(exporter or _otlp()))
        self._tracer = self._provider.get_tracer("delaystream", __version__)
        self._waiting: dict[int, _Waiting] = {}

    def sources(self, partition: int, sources: Sources) -> Sources:
        """The same sources, whose records are remembered."""
        waiting = self._waiting[partition] = {}
        return cast(Sources, _TracedSources(sources, waiting, self._topics.requests))

    def producer(self, partition: int, producer: TransactionalProducer) -> TransactionalProducer:
        """The same producer, whose commits make spans."""
        return _TracedProducer(
            producer, lambda began_ns, transaction, last: self._tell(partition, began_ns, transaction, last)
        )

    def close(self) -> None:
        """Send the queued spans, and end the thread."""
        self._provider.shutdown()

    # -- after a commit ----------------------------------------------------------------------------------

    def _tell(
        self,
        partition: int,
        began_ns: int,
        transaction: Transaction,
        last_offsets: Mapping[TopicPartition, int],
    ) -> None:
        committed_ns = time.time_ns()
        refused: dict[bytes, str] = {}
        positions: dict[str, int] = {}
        for target, rows in transaction.writes.items():
            if target.topic == self._topics.changelog:
                positions = _positions(rows)
            elif target.topic == self._topics.dead_letters:
                refused.update(_refused(rows))
            elif target.topic not in self._topics.own:
                first = last_offsets.get(target, -1) - len(rows) + 1
                self._fires(target, rows, first, began_ns, committed_ns)
        waiting = self._waiting.get(partition)
        for topic, position in positions.items():
            if waiting and (requests := waiting.get(topic)):
                self._accepts(TopicPartition(topic, partition), requests, position, refused, committed_ns)

    def _accepts(
        self,
        source: TopicPartition,
        requests: dict[int, tuple[Headers, int]],
        position: int,
        refused: Mapping[bytes, str],
        committed_ns: int,
    ) -> None:
        # Offsets were remembered in their order.
        for offset in [offset for offset in requests if offset < position]:
            headers, read_ns = requests.pop(offset)
            coordinates = b"%b/%d/%d" % (source.topic.encode(), source.partition, offset)
            self._ids.next_span = _accept_id(coordinates)
            span = self._tracer.start_span(
                f"accept {source.topic}",
                _context(headers),
                trace.SpanKind.CONSUMER,
                _where("receive", "accept", source, offset),
                start_time=read_ns,
            )
            if (code := refused.get(coordinates)) is not None:
                span.set_status(trace.StatusCode.ERROR, code)
                span.set_attribute("error.type", code)
            span.end(committed_ns)

    def _fires(
        self, target: TopicPartition, rows: Iterable[Row], first: int, began_ns: int, committed_ns: int
    ) -> None:
        for place, (_, _, headers, fired_ms) in enumerate(rows):
            if not _is_sampled(headers):
                continue
            # A delivery that was sent again as a request has the headers of both: ours come last.
            ours = {name: value for name, value in headers if name in _DELIVERED and value is not None}
            if outgoing.FIRE_ID not in ours:
                continue
            context = _context(headers)
            attributes = _where("send", "fire", target, first + place if first >= 0 else None)
            for name, attribute in _DELIVERED.items():
                attributes[attribute] = ours.get(name, b"").decode("utf-8", "replace")
            due_at = ours.get(outgoing.DUE_AT, b"")
            if due_at.isdigit():
                attributes["delaystream.lateness_ms"] = fired_ms - int(due_at)
            accept = trace.SpanContext(
                trace.get_current_span(context).get_span_context().trace_id,
                _accept_id(ours.get(outgoing.SOURCE, b"")),
                is_remote=True,
                trace_flags=trace.TraceFlags(_SAMPLED),
            )
            span = self._tracer.start_span(
                f"fire {target.topic}",
                context,
                trace.SpanKind.PRODUCER,
                attributes,
                [trace.Link(accept)],
                start_time=began_ns,
            )
            span.end(committed_ns)


_DELIVERED: Final = {
    outgoing.SCHEDULE_ID: "delaystream.schedule_id",
    outgoing.FIRE_ID: "delaystream.fire_id",
    outgoing.SOURCE: "delaystream.source",
    outgoing.DUE_AT: "delaystream.due_at_ms",
}

#: by request topic and offset: the headers, and when they were read
_Waiting = dict[str, dict[int, tuple[Headers, int]]]


class _TracedSources:
    def __init__(self, sources: Sources, waiting: _Waiting, topics: frozenset[str]) -> None:
        self._sources = sources
        self._waiting = waiting
        self._topics = topics

    def open(self, positions: Mapping[str, int], deliver: Callable[[SourceBatch], bool]) -> None:
        """Begin again: records read before will be read again."""
        self._waiting.clear()

        def remembered(batch: SourceBatch) -> bool:
            if batch.topic in self._topics:
                self._remember(batch)
            return deliver(batch)

        self._sources.open(positions, remembered)

    def _remember(self, batch: SourceBatch) -> None:
        now_ns = time.time_ns()
        requests = self._waiting.setdefault(batch.topic, {})
        for record in batch.records:
            if _is_sampled(record.headers) and len(requests) < _WAITING_MAX:
                requests[record.offset] = (record.headers, now_ns)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._sources, name)


class _TracedProducer(TransactionalProducer):
    def __init__(
        self,
        producer: TransactionalProducer,
        tell: Callable[[int, Transaction, Mapping[TopicPartition, int]], None],
    ) -> None:
        self._producer = producer
        self._tell = tell

    async def fence(self) -> None:
        await self._producer.fence()

    def accumulator(self, target: TopicPartition) -> Accumulator:
        # A fire's headers have all that its span says: they are read after the commit, and not decoded.
        return []

    async def commit(self, transaction: Transaction) -> Mapping[TopicPartition, int]:
        began_ns = time.time_ns()
        last_offsets = await self._producer.commit(transaction)
        self._tell(began_ns, transaction, last_offsets)
        return last_offsets

    async def close(self) -> None:
        await self._producer.close()


class _Ids(RandomIdGenerator):
    """Random ids, except for the one span whose id is known beforehand."""

    next_span: int | None = None

    def generate_span_id(self) -> int:
        chosen, self.next_span = self.next_span, None
        return super().generate_span_id() if chosen is None else chosen


def _is_sampled(headers: Headers) -> bool:
    for name, value in headers:
        if name == _TRACEPARENT:
            try:
                return (
                    value is not None
                    and len(value) >= _TRACEPARENT_CHARACTERS
                    and bool(int(value[53:55], 16) & _SAMPLED)
                )
            except ValueError:
                return False
    return False


def _context(headers: Headers) -> Context:
    """The remote parent. An invalid `traceparent` gives an empty context, and so a new trace."""
    carrier: dict[str, str] = {}
    for name, value in headers:
        if name in {_TRACEPARENT, _TRACESTATE} and value is not None:
            carrier.setdefault(name, value.decode("latin-1"))
    return _propagator.extract(carrier, Context())


def _accept_id(coordinates: bytes) -> int:
    """The id of the accept span of a request; never 0, which W3C calls invalid.

    The request was accepted before an import added the origin to its coordinates, so the origin is left out.
    """
    topic, slash, rest = coordinates.partition(b"/")
    accepted = topic.partition(b"@")[0] + slash + rest
    return int.from_bytes(blake2b(accepted, digest_size=8).digest()) or 1


def _where(kind: str, name: str, target: TopicPartition, offset: int | None) -> dict[str, str | int]:
    """Attributes by OpenTelemetry's conventions for messaging."""
    attributes: dict[str, str | int] = {
        "messaging.system": "kafka",
        "messaging.operation.type": kind,
        "messaging.operation.name": name,
        "messaging.destination.name": target.topic,
        "messaging.destination.partition.id": str(target.partition),
    }
    return attributes if offset is None else {**attributes, "messaging.kafka.offset": offset}


def _positions(rows: Iterable[Row]) -> dict[str, int]:
    """The applied position of each source topic, from the changelog's rows."""
    positions = {}
    for key, value, _, _ in rows:
        if key is not None and value is not None and key.startswith(b"o"):
            positions[split_offset_key(key)] = decode_position(value).next_offset
    return positions


def _refused(rows: Iterable[Row]) -> dict[bytes, str]:
    """The codes of refused requests, by their coordinates."""
    codes = {}
    for _, _, headers, _ in rows:
        if _is_sampled(headers):
            found = {name: value for name, value in headers if value is not None}
            place = (found.get(outgoing.ERROR_TOPIC), found.get(outgoing.ERROR_PARTITION))
            coordinates = b"%b/%b/%b" % (
                *(part or b"" for part in place),
                found.get(outgoing.ERROR_OFFSET, b""),
            )
            codes[coordinates] = found.get(outgoing.ERROR, b"").decode()
    return codes


def _otlp() -> SpanExporter:
    from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter  # noqa: PLC0415

    return OTLPSpanExporter()


__all__ = ["TracedTopics", "Tracing"]
