"""Requests come from any Kafka client: librdkafka's in every other test, Java's console producer here."""

from __future__ import annotations

import os
import subprocess
import time
from pathlib import Path

from confluent_kafka import Producer

from delaystream.dev.jars import Lock, class_path
from delaystream.dev.java import find_java
from tests.integration.harness import Deployment

#: test-only; the runtime of the embedded broker brings no command line tools
LOCK = Path(__file__).with_name("kafka-tools-4.3.1.lock")


def _console_producer(bootstrap: str, topic: str, lines: list[str], **properties: str) -> None:
    options = [
        argument
        for name, value in properties.items()
        for argument in ("--reader-property", f"{name}={value}")
    ]
    command = [
        str(find_java()),
        "-XX:TieredStopAtLevel=1",
        "-XX:+UseSerialGC",
        "-cp",
        os.pathsep.join(map(str, class_path(Lock.read(LOCK)))),
        "org.apache.kafka.tools.ConsoleProducer",
        "--bootstrap-server",
        bootstrap,
        "--topic",
        topic,
        *options,
    ]
    done = subprocess.run(
        command, input="\n".join(lines) + "\n", text=True, capture_output=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr


def test_javas_console_producer(app: Deployment) -> None:
    """`kafka-console-producer --reader-property parse.headers=true parse.key=true` makes requests."""
    out = app.destination("from-java")
    sent_ms = int(time.time() * 1000)
    control = f"delaystream-destination:{out},trace:a,trace:b"
    lines = [
        f"delaystream-delay:1s,{control}\torder-1\tfrom Java",
        f"delaystream-delay:0,{control}\torder-2\tat once ☂",
        f"delaystream-delay:500ms,{control}\torder-3\tNULL",
    ]
    properties = {"parse.headers": "true", "parse.key": "true", "null.marker": "NULL"}
    _console_producer(app.kafka.bootstrap, app.requests, lines, **properties)
    by_key = {delivery.key: delivery for delivery in app.kafka.read(out, 3)}
    assert by_key[b"order-1"].value == b"from Java"
    assert by_key[b"order-2"].value == "at once ☂".encode()
    assert by_key[b"order-3"].value is None
    for delivery in by_key.values():
        assert delivery.foreign == [("trace", b"a"), ("trace", b"b")]
        assert delivery.timestamp_ms >= int(delivery.text("delaystream-due-at")) >= sent_ms


def test_compressed_and_transactional_producers(app: Deployment) -> None:
    """librdkafka with each codec, and requests of a committed and of an aborted transaction."""
    out = app.destination("codecs")
    headers: list[tuple[str, bytes | None]] = [
        ("delaystream-destination", out.encode()),
        ("delaystream-delay", b"300ms"),
    ]
    codecs = ["none", "gzip", "snappy", "lz4", "zstd"]
    for codec in codecs:
        record = (codec.encode(), b"v" * 500, headers)
        app.kafka.produce(app.requests, [record] * 5, compression_type=codec)
    producer = Producer({"bootstrap.servers": app.kafka.bootstrap, "transactional.id": app.topic("producer")})
    producer.init_transactions(30)
    for key, end in ((b"aborted", producer.abort_transaction), (b"committed", producer.commit_transaction)):
        producer.begin_transaction()
        producer.produce(app.requests, b"v", key, headers=list(headers))
        producer.flush(30)
        end(30)
    with app.reader(out) as reader:
        keys = [delivery.key for delivery in reader.take(5 * len(codecs) + 1)]
        assert sorted(set(keys), key=str) == sorted([*(c.encode() for c in codecs), b"committed"], key=str)
        reader.quiet(0.5)
