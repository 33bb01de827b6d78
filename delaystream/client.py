"""A client of the header contract: requests to delay or to cancel, sent with confluent-kafka.

Any Kafka client can do the same: a request is an ordinary record, and its headers say when and where.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self, cast

import msgspec
from confluent_kafka import Consumer, KafkaError, KafkaException, Message, Producer, TopicPartition

from delaystream.codec import names, outgoing
from delaystream.core.request import Coordinates, Header

SEND_TIMEOUT_S = 30.0
ANSWER_TIMEOUT_S = 15.0

NO_HEADERS: Sequence[Header] = (("(a name is not UTF-8)", None),)
"""In place of a record's headers that cannot be read."""

_POLL_S = 0.2
_SUBJECTS = frozenset(
    {"coordinates", "destination", "match-tags", "match-destination", "match-id-prefix", "match-key"}
)
"""What a command is about that names no id."""
_MOST_DIGITS = 18
_PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.REPLICA_NOT_AVAILABLE,
    }
)
_UNKNOWN = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


class UnavailableError(Exception):
    """Kafka did not answer, or refused; the message is a sentence."""


class MissingTopicError(UnavailableError):
    """A topic does not exist."""


class MissingPartitionError(Exception):
    """A request names a partition that its topic does not have; the message is a sentence."""


@dataclass(frozen=True)
class RequestRecord:
    """A record for a request topic, as any client could produce it."""

    topic: str
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    partition: int | None = None


@dataclass(frozen=True)
class Sent:
    """A record that was acknowledged: where it stands, and the timestamp that it has there, ms."""

    source: Coordinates
    timestamp_ms: int


@dataclass(frozen=True)
class Delivery:
    """A record read from a destination; times are epoch milliseconds, None where it is not a delivery."""

    topic: str
    partition: int
    offset: int
    timestamp_ms: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[Header]
    schedule_id: str | None
    fire_id: str | None
    due_ms: int | None
    fired_ms: int | None

    @property
    def lateness_ms(self) -> int | None:
        """Fired minus due; None for a record that delaystream did not deliver."""
        return None if self.due_ms is None else self.timestamp_ms - self.due_ms


@dataclass(frozen=True)
class Receipt:
    """What became of a request: the value of a record on its `reply-to` topic."""

    json: str
    """As the worker wrote it."""
    body: Mapping[str, Any]
    """The same as an object; docs/headers.md says what it may hold."""

    @classmethod
    def parse(cls, value: bytes) -> Self:
        """Raises ValueError for what is no JSON object."""
        return cls(value.decode(), msgspec.json.decode(value, type=dict[str, Any]))

    def _text(self, name: str) -> str | None:
        value = self.body.get(name)
        return value if isinstance(value, str) else None

    @property
    def outcome(self) -> str:
        """`scheduled`, `cancelled`, `rejected`, ..."""
        return self._text("outcome") or ""

    @property
    def schedule_id(self) -> str:
        """The id, or the request's coordinates."""
        return self._text("schedule_id") or ""

    @property
    def source(self) -> str:
        """`topic/partition/offset` of the request."""
        return self._text("source") or ""

    @property
    def code(self) -> str | None:
        """Why it was rejected."""
        return self._text("code")

    @property
    def detail(self) -> str | None:
        """The same in a sentence."""
        return self._text("detail")

    @property
    def fire_id(self) -> str | None:
        """The fire that came before a cancel."""
        return self._text("fire_id")


def schedule_request(
    topic: str,
    destination: str | None,
    *,
    delay: str | None = None,
    at: str | None = None,
    key: bytes | None = None,
    value: bytes | None = None,
    options: Mapping[str, str | None] | None = None,
    headers: Sequence[Header] = (),
) -> RequestRecord:
    """A request to deliver `value` later.

    `options` are further control headers without their prefix (`id`, `if-exists`, ...; None: not given),
    `headers` those that pass through. Nothing is checked here.
    """
    control = {"destination": destination, "delay": delay, "at": at, **(options or {})}
    return RequestRecord(topic, key, value, [*_control_headers(control), *headers])


def cancel_request(topic: str, schedule_id: str, *, reply_to: str | None = None) -> RequestRecord:
    """A request to cancel the schedule that `topic`'s requests named `schedule_id`."""
    return control_request(topic, "cancel", schedule_id, {"reply-to": reply_to})


def control_request(
    topic: str, action: str, schedule_id: str | None, options: Mapping[str, str | None] | None = None
) -> RequestRecord:
    """A request that is a command, as docs/headers.md has them, to the requests of `topic`.

    Its key is the id, or what else it is about: all requests of this client about the same then stay in order
    on one partition. Without an id `options` must say what that is (`coordinates`, `match-tags`, …).
    """
    control = {"action": action, "id": schedule_id, **(options or {})}
    key = _subject(control) if schedule_id is None else schedule_id
    return RequestRecord(topic, key.encode(), None, _control_headers(control))


