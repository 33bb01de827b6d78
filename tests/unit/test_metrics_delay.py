"""What Prometheus sees of delays, of waits, and of what is unread."""

from __future__ import annotations

import logging

import pytest

from delaystream.adapters.kafka.source_bounds import SourceEnds
from delaystream.adapters.operate.metrics import PrometheusObserver
from delaystream.adapters.operate.metrics_labels import BoundedLabels
from delaystream.adapters.operate.metrics_lateness import DESTINATION_BUCKETS_MS, LATENESS_BUCKETS_MS
from delaystream.adapters.operate.metrics_partitions import Partitions
from delaystream.adapters.operate.metrics_sources import SourceBacklog
from delaystream.engine.observer import Fires, Phase, Wait, Work
from delaystream.engine.ports import TopicPartition
from tests.unit.test_metrics import FixedClock, samples

NOW_MS = 1_000_000


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(NOW_MS)


@pytest.fixture
def observer(clock: FixedClock) -> PrometheusObserver:
    return PrometheusObserver(clock, app_id="delays")


def fire(observer: PrometheusObserver, destination: str, fires: Fires) -> None:
    observer.committed(0, Work({}, {}, {destination: fires}, 0.01))


def buckets(seen: dict[str, float], name: str) -> list[float]:
    return [value for sample, value in seen.items() if sample.startswith(f"{name}_bucket")]


def test_every_series_names_its_application(observer: PrometheusObserver) -> None:
    """Rules select by it, whatever the scrape job and the address are."""
    fire(observer, "orders", Fires([1]))
    observer.phase(0, Phase.RUNNING)
    lines = [line for line in observer.exposition().decode().splitlines() if not line.startswith("#")]
    assert len(lines) > 90
    assert [line for line in lines if '{app_id="delays"' not in line] == []


def test_a_fire_that_was_excused_is_as_late_as_before_and_delayed_by_less(
    observer: PrometheusObserver,
) -> None:
    """Lateness keeps its meaning; the delay counts the others as it does."""
    fire(observer, "orders", Fires([5, 90_000, 3_000], [(90_000, 40)]))
    seen = samples(observer)
    assert seen["delaystream_fire_lateness_seconds_sum"] == pytest.approx(93.005)
    assert seen["delaystream_fire_delay_seconds_sum"] == pytest.approx(3.045)
    assert seen["delaystream_fire_delay_seconds_count"] == 3
    assert seen['delaystream_fire_lateness_seconds_bucket{le="1.0"}'] == 1
    assert seen['delaystream_fire_delay_seconds_bucket{le="1.0"}'] == 2
    assert seen['delaystream_fire_delay_seconds_bucket{le="0.03"}'] == 1
    assert seen['delaystream_fire_delay_seconds_bucket{le="0.05"}'] == 2


def test_delays_have_a_bucket_for_every_bound(observer: PrometheusObserver) -> None:
    fire(observer, "orders", Fires(list(LATENESS_BUCKETS_MS)))
    counts = buckets(samples(observer), "delaystream_fire_delay_seconds")
    assert counts == [*range(1, len(LATENESS_BUCKETS_MS) + 1), len(LATENESS_BUCKETS_MS)]


def test_delays_of_each_destination_have_few_bounds_and_a_bounded_number_of_labels(
    clock: FixedClock,
) -> None:
    observer = PrometheusObserver(clock, app_id="delays", destinations=1)
    fire(observer, "orders", Fires([100, 101, 1_000, 5_000_000]))
    for number in range(5):
        fire(observer, f"topic-{number}", Fires([1]))
    seen = samples(observer)
    name = "delaystream_destination_fire_delay_seconds"
    bounds = [f'{name}_bucket{{destination="orders",le="{ms / 1000}"}}' for ms in DESTINATION_BUCKETS_MS]
    assert [seen[bound] for bound in bounds] == [1, 3, 3, 3, 3]
    assert seen[f'{name}_count{{destination="orders"}}'] == 4
    assert seen[f'{name}_count{{destination="other"}}'] == 5
    assert len([sample for sample in seen if sample.startswith(f"{name}_count")]) == 2


def test_what_is_overdue_ages_until_somebody_says_otherwise(
    observer: PrometheusObserver, clock: FixedClock
) -> None:
    """A partition that stands still tells nothing new; that is when it matters."""
    observer.overdue(0, {("orders", Wait.FIREABLE): NOW_MS - 1_000, ("sms", Wait.FIREABLE): NOW_MS - 3_000})
    observer.overdue(1, {("orders", Wait.FIREABLE): NOW_MS - 9_000})
    clock.time_ms += 60_000
    seen = samples(observer)
    assert seen['delaystream_fireable_overdue_seconds{partition="0"}'] == 63
    assert seen['delaystream_fireable_overdue_seconds{partition="1"}'] == 69
    assert seen['delaystream_destination_overdue_seconds{destination="orders",waits_for="fireable"}'] == 69
    observer.overdue(0, {})
    assert samples(observer)['delaystream_fireable_overdue_seconds{partition="0"}'] == 0


