"""Kafka for callers that block, by confluent-kafka."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from functools import partial
from threading import Lock
from typing import Any, Final, TypeVar

from confluent_kafka import KafkaError, KafkaException, Message, Producer

from delaystream.client.kafka.interruption import unmasked
from delaystream.client.kafka.promises import Promise
from delaystream.client.kafka.reading import ANSWER_TIMEOUT_S, Reader, known_partitions
from delaystream.client.kafka.threads import apart, begun
from delaystream.client.kafka.transport import SEND_TIMEOUT_S, Done, Fail, Take
from delaystream.client.requests.checking import wall_ms
from delaystream.client.requests.outcomes import MissingTopicError, UnavailableError
from delaystream.client.requests.records import RequestRecord, Sent
from delaystream.core.request import Coordinates

IN_FLIGHT: Final = 100_000
"""Most records that wait for acknowledgement; a caller with one more waits."""
LARGEST_BYTES: Final = 8 * 1024 * 1024
"""Of a record. What topics take is less, and theirs to say."""

T = TypeVar("T")

_LINGER_MS: Final = 2
_POLL_S: Final = 0.1
_NAP_S: Final = 0.01
_LONGEST_FLUSH_S: Final = 2_000_000.0
"""librdkafka counts milliseconds in 31 bits."""
_OFTEN: Final = 128
"""Records after which whoever produces lets acknowledgements be served."""
_END_S: Final = 5.0
"""Longest wait for a thread that ends."""
_UNKNOWN: Final = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


class ConfluentTransport:
    """One idempotent producer, a thread that serves its acknowledgements, and one for each topic that is
    followed.

    Acknowledgements are told by their thread alone. Whoever produces may be the main thread, where Ctrl-C is
    raised at any instruction: within a callback it would take an acknowledgement away, for which somebody
    then waits for ever. For the same reason what asks Kafka, and makes objects of the answer, has a thread
    of its own, and so should whoever makes a transport: interrupted in its C code, confluent-kafka raises a
    TypeError or a SystemError in the place of KeyboardInterrupt.

    `producer` is `ClientConfig.confluent_producer()`, `consumer` is `ClientConfig.confluent()`.
    """

    def __init__(
        self, producer: Mapping[str, Any], consumer: Mapping[str, Any], in_flight: int = IN_FLIGHT
    ) -> None:
        self._consumer = consumer
        self._errors = errors = deque[str](maxlen=1)  # the latest says why
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
                "error_cb": lambda error: errors.append(error.str()),
            }
        )
        self._produced = 0
        self._lock = Lock()
        self._ended = False
        self._server: Promise[None] | None = None
        self._serving = False
        self._nap = Lock()
        self._nap.acquire()
        self._asked: deque[tuple[Callable[[], object], Promise[None]]] = deque()
        self._readers: list[Promise[None]] = []

    def now_ms(self) -> int:
        """See the protocol."""
        return wall_ms()

    def partitions(self, topic: str) -> int:
        """See `Transport`."""
        asking = partial(known_partitions, self._producer, topic, ANSWER_TIMEOUT_S, self._why)
        return len(apart(asking, f"delaystream asks for {topic}"))

    def produce(self, record: RequestRecord, done: Done) -> None:
        """See `Transport`."""
        if not self._serving:
            self._start_serving()
        partition = -1 if record.partition is None else record.partition
        told = partial(self._told, record.topic, done)
        headers = record.headers if type(record.headers) is list else [*record.headers]
        while True:
            try:
                self._producer.produce(
                    record.topic, record.value, record.key, partition, told, headers=headers
                )
            except BufferError:
                self._have_served(_POLL_S)  # as many are in flight as may be: until one is acknowledged
            except KafkaException as error:
                return done(self._refused(record.topic, error.args[0]))
            except (TypeError, SystemError) as error:
                raise unmasked(error, record) from None
            else:
                break
        self._produced += 1
        if self._produced % _OFTEN == 0:
            self._have_served(0)
        return None

    def follow(self, topic: str, each: Take, fail: Fail) -> None:
        """See `Transport`."""
        following = _Following(topic, each, fail)
        ended = begun(partial(self._follow, following), f"delaystream reads {topic}")
        try:
            self._readers.append(ended)
            following.started.result()
        except BaseException:
            following.abandoned = True
            raise

    def wait(self, promise: Promise[T], timeout_s: float | None) -> T:
        """See `Transport`."""
        self._wake()
        return promise.result(timeout_s)

    def close(self, timeout_s: float) -> None:
        """See `Transport`."""
        try:
            if self._serving:
                timeout_s = min(timeout_s, _LONGEST_FLUSH_S)
                with suppress(TimeoutError):
                    self._have(partial(self._producer.flush, timeout_s)).result(timeout_s + _END_S)
        finally:
            # It has who is still waited for told, and with that a flush end. The thread that serves must not
            # have looked for the last time before.
            self._producer.purge()
            self._ended = True
            self._wake()
            for ended in (self._server, *self._readers):
                if ended is not None:
                    with suppress(TimeoutError):
                        ended.result(_END_S)

    def _start_serving(self) -> None:
        with self._lock:
            if self._server is None or self._server.done():
                self._server = begun(self._serve, "delaystream acknowledgements")

    def _serve(self) -> None:
        """Tell of acknowledgements, and do what else has them told.

        Each that comes while another thread is busy costs a switch of threads, some milliseconds. So who
        sends many has them told now and then, all together, and stands still meanwhile; in between nothing is
        served.
        """
        self._serving = True
        busy, seen = False, 0
        try:
            while not self._ended:
                if self._asked:
                    self._nap.acquire(blocking=False)
                    while self._asked:
                        self._do(*self._asked.popleft())
                    busy = True
                elif busy:
                    # Whoever wakes it and asks for nothing stands still, and waits.
                    woken = self._nap.acquire(timeout=_NAP_S)
                    busy = not woken and self._produced - seen >= _OFTEN
                else:
                    self._producer.poll(_POLL_S)
                    busy = self._produced - seen >= _OFTEN
                seen = self._produced
            self._producer.poll(0)
        finally:
            self._serving = False
            while self._asked:
                self._asked.popleft()[1].tell(None)

    def _do(self, call: Callable[[], object], done: Promise[None]) -> None:
        try:
            call()
        finally:
            done.tell(None)

    def _have(self, call: Callable[[], object]) -> Promise[None]:
        """Have the thread that serves acknowledgements do something that tells of them."""
        done: Promise[None] = Promise()
        self._asked.append((call, done))
        self._wake()
        return done

    def _have_served(self, timeout_s: float) -> None:
        """Have those told of that are there, or wait for one so long."""
        with suppress(TimeoutError):
            self._have(partial(self._producer.poll, timeout_s)).result(timeout_s + _POLL_S)

    def _wake(self) -> None:
        with suppress(RuntimeError):  # it is awake
            self._nap.release()

    def _follow(self, following: _Following) -> None:
        try:
            reader = Reader(self._consumer, following.topic)
        except Exception as error:  # noqa: BLE001 - raised where it was asked for
            return following.started.fail(error)
        try:
            try:
                reader.start()
            except Exception as error:  # noqa: BLE001 - as above
                following.started.fail(error)
            else:
                following.started.tell(None)
                self._read(reader, following)
        finally:
            reader.close()

    def _read(self, reader: Reader, following: _Following) -> None:
        topic = following.topic
        try:
            while not (self._ended or following.abandoned):
                for record in reader.read(_POLL_S):
                    following.each(record)
        except UnavailableError as failure:
            following.fail(failure)
        except Exception as error:  # noqa: BLE001 - nobody looks at the thread: it is told, whatever it is
            why = f"{type(error).__name__}: {error}"
            following.fail(UnavailableError(f"Topic {topic} cannot be read: {why}."))

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
        if not self._serving:
            self._start_serving()
        self._have_served(0)  # has the errors so far told
        return self._last_error()

    def _last_error(self) -> str:
        return f" ({self._errors[-1]})" if self._errors else ""


class _Following:
    """A topic that is followed, and what is called with its records."""

    def __init__(self, topic: str, each: Take, fail: Fail) -> None:
        self.topic = topic
        self.each = each
        self.fail = fail
        self.started: Promise[None] = Promise()
        """Told once it is fixed where the reading begins."""
        self.abandoned = False
        """Whoever wanted it was interrupted meanwhile."""
