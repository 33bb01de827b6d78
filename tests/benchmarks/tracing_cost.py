"""What tracing costs a record, accept and fire together: `python -m tests.benchmarks.tracing_cost`.

Processor time of the whole engine on the log in memory, without tracing and with it; the difference is the
cost. The spans go to an exporter that drops them: what a collector takes is not counted, the batching is.
"""

from __future__ import annotations

import asyncio
import time
from statistics import median

from opentelemetry.sdk.trace.export import SpanExporter, SpanExportResult

from delaystream.adapters.operate.tracing import TracedTopics, Tracing
from delaystream.testing import MemoryProducer, MemorySources, VirtualTimeLoop
from tests.unit.engine import OWN, REQUESTS, Engine

RECORDS = 20_000
ROUNDS = 5
SAMPLED = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01")
UNSAMPLED = ("traceparent", b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-00")


class _Dropping(SpanExporter):
    def export(self, spans: object) -> SpanExportResult:
        return SpanExportResult.SUCCESS


def microseconds_per_record(*, traced: bool, sampled_share: float) -> float:
    """Processor time of accepting and firing, by record."""
    topics = TracedTopics(
        frozenset({REQUESTS}), "delay-wheel-changelog", "delay-dead-letters", frozenset({REQUESTS, *OWN})
    )
    tracing = Tracing(topics, _Dropping()) if traced else None
    with VirtualTimeLoop() as loop:

        async def run() -> float:
            engine = Engine(loop)
            sampled = int(RECORDS * sampled_share)
            for number in range(RECORDS):
                header = SAMPLED if number < sampled else UNSAMPLED
                engine.request(destination="orders", delay="0", foreign=[header])
            sources = [REQUESTS, "delay-commands"]

            def of(partition: int) -> object:
                plain = MemorySources(engine.log, sources, partition)
                return plain if tracing is None else tracing.sources(partition, plain)

            def producer(partition: int) -> object:
                plain = MemoryProducer(engine.log, f"delaystream-{partition}", "delaystream")
                return plain if tracing is None else tracing.producer(partition, plain)

            began = time.process_time()
            engine.start(of, new_producer=producer)  # type: ignore[arg-type]
            await asyncio.sleep(60)  # of virtual time
            assert len(engine.log.all("orders")) == RECORDS
            seconds = time.process_time() - began
            await engine.stop()
            return seconds * 1e6 / RECORDS

        found = loop.run_until_complete(run())
    if tracing is not None:
        tracing.close()
    return found


def main() -> None:
    """Print the median of each case, and its difference from no tracing."""
    cases = {
        "off": {"traced": False, "sampled_share": 0.0},
        "on, none sampled": {"traced": True, "sampled_share": 0.0},
        "on, 1% sampled": {"traced": True, "sampled_share": 0.01},
        "on, all sampled": {"traced": True, "sampled_share": 1.0},
    }
    base = None
    for name, case in cases.items():
        found = median(microseconds_per_record(**case) for _ in range(ROUNDS))  # type: ignore[arg-type]
        base = found if base is None else base
        print(f"{name:<18} {found:6.1f} µs a record  ({found - base:+.1f})", flush=True)


if __name__ == "__main__":
    main()
