"""A whole partition in memory that serves two request topics, each with its policy."""

from __future__ import annotations

from collections.abc import Callable, Coroutine
from typing import Any

from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.rates import RateTable, parse_rate
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.engine.ports import TopicPartition
from delaystream.testing import MemorySources, VirtualTimeLoop
from tests.unit.engine import NO_CONTROL, OWN, RECEIPTS, REQUESTS, Definitions, Engine, carried_out, header

OTHER = "other-requests"
BY_REQUESTS = [REQUESTS, OTHER]


def tenant(*allowed: str, **policy: Any) -> Tenant:
    limits = policy.pop("limits", Limits())
    default = policy.pop("default", None)
    parser = RequestParser(DestinationFilter(allowed, [*BY_REQUESTS, *OWN], RECEIPTS), limits, default)
    return Tenant(parser, **policy)


def tenants(other: Tenant | None = None, rates: str = "", **policy: Any) -> Tenants:
    """`delay-requests` has the shared policy, `other-requests` its own."""
    shared = tenant("*", **policy)
    table = RateTable([parse_rate(rate) for rate in rates.split(",") if rate])
    return Tenants(shared, {OTHER: other} if other is not None else {}, table)


def with_tenants(
    test: Callable[[Engine], Coroutine[Any, Any, None]], made: Tenants, partitions: int = 1, **settings: Any
) -> None:
    """Run a test against a started engine with two request topics."""
    with VirtualTimeLoop() as loop:

        async def run() -> None:
            engine = Engine(loop, partitions, **settings)
            engine.log.create_topic(OTHER, partitions)
            start(engine, made)
            await carried_out(engine, test(engine))

        loop.run_until_complete(run())


def start(engine: Engine, made: Tenants, **ports: Any) -> None:
    topics = [*BY_REQUESTS, "delay-commands"]
    engine.start(lambda partition: MemorySources(engine.log, topics, partition), tenants=made, **ports)


def other_request(
    engine: Engine, partition: int = 0, key: bytes = b"key", control: Definitions = NO_CONTROL, **named: str
) -> None:
    texts = {**named, **control}
    headers = [(f"delaystream-{name.replace('_', '-')}", text.encode()) for name, text in texts.items()]
    at = TopicPartition(OTHER, partition)
    engine.log.append(at, (key, b"value", headers, engine.clock.now_ms()))


def errors(engine: Engine) -> list[str]:
    return [header(letter, "error") for letter in engine.read("delay-dead-letters")]
