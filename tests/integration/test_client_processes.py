"""The blocking client in threads, in children of a fork, and under Ctrl-C."""

from __future__ import annotations

import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from uuid import uuid4

import psutil

from delaystream.adapters.security.client_config import ClientConfig
from delaystream.client import Client
from delaystream.client.kafka.confluent_transport import ConfluentTransport
from tests.integration.harness import Deployment, wait

WAIT = timedelta(seconds=20)

FORK = """
import os, sys
from delaystream.client import Client
servers, topic = sys.argv[1:]
client = Client(servers, request_topic=topic)
client.schedule("x", b"parent before", delay="1h")
batch = client.batch()
for number in range(100):
    batch.schedule("x", b"parent meanwhile", delay="1h")
child = os.fork()
if not child:
    # As any child that comes to its end by itself: with all that the interpreter does then.
    with client:
        client.schedule("x", b"child", delay="1h")
    sys.exit(0)
_, status = os.waitpid(child, 0)
client.schedule("x", b"parent after", delay="1h")
client.close()
sys.exit(os.waitstatus_to_exitcode(status))
"""

INTERRUPTED = """
import sys
from datetime import timedelta
from delaystream.client import Client
servers, topic, reply_to = sys.argv[1:]
with Client(servers, request_topic=topic, reply_to=reply_to) as client:
    pending = client.batch().schedule("x", b"first", delay="1h", wait=timedelta(minutes=5))
    pending.sent()
    try:
        print("waits", flush=True)
        pending.result()
    except KeyboardInterrupt:
        print("interrupted", flush=True)
    client.schedule("x", b"second", delay="1h")
print("closed", flush=True)
"""


def test_threads_share_a_client(app: Deployment) -> None:
    """Each has the receipt of its own request, on one producer and one reader."""
    out, tag = app.destination(f"threads-{uuid4().hex}"), uuid4().hex

    with Client(app.kafka.bootstrap, request_topic=app.requests, reply_to=app.receipts) as client:

        def schedule(number: int) -> tuple[str, str | None]:
            accepted = client.schedule(out, b"", delay="1h", id=f"{tag}-{number}", wait=WAIT)
            assert accepted.receipt is not None
            return accepted.receipt.schedule_id, accepted.outcome

        with ThreadPoolExecutor(16) as pool:
            told = list(pool.map(schedule, range(200)))
        assert told == [(f"{tag}-{number}", "scheduled") for number in range(200)]
        cancelled = client.cancel(match_id_prefix=tag, wait=WAIT).receipt
        assert cancelled is not None
        assert cancelled.count == 200


def test_who_sends_more_than_may_be_in_flight_waits(app: Deployment) -> None:
    """Nothing is lost and nothing is refused: the queue of the producer is the bound."""
    topic = app.kafka.create(app.topic(f"bounded-{uuid4().hex}"), 2)
    config = ClientConfig.parse({"bootstrap.servers": app.kafka.bootstrap})
    transport = ConfluentTransport(config.confluent_producer(), config.confluent(), in_flight=16)
    with Client(transport=transport, request_topic=topic) as client, client.batch() as batch:
        for number in range(2_000):
            batch.schedule("x", str(number), delay="1h")
    values = sorted(int(record.value or b"-1") for record in app.kafka.read(topic, 2_000))
    assert values == list(range(2_000))


def test_the_child_of_a_fork_has_connections_of_its_own(app: Deployment) -> None:
    """It sends what it sends and nothing of its parent's; both end."""
    topic = app.kafka.create(app.topic(f"forked-{uuid4().hex}"), 1)
    command = [sys.executable, "-c", FORK, app.kafka.bootstrap, topic]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    values = [record.value for record in app.kafka.read(topic, 103)]
    assert sorted({value: values.count(value) for value in values}.items(), key=str) == [
        (b"child", 1),
        (b"parent after", 1),
        (b"parent before", 1),
        (b"parent meanwhile", 100),
    ]


def test_who_is_interrupted_while_waiting_has_a_client_that_goes_on(app: Deployment) -> None:
    """The request is not taken back, and the client closes as ever: nothing waits for the receipt."""
    topic = app.kafka.create(app.topic(f"interrupted-{uuid4().hex}"), 1)
    command = [sys.executable, "-c", INTERRUPTED, app.kafka.bootstrap, topic, app.receipts]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "waits\n"
        waiting = psutil.Process(process.pid)
        wait(lambda: waiting.status() == psutil.STATUS_SLEEPING, "the main thread waits")
        process.send_signal(signal.SIGINT)
        rest, _ = process.communicate(timeout=60)
    assert (rest, process.returncode) == ("interrupted\nclosed\n", 0)
    assert [record.value for record in app.kafka.read(topic, 2)] == [b"first", b"second"]
