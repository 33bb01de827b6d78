"""Topics read with confluent-kafka, outside any group."""

from __future__ import annotations

import math
import time
from collections import deque
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any, Self

from confluent_kafka import OFFSET_BEGINNING, Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.kafka.threads import apart
from delaystream.client.requests.outcomes import MissingTopicError, UnavailableError

ANSWER_TIMEOUT_S = 15.0
"""The longest wait for what a broker answers at once."""
LOOK_S = 5.0
"""How often it is looked whether a topic that is read has more partitions by now."""

_POLL_S = 0.2
_LOOK_TIMEOUT_S = 1.0
_AT_ONCE = 500
"""Most records that are taken from librdkafka together."""
_PASSING = frozenset(
    {
        KafkaError.NOT_LEADER_FOR_PARTITION,
        KafkaError.LEADER_NOT_AVAILABLE,
        KafkaError.UNKNOWN_TOPIC_OR_PART,
        KafkaError.REPLICA_NOT_AVAILABLE,
    }
)
_UNKNOWN = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError._UNKNOWN_TOPIC})


def known_partitions(client: Any, topic: str, timeout_s: float, why: Any) -> list[int]:
    """The partitions of a topic, which is not created by asking. `client` is any of confluent-kafka's.

    Raises UnavailableError, MissingTopicError.
    """
    try:
        # Of all topics: asking for one by its name may create it.
        found = client.list_topics(timeout=timeout_s).topics.get(topic)
    except KafkaException as error:
        raise UnavailableError(f"Kafka does not answer: {error.args[0].str()}{why()}.") from None
    if found is None or (found.error is not None and found.error.code() in _UNKNOWN):
        # Brokers list what a user may describe.
        hidden = f"Topic {topic} cannot be used: it does not exist, or this user may not see it."
        raise MissingTopicError(topic, hidden)
    if not found.partitions:
        reason = "it has no partitions yet" if found.error is None else found.error.str().rstrip(".")
        raise UnavailableError(f"Topic {topic} cannot be used: {reason}.")
    return sorted(found.partitions)


def topics_of(conf: Mapping[str, Any]) -> frozenset[str]:
    """The topics that there are, as far as this user may see them. Raises UnavailableError."""

    def ask() -> frozenset[str]:
        consumer = Consumer({"group.id": "delaystream-reader", "log_level": 0, **conf})
        try:
            return frozenset(consumer.list_topics(timeout=ANSWER_TIMEOUT_S).topics)
        except KafkaException as error:
            raise UnavailableError(f"Kafka does not answer: {error.args[0].str()}.") from None
        finally:
            consumer.close()

    return apart(ask, "delaystream asks for topics")


def members_of(conf: Mapping[str, Any], group: str) -> int | None:
    """How many members a consumer group has; None where this user may not know, or nobody answers in time."""
    admin = AdminClient({"log_level": 0, **conf})
    try:
        [asked] = admin.describe_consumer_groups([group], request_timeout=ANSWER_TIMEOUT_S).values()
        return len(asked.result().members)
    except KafkaException as error:
        return 0 if error.args[0].code() == KafkaError.GROUP_ID_NOT_FOUND else None


def partitions_of(conf: Mapping[str, Any], topic: str) -> int:
    """How many partitions a topic has. Raises UnavailableError, MissingTopicError."""

    def ask() -> int:
        consumer = Consumer({"group.id": "delaystream-reader", "log_level": 0, **conf})
        try:
            return len(known_partitions(consumer, topic, ANSWER_TIMEOUT_S, str))
        finally:
            consumer.close()

    return apart(ask, f"delaystream asks for {topic}")


class Reader:
    """Reads a topic with isolation level read_committed, outside any group; a context manager.

    `conf` is `ClientConfig.confluent()`. Reading starts at the end of each partition, or at its beginning.
    Partitions that the topic gets meanwhile are read from their beginning; that they are there is noticed
    within `look_s`.
    """

    def __init__(
        self,
        conf: Mapping[str, Any],
        topic: str,
        *,
        from_beginning: bool = False,
        answer_timeout_s: float = ANSWER_TIMEOUT_S,
        look_s: float = LOOK_S,
    ) -> None:
        self._errors = errors = deque[str](maxlen=1)  # the latest says why
        self._topic = topic
        self._from_beginning = from_beginning
        self._answer_timeout_s = answer_timeout_s
        self._look_s = look_s
        self._look_at_s = math.inf
        self._partitions: set[int] = set()
        settings = {
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
            "error_cb": lambda error: errors.append(error.str()),
        }
        self._consumer = apart(partial(Consumer, settings), f"delaystream makes a reader of {topic}")

    def __enter__(self) -> Self:
        def start() -> None:
            try:
                self.start()
            except BaseException:
                self.close()
                raise

        # It is closed by who is at work with it alone: whoever is interrupted here leaves that to the thread.
        apart(start, f"delaystream asks for {self._topic}")
        return self

    def __exit__(self, *exception: object) -> None:
        self.close()

    def close(self) -> None:
        """Let go of every connection."""
        self._consumer.close()

    def start(self) -> None:
        """Fix where reading starts: what is written after this is read. Raises UnavailableError."""
        timeout_s = self._answer_timeout_s
        partitions = known_partitions(self._consumer, self._topic, timeout_s, self._why)
        starts = []
        for partition in partitions:
            place = TopicPartition(self._topic, partition)
            low, high = self._bounds(place, time.monotonic() + timeout_s)
            starts.append(TopicPartition(self._topic, partition, low if self._from_beginning else high))
        self._consumer.assign(starts)
        self._partitions = set(partitions)
        self._look_at_s = time.monotonic() + self._look_s

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
            self._take_new_partitions()
            first = self._consumer.poll(_POLL_S)
            if first is None:
                continue
            for message in (first, *self._consumer.consume(_AT_ONCE, 0)):
                if (error := message.error()) is not None:
                    raise UnavailableError(f"Topic {self._topic} cannot be read: {error.str()}.")
                yield Delivery.of_message(message)

    def _take_new_partitions(self) -> None:
        if time.monotonic() < self._look_at_s:
            return
        self._look_at_s = time.monotonic() + self._look_s
        try:
            # By its name: this consumer has no topic created by asking.
            asking = partial(self._consumer.list_topics, self._topic, _LOOK_TIMEOUT_S)
            found = apart(asking, f"delaystream asks for {self._topic}").topics.get(self._topic)
        except KafkaException:
            return  # the next time
        new = set() if found is None else set(found.partitions) - self._partitions
        if new:
            # All in them was written since the reading began.
            places = [TopicPartition(self._topic, number, OFFSET_BEGINNING) for number in sorted(new)]
            self._consumer.incremental_assign(places)
            self._partitions |= new

    def _why(self) -> str:
        self._consumer.poll(0)  # nothing is assigned yet: this only has the errors so far told
        return f" ({self._errors[-1]})" if self._errors else ""
