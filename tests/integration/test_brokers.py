"""The brokers beside the default one, on which all else runs: each through a short life."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from delaystream.dev import EmbeddedBroker
from delaystream.dev.jars import DEFAULT_VERSION, locked_versions
from tests.integration.harness import Deployment
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
