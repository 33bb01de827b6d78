"""Deliveries for callers in an event loop, by aiokafka.

aiokafka's transactions do not tell the brokers which generation of the group commits offsets (KIP-447). So
that a consumer which has lost a partition without knowing cannot commit for it, each partition has a
transactional id, and a producer, of its own: whoever is given the partition fences who had it before
(KIP-98), and reads from what is committed after that.
"""

from __future__ import annotations

import asyncio
import time
from collections import deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Final, Self, TypeAlias

from aiokafka import AIOKafkaConsumer, AIOKafkaProducer, ConsumerRebalanceListener, TopicPartition
from aiokafka.errors import (
    CommitFailedError,
    IllegalStateError,
    KafkaError,
    MessageSizeTooLargeError,
    ProducerFenced,
)

from delaystream.client.consuming.consumer import Checkpoint, Consuming, Fires, deadline_of
from delaystream.client.consuming.retrying import Backoff, Retry
from delaystream.client.kafka.aiokafka_gaps import reread, value_to_write, written_value
from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.kafka.one_loop import OneLoop
from delaystream.client.requests.outcomes import UnavailableError
from delaystream.client.requests.records import RequestRecord
from delaystream.client.requests.timing import Duration

ANSWER_TIMEOUT_S: Final = 30.0
"""The longest wait for what brokers acknowledge, or answer."""

Place: TypeAlias = tuple[str, int]

_POLL_MS: Final = 200


@dataclass(frozen=True)
class AsyncReceivedDelivery(Delivery):
    """A delivery in the hands of a consumer, until it asks for the next one."""

    consumer: AsyncDeliveryConsumer | None = field(default=None, repr=False, compare=False)

    async def retry(
        self,
        *,
        delay: Duration | None = None,
        backoff: str | Backoff | None = None,
        max_attempts: int | None = None,
        error: BaseException | str | None = None,
    ) -> Retry:
        """Have it delivered again later; or dead-lettered, if this was the last attempt.

        As `ReceivedDelivery.retry`.
        """
        return await _of(self).retry(
            self, delay=delay, backoff=backoff, max_attempts=max_attempts, error=error
        )

    async def dead_letter(self, error: BaseException | str | None = None) -> Retry:
        """Give it up: no further attempt would help."""
        return await _of(self).dead_letter(self, error)


def _of(delivery: AsyncReceivedDelivery) -> AsyncDeliveryConsumer:
    if delivery.consumer is None:
        raise ValueError("The delivery does not come from a consumer; expected one that does.")
    return delivery.consumer


