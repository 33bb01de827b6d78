"""Connections to the brokers of one cluster, on aiokafka's connection class.

aiokafka's own client is not used where the guarantees are made: its metadata requests create topics, its
waits are not bounded by the caller, and its background tasks outlive a failure. Here every request is
bounded in time, nothing runs in the background, and ``close`` leaves neither a task nor a socket behind.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Iterable, Mapping
from typing import Any, Final, NamedTuple

import msgspec
from aiokafka.errors import KafkaConnectionError, KafkaError, RequestTimedOutError

from delaystream.adapters.internals.aiokafka import (
    AIOKafkaConnection,
    CloseReason,
    Request,
    abandon,
    collect_hosts,
    create_conn,
)
from delaystream.adapters.kafka.errors import reason
from delaystream.adapters.kafka.protocol import DescribeTopics

#: the settings, by aiokafka's names, that concern a connection
_CONNECTION_SETTINGS: Final = frozenset(
    {
        "client_id",
        "ssl_context",
        "security_protocol",
        "sasl_mechanism",
        "sasl_plain_username",
        "sasl_plain_password",
        "sasl_kerberos_service_name",
        "sasl_kerberos_domain_name",
        "sasl_oauth_token_provider",
    }
)

#: errors of a connection; after each of them another try on a new connection makes sense
CONNECTION_ERRORS: Final = (KafkaError, OSError, TimeoutError, EOFError)

NO_LEADER: Final = -1

# KIP-430: a bit for each AclOperation, WRITE being number 4
_WRITE: Final = 1 << 4
_NOT_ASKED: Final = -(2**31)

_CLOSE_TIMEOUT_S: Final = 1.0


class TopicMetadata(msgspec.Struct, frozen=True):
    """A topic as a broker described it. ``error_code`` 0: it exists, and we may describe it."""

    name: str
    error_code: int
    topic_id: str
    #: node id of each partition's leader; NO_LEADER if there is none
    leaders: tuple[int, ...]
    #: false if we asked, and are not authorized to write
    writable: bool = True


class _Address(NamedTuple):
    host: str
    port: int


class KafkaConnections:
    """Connections by node and purpose, each opened at its first use.

    ``settings`` has aiokafka's names (``bootstrap_servers``, ``security_protocol``, …); those that do not
    concern a connection are ignored. A broker answers the requests of one connection one after the other. A
    request that must not wait behind a slow one has a purpose, and so a connection, of its own.
    """

    def __init__(self, settings: Mapping[str, Any], *, request_timeout_ms: int = 5_000) -> None:
        self._bootstrap = settings.get("bootstrap_servers", "localhost:9092")
        self._options = {name: value for name, value in settings.items() if name in _CONNECTION_SETTINGS}
        self._options["request_timeout_ms"] = request_timeout_ms
        self._options["max_idle_ms"] = settings.get("connections_max_idle_ms", 540_000)
        self._brokers: dict[int, _Address] = {}
        self._open: dict[tuple[int | None, str], AIOKafkaConnection] = {}
        self._opening: dict[tuple[int | None, str], asyncio.Lock] = {}
        self._closed = False
        self._losses = 0

    async def connection(self, node_id: int, purpose: str) -> AIOKafkaConnection:
        """An open connection to a node; raises one of CONNECTION_ERRORS."""
        found = self._open.get((node_id, purpose))
        if found is not None and found.connected():
            return found
        if node_id not in self._brokers:
            await self.describe(())
        address = self._brokers.get(node_id)
        if address is None:
            raise KafkaConnectionError(f"broker {node_id} is not part of the cluster now")
        return await self._connect((node_id, purpose), [address])

    async def request(self, node_id: int, purpose: str, request: Request[Any]) -> Any:
        """Send a request and await its response; raises one of CONNECTION_ERRORS."""
        connection = await self.connection(node_id, purpose)
        return await self.answer(connection, connection.send(request))

    async def answer(self, connection: AIOKafkaConnection, sent: Any) -> Any:
        """The response to a request that was sent; the connection is closed when it does not come in time."""
        try:
            return await sent
        except TimeoutError as error:
            abandon(connection, CloseReason.CONNECTION_TIMEOUT)
            raise RequestTimedOutError(f"{connection.host}:{connection.port} did not answer") from error

    async def describe(
        self, topics: Iterable[str], *, authorizations: bool = False
    ) -> dict[str, TopicMetadata]:
        """Describe topics, never creating any; raises one of CONNECTION_ERRORS.

        With ``authorizations`` the request also asks whether we may write.
        """
        response = await self.ask_any(DescribeTopics(list(topics), authorizations=authorizations))
        self._brokers = {node_id: _Address(host, port) for node_id, host, port, *_ in response.brokers}
        described = {}
        for error_code, name, topic_id, _, partitions, operations, _ in response.topics:
            leaders = [NO_LEADER] * len(partitions)
            for _error, partition, leader, *_rest in partitions:
                if partition < len(leaders):
                    leaders[partition] = leader
            described[name] = TopicMetadata(
                name,
                error_code,
                topic_id,
                tuple(leaders),
                operations == _NOT_ASKED or bool(operations & _WRITE),
            )
        return described

    async def ask_any(self, request: Request[Any]) -> Any:
        """Send a request to any broker that answers; raises one of CONNECTION_ERRORS."""
        key = (None, "any")
        connection = self._open.get(key)
        if connection is None or not connection.connected():
            known = list(self._brokers.values())
            random.shuffle(known)
            hosts = [_Address(host, port) for host, port, _ in collect_hosts(self._bootstrap)]
            connection = await self._connect(key, [*known, *(host for host in hosts if host not in known)])
        return await self.answer(connection, connection.send(request))

    async def _connect(self, key: tuple[int | None, str], addresses: list[_Address]) -> AIOKafkaConnection:
        async with self._opening.setdefault(key, asyncio.Lock()):
            found = self._open.get(key)
            if found is not None and found.connected():
                return found
            self._losses += found is not None
            self._open.pop(key, None)
            failure: BaseException | None = None
            for address in addresses:
                if self._closed:
                    raise KafkaConnectionError("closed")
                try:
                    connection = await create_conn(address.host, address.port, **self._options)
                except CONNECTION_ERRORS as error:
                    failure = error
                    continue
                if self._closed:
                    abandon(connection, CloseReason.SHUTDOWN)
                    raise KafkaConnectionError("closed")
                self._open[key] = connection
                return connection
            where = ", ".join(f"{address.host}:{address.port}" for address in addresses)
            raise KafkaConnectionError(
                f"no connection to {where}{'' if failure is None else f': {reason(failure)}'}"
            )

    def lost(self) -> int:
        """How many connections have broken so far."""
        for key, connection in list(self._open.items()):
            if not connection.connected():
                self._losses += 1
                del self._open[key]
        return self._losses

    def forget(self, node_id: int, purpose: str) -> None:
        """Close a connection on which an answer did not come; the next use opens another."""
        connection = self._open.pop((node_id, purpose), None)
        if connection is not None:
            self._losses += 1
            abandon(connection, CloseReason.CONNECTION_BROKEN)

    async def close(self) -> None:
        """Close every connection; waits a second at most for the sockets."""
        self._closed = True
        connections, self._open = list(self._open.values()), {}
        closing = [abandon(connection, CloseReason.SHUTDOWN) for connection in connections]
        if closing:
            await asyncio.wait(closing, timeout=_CLOSE_TIMEOUT_S)
