"""The brokers beside the default one, on which all else runs: each through a short life."""

from __future__ import annotations

import os
import re
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import psutil
import pytest

from delaystream.dev import EmbeddedBroker
from delaystream.dev.jars import DEFAULT_VERSION, locked_versions
from tests.integration.harness import Deployment, command, wait
from tests.integration.harness_kafka import Kafka
from tests.integration.harness_traffic import Traffic


@pytest.mark.parametrize("version", [version for version in locked_versions() if version != DEFAULT_VERSION])
def test_a_short_life_on_each_supported_broker(
    version: str, own_broker: Callable[..., EmbeddedBroker], tmp_path: Path
) -> None:
    """A worker is killed in the midst of traffic and another one takes over, on Kafka 3.9."""
    kafka = Kafka(own_broker(version=version).bootstrap_servers)
    with Deployment(kafka, tmp_path, partitions=2) as app:
        first = app.apply_topics().worker("-a").wait_ready()
        traffic = Traffic(app, rate=100, seed=39, longest_delay_ms=2_000).start()
        second = app.worker("-b").wait_ready()
        first.kill()
        app.worker("-a").wait_ready()
        report, _ = traffic.stop().outcome()
        assert report.ok, f"Kafka {version}: {report}"
        assert report.delivered > 100
        assert second.alive


_ARGUMENTS = ["--brokers", "3", "--port", "0", "--http-port", "0", "--partitions", "2", "--no-samples"]
_BROKER = re.compile(r"^  broker (\d)  (\S+)  process (\d+)  ", re.MULTILINE)


@pytest.mark.timeout(240)
def test_dev_with_three_brokers_outlives_one_of_them(tmp_path: Path) -> None:
    """It says which one ended, goes on delivering, and leaves nothing behind when it is told to stop."""
    output = tmp_path / "output"
    environment = {name: value for name, value in os.environ.items() if not name.startswith("DELAYSTREAM_")}
    with output.open("w") as file:
        dev = subprocess.Popen(
            command("dev", *_ARGUMENTS, "--data-dir", str(tmp_path / "dev")),
            stdin=subprocess.DEVNULL,
            stdout=file,
            stderr=file,
            env=environment,
        )
    try:
        wait(lambda: "Ctrl-C stops all of it" in output.read_text() or dev.poll() is not None, "ready", 90)
        assert dev.poll() is None, output.read_text()
        processes = psutil.Process(dev.pid).children(recursive=True)
        found = _BROKER.findall(output.read_text())
        kafka = Kafka(",".join(address for _, address, _ in found))
        for topic in ("delay-requests", "reminders", "__consumer_offsets", "__transaction_state"):
            replicas = kafka.admin.list_topics(topic).topics[topic].partitions[0].replicas
            assert len(replicas) == 3, topic
        number, _, pid = found[0]
        os.kill(int(pid), signal.SIGKILL)
        headers = [("delaystream-destination", b"reminders"), ("delaystream-delay", b"500ms")]
        kafka.produce("delay-requests", [(None, b"still there", headers)], partition=0)
        kafka.produce("delay-requests", [(None, b"here too", headers)], partition=1)
        delivered = {delivery.value for delivery in kafka.read("reminders", 2)}
        assert delivered == {b"still there", b"here too"}
        wait(lambda: f"broker {number} (" in output.read_text(), "the broken one's name")
        assert "the others go on" in output.read_text()
        dev.terminate()
        assert dev.wait(40) == 0, output.read_text()
        assert not [process for process in processes if process.is_running()]
    finally:
        # What it started ends with it.
        dev.kill()
        dev.wait()
