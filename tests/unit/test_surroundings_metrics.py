"""What Prometheus sees of a worker's disk, and of its clock beside the brokers'."""

import os
import shutil
from pathlib import Path

import pytest
from prometheus_client import CollectorRegistry
from prometheus_client.registry import Collector

from delaystream.adapters.operate.preflight_metrics import ClockSkew, StateDisk


def value(collector: Collector, name: str, **labels: str) -> float | None:
    registry = CollectorRegistry()
    registry.register(collector)
    return registry.get_sample_value(name, labels)


def test_the_disk_is_the_one_that_the_state_is_on(tmp_path: Path) -> None:
    disk = shutil.disk_usage(tmp_path)
    state = StateDisk(tmp_path)
    assert value(state, "delaystream_state_disk_size_bytes") == disk.total
    free = value(state, "delaystream_state_disk_free_bytes")
    assert free is not None
    assert 0 < free < disk.total


def test_state_is_what_its_files_occupy_at_any_depth(tmp_path: Path) -> None:
    """Blocks on disk, not lengths: RocksDB allocates ahead, and a hole costs nothing."""
    (tmp_path / "3").mkdir()
    state = StateDisk(tmp_path)
    empty = value(state, "delaystream_state_bytes")
    (tmp_path / "3" / "000001.sst").write_bytes(os.urandom(300_000))
    with (tmp_path / "3" / "sparse").open("wb") as sparse:
        sparse.truncate(50_000_000)
    occupied = value(state, "delaystream_state_bytes")
    assert empty is not None
    assert occupied is not None
    assert 300_000 <= occupied - empty < 1_000_000


def test_a_directory_that_is_gone_leaves_no_sample(tmp_path: Path) -> None:
    """0 bytes free would be a false alarm, and the last known value a false comfort."""
    assert value(StateDisk(tmp_path / "gone"), "delaystream_state_disk_free_bytes") is None


@pytest.mark.parametrize(
    ("append_ms", "skew_s"),
    [
        pytest.param(10_000, 0.0, id="when it was sent"),
        pytest.param(10_400, 0.0, id="when it was answered: a slow broker is no skew"),
        pytest.param(9_250, 0.75, id="before it was sent: the worker is ahead"),
        pytest.param(12_400, -2.0, id="after the answer: the worker is behind"),
    ],
)
def test_skew_is_what_travel_time_cannot_explain(append_ms: int, skew_s: float) -> None:
    skew = ClockSkew()
    skew.appended(7, 10_000, 10_400, append_ms)
    assert value(skew, "delaystream_clock_skew_seconds", broker="7") == skew_s


def test_each_broker_has_its_latest_skew() -> None:
    """One broker's wrong clock must not hide behind the others' right ones."""
    skew = ClockSkew()
    skew.appended(1, 10_000, 10_010, 5_000)
    skew.appended(2, 10_000, 10_010, 10_005)
    skew.appended(1, 20_000, 20_010, 19_000)
    assert value(skew, "delaystream_clock_skew_seconds", broker="1") == 1.0
    assert value(skew, "delaystream_clock_skew_seconds", broker="2") == 0.0