class AsyncDeliveryConsumer(ConsumerRebalanceListener):  # type: ignore[misc]  # aiokafka has no types
    """As `DeliveryConsumer`, for one task: an asynchronous iterator, and an asynchronous context manager.

    With a transactional id each partition has a producer of its own, whose id is that one with topic and
    partition behind it; all members of the group have the same transactional id. A transaction is about one
    partition.

    While the partitions are shared out anew, that waits for the delivery in hand.

    `consumer` is `ClientConfig.aiokafka_consumer()`, `producer` is `ClientConfig.aiokafka_producer()`,
    `other` is `ClientConfig.confluent()`: what aiokafka cannot read (a header's name that is not UTF-8) is
    read with that.
    """

    def __init__(
        self,
        told: Consuming,
        consumer: Mapping[str, Any],
        producer: Mapping[str, Any],
        other: Mapping[str, Any],
    ) -> None:
        self._told = told
        self._loop = OneLoop("A consumer of an AsyncClient")
        self._loop.enter()  # aiokafka's are of the loop that they are made in
        self._other = {**other, "isolation.level": told.isolation}
        self._consumer = AIOKafkaConsumer(
            **{
                "auto_offset_reset": "earliest" if told.from_beginning else "latest",
                **consumer,
                **told.kafka,
                "group_id": told.group,
                "isolation_level": told.isolation,
                "enable_auto_commit": False,
            }
        )
        self._producer_settings = {
            **producer,
            "max_request_size": told.largest_bytes,
            "value_serializer": written_value,
            "enable_idempotence": True,
            "acks": "all",
        }
        self._producers: dict[Place | None, AIOKafkaProducer] = {}
        self._open: set[Place] = set()
        self._sent: dict[Place | None, list[tuple[str, asyncio.Future[Any]]]] = {}
        self._checkpoint = Checkpoint()
        self._fires = Fires(told.remembered_fires)
        self._read: deque[AsyncReceivedDelivery] = deque()
        #: what was fetched and not looked at yet, and how often partitions had been shared out before
        self._arrived: deque[tuple[int, Mapping[TopicPartition, Sequence[Any]]]] = deque()
        self._hand: AsyncReceivedDelivery | None = None
        #: held while a delivery is in hand and while anything is settled: partitions do not leave meanwhile
        self._lock = asyncio.Lock()
        #: how often partitions were shared out; what was fetched before is not ours to give
        self._shared_out = 0
        #: of each partition where reading began, and behind what was fetched so far
        self._starts: dict[Place, int] = {}
        self._fetched: dict[Place, int] = {}
        self._since = 0.0
        self._failure: Exception | None = None
        self._started = self._closed = False

    async def __aenter__(self) -> Self:
        self._loop.enter()
        try:
            await self._start()
        except BaseException:
            await self._consumer.stop()
            raise
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            await self.close(handled=kind is None)
        except UnavailableError as failure:
            if error is None:
                raise
            error.add_note(f"Closing failed, too: {failure}")

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> AsyncReceivedDelivery:
        """The next delivery; waits for it. Raises UnavailableError, StopAsyncIteration after `close`."""
        while True:
            delivery = await self.take(None)
            if delivery is not None:
                return delivery
            if self._closed:
                raise StopAsyncIteration

    async def take(self, timeout_s: float | None) -> AsyncReceivedDelivery | None:
        """The next delivery, waited for at most so long; None when none came. The one before was handled."""
        if self._closed:
            return None
        self._loop.enter()
        await self._start()
        self._finish()
        deadline = deadline_of(timeout_s)
        while True:
            await self._lock.acquire()
            try:
                self._raise_failure()
                await self._look_at_arrived()
                if not self._read or self._is_full():
                    await self._settle()
                while self._read:
                    if (delivery := await self._begun(self._read.popleft())) is not None:
                        self._hand = delivery
                        return delivery
            finally:
                if self._hand is None:
                    self._lock.release()
            left_ms = _POLL_MS if deadline is None else int((deadline - time.monotonic()) * 1000)
            if left_ms <= 0 and deadline is not None:
                return None
            await self._fetch(min(left_ms, _POLL_MS))

    async def send(self, record: RequestRecord) -> None:
        """Produce a record in the transaction of the delivery in hand; without one before its offset.

        Raises ValueError where there is a transaction, and no delivery in hand.
        """
        self._loop.enter()
        place = None if self._hand is None else _place(self._hand)
        try:
            await self._produce(place, record)
        except MessageSizeTooLargeError as error:
            raise _unavailable(f"{record.topic} took no record", error) from None

    async def retry(
        self,
        delivery: Delivery,
        *,
        delay: Duration | None = None,
        backoff: str | Backoff | None = None,
        max_attempts: int | None = None,
        error: BaseException | str | None = None,
    ) -> Retry:
        """See `AsyncReceivedDelivery.retry`."""
        self._loop.enter()
        answer = self._told.retry(
            delivery,
            delay=delay,
            backoff=backoff,
            max_attempts=max_attempts,
            error=error,
            once=not self._told.is_transactional,
        )
        return await self._answered(delivery, answer)

    async def dead_letter(self, delivery: Delivery, error: BaseException | str | None = None) -> Retry:
        """See `AsyncReceivedDelivery.dead_letter`."""
        self._loop.enter()
        return await self._answered(delivery, self._told.dead_letter(delivery, error))

    async def close(self, *, handled: bool = True) -> None:
        """Settle, leave the group and close every connection.

        Without `handled` the present delivery is not settled: it is read again.
        """
        if self._closed:
            return
        self._loop.enter()
        self._closed = True
        try:
            if handled:
                self._finish()
                async with self._lock:
                    await self._settle()
            else:
                if self._hand is None:
                    await self._lock.acquire()
                try:
                    if (hand := self._hand) is not None and self._told.is_transactional:
                        await self._abort(_place(hand))
                    self._hand = None
                    await self._settle()
                finally:
                    self._lock.release()
        finally:
            self._read.clear()
            self._checkpoint.clear()
            await self._consumer.stop()
            for producer in self._producers.values():
                await producer.stop()

    # -- partitions that come and go ----------------------------------------------------------

    async def on_partitions_revoked(self, revoked: set[TopicPartition]) -> None:
        """Settle before others read on."""
        if self._closed:
            return
        async with self._lock:
            self._shared_out += 1
            self._read.clear()
            self._fetched.clear()
            try:
                await self._settle(rewinds=False)
            except Exception as error:  # noqa: BLE001 - raised by who takes the next delivery
                self._failure = error
            self._checkpoint.clear()
            self._fires.forget()
            self._open.clear()
            self._sent.clear()
            for place in list(self._producers):
                if place is not None:
                    await self._producers.pop(place).stop()

    async def on_partitions_assigned(self, assigned: set[TopicPartition]) -> None:
        """Fence who had them before, then read on from what is committed."""
        async with self._lock:
            try:
                for partition in assigned:
                    place = (partition.topic, partition.partition)
                    if self._told.is_transactional:
                        await self._start_producer(place)
                    if (committed := await self._consumer.committed(partition)) is not None:
                        self._consumer.seek(partition, committed)
                        self._starts[place] = committed
                    else:
                        self._starts[place] = await self._consumer.position(partition)
                    self._fetched[place] = self._starts[place]
            except Exception as error:  # noqa: BLE001 - raised by who takes the next delivery
                self._failure = error

    async def _start_producer(self, place: Place | None) -> AIOKafkaProducer:
        settings = dict(self._producer_settings)
        if place is not None:
            settings["transactional_id"] = f"{self._told.transactional_id}-{place[0]}-{place[1]}"
        producer = AIOKafkaProducer(**settings)
        try:
            await producer.start()
        except BaseException:
            await producer.stop()
            raise
        self._producers[place] = producer
        return producer

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            if isinstance(failure, KafkaError):
                raise UnavailableError(f"The partitions cannot be taken: {_said(failure)}.") from failure
            raise failure

    # -- reading ------------------------------------------------------------------------------

    async def _start(self) -> None:
        if self._started:
            return
        self._started = True
        self._consumer.subscribe(list(self._told.sources), listener=self)
        try:
            await self._consumer.start()
        except KafkaError as error:
            raise UnavailableError(f"Nothing can be read: {_said(error)}.") from None

    async def _fetch(self, timeout_ms: int) -> None:
        before = self._shared_out
        try:
            fetched = await self._consumer.getmany(
                timeout_ms=timeout_ms, max_records=self._told.settle_records
            )
        except UnicodeDecodeError:
            await self._read_otherwise()
            return
        except IllegalStateError:
            return  # the partitions went while they were waited for
        except KafkaError as error:
            if error.retriable:
                return
            raise UnavailableError(f"Nothing can be read: {_said(error)}.") from None
        # Nothing is awaited from there to here, and whoever waits may be cancelled from here on.
        self._arrived.append((before, fetched))

    async def _look_at_arrived(self) -> None:
        while self._arrived:
            before, fetched = self._arrived[0]
            if self._shared_out == before:
                self._take_in(fetched)
            else:
                # Of partitions that went, or have come since: reading begins at what is committed.
                for partition in fetched:
                    await self._rewind((partition.topic, partition.partition))
            self._arrived.popleft()

    def _take_in(self, fetched: Mapping[TopicPartition, Sequence[Any]]) -> None:
        for partition, records in fetched.items():
            if records:
                self._fetched[partition.topic, partition.partition] = records[-1].offset + 1
            self._read.extend(AsyncReceivedDelivery.of_record(record, consumer=self) for record in records)

    async def _read_otherwise(self) -> None:
        """Read on with the other client where a record is one that aiokafka cannot read."""
        async with self._lock:
            again = reread(self._consumer, self._fetched, self._other, AsyncReceivedDelivery, consumer=self)
            try:
                async for deliveries in again:
                    self._read.extend(deliveries)
            except KafkaError as error:
                # Records that were not read are read from the same place.
                if not error.retriable:
                    raise _unavailable("Nothing can be read", error) from None

    async def _begun(self, delivery: AsyncReceivedDelivery) -> AsyncReceivedDelivery | None:
        place = _place(delivery)
        if not self._checkpoint.first:
            self._since = time.monotonic()
        self._checkpoint.begin(delivery)
        if self._told.is_transactional and place not in self._open:
            try:
                await self._producers[place].begin_transaction()
            except KafkaError as error:
                raise _unavailable("No transaction can be begun", error) from None
            self._open.add(place)
        if self._fires.is_copy(delivery):
            self._checkpoint.add(delivery)
            return None
        return delivery

    def _finish(self) -> None:
        """The delivery in hand was handled."""
        if self._hand is not None:
            self._checkpoint.add(self._hand)
            self._hand = None
            self._lock.release()

    def _is_full(self) -> bool:
        told = self._told
        return self._checkpoint.records >= told.settle_records or (
            self._checkpoint.records > 0
            and time.monotonic() - self._since >= told.settle_after.total_seconds()
        )

    # -- producing ----------------------------------------------------------------------------

    async def _answered(self, delivery: Delivery, answer: Retry) -> Retry:
        """Produce what becomes of a delivery; in a smaller form where it is larger than may be."""
        for form in self._told.forms(delivery, answer):
            try:
                await self._produce(_place(delivery), form.record)
            except MessageSizeTooLargeError:
                continue
            return form
        raise UnavailableError(f"{answer.record.topic} took no record, even without a payload.")

    async def _produce(self, place: Place | None, record: RequestRecord) -> None:
        if not self._told.is_transactional:
            place = None
        elif place not in self._open:
            raise ValueError("There is no transaction: no delivery of that partition is in hand.")
        producer = self._producers.get(place) or await self._start_producer(place)
        try:
            sent = await producer.send(
                record.topic,
                value_to_write(record.value),
                record.key,
                record.partition,
                headers=list(record.headers),
            )
        except KafkaError as error:
            if isinstance(error, MessageSizeTooLargeError):
                raise
            raise _unavailable(f"{record.topic} took no record", error) from None
        self._sent.setdefault(place, []).append((record.topic, sent))

    # -- settling -----------------------------------------------------------------------------

    async def _settle(self, *, rewinds: bool = True) -> None:
        """Have what was handled behind us; the lock is held. Raises UnavailableError.

        A transaction that must be aborted is read again instead.
        """
        if not self._checkpoint.records:
            return
        if self._told.is_transactional:
            for place in list(self._checkpoint.first):
                await self._commit_transaction(place, rewinds=rewinds)
        else:
            await self._acknowledged()
            await self._commit()
        self._checkpoint.clear()
        self._fires.keep()

    async def _acknowledged(self) -> None:
        for topic, sent in self._sent.get(None, ()):
            try:
                # Whoever is cancelled here does not take the acknowledgement with them.
                await asyncio.wait_for(asyncio.shield(sent), ANSWER_TIMEOUT_S)
            except (KafkaError, TimeoutError) as error:
                raise _unavailable(f"{topic} took no record", error) from None
        # Not one by one: what was refused, or is not known yet, is asked of again by the next settling.
        self._sent.pop(None, None)

    async def _commit(self) -> None:
        try:
            await self._consumer.commit(
                {TopicPartition(*place): offset for place, offset in self._checkpoint.next.items()}
            )
        except CommitFailedError:
            pass  # the partitions are another member's by now, who reads what was not settled
        except IllegalStateError:
            pass  # likewise
        except KafkaError as error:
            raise _unavailable("The offsets cannot be committed", error) from None

    async def _commit_transaction(self, place: Place, *, rewinds: bool) -> None:
        producer = self._producers[place]
        try:
            if (offset := self._checkpoint.next.get(place)) is not None:
                await asyncio.wait_for(
                    producer.send_offsets_to_transaction({TopicPartition(*place): offset}, self._told.group),
                    ANSWER_TIMEOUT_S,
                )
            await asyncio.wait_for(producer.commit_transaction(), ANSWER_TIMEOUT_S)
        except ProducerFenced as error:
            self._open.discard(place)
            self._checkpoint.drop(place)
            self._fires.forget(place)
            if not rewinds:
                return  # it leaves, and whoever has it reads on from what is committed
            raise UnavailableError(
                f"{place[0]}/{place[1]} was given to another consumer ({_said(error)})."
            ) from None
        except (KafkaError, TimeoutError) as error:
            refused = self._refused(place)
            try:
                await self._abort(place)
            except (KafkaError, TimeoutError):
                raise _unavailable("The transaction cannot be ended", error) from None
            if refused is not None:
                # It would be refused again, for ever.
                raise UnavailableError(refused) from None
            if rewinds:
                await self._rewind(place)
        else:
            self._open.discard(place)
            self._sent.pop(place, None)

    def _refused(self, place: Place) -> str | None:
        """Which record of a transaction was refused, in a sentence, and not only given up with it."""
        for topic, sent in self._sent.get(place, ()):
            failure = sent.exception() if sent.done() and not sent.cancelled() else None
            if (
                isinstance(failure, KafkaError)
                and not failure.retriable
                and not isinstance(failure, ProducerFenced)
            ):
                return f"{topic} took no record: {_said(failure)}."
        return None

    async def _abort(self, place: Place) -> None:
        self._sent.pop(place, None)
        self._checkpoint.drop(place)
        self._fires.forget(place)
        if place in self._open:
            self._open.discard(place)
            await asyncio.wait_for(self._producers[place].abort_transaction(), ANSWER_TIMEOUT_S)

    async def _rewind(self, place: Place) -> None:
        """Read a partition again from what is committed; nothing if it is not ours any more."""
        partition = TopicPartition(*place)
        self._read = deque(delivery for delivery in self._read if _place(delivery) != place)
        self._fires.forget(place)
        try:
            committed = await self._consumer.committed(partition)
            self._fetched[place] = self._starts[place] if committed is None else committed
            self._consumer.seek(partition, self._fetched[place])
        except (IllegalStateError, KeyError):
            return
        except KafkaError as error:
            raise _unavailable("The offsets cannot be read", error) from None


def _place(delivery: Delivery) -> Place:
    return delivery.topic, delivery.partition


def _unavailable(what: str, error: BaseException) -> UnavailableError:
    return UnavailableError(f"{what}: {_said(error)}.")


def _said(error: BaseException) -> str:
    return (str(error) or type(error).__name__).rstrip(".")
