"""Record batches that nobody should produce, or that a disk has damaged: others go on, and it is told."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from delaystream.adapters.kafka.connections import KafkaConnections
from delaystream.adapters.kafka.protocol import Produce
from delaystream.dev import EmbeddedBroker
from tests.integration.harness import Deployment, Worker, wait
from tests.integration.harness_fixtures import Deploy
from tests.integration.harness_kafka import Delivery, Kafka
from tests.unit.record_batches import CODECS, bomb, raw_batch, record

#: What a worker may take for a bomb, more than for ordinary requests.
_ALLOWED_BYTES = 300 * 1024 * 1024
_BOUND = 64 * 1024 * 1024


def _send(app: Deployment, topic: str, batch: bytes) -> int:
    """Have a broker append a batch as it is to partition 0; its first offset."""

    async def send() -> int:
        connections = KafkaConnections({"bootstrap_servers": app.kafka.bootstrap}, request_timeout_ms=60_000)
        leader = (await connections.describe([topic]))[topic].leaders[0]
        none: Any = None  # no transaction
        response = await connections.request(leader, "", Produce(none, 60_000, [(topic, [(0, batch)])]))
        await connections.close()
        [(_, [(_, code, offset, *_rest)])] = response.topics
        assert code == 0, response
        return int(offset)

    return asyncio.run(send())


def _peak_bytes(worker: Worker) -> int:
    found = re.search(r"VmHWM:\s+(\d+) kB", Path(f"/proc/{worker.pid}/status").read_text())
    assert found is not None
    return int(found[1]) * 1024


def _letters(app: Deployment, code: str, count: int) -> dict[tuple[str, int], Delivery]:
    """Dead letters with a code, by topic and offset."""
    with app.reader(app.dead_letters) as reader:
        letters = reader.take(count, wanted=lambda letter: letter.text("delaystream-error") == code)
    return {
        (letter.text("delaystream-error-topic"), int(letter.text("delaystream-error-offset"))): letter
        for letter in letters
    }


@pytest.mark.timeout(240)
def test_bombs_take_no_memory_and_become_one_dead_letter_each(deploy: Deploy) -> None:
    """600 MB of zeros are 30 kB on the wire. On the commands topic it is the same as on the request topic."""
    app = deploy(partitions=1).apply_topics()
    out = app.destination()
    worker = app.worker().wait_ready()
    app.request(b"first", {"destination": out, "delay": "0"})
    app.kafka.read(out, 1)
    peak = _peak_bytes(worker)
    bombs: set[tuple[str, int]] = set()
    for topic in (app.requests, app.commands):
        for compression, megabytes in (("zstd", 600), ("lz4", 200), ("gzip", 200)):
            batch = bomb(0, megabytes, compression)
            assert len(batch) < 1_000_000
            bombs.add((topic, _send(app, topic, batch)))
            app.request(compression.encode(), {"destination": out, "delay": "0"})
    values = [delivery.value for delivery in app.kafka.read(out, 7)]
    assert values == [b"first", *[b"zstd", b"lz4", b"gzip"] * 2]
    letters = _letters(app, "batch-too-large", len(bombs))
    assert set(letters) == bombs
    for (_, offset), letter in letters.items():
        assert (letter.key, letter.value) == (None, None)
        detail = letter.text("delaystream-error-detail")
        assert f"offsets {offset} to {offset} (1 records)" in detail
        assert f"more than the {_BOUND} bytes" in detail
    assert worker.metric("delaystream_requests_rejected_total", 'code="batch-too-large"') == len(bombs)
    assert _peak_bytes(worker) - peak < _ALLOWED_BYTES
    # What is read once is behind: another life does not read it again.
    assert worker.terminate() == 0
    app.request(b"last", {"destination": out, "delay": "0"})
    worker = app.worker().wait_ready()
    assert app.kafka.read(out, 8)[-1].value == b"last"
    assert worker.metric("delaystream_requests_rejected_total") == 0


def test_a_batch_of_many_requests_is_counted_by_its_header(deploy: Deploy) -> None:
    """Whatever an earlier part of the batch was, nothing of it is read."""
    app = deploy(partitions=1, DELAYSTREAM_BATCH_MAX_DECOMPRESSED_BYTES="2000000").apply_topics()
    out = app.destination()
    worker = app.worker().wait_ready()
    number, compress = CODECS["lz4"]
    headers = [("delaystream-destination", out.encode()), ("delaystream-delay", b"0")]
    payload = b"".join(record(n, b"k", bytes(100_000), headers) for n in range(50))
    offset = _send(app, app.requests, raw_batch(0, bytes(compress(payload)), 50, codec_number=number))
    app.request(b"behind", {"destination": out, "delay": "0"})
    assert [delivery.value for delivery in app.kafka.read(out, 1)] == [b"behind"]
    [letter] = _letters(app, "batch-too-large", 1).values()
    assert f"offsets {offset} to {offset + 49} (50 records)" in letter.text("delaystream-error-detail")
    assert worker.metric("delaystream_requests_rejected_total", 'code="batch-too-large"') == 50


def _damage(broker: EmbeddedBroker, topic: str, marker: bytes) -> Callable[[], None]:
    """Change a value where it stands on the broker's disk; what changes it back."""
    [segment] = [path for path in broker.data_dir.rglob("*.log") if path.parent.name == f"{topic}-0"]
    place = segment.read_bytes().index(marker)

    def write(content: bytes) -> None:
        with segment.open("r+b") as file:
            file.seek(place)
            file.write(content)

    write(marker[::-1])
    return lambda: write(marker)


@pytest.mark.timeout(240)
def test_a_batch_damaged_on_disk_holds_up_its_partition_until_it_is_whole_or_skipped(
    own_broker: Callable[..., EmbeddedBroker], tmp_path: Path
) -> None:
    """No producer can make one: the broker checks. Another replica may have it whole: it is not given up."""
    broker = own_broker()
    kafka = Kafka(broker.bootstrap_servers)
    with Deployment(kafka, tmp_path, partitions=2, DELAYSTREAM_ON_REQUESTS_LOST="continue") as app:
        out = app.apply_topics().destination()
        to_out = {"destination": out, "delay": "0"}
        app.request(b"before", to_out, partition=0)
        app.request(b"damaged once", to_out, partition=0)
        app.request(b"damaged for good", to_out, partition=0)
        app.request(b"behind", to_out, partition=0)
        mend = _damage(broker, app.requests, b"damaged once")
        _damage(broker, app.requests, b"damaged for good")
        worker = app.worker().wait_ready()
        app.request(b"elsewhere", to_out, partition=1)
        assert {delivery.value for delivery in kafka.read(out, 2)} == {b"before", b"elsewhere"}
        corrupt = f'partition="0",topic="{app.requests}"'
        wait(lambda: worker.metric("delaystream_source_corrupt", corrupt) == 1, "it to be told")
        assert f"{app.requests}-0 cannot be read on" in worker.output()
        mend()
        assert kafka.read(out, 3)[-1].value == b"damaged once"
        wait(lambda: "offset 2 does not match its checksum; the next one is at 3" in worker.output(), "2")
        assert worker.ready
        kafka.trim(app.requests, 0, 3)
        assert kafka.read(out, 4)[-1].value == b"behind"
        wait(lambda: worker.metric("delaystream_source_corrupt") == 0, "it to be over")
        assert worker.alive
