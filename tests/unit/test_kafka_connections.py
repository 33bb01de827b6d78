"""Connections are closed at once, whatever the broker at their other end does; on real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from struct import pack, unpack
from typing import Any

import pytest
from aiokafka.errors import KafkaConnectionError, RequestTimedOutError

from delaystream.adapters.kafka.connections import KafkaConnections
from delaystream.adapters.kafka.protocol import DescribeTopics

#: More than the sockets of both sides take in: a part of it stays with the transport.
_MORE_THAN_SOCKETS_TAKE = ["a" * 30_000] * 1_000

_METADATA = 3


class SilentBroker:
    """Answers what a new connection asks, and reads on from there only while ``reads`` is set."""

    def __init__(self) -> None:
        self.reads = asyncio.Event()
        self.addresses: list[str] = []

    async def serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        size, _, _, correlation_id = unpack(">ihhi", await reader.readexactly(12))
        await reader.readexactly(size - 8)
        answer = pack(">ihi", correlation_id, 0, 1) + pack(">hhh", _METADATA, 0, 12)
        writer.write(pack(">i", len(answer)) + answer)
        await self.reads.wait()
        while await reader.read(1 << 20):
            pass
        writer.close()

    @asynccontextmanager
    async def listening(self) -> AsyncIterator[KafkaConnections]:
        server = await asyncio.start_server(self.serve, "127.0.0.1", 0)
        host, port = server.sockets[0].getsockname()
        connections = KafkaConnections({"bootstrap_servers": f"{host}:{port}"}, request_timeout_ms=300)
        async with server:
            yield connections
            self.reads.set()


def _with_a_silent_broker(
    scenario: Callable[[SilentBroker, KafkaConnections], Awaitable[None]],
) -> None:
    async def run() -> None:
        broker = SilentBroker()
        async with asyncio.timeout(20), broker.listening() as connections:
            await scenario(broker, connections)

    asyncio.run(run())


async def _send(connections: KafkaConnections) -> tuple[asyncio.Task[Any], asyncio.Transport]:
    """A request, and the transport that has a part of it still to send."""
    request = DescribeTopics(_MORE_THAN_SOCKETS_TAKE, authorizations=False)
    asking = asyncio.create_task(connections.ask_any(request))
    while not connections._open:  # noqa: ASYNC110 - sockets tell nobody
        await asyncio.sleep(0)
    (connection,) = connections._open.values()
    transport = connection._writer.transport
    while transport.get_write_buffer_size() == 0:  # noqa: ASYNC110
        await asyncio.sleep(0)
    return asking, transport


def _is_closed(transport: asyncio.Transport) -> bool:
    socket = transport.get_extra_info("socket")
    return bool(socket.fileno() == -1)


def test_a_connection_with_bytes_to_send_is_closed_although_the_broker_reads_on() -> None:
    """It ended the worker: asyncio cannot abort a transport that has sent the rest after it was closed."""

    async def scenario(broker: SilentBroker, connections: KafkaConnections) -> None:
        asking, transport = await _send(connections)
        broker.reads.set()
        await connections.close()
        with pytest.raises(KafkaConnectionError):
            await asking
        assert _is_closed(transport)

    _with_a_silent_broker(scenario)


def test_a_connection_with_bytes_to_send_is_closed_although_the_broker_reads_nothing() -> None:
    async def scenario(_: SilentBroker, connections: KafkaConnections) -> None:
        asking, transport = await _send(connections)
        await connections.close()
        with pytest.raises(KafkaConnectionError):
            await asking
        assert _is_closed(transport)

    _with_a_silent_broker(scenario)


def test_a_request_that_is_not_answered_leaves_no_socket_behind() -> None:
    """What a silent broker has not taken would stay in memory for as long as TCP tries."""

    async def scenario(_: SilentBroker, connections: KafkaConnections) -> None:
        asking, transport = await _send(connections)
        with pytest.raises(RequestTimedOutError):
            await asking
        await asyncio.sleep(0)
        assert _is_closed(transport)
        await connections.close()

    _with_a_silent_broker(scenario)


def test_a_connection_that_is_forgotten_leaves_no_socket_behind() -> None:
    async def scenario(_: SilentBroker, connections: KafkaConnections) -> None:
        asking, transport = await _send(connections)
        ((node_id, purpose),) = connections._open
        connections.forget(node_id, purpose)  # type: ignore[arg-type]  # the one that answers for any node
        with pytest.raises(KafkaConnectionError):
            await asking
        assert _is_closed(transport)
        await connections.close()

    _with_a_silent_broker(scenario)
