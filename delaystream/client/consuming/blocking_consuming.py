"""Deliveries for callers that block, by confluent-kafka."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from types import TracebackType
from typing import Any, Final, Self

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from delaystream.client.consuming.consumer import Checkpoint, Consuming, Fires, deadline_of
from delaystream.client.consuming.retrying import Backoff, Retry
from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.kafka.interruption import unmasked
from delaystream.client.kafka.threads import apart
from delaystream.client.requests.outcomes import MissingTopicError, UnavailableError
from delaystream.client.requests.records import RequestRecord
from delaystream.client.requests.timing import Duration

ANSWER_TIMEOUT_S: Final = 30.0
"""The longest wait for what brokers acknowledge, or answer."""

_POLL_S: Final = 0.2
_UNKNOWN: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})
_DENIED: Final = frozenset(
    {
        KafkaError.TOPIC_AUTHORIZATION_FAILED,
        KafkaError.GROUP_AUTHORIZATION_FAILED,
        KafkaError._AUTHENTICATION,
        KafkaError.SASL_AUTHENTICATION_FAILED,
    }
)
_OTHERS: Final = frozenset(
    {
        KafkaError.ILLEGAL_GENERATION,
        KafkaError.UNKNOWN_MEMBER_ID,
        KafkaError._ASSIGNMENT_LOST,
    }
)
"""The partitions are another member's by now, who reads what was not settled."""
_LATER: Final = frozenset({KafkaError.REBALANCE_IN_PROGRESS})
_NOTHING: Final = frozenset({KafkaError._NO_OFFSET})


@dataclass(frozen=True)
class ReceivedDelivery(Delivery):
    """A delivery in the hands of a consumer, until it asks for the next one."""

    consumer: DeliveryConsumer | None = field(default=None, repr=False, compare=False)

    def retry(
        self,
        *,
        delay: Duration | None = None,
        backoff: str | Backoff | None = None,
        max_attempts: int | None = None,
        error: BaseException | str | None = None,
    ) -> Retry:
        """Have it delivered again later; or dead-lettered, if this was the last attempt.

        Always after `delay`, or by a `backoff` (`10s..1h*2`, `5s,5m,30m`); neither: by the consumer's policy.
        `error` is why, for the dead letter. It takes effect when the delivery is settled, together with it.
        Raises ValueError for a policy that makes no sense.
        """
        return _of(self).retry(self, delay=delay, backoff=backoff, max_attempts=max_attempts, error=error)

    def dead_letter(self, error: BaseException | str | None = None) -> Retry:
        """Give it up: no further attempt would help."""
        return _of(self).dead_letter(self, error)


def _of(delivery: ReceivedDelivery) -> DeliveryConsumer:
    if delivery.consumer is None:
        raise ValueError("The delivery does not come from a consumer; expected one that does.")
    return delivery.consumer


