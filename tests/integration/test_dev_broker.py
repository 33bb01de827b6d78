"""The embedded broker keeps its promises: it starts, it survives, it never stays behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import psutil
import pytest
from confluent_kafka import Consumer, KafkaException, Producer, TopicPartition
from confluent_kafka.admin import AdminClient, NewTopic

from delaystream.dev import DEFAULT_VERSION, BrokerError, EmbeddedBroker, locked_versions
from delaystream.dev.datadir import DataDir
from delaystream.dev.errors import BrokerStartError, DataDirInUseError, PortInUseError

OLDEST_VERSION = locked_versions()[0]


def transact(servers: str, topic: str, values: list[bytes]) -> None:
    producer = Producer({"bootstrap.servers": servers, "transactional.id": "test"})
    producer.init_transactions(30)
    producer.begin_transaction()
    for value in values:
        producer.produce(topic, value, headers=[("name", b"\x00")])
    producer.commit_transaction(30)


def create(servers: str, topic: str) -> None:
    # The client must outlive the answer.
    admin = AdminClient({"bootstrap.servers": servers})
    admin.create_topics([NewTopic(topic, 1, 1)])[topic].result(30)


def committed(servers: str, topic: str) -> list[bytes | None]:
    """All values of a topic that a read_committed reader sees."""
    consumer = Consumer(
        {"bootstrap.servers": servers, "group.id": "test", "isolation.level": "read_committed"}
        | {"enable.partition.eof": True, "auto.offset.reset": "earliest"}
    )
    consumer.assign([TopicPartition(topic, 0, 0)])
    values: list[bytes | None] = []
    try:
        while True:
            message = consumer.poll(30)
            assert message is not None, "the broker does not answer"
            if message.error():
                return values
            values.append(message.value())
    finally:
        consumer.close()


def is_gone(pid: int) -> bool:
    try:
        return bool(psutil.Process(pid).status() == psutil.STATUS_ZOMBIE)
    except psutil.NoSuchProcess:
        return True


def wait_until(condition: Callable[[], bool], seconds: float = 20) -> None:
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "waited too long"
        time.sleep(0.02)


@pytest.fixture(scope="module")
def broker(tmp_path_factory: pytest.TempPathFactory) -> Iterator[EmbeddedBroker]:
    """A broker that no test stops."""
    with EmbeddedBroker(tmp_path_factory.mktemp("kafka")) as broker:
        yield broker


@pytest.mark.parametrize("version", locked_versions())
def test_transactions_survive_a_restart_and_a_kill_on_the_same_port(
    own_broker: Callable[..., EmbeddedBroker], version: str
) -> None:
    broker = own_broker(version=version)
    servers = broker.bootstrap_servers
    create(servers, "t")
    transact(servers, "t", [b"1"])
    broker.restart()
    transact(servers, "t", [b"2"])
    broker.kill()
    broker.start()
    transact(servers, "t", [b"3"])
    assert broker.bootstrap_servers == servers
    assert committed(servers, "t") == [b"1", b"2", b"3"]


def test_a_later_broker_finds_the_records_of_an_earlier_one(
    own_broker: Callable[..., EmbeddedBroker], tmp_path: Path
) -> None:
    first = own_broker(tmp_path / "d")
    create(first.bootstrap_servers, "t")
    transact(first.bootstrap_servers, "t", [b"1"])
    first.stop()
    second = own_broker(tmp_path / "d")
    assert committed(second.bootstrap_servers, "t") == [b"1"]


def test_a_newer_kafka_takes_over_an_older_ones_directory_but_not_the_other_way_round(
    own_broker: Callable[..., EmbeddedBroker], tmp_path: Path
) -> None:
    older = own_broker(tmp_path / "d", version=OLDEST_VERSION)
    create(older.bootstrap_servers, "t")
    transact(older.bootstrap_servers, "t", [b"1"])
    older.stop()
    newer = own_broker(tmp_path / "d", version=DEFAULT_VERSION)
    assert committed(newer.bootstrap_servers, "t") == [b"1"]
    newer.stop()
    with pytest.raises(BrokerStartError, match=f"was written by Kafka {DEFAULT_VERSION}"):
        older.start()


def test_topics_are_never_created_by_asking_for_them(broker: EmbeddedBroker) -> None:
    producer = Producer({"bootstrap.servers": broker.bootstrap_servers, "message.timeout.ms": 1500})
    results = []
    producer.produce("nobody-made-this", b"", on_delivery=lambda error, _: results.append(error))
    producer.flush(10)
    assert results[0] is not None
    assert (
        "nobody-made-this"
        not in AdminClient({"bootstrap.servers": broker.bootstrap_servers}).list_topics().topics
    )


def test_a_second_broker_on_a_data_directory_is_refused_and_the_first_goes_on(
    own_broker: Callable[..., EmbeddedBroker], broker: EmbeddedBroker
) -> None:
    with pytest.raises(DataDirInUseError, match=f"Another broker works in {broker.data_dir}"):
        own_broker(broker.data_dir)
    create(broker.bootstrap_servers, "t")


def test_a_port_in_use_is_refused_by_name(
    own_broker: Callable[..., EmbeddedBroker], broker: EmbeddedBroker
) -> None:
    port = int(broker.bootstrap_servers.split(":")[1])
    with pytest.raises(PortInUseError, match=f"Port {port} "):
        own_broker(port=port)


def test_a_broker_that_cannot_start_tells_why_and_leaves_nothing_behind(
    own_broker: Callable[..., EmbeddedBroker],
) -> None:
    broker = own_broker(start=False, properties={"log.retention.ms": "soon"})
    with pytest.raises(BrokerStartError, match="soon"):
        broker.start()
    assert not broker.is_running
    with pytest.raises(BrokerError, match="not running"):
        _ = broker.pid


def test_a_data_directory_that_cannot_be_made_is_refused_by_name(
    own_broker: Callable[..., EmbeddedBroker], tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(BrokerStartError, match=str(tmp_path / "file")):
        own_broker(tmp_path / "file" / "d")


def test_a_paused_broker_answers_nobody_until_it_is_resumed(
    own_broker: Callable[..., EmbeddedBroker],
) -> None:
    broker = own_broker()
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers})
    admin.list_topics(timeout=10)
    broker.pause()
    wait_until(lambda: psutil.Process(broker.pid).status() == psutil.STATUS_STOPPED)
    with pytest.raises(KafkaException):
        admin.list_topics(timeout=1)
    broker.resume()
    assert admin.list_topics(timeout=30).brokers


def test_given_properties_reach_the_broker_and_a_paused_broker_can_be_stopped(
    own_broker: Callable[..., EmbeddedBroker],
) -> None:
    broker = own_broker(properties={"auto.create.topics.enable": "true"})
    admin = AdminClient({"bootstrap.servers": broker.bootstrap_servers, "allow.auto.create.topics": True})
    admin.list_topics("made-by-asking", timeout=10)
    wait_until(lambda: "made-by-asking" in admin.list_topics(timeout=10).topics)
    pid = broker.pid
    broker.pause()
    broker.stop()
    assert is_gone(pid)


PARENT = """
import sys, threading, pathlib
from delaystream.dev import EmbeddedBroker
broker = EmbeddedBroker(pathlib.Path(sys.argv[1]))
# From a thread that ends: the broker belongs to the process, not to the thread.
thread = threading.Thread(target=broker.start)
thread.start()
thread.join()
print(broker.pid, broker.bootstrap_servers, flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("ending", ["SIGKILL", "SIGTERM", "a normal exit"])
def test_the_broker_ends_with_the_process_that_started_it(tmp_path: Path, ending: str) -> None:
    """However that process ends; and its data directory is free again at once."""
    parent = subprocess.Popen(
        [sys.executable, "-c", PARENT, tmp_path / "d"],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=Path(__file__).parents[2],
    )
    try:
        assert parent.stdout is not None
        pid_text, servers = parent.stdout.readline().split()
        pid = int(pid_text)
        AdminClient({"bootstrap.servers": servers}).list_topics(timeout=10)
        assert os.getpgid(pid) != os.getpgid(0)
        guard = os.getpgid(pid)
        if ending == "a normal exit":
            parent.communicate(timeout=30)
        else:
            parent.send_signal(signal.Signals[ending])
            parent.wait(30)
    finally:
        parent.kill()
        parent.communicate()
    wait_until(lambda: is_gone(pid) and is_gone(guard))
    directory = DataDir(tmp_path / "d", DEFAULT_VERSION)
    directory.lock()
    directory.unlock()
