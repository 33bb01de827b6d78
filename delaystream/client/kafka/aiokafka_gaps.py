"""What aiokafka cannot do with records that Kafka allows.

- Write a record with neither key nor value: it asserts that one of them is there. So a null value goes in as
  something else, which its serializer writes as null.
- Read a header whose name is not UTF-8: it raises UnicodeDecodeError. Which partition that was of does not
  show, and what was fetched of others at the same time is gone. So each partition is read again alone from
  where it was, and by confluent-kafka where it is that one.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Mapping
from typing import TYPE_CHECKING, Any, Final, TypeVar

from aiokafka import AIOKafkaConsumer, TopicPartition

from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.requests.outcomes import UnavailableError

if TYPE_CHECKING:
    from confluent_kafka import Message

ANSWER_TIMEOUT_S: Final = 30.0
"""The longest wait for a record that is known to be there."""
_PROBE_MS: Final = 2000
"""How long a partition that has something unread may take to show it."""
_STRETCH: Final = 500
"""Records that the other client reads at once."""

_NULL: Final = object()

D = TypeVar("D", bound=Delivery)


def value_to_write(value: bytes | None) -> Any:
    """What a producer that has `written_value` as its serializer is given for a value."""
    return _NULL if value is None else value


def written_value(value: Any) -> bytes | None:
    """The value of what `value_to_write` returned."""
    return None if value is _NULL else value


async def reread(
    consumer: AIOKafkaConsumer,
    positions: dict[tuple[str, int], int],
    other: Mapping[str, Any],
    kind: type[D],
    /,
    **more: Any,
) -> AsyncIterator[list[D]]:
    """What comes next of each partition, after aiokafka's consumer raised UnicodeDecodeError.

    `positions` is where each partition goes on, and is moved before its deliveries are given; partitions that
    are not in it are left alone. `other` is `ClientConfig.confluent()` with an isolation level; `kind` and
    `more` are what a delivery is made as. Raises UnavailableError, and KafkaError as aiokafka does.
    """
    waiting = []
    for partition in consumer.assignment():
        place = (partition.topic, partition.partition)
        if place not in positions:
            continue
        if (consumer.highwater(partition) or 0) > positions[place]:
            waiting.append(partition)
        consumer.seek(partition, positions[place])
    for partition in waiting:
        place = (partition.topic, partition.partition)
        try:
            fetched = (await consumer.getmany(partition, timeout_ms=_PROBE_MS)).get(partition, [])
        except UnicodeDecodeError:
            messages, positions[place] = await asyncio.to_thread(_stretch, other, place, positions[place])
            consumer.seek(TopicPartition(*place), positions[place])
            yield [kind.of_message(message, **more) for message in messages]
        else:
            if fetched:
                positions[place] = fetched[-1].offset + 1
            yield [kind.of_record(record, **more) for record in fetched]


def _stretch(conf: Mapping[str, Any], place: tuple[str, int], start: int) -> tuple[list[Message], int]:
    """Records from an offset on, by confluent-kafka, and where reading goes on behind them."""
    from confluent_kafka import Consumer
    from confluent_kafka import TopicPartition as Partition

    consumer = Consumer(
        {
            "log_level": 0,
            **conf,
            "group.id": "delaystream-reader",
            "enable.auto.commit": False,
            "auto.offset.reset": "earliest",
        }
    )
    try:
        consumer.assign([Partition(*place, start)])
        first = consumer.poll(ANSWER_TIMEOUT_S)
        error = None if first is None else first.error()
        if first is None or error is not None:
            why = "it does not come" if error is None else error.str()
            raise UnavailableError(f"The record at {place[0]}/{place[1]}/{start} cannot be read: {why}.")
        found = [first, *(one for one in consumer.consume(_STRETCH, 0) if one.error() is None)]
        return found, (found[-1].offset() or 0) + 1
    finally:
        consumer.close()
