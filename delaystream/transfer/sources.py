"""Reads records after an applied position: unread requests, and commands on their way."""

import time
from collections.abc import Iterator
from typing import Any, Final, cast

from confluent_kafka import Consumer, KafkaError, KafkaException, Message, TopicPartition

from delaystream.client import UnavailableError

_POLL_S: Final = 0.2
_ANSWER_TIMEOUT_S: Final = 15.0
_SILENCE_S: Final = 15.0


class SourceReader:
    """Reads source partitions with isolation level read_committed, outside any group; a context manager."""

    def __init__(self, conf: dict[str, Any]) -> None:
        self._consumer = Consumer(
            {
                "group.id": "delaystream-export",
                "enable.auto.commit": False,
                "enable.partition.eof": True,
                "isolation.level": "read_committed",
                "auto.offset.reset": "error",
                "allow.auto.create.topics": False,
                "log_level": 0,
                **conf,
            }
        )

    def __enter__(self) -> "SourceReader":
        return self

    def __exit__(self, *exception: object) -> None:
        self._consumer.close()

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        """The first available offset, and the end. Raises UnavailableError."""
        place = TopicPartition(topic, partition)
        try:
            low, high = self._consumer.get_watermark_offsets(place, timeout=_ANSWER_TIMEOUT_S)
        except KafkaException as error:
            raise UnavailableError(
                f"Topic {topic} cannot be read: {cast('KafkaError', error.args[0]).str()}."
            ) from None
        return low, high

    def records(self, topic: str, partition: int, start: int) -> tuple[Iterator[Message], int]:
        """Committed records from `start` on, and the end offset of the read. Raises UnavailableError."""
        low, high = self.bounds(topic, partition)
        return self._until(topic, partition, max(start, low), high), high

    def count(self, topic: str, partition: int, start: int, most: int) -> int:
        """Number of committed records from `start` on, up to `most`."""
        found, _ = self.records(topic, partition, start)
        return sum(1 for _, _ in zip(range(most), found, strict=False))

    def _until(self, topic: str, partition: int, start: int, end: int) -> Iterator[Message]:
        if start >= end:
            return
        self._consumer.assign([TopicPartition(topic, partition, start)])
        heard = time.monotonic()
        try:
            while True:
                message = self._consumer.poll(_POLL_S)
                if message is None:
                    if time.monotonic() - heard > _SILENCE_S:
                        raise UnavailableError(
                            f"Topic {topic}-{partition} gave nothing for {_SILENCE_S:.0f} s."
                        )
                    continue
                heard = time.monotonic()
                error = message.error()
                if error is None:
                    if (message.offset() or 0) >= end:
                        return
                    yield message
                elif error.code() == KafkaError._PARTITION_EOF:
                    return
                else:
                    raise UnavailableError(f"Topic {topic} cannot be read: {error.str()}.")
        finally:
            self._consumer.unassign()
