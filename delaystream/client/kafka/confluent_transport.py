"""Kafka for callers that block, by confluent-kafka."""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from concurrent.futures import Future
from functools import partial
from threading import Event, Lock, Thread
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from delaystream.client.kafka.reading import ANSWER_TIMEOUT_S, Reader, known_partitions
from delaystream.client.kafka.transport import Done, Fail, Take
from delaystream.client.requests.checking import wall_ms
from delaystream.client.requests.outcomes import MissingTopicError, UnavailableError
from delaystream.client.requests.records import RequestRecord, Sent
from delaystream.core.request import Coordinates

SEND_TIMEOUT_S: Final = 30.0
"""The longest wait for a record's acknowledgement."""
IN_FLIGHT: Final = 100_000
"""Records that wait to be acknowledged, at most; who produces one more waits."""
LARGEST_BYTES: Final = 8 * 1024 * 1024
"""Of a record. What topics take is less, and theirs to say."""

T = TypeVar("T")

_LINGER_MS: Final = 2
_POLL_S: Final = 0.1
_NAP_S: Final = 0.01
_LONGEST_FLUSH_S: Final = 2_000_000.0
"""librdkafka counts milliseconds in 31 bits."""
_OFTEN: Final = 128
"""Records after which whoever produces serves acknowledgements as well."""
_UNKNOWN: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


class ConfluentTransport:
    """One idempotent producer, a thread that serves its acknowledgements, and one for each topic that is
    followed.

    `producer` is `ClientConfig.confluent_producer()`, `consumer` is `ClientConfig.confluent()`.
    """

    def __init__(
        self, producer: Mapping[str, Any], consumer: Mapping[str, Any], in_flight: int = IN_FLIGHT
    ) -> None:
        self._consumer = consumer
        self._errors: deque[str] = deque(maxlen=1)  # the latest says why
        self._producer = Producer(
            {
                "linger.ms": _LINGER_MS,
                "message.timeout.ms": int(SEND_TIMEOUT_S * 1000),
                "message.max.bytes": LARGEST_BYTES,
                "queue.buffering.max.messages": in_flight,
                "log_level": 0,
                **producer,
                "enable.idempotence": True,
                "acks": "all",
                "error_cb": lambda error: self._errors.append(error.str()),
            }
        )
        self._produced = 0
        self._lock = Lock()
        self._ended = Event()
        self._threads: list[Thread] = []

    def now_ms(self) -> int:
        """See the protocol."""
        return wall_ms()

    def partitions(self, topic: str) -> int:
        """See `Transport`."""
        return len(known_partitions(self._producer, topic, ANSWER_TIMEOUT_S, self._why))

    def produce(self, record: RequestRecord, done: Done) -> None:
        """See `Transport`."""
        if not self._produced:
            self._serve_acknowledgements()
        partition = -1 if record.partition is None else record.partition
        told = partial(self._told, record.topic, done)
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, partition, told, headers=[*record.headers]
                )
            except BufferError:
                self._producer.poll(_POLL_S)  # as many are in flight as may be: until one is acknowledged
            except KafkaException as error:
                return done(self._refused(record.topic, error.args[0]))
            else:
                break
        self._produced += 1
        if self._produced % _OFTEN == 0:
            self._producer.poll(0)
        return None

    def follow(self, topic: str, each: Take, fail: Fail) -> None:
        """See `Transport`."""
        reader = Reader(self._consumer, topic)
        try:
            reader.start()
        except BaseException:
            reader.close()
            raise
        self._start(f"delaystream reads {topic}", partial(self._read, reader, topic, each, fail))

    def wait(self, future: Future[T], timeout_s: float | None) -> T:
        """See `Transport`."""
        return future.result(timeout_s)

    def close(self, timeout_s: float) -> None:
        """See `Transport`."""
        try:
            self._producer.flush(min(timeout_s, _LONGEST_FLUSH_S))
        finally:
            self._ended.set()
            self._producer.purge()
            self._producer.poll(0)
            for thread in self._threads:
                thread.join()

    def _serve_acknowledgements(self) -> None:
        with self._lock:
            if not self._threads or self._threads[0].name != "delaystream acknowledgements":
                self._start("delaystream acknowledgements", self._serve, first=True)

    def _start(self, name: str, run: Any, *, first: bool = False) -> None:
        thread = Thread(target=run, name=name, daemon=True)
        self._threads.insert(0 if first else len(self._threads), thread)
        thread.start()

    def _serve(self) -> None:
        """Acknowledgements of who sends a little and waits.

        Who sends many serves them in its own thread meanwhile: each that another thread would tell of costs a
        switch of threads, some milliseconds beside one that is busy.
        """
        seen = 0
        while not self._ended.is_set():
            if self._produced - seen > _OFTEN:
                seen = self._produced
                self._ended.wait(_NAP_S)
            else:
                seen = self._produced
                self._producer.poll(_POLL_S)

    def _read(self, reader: Reader, topic: str, each: Take, fail: Fail) -> None:
        try:
            while not self._ended.is_set():
                for record in reader.read(_POLL_S):
                    each(record)
        except UnavailableError as failure:
            fail(failure)
        except Exception as error:  # noqa: BLE001 - nobody looks at the thread: it is told, whatever it is
            fail(UnavailableError(f"Topic {topic} cannot be read: {type(error).__name__}: {error}."))
        finally:
            reader.close()

    def _told(self, topic: str, done: Done, error: KafkaError | None, message: Message) -> None:
        if error is not None:
            done(self._refused(topic, error))
        else:
            source = Coordinates(topic, message.partition() or 0, message.offset() or 0)
            # The broker's, where the topic has it: what a worker counts from.
            done(Sent(source, message.timestamp()[1]))

    def _refused(self, topic: str, error: KafkaError) -> UnavailableError:
        if error.code() in _UNKNOWN:
            return MissingTopicError(topic)
        if error.code() == KafkaError._MSG_TIMED_OUT:
            return UnavailableError(
                f"{topic}: no acknowledgement within {SEND_TIMEOUT_S:.0f} s{self._last_error()}."
            )
        return UnavailableError(f"{topic} took no record: {error.str()}.")

    def _why(self) -> str:
        self._producer.poll(0)  # has the errors so far told
        return self._last_error()

    def _last_error(self) -> str:
        return f" ({self._errors[-1]})" if self._errors else ""