def _subject(control: Mapping[str, str | None]) -> str:
    """What a command without an id is about, in one form whatever the order of its options."""
    said = [(name, text) for name, text in control.items() if name in _SUBJECTS and text is not None]
    return "\n".join(f"{name}={text}" for name, text in sorted(said))


def _control_headers(control: Mapping[str, str | None]) -> list[Header]:
    return [(names.PREFIX + name, text.encode()) for name, text in control.items() if text is not None]


class Sender:
    """Produces requests; waits for every acknowledgement. `conf` is `ClientConfig.confluent_producer()`."""

    def __init__(self, conf: Mapping[str, Any]) -> None:
        self._errors: list[str] = []
        self._producer = Producer(
            {**conf, "error_cb": lambda error: self._errors.append(error.str()), "log_level": 0}
        )

    def send(self, record: RequestRecord, timeout_s: float = SEND_TIMEOUT_S) -> Sent:
        """Where the record stands, acknowledged by all in-sync replicas.

        Raises UnavailableError, MissingPartitionError.
        """
        answers: list[tuple[KafkaError | None, Message]] = []
        place: dict[str, Any] = {} if record.partition is None else {"partition": record.partition}
        self._check_place(record, timeout_s)
        try:
            self._producer.produce(
                record.topic,
                value=record.value,
                key=record.key,
                headers=list(record.headers),
                on_delivery=lambda error, message: answers.append((error, message)),
                **place,
            )
            self._producer.flush(timeout_s)
        except KafkaException as error:
            raise UnavailableError(f"{record.topic} took no record: {error.args[0].str()}.") from None
        if not answers:
            self._producer.purge()
            raise UnavailableError(
                f"{record.topic}: no acknowledgement within {timeout_s:.0f} s{self._why()}."
            )
        failure, message = answers[0]
        if failure is not None:
            raise UnavailableError(f"{record.topic} took no record: {failure.str()}.")
        source = Coordinates(record.topic, message.partition() or 0, message.offset() or 0)
        # The broker's, where the topic has it: what a worker counts from.
        return Sent(source, message.timestamp()[1])

    def _check_place(self, record: RequestRecord, timeout_s: float) -> None:
        # A producer would wait for minutes for a topic that is missing, or make the broker create it.
        found = _partitions(self._producer, record.topic, min(timeout_s, ANSWER_TIMEOUT_S), self._why)
        if record.partition is not None and record.partition not in found:
            raise MissingPartitionError(
                f"{record.topic} has no partition {record.partition}: it has {len(found)}, from 0 to "
                f"{found[-1]}. Nothing was sent."
            )

    def _why(self) -> str:
        self._producer.poll(0)  # has the errors so far told
        return f" ({self._errors[-1]})" if self._errors else ""


def _partitions(client: Any, topic: str, timeout_s: float, why: Any) -> list[int]:
    try:
        # Of all topics: asking for one by its name may create it.
        found = client.list_topics(timeout=timeout_s).topics.get(topic)
    except KafkaException as error:
        raise UnavailableError(f"Kafka does not answer: {error.args[0].str()}{why()}.") from None
    if found is None or (found.error is not None and found.error.code() in _UNKNOWN):
        raise MissingTopicError(f"Topic {topic} cannot be used: it does not exist.")
    if not found.partitions:
        reason = "it has no partitions yet" if found.error is None else found.error.str().rstrip(".")
        raise UnavailableError(f"Topic {topic} cannot be used: {reason}.")
    return sorted(found.partitions)


def partitions_of(conf: Mapping[str, Any], topic: str) -> int:
    """How many partitions a topic has. Raises UnavailableError, MissingTopicError."""
    consumer = Consumer({"group.id": "delaystream-reader", "log_level": 0, **conf})
    try:
        return len(_partitions(consumer, topic, ANSWER_TIMEOUT_S, str))
    finally:
        consumer.close()


