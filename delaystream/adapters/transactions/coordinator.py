"""The coordinator side of a transaction (KIP-98): identity, partitions, offsets, end.

Every call retries while coordinators move or finish an earlier transaction. The caller's timeout is its only
bound. Retries are safe: each of these requests is idempotent under one epoch.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, NamedTuple

from aiokafka.errors import for_code

from delaystream.adapters.internals.aiokafka import (
    AddOffsetsToTxnRequest,
    AddPartitionsToTxnRequest,
    EndTxnRequest,
    FindCoordinatorRequest,
    InitProducerIdRequest,
    Request,
    TxnOffsetCommitRequest,
)
from delaystream.adapters.kafka.connections import CONNECTION_ERRORS, KafkaConnections
from delaystream.adapters.kafka.errors import group_refused, reason, told
from delaystream.adapters.kafka.protocol import DescribeTransaction
from delaystream.adapters.transactions.batches import Identity
from delaystream.engine.failures import (
    MISSING_ACL,
    Misconfigured,
    ProducerFenced,
    TransactionFailed,
    WriteRefused,
)
from delaystream.engine.ports import TopicPartition

_OK: Final = 0
_UNKNOWN_TOPIC: Final = 3
_OPERATION_NOT_ATTEMPTED: Final = 55
# INVALID_PRODUCER_EPOCH, PRODUCER_FENCED, INVALID_TXN_STATE, INVALID_PRODUCER_ID_MAPPING (the id expired)
FENCED: Final = frozenset({47, 90, 48, 49})
_INVALID_TXN_STATE: Final = 48
# COORDINATOR_LOAD_IN_PROGRESS, _NOT_AVAILABLE, NOT_COORDINATOR, REQUEST_TIMED_OUT, NETWORK_EXCEPTION
_COORDINATOR_MOVED: Final = frozenset({14, 15, 16, 7, 13})
# the same, or CONCURRENT_TRANSACTIONS: an earlier transaction is still being completed
_PASSING: Final = _COORDINATOR_MOVED | {_OK, 51}
_TOPIC_AUTHORIZATION_FAILED: Final = 29
# the same, or INVALID_TOPIC_EXCEPTION
_TOPIC_REFUSED: Final = frozenset({_TOPIC_AUTHORIZATION_FAILED, 17})
_ABOUT_A_TOPIC: Final = _TOPIC_REFUSED | {_UNKNOWN_TOPIC, _OPERATION_NOT_ATTEMPTED}
# GROUP_AUTHORIZATION_FAILED, CLUSTER_AUTHORIZATION_FAILED, INVALID_TRANSACTION_TIMEOUT,
# TRANSACTIONAL_ID_AUTHORIZATION_FAILED, UNSUPPORTED_VERSION
_MISCONFIGURED: Final = frozenset({30, 31, 50, 53, 35})

_TRANSACTIONAL_ID_NOT_FOUND: Final = 105

#: states of a transaction whose markers are being written
_DECIDED: Final = frozenset({"PrepareCommit", "PrepareAbort"})

_GROUP: Final = 0
_TRANSACTION: Final = 1
_PURPOSE: Final = "coordination"

#: answers that end a retry loop, by the partition concerned (None: the whole request)
Codes = Mapping[TopicPartition | None, int]


def topic_refused(topic: str, code: int) -> str:
    """Why a topic may not be written to, as a part of a sentence."""
    return f"{MISSING_ACL}Write on topic {topic}" if code == _TOPIC_AUTHORIZATION_FAILED else told(code)


class Backoff:
    """Pauses that double from ``min_ms`` to ``max_ms``."""

    def __init__(self, min_ms: int, max_ms: int) -> None:
        self._next_ms = min_ms
        self._max_ms = max_ms

    async def pause(self) -> None:
        """Wait; the next wait is longer."""
        await asyncio.sleep(self._next_ms / 1000)
        self._next_ms = min(self._next_ms * 2, self._max_ms)


class LastTransaction(NamedTuple):
    """The last transaction of a transactional id, as the coordinator knows it."""

    identity: Identity
    #: in the coordinator's words: ``Ongoing``, ``PrepareCommit``, ``CompleteAbort``, ``Empty``, …
    state: str
    #: the partitions that still lack its marker
    partitions: frozenset[TopicPartition]

    @property
    def stuck(self) -> str | None:
        """The partitions that lack the decided end, as a part of a sentence; None if there are none."""
        if self.state not in _DECIDED or not self.partitions:
            return None
        return ", ".join(sorted(f"{topic}-{partition}" for topic, partition in self.partitions))


class TransactionCoordinator:
    """Requests to the coordinators of one transactional id and of one consumer group."""

    def __init__(
        self, connections: KafkaConnections, transactional_id: str, backoff: Callable[[], Backoff]
    ) -> None:
        self._connections = connections
        self._transactional_id = transactional_id
        self._backoff = backoff
        self._nodes: dict[tuple[int, str], int] = {}
        #: why the last attempt had to be repeated, for the error of a caller that runs out of time
        self.waiting_for = "no coordinator was found"

    async def last_transaction(self) -> LastTransaction:
        """Look it up, without changing anything."""
        request = DescribeTransaction(self._transactional_id)
        response = await self._ask(_TRANSACTION, self._transactional_id, request, _found_or_not)
        _, _, state, _, _, producer_id, epoch, topics, _ = response.transactions[0]
        partitions = (TopicPartition(topic, number) for topic, numbers, _ in topics for number in numbers)
        return LastTransaction(Identity(producer_id, epoch), state, frozenset(partitions))

    @property
    def coordinated_by(self) -> int | None:
        """The last known coordinator of the transactional id."""
        return self._nodes.get((_TRANSACTION, self._transactional_id))

    async def init_producer_id(self, transaction_timeout_ms: int) -> Identity:
        """Fence earlier owners of the id; the coordinator completes their open transaction."""
        request = InitProducerIdRequest(self._transactional_id, transaction_timeout_ms)
        response = await self._ask(_TRANSACTION, self._transactional_id, request, _whole)
        return Identity(response.producer_id, response.producer_epoch)

    async def add_partitions(self, identity: Identity, targets: Iterable[TopicPartition]) -> None:
        """Add partitions to the transaction; starts it. Raises WriteRefused for one that cannot be added."""
        request = AddPartitionsToTxnRequest(
            self._transactional_id, identity.producer_id, identity.epoch, _by_topic(targets)
        )
        await self._ask(_TRANSACTION, self._transactional_id, request, _by_partition)

    async def add_offsets(
        self, identity: Identity, group: str, offsets: Mapping[TopicPartition, int]
    ) -> None:
        """Add a group's offsets to the transaction; starts it."""
        request = AddOffsetsToTxnRequest(self._transactional_id, identity.producer_id, identity.epoch, group)
        await self._ask(_TRANSACTION, self._transactional_id, request, _whole)
        topics: dict[str, list[tuple[int, int, str]]] = {}
        for (topic, partition), offset in offsets.items():
            topics.setdefault(topic, []).append((partition, offset, ""))
        commit = TxnOffsetCommitRequest(
            self._transactional_id, group, identity.producer_id, identity.epoch, list(topics.items())
        )
        await self._ask(_GROUP, group, commit, _by_partition)

    async def end(self, identity: Identity, *, commit: bool) -> None:
        """Commit or abort."""
        request = EndTxnRequest(self._transactional_id, identity.producer_id, identity.epoch, commit)
        await self._ask(_TRANSACTION, self._transactional_id, request, _whole)

    async def check_ownership(self, identity: Identity) -> None:
        """Raise ProducerFenced unless the transactional id is still ours. Only outside of transactions.

        The coordinator checks the epoch first, and only then finds that there is nothing to end.
        """
        request = EndTxnRequest(self._transactional_id, identity.producer_id, identity.epoch, True)
        await self._ask(_TRANSACTION, self._transactional_id, request, _whole_or_nothing_open)

    async def _ask(self, kind: int, key: str, request: Request[Any], codes_of: Callable[[Any], Codes]) -> Any:
        backoff = self._backoff()
        while True:
            try:
                node_id = await self._coordinator(kind, key)
                response = await self._connections.request(node_id, _PURPOSE, request)
            except CONNECTION_ERRORS as error:
                self._moved(kind, key, reason(error))
            else:
                codes = {code for code in codes_of(response).values() if code != _OK}
                if not codes:
                    return response
                name = type(request).__name__.removesuffix("Request")
                await self._judge(name, key, codes_of(response))
                self.waiting_for = f"{name}: {', '.join(map(told, sorted(codes)))}"
                if codes & _COORDINATOR_MOVED:
                    self._moved(kind, key, self.waiting_for)
            await backoff.pause()

    async def _judge(self, name: str, key: str, codes: Codes) -> None:
        """Raise, unless another attempt can help."""
        for target, code in codes.items():
            sentence = f"{name}: {told(code)}"
            if code in FENCED:
                raise ProducerFenced(sentence)
            if code in _MISCONFIGURED:
                raise Misconfigured(self._misconfigured(name, code, key))
            if name == "AddPartitionsToTxn" and target is not None and code in _ABOUT_A_TOPIC:
                await self._judge_topic(target, code)
            elif code not in _PASSING:
                raise TransactionFailed(sentence if target is None else f"{sentence} for {target}")

    def _misconfigured(self, name: str, code: int, key: str) -> str:
        """A sentence about a fault that a person has to correct."""
        match code:
            case 30:
                missing = group_refused(key)
            case 53:
                missing = (
                    f"{MISSING_ACL}Write on transactional-id {self._transactional_id} "
                    "(by the prefix of all partitions)"
                )
            case _:
                return f"{name}: {told(code)} for {key}"
        return f"{missing}; {name} was refused"

    async def _judge_topic(self, target: TopicPartition, code: int) -> None:
        if code in _TOPIC_REFUSED:
            raise WriteRefused(*target, topic_refused(target.topic, code), record_at_fault=False)
        # A broker may not know a new topic yet; the answer for the other topics is then "not attempted".
        if code == _UNKNOWN_TOPIC and await self._is_missing(target):
            raise WriteRefused(*target, "it does not exist", record_at_fault=False)

    async def _is_missing(self, target: TopicPartition) -> bool:
        try:
            described = (await self._connections.describe([target.topic]))[target.topic]
        except CONNECTION_ERRORS:
            return False
        return described.error_code == _UNKNOWN_TOPIC or (
            described.error_code == _OK and target.partition >= len(described.leaders)
        )

    async def _coordinator(self, kind: int, key: str) -> int:
        node_id = self._nodes.get((kind, key))
        if node_id is None:
            response = await self._connections.ask_any(FindCoordinatorRequest(key, kind))
            if response.error_code in _MISCONFIGURED:
                raise Misconfigured(self._misconfigured("FindCoordinator", response.error_code, key))
            if response.error_code != _OK:
                raise for_code(response.error_code)(told(response.error_code))
            node_id = self._nodes[kind, key] = int(response.coordinator_id)
        return node_id

    def _moved(self, kind: int, key: str, reason: str) -> None:
        self.waiting_for = reason
        self._nodes.pop((kind, key), None)


def _whole(response: Any) -> Codes:
    return {None: response.error_code}


def _found_or_not(response: Any) -> Codes:
    code = response.transactions[0][0]
    return {None: _OK if code == _TRANSACTIONAL_ID_NOT_FOUND else code}


def _whole_or_nothing_open(response: Any) -> Codes:
    return {None: _OK if response.error_code == _INVALID_TXN_STATE else response.error_code}


def _by_partition(response: Any) -> Codes:
    return {
        TopicPartition(topic, partition): code
        for topic, partitions in response.errors
        for partition, code in partitions
    }


def _by_topic(targets: Iterable[TopicPartition]) -> list[tuple[str, list[int]]]:
    topics: dict[str, list[int]] = {}
    for topic, partition in targets:
        topics.setdefault(topic, []).append(partition)
    return list(topics.items())