class DeliveryConsumer:
    """Deliveries of topics, as a member of a consumer group; for one thread.

    An iterator, and a context manager:

        with client.consumer("invoices", group="billing") as deliveries:
            for delivery in deliveries:
                ...

    A delivery is handled when the next one is asked for, or when the block ends in good order. An exception
    that leaves the block leaves the delivery in hand unhandled: it is read again. With a transactional id
    everything since the last settling is aborted with it, and read again.

    `consumer` is `ClientConfig.confluent()`, `producer` is `ClientConfig.confluent_producer()`; or a producer
    of the caller's, whose transactions have been initialised: each is begun before a delivery is given, and
    committed with its offset.
    """

    def __init__(
        self,
        told: Consuming,
        consumer: Mapping[str, Any],
        producer: Mapping[str, Any] | Producer,
    ) -> None:
        self._told = told
        self._errors: list[str] = []
        settings = {
            "auto.offset.reset": "earliest" if told.from_beginning else "latest",
            "log_level": 0,
            **consumer,
            **told.kafka,
            "group.id": told.group,
            "isolation.level": told.isolation,
            "enable.auto.commit": False,
            "enable.auto.offset.store": False,
            "error_cb": self._note,
        }
        self._consumer = apart(partial(Consumer, settings), f"delaystream makes a consumer of {told.group}")
        self._owns_producer = not isinstance(producer, Producer)
        self._producer: Producer | None = producer if isinstance(producer, Producer) else None
        self._producer_conf = producer if not isinstance(producer, Producer) else {}
        self._is_transactional = told.is_transactional or not self._owns_producer
        self._in_transaction = False
        self._checkpoint = Checkpoint()
        self._fires = Fires(told.remembered_fires)
        self._hand: Delivery | None = None
        self._since = 0.0
        self._failure: Exception | None = None
        self._refused: list[str] = []
        #: numbers of the records that are on their way: an acknowledgement that was interrupted is none
        self._flying: set[int] = set()
        self._produced = 0
        self._leaving: set[tuple[str, int]] = set()
        self._started = self._closed = False

    def __enter__(self) -> Self:
        try:
            self._start()
        except BaseException:
            self._consumer.close()
            raise
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        try:
            self.close(handled=kind is None)
        except UnavailableError as failure:
            if error is None:
                raise
            error.add_note(f"Closing failed, too: {failure}")

    def __iter__(self) -> Self:
        return self

    def __next__(self) -> ReceivedDelivery:
        """The next delivery; waits for it. Raises UnavailableError, StopIteration after `close`."""
        while True:
            delivery = self.take(None)
            if delivery is not None:
                return delivery
            if self._closed:
                raise StopIteration

    def take(self, timeout_s: float | None) -> ReceivedDelivery | None:
        """The next delivery, waited for at most so long; None when none came. The one before was handled."""
        if self._closed:
            return None
        self._start()
        self._finish()
        deadline = deadline_of(timeout_s)
        while True:
            if self._is_full():
                self._settle()
            message = self._consumer.poll(0)
            self._raise_failure()
            if message is None:
                # Nothing waits: what was handled need not wait for it.
                self._settle()
                left_s = _POLL_S if deadline is None else min(_POLL_S, deadline - time.monotonic())
                if left_s > 0:
                    message = self._consumer.poll(left_s)
                    self._raise_failure()
                elif message is None:
                    return None
            if message is not None and (delivery := self._received(message)) is not None:
                return delivery

    def send(self, record: RequestRecord) -> None:
        """Produce a record in the consumer's transaction; without one before the next offsets are committed.

        The record may be a request, by the functions of `delaystream.client`, or of any other topic. Raises
        UnavailableError where it is larger than may be.
        """
        try:
            self._produce(record)
        except KafkaException as error:
            raise self._unavailable(f"{record.topic} took no record", error) from None

    @property
    def producer(self) -> Producer:
        """The producer, for what `send` does not do: what it writes is settled with the delivery in hand."""
        if self._producer is None:
            settings = {
                "linger.ms": 2,
                "message.timeout.ms": int(ANSWER_TIMEOUT_S * 1000),
                "message.max.bytes": self._told.largest_bytes,
                "log_level": 0,
                **self._producer_conf,
                **({"transactional.id": self._told.transactional_id} if self._is_transactional else {}),
                "enable.idempotence": True,
                "acks": "all",
                "error_cb": self._note,
            }
            self._producer = apart(partial(Producer, settings), "delaystream makes a producer")
        return self._producer

    def retry(
        self,
        delivery: Delivery,
        *,
        delay: Duration | None = None,
        backoff: str | Backoff | None = None,
        max_attempts: int | None = None,
        error: BaseException | str | None = None,
    ) -> Retry:
        """See `ReceivedDelivery.retry`."""
        answer = self._told.retry(
            delivery,
            delay=delay,
            backoff=backoff,
            max_attempts=max_attempts,
            error=error,
            once=not self._is_transactional,
        )
        return self._answered(delivery, answer)

    def dead_letter(self, delivery: Delivery, error: BaseException | str | None = None) -> Retry:
        """See `ReceivedDelivery.dead_letter`."""
        return self._answered(delivery, self._told.dead_letter(delivery, error))

    def close(self, *, handled: bool = True) -> None:
        """Settle, leave the group and close every connection.

        Without `handled` the present delivery is not settled: it is read again.
        """
        if self._closed:
            return
        self._closed = True
        try:
            if handled:
                self._finish()
                self._settle()
            elif self._is_transactional:
                self._abort(rewinds=False)
            else:
                self._hand = None
                self._settle()
        finally:
            # Partitions that leave are settled, or read again.
            self._checkpoint.clear()
            self._consumer.close()

    # -- reading ------------------------------------------------------------------------------

    def _start(self) -> None:
        if self._started:
            return
        if self._is_transactional and self._owns_producer:
            try:
                self.producer.init_transactions(ANSWER_TIMEOUT_S)
            except KafkaException as error:
                raise self._unavailable("No transaction can be begun", error) from None
        self._consumer.subscribe(list(self._told.sources), on_revoke=self._revoked, on_lost=self._lost)
        self._started = True

    def _received(self, message: Message) -> ReceivedDelivery | None:
        if (error := message.error()) is not None:
            self._heed(error)
            return None
        delivery = ReceivedDelivery.of_message(message, consumer=self)
        if not self._checkpoint.first:
            self._since = time.monotonic()
        if self._fires.is_copy(delivery):
            self._begin(delivery)
            self._checkpoint.add(delivery)
            return None
        self._begin(delivery)
        self._hand = delivery
        return delivery

    def _begin(self, delivery: Delivery) -> None:
        self._checkpoint.begin(delivery)
        if self._is_transactional and not self._in_transaction:
            try:
                self.producer.begin_transaction()
            except KafkaException as error:
                raise self._unavailable("No transaction can be begun", error) from None
            self._in_transaction = True

    def _finish(self) -> None:
        """The delivery in hand was handled."""
        if self._hand is not None:
            self._checkpoint.add(self._hand)
            self._hand = None

    def _is_full(self) -> bool:
        told = self._told
        return self._checkpoint.records >= told.settle_records or (
            self._checkpoint.records > 0
            and time.monotonic() - self._since >= told.settle_after.total_seconds()
        )

    def _heed(self, error: KafkaError) -> None:
        """An error that cannot pass by itself ends the reading; librdkafka retries all others."""
        if error.code() in _UNKNOWN:
            topics = ", ".join(self._told.sources)
            raise MissingTopicError(f"Topic {topics} cannot be read: it does not exist.")
        if error.fatal() or error.code() in _DENIED:
            raise UnavailableError(f"Nothing can be read: {error.str()}.")
        self._note(error)

    # -- partitions that leave ----------------------------------------------------------------

    def _revoked(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        # Inside of poll(): whoever polls has handled what it was given.
        self._leaving = {(partition.topic, partition.partition) for partition in partitions}
        self._guarded(self._settle)
        self._left(partitions)

    def _lost(self, _consumer: Consumer, partitions: Sequence[TopicPartition]) -> None:
        if self._is_transactional:
            self._guarded(lambda: self._abort(rewinds=False))
        self._left(partitions)

    def _left(self, partitions: Sequence[TopicPartition]) -> None:
        for partition in partitions:
            self._checkpoint.drop((partition.topic, partition.partition))
            self._fires.forget((partition.topic, partition.partition))
        self._leaving = set()

    def _guarded(self, action: Callable[[], None]) -> None:
        """Have a failure raised by who polls: librdkafka's callbacks cannot tell it."""
        try:
            action()
        except Exception as error:  # noqa: BLE001 - raised by _raise_failure
            self._failure = error

    def _raise_failure(self) -> None:
        if self._failure is not None:
            failure, self._failure = self._failure, None
            raise failure

    # -- producing ----------------------------------------------------------------------------

    def _answered(self, delivery: Delivery, answer: Retry) -> Retry:
        """Produce what becomes of a delivery; in a smaller form where it is larger than may be."""
        for form in self._told.forms(delivery, answer):
            try:
                self._produce(form.record)
            except KafkaException as error:
                if error.args[0].code() != KafkaError.MSG_SIZE_TOO_LARGE:
                    raise self._unavailable(f"{form.record.topic} took no record", error) from None
            else:
                return form
        raise UnavailableError(f"{answer.record.topic} took no record, even without a payload.")

    def _produce(self, record: RequestRecord) -> None:
        partition = -1 if record.partition is None else record.partition
        self._produced += 1
        number = self._produced

        def told(error: KafkaError | None, _message: Message) -> None:
            if error is not None:
                self._refused.append(f"{record.topic} took no record: {error.str()}")
            self._flying.discard(number)

        self._flying.add(number)
        while True:
            try:
                self.producer.produce(
                    record.topic, record.value, record.key, partition, told, headers=list(record.headers)
                )
            except BufferError:
                self.producer.poll(_POLL_S)
            except KafkaException:
                self._flying.discard(number)
                raise
            except (TypeError, SystemError) as error:
                self._flying.discard(number)
                raise unmasked(error, record) from None
            else:
                return

    # -- settling -----------------------------------------------------------------------------

    def _settle(self) -> None:
        """Have what was handled behind us now. Raises UnavailableError.

        In a transaction that must be aborted it is read again instead.
        """
        if self._is_transactional:
            self._commit_transaction()
        elif self._checkpoint.records:
            self._flush()
            self._commit()

    def _flush(self) -> None:
        if self._producer is None:
            return
        left = self._producer.flush(ANSWER_TIMEOUT_S)
        if self._refused:
            # It stays refused: a later settling must not commit an offset behind it.
            raise UnavailableError(f"{self._refused[0]}.")
        if left or self._flying:
            raise UnavailableError(f"No acknowledgement within {ANSWER_TIMEOUT_S:.0f} s{self._last_error()}.")

    def _commit(self) -> None:
        try:
            answers = self._consumer.commit(offsets=self._positions(), asynchronous=False)
        except KafkaException as error:
            code = error.args[0].code()
            if code in _LATER:
                return
            if code not in _OTHERS | _NOTHING:
                raise self._unavailable("The offsets cannot be committed", error) from None
        else:
            for answer in answers or ():
                if answer.error is not None and answer.error.code() not in _OTHERS:
                    raise UnavailableError(f"The offsets cannot be committed: {answer.error.str()}.")
        self._settled()

    def _commit_transaction(self) -> None:
        if not self._in_transaction:
            return
        try:
            if positions := self._positions():
                self._patiently(
                    lambda: self.producer.send_offsets_to_transaction(
                        positions, self._consumer.consumer_group_metadata(), ANSWER_TIMEOUT_S
                    )
                )
            self._patiently(lambda: self.producer.commit_transaction(ANSWER_TIMEOUT_S))
        except KafkaException as error:
            if not (error.args[0].txn_requires_abort() or error.args[0].code() in _LATER):
                raise self._unavailable("The transaction cannot be committed", error) from None
            self._note(error.args[0])
            refused = list(self._refused)
            self._abort(rewinds=True)
            if refused:
                # It would be refused again, for ever.
                raise UnavailableError(f"{refused[0]}.") from None
        else:
            self._in_transaction = False
            self._refused.clear()
            self._flying.clear()
            self._settled()

    def _settled(self) -> None:
        self._checkpoint.clear()
        self._fires.keep()

    def _abort(self, *, rewinds: bool) -> None:
        """Undo the transaction; what it was about is read again."""
        first = dict(self._checkpoint.first)
        self._hand = None
        self._checkpoint.clear()
        self._fires.forget()
        self._refused.clear()
        self._flying.clear()
        if not self._in_transaction:
            return
        try:
            self._patiently(lambda: self.producer.abort_transaction(ANSWER_TIMEOUT_S))
        except KafkaException as error:
            raise self._unavailable("The transaction cannot be aborted", error) from None
        self._in_transaction = False
        if rewinds:
            ours = {(place.topic, place.partition) for place in self._consumer.assignment()} - self._leaving
            for place, offset in first.items():
                if place in ours:
                    self._consumer.seek(TopicPartition(*place, offset))

    def _patiently(self, call: Callable[[], None]) -> None:
        """Repeat what Kafka says may be repeated, for as long as an answer is waited for."""
        deadline = time.monotonic() + ANSWER_TIMEOUT_S
        while True:
            try:
                return call()
            except KafkaException as error:
                # A rebalance ends by polling alone.
                passes = error.args[0].retriable() and error.args[0].code() not in _LATER
                if not passes or time.monotonic() >= deadline:
                    raise

    def _positions(self) -> list[TopicPartition]:
        return [TopicPartition(*place, offset) for place, offset in self._checkpoint.next.items()]

    def _note(self, error: KafkaError) -> None:
        self._errors = [error.str()]

    def _last_error(self) -> str:
        return f" ({self._errors[-1]})" if self._errors else ""

    def _unavailable(self, what: str, error: KafkaException) -> UnavailableError:
        return UnavailableError(f"{what}: {error.args[0].str()}{self._last_error()}.")
