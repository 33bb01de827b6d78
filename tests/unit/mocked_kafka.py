"""librdkafka's own broker in memory, and a worker's receipts: real clients, without Java.

`python -m tests.unit.mocked_kafka REQUESTS REPLIES` prints its bootstrap servers, and answers each request
that asks for a receipt, until it is ended.
"""

from __future__ import annotations

import sys

from confluent_kafka import Consumer, Producer, TopicPartition

from delaystream.client.kafka.deliveries import raw_headers
from delaystream.codec.outgoing import Answer, Outcome, receipt
from delaystream.core.request import Coordinates

_ANSWER_S = 30.0
_REPLY_TO = "delaystream-reply-to"


def main() -> None:
    """Be a broker and a worker."""
    requests, replies = sys.argv[1:]
    producer = Producer({"bootstrap.servers": "mock", "test.mock.num.brokers": 1, "log_level": 0})
    for topic in (requests, replies):
        producer.list_topics(topic, timeout=_ANSWER_S)  # creates it
    found = producer.list_topics(timeout=_ANSWER_S)
    broker = next(iter(found.brokers.values()))
    bootstrap = f"{broker.host}:{broker.port}"
    consumer = Consumer(
        {
            "bootstrap.servers": bootstrap,
            "group.id": "answers",
            "enable.auto.commit": False,
            "log_level": 0,
            "fetch.wait.max.ms": 10,
        }
    )
    consumer.assign([TopicPartition(requests, number, 0) for number in found.topics[requests].partitions])
    print(bootstrap, flush=True)
    while True:
        for message in consumer.consume(500, 0.05):
            if message.error() is not None or _REPLY_TO not in dict(raw_headers(message) or []):
                continue
            source = Coordinates(requests, message.partition() or 0, message.offset() or 0)
            key, value, headers = receipt(source, None, Answer(Outcome.SCHEDULED), 1)
            producer.produce(replies, value, key, headers=[*headers])
        producer.poll(0)


if __name__ == "__main__":
    main()