@pytest.mark.parametrize("wait", [Wait.RATE, Wait.HOLD, Wait.PARKED])
def test_what_its_owner_keeps_waiting_is_shown_beside(observer: PrometheusObserver, wait: Wait) -> None:
    """And does not hide that something else of the partition is stuck."""
    observer.overdue(0, {("missing", wait): NOW_MS - 3_600_000, ("orders", Wait.FIREABLE): NOW_MS - 90_000})
    seen = samples(observer)
    name = "delaystream_destination_overdue_seconds"
    assert seen[f'{name}{{destination="missing",waits_for="{wait}"}}'] == 3_600
    assert seen['delaystream_fireable_overdue_seconds{partition="0"}'] == 90


def test_the_last_commit_has_an_age_from_the_moment_that_a_partition_is_here() -> None:
    """By a clock that nobody sets."""
    now_s = 50.0
    partitions = Partitions(FixedClock(0), BoundedLabels(1), 1, lambda: now_s)

    def age() -> list[float]:
        [family] = [
            each for each in partitions.collect() if each.name == "delaystream_last_commit_age_seconds"
        ]
        return [sample.value for sample in family.samples]

    partitions.enter(0, Phase.FENCING)
    now_s += 20
    partitions.enter(0, Phase.RUNNING)
    assert age() == [20]
    partitions.committed(0)
    now_s += 7
    assert age() == [7]
    partitions.enter(0, Phase.STOPPED)
    assert age() == []


class Backlog:
    """A backlog of one source partition, and its time."""

    source = TopicPartition("requests", 3)

    def __init__(self) -> None:
        self.now_s = 0.0
        self.backlog = SourceBacklog(lambda: self.now_s)
        self.backlog.read(3, {"requests": 100})

    def found(self, high_watermark: int, last_stable_offset: int) -> None:
        self.backlog.found({self.source: SourceEnds(high_watermark, last_stable_offset)})

    def value(self, name: str) -> float:
        [value] = [
            sample.value
            for family in self.backlog.collect()
            for sample in family.samples
            if sample.name == name
        ]
        return value

    @property
    def unread(self) -> float:
        return self.value("delaystream_unread_requests")

    @property
    def stuck_s(self) -> float:
        return self.value("delaystream_last_stable_offset_stuck_seconds")


def test_what_is_unread_is_what_lies_between_the_end_and_what_was_applied() -> None:
    source = Backlog()
    source.found(150, 150)
    assert source.unread == 50
    source.backlog.read(3, {"requests": 150})
    assert source.unread == 0
    source.backlog.read(3, {"requests": 160})
    assert source.unread == 0, "the end is older than the position"


def test_nothing_is_said_of_a_partition_of_which_nothing_was_read() -> None:
    source = Backlog()
    source.backlog.forget(3)
    source.found(150, 150)
    assert not [sample for family in source.backlog.collect() for sample in family.samples]


def test_a_last_stable_offset_that_stands_is_told_and_its_end_too(caplog: pytest.LogCaptureFixture) -> None:
    """One line when it has lasted, none for what passes, and one when requests can be read on."""
    caplog.set_level(logging.INFO)
    source = Backlog()
    source.found(150, 120)
    assert source.stuck_s == 0
    source.now_s = 5
    source.found(150, 120)
    assert (source.stuck_s, caplog.messages) == (5, [])
    source.now_s = 11
    source.found(170, 120)
    source.now_s = 16
    source.found(170, 120)
    assert source.stuck_s == 16
    [line] = caplog.messages
    assert "requests-3" in line
    assert "offset 120" in line
    assert "11 s" in line
    source.found(180, 180)
    assert source.stuck_s == 0
    assert caplog.messages[1:] == ["requests-3: its requests can be read on"]


def test_a_topic_to_which_nobody_writes_is_not_stuck() -> None:
    source = Backlog()
    source.found(150, 150)
    source.now_s = 60
    source.found(150, 150)
    assert source.stuck_s == 0


def test_a_last_stable_offset_that_moves_is_not_stuck() -> None:
    """A topic that is written in transactions always has one that is open."""
    source = Backlog()
    for number in range(10):
        source.found(150 + number, 120 + number)
        source.now_s += 5
    assert source.stuck_s == 5