class Reader:
    """Reads a topic with isolation level read_committed, outside any group; a context manager.

    `conf` is `ClientConfig.confluent()`. Reading starts at the end of each partition, or at its beginning.
    """

    def __init__(
        self,
        conf: Mapping[str, Any],
        topic: str,
        *,
        from_beginning: bool = False,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
    ) -> None:
        self._errors: list[str] = []
        self._topic = topic
        self._from_beginning = from_beginning
        self._answer_timeout_s = answer_timeout_s
        self._consumer = Consumer(
            {
                # A group id is required, but nothing is committed and no group is joined.
                "group.id": "delaystream-reader",
                "enable.auto.commit": False,
                "enable.partition.eof": False,
                "isolation.level": "read_committed",
                "auto.offset.reset": "earliest",
                "allow.auto.create.topics": False,
                # For lateness to be shown as it is.
                "fetch.wait.max.ms": 50,
                "fetch.error.backoff.ms": 50,
                "log_level": 0,
                **conf,
                "error_cb": lambda error: self._errors.append(error.str()),
            }
        )

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.close()
            raise
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection."""
        self._consumer.close()

    def start(self) -> None:
        """Fix where reading starts: what is written after this is read. Raises UnavailableError."""
        timeout_s = self._answer_timeout_s
        partitions = _partitions(self._consumer, self._topic, timeout_s, self._why)
        starts = []
        for partition in partitions:
            place = TopicPartition(self._topic, partition)
            low, high = self._bounds(place, time.monotonic() + timeout_s)
            starts.append(TopicPartition(self._topic, partition, low if self._from_beginning else high))
        self._consumer.assign(starts)

    def _bounds(self, place: TopicPartition, deadline: float) -> tuple[int, int]:
        """First offset and end; a topic that was just created may have no leader for a moment."""
        while True:
            left_s = max(0.1, deadline - time.monotonic())
            try:
                low, high = self._consumer.get_watermark_offsets(place, timeout=left_s)
            except KafkaException as error:
                if error.args[0].code() not in _PASSING or time.monotonic() >= deadline:
                    reason = f"{error.args[0].str()}{self._why()}"
                    raise UnavailableError(f"Topic {self._topic} cannot be read: {reason}.") from None
                time.sleep(_POLL_S)
            else:
                return low, high

    def read(self, timeout_s: float | None = None) -> Iterator[Delivery]:
        """Records as they come, until `timeout_s` is over (None: for ever). Raises UnavailableError."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while deadline is None or time.monotonic() < deadline:
            message = self._consumer.poll(_POLL_S)
            if message is None:
                continue
            if (error := message.error()) is not None:
                raise UnavailableError(f"Topic {self._topic} cannot be read: {error.str()}.")
            yield delivery(message)

    def _why(self) -> str:
        self._consumer.poll(0)  # nothing is assigned yet: this only has the errors so far told
        return f" ({self._errors[-1]})" if self._errors else ""


def delivery(message: Message) -> Delivery:
    """A record as confluent-kafka has it, with the headers of a delivery understood.

    Where a delivery was itself delivered from a delivery, the last header of each name is ours. Of a record
    with a name that is not UTF-8 confluent-kafka has no header: `NO_HEADERS` stands for them.
    """
    try:
        found = cast("list[tuple[str, bytes | None]]", message.headers() or [])
    except (UnicodeDecodeError, SystemError):  # the latter: its C code answers something beside the error
        found = list(NO_HEADERS)
    headers = [(name, _bytes(value)) for name, value in found]
    ours = {name: value for name, value in headers if value is not None and name.startswith(names.PREFIX)}
    return Delivery(
        topic=message.topic() or "",
        partition=message.partition() or 0,
        offset=message.offset() or 0,
        timestamp_ms=message.timestamp()[1],
        key=_bytes(message.key()),
        value=_bytes(message.value()),
        headers=headers,
        schedule_id=_text(ours.get(outgoing.SCHEDULE_ID)),
        fire_id=_text(ours.get(outgoing.FIRE_ID)),
        due_ms=_number(ours.get(outgoing.DUE_AT)),
        fired_ms=_number(ours.get(outgoing.FIRED_AT)),
    )


def await_receipt(reader: Reader, source: Coordinates, timeout_s: float = ANSWER_TIMEOUT_S) -> Receipt | None:
    """The receipt of the request at `source`, read from its `reply-to` topic; None when none came in time.

    The reader must have been started before the request was sent.
    """
    for record in reader.read(timeout_s):
        if record.value is None or not any(name == outgoing.RECEIPT for name, _ in record.headers):
            continue
        try:
            receipt = Receipt.parse(record.value)
        except ValueError:
            continue  # whoever may write to the topic may write anything
        if receipt.source == source.text:
            return receipt
    return None


def _bytes(value: str | bytes | None) -> bytes | None:
    return value.encode() if isinstance(value, str) else value


def _text(value: bytes | None) -> str | None:
    return None if value is None else value.decode("utf-8", "replace")


def _number(value: bytes | None) -> int | None:
    # Longer ones are no times of ours; they may come from anybody, and int() takes no thousands of digits.
    return int(value) if value is not None and value.isdigit() and len(value) <= _MOST_DIGITS else None
