"""Who reads topics of a log in memory, and how far each has read."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import TYPE_CHECKING

from delaystream.client.kafka.deliveries import Delivery
from delaystream.engine.ports import TopicPartition

if TYPE_CHECKING:
    from delaystream.testing.partition import LogRecord
    from delaystream.testing.worker import MemoryWorker


def delivery_of(topic: str, partition: int, record: LogRecord) -> Delivery:
    """A record as a consumer has it."""
    place = topic, partition, record.offset
    return Delivery.of(place, record.timestamp, record.key, record.value, record.headers)


class TopicReader:
    """Reads a topic from its beginning, or from its end on; read_committed. `news` hears of every change."""

    def __init__(
        self, worker: MemoryWorker, topic: str, news: Callable[[], None], *, from_end: bool = False
    ) -> None:
        self._worker = worker
        self._topic = topic
        self._from_end = from_end
        self._positions: dict[int, int] = {}
        self._changed = True
        with worker.lock:
            worker.create(topic)
            self._positions = {
                number: log.end if from_end else log.start
                for number, log in enumerate(worker.log.topics[topic].partitions)
            }
            worker.subscribe(topic, self._note)
        self._news = news

    def _note(self) -> None:
        self._changed = True
        self._news()

    def take(self) -> Iterator[Delivery]:
        """New records in the order of their arrival; each is read when it is taken."""
        while (found := self._next()) is not None:
            yield found

    @property
    def unread(self) -> int:
        """How many records have not been taken."""
        if not self._changed:
            return 0
        with self._worker.lock:
            return sum(
                len(self._worker.log.read(TopicPartition(self._topic, number), position)[0])
                for number, position in self._positions.items()
            )

    def _next(self) -> Delivery | None:
        if not self._changed:
            return None
        with self._worker.lock:
            first: tuple[int, int, LogRecord] | None = None
            for number, position in self._positions.items():
                at = TopicPartition(self._topic, number)
                records, behind = self._worker.log.read(at, position, 1)
                if not records:
                    self._positions[number] = behind
                elif first is None or records[0].appended_ms < first[0]:
                    first = records[0].appended_ms, number, records[0]
            if first is None:
                self._changed = False
                return None
            _, number, record = first
            self._positions[number] = record.offset + 1
            return delivery_of(self._topic, number, record)
