"""What Prometheus sees of what the engine reports."""

import re

import pytest

from delaystream.adapters.kafka.source_bounds import SourceEnds
from delaystream.adapters.operate.metrics import PrometheusObserver
from delaystream.adapters.operate.metrics_lateness import LATENESS_BUCKETS_MS
from delaystream.codec.event import EventType, WhyPassed
from delaystream.engine.observer import Fires, Observer, Phase, Wait, Work
from delaystream.engine.ports import TopicPartition
from delaystream.engine.state.pending import HOUR_MS, PendingChange


class FixedClock:
    def __init__(self, now_ms: int) -> None:
        self.time_ms = now_ms

    def now_ms(self) -> int:
        return self.time_ms


@pytest.fixture
def clock() -> FixedClock:
    return FixedClock(1_000_000)


@pytest.fixture
def observer(clock: FixedClock) -> PrometheusObserver:
    return PrometheusObserver(clock, app_id="delays")


def samples(observer: PrometheusObserver) -> dict[str, float]:
    """By name and labels, without the label that every series has."""
    text = re.sub(r"\{app_id=\"delays\"\}|(?<=\{)app_id=\"delays\",", "", observer.exposition().decode())
    lines = text.splitlines()
    return {name: float(value) for name, value in (line.rsplit(" ", 1) for line in lines if line[0] != "#")}


def commit(
    observer: Observer,
    *,
    partition: int = 0,
    accepted: dict[str, int] | None = None,
    rejected: dict[tuple[str, str], int] | None = None,
    fired: dict[str, list[int]] | None = None,
) -> None:
    fires = {destination: Fires(lateness_ms) for destination, lateness_ms in (fired or {}).items()}
    observer.committed(partition, Work(accepted or {}, rejected or {}, fires, 0.015))


def test_committed_requests_and_fires_are_counted_by_what_they_are(observer: PrometheusObserver) -> None:
    """Accepted by topic, refused by code, fired by destination."""
    commit(
        observer,
        accepted={"requests": 3},
        rejected={("requests", "bad-delay"): 1, ("others", "bad-delay"): 2},
        fired={"orders": [1, 2]},
    )
    commit(observer, accepted={"requests": 4})
    seen = samples(observer)
    assert seen['delaystream_requests_accepted_total{topic="requests"}'] == 7
    assert seen['delaystream_requests_rejected_total{code="bad-delay",topic="requests"}'] == 1
    assert seen['delaystream_requests_rejected_total{code="bad-delay",topic="others"}'] == 2
    assert seen['delaystream_fires_total{destination="orders"}'] == 2
    assert seen["delaystream_transaction_seconds_count"] == 2


def test_due_times_without_a_delivery_are_counted_by_reason(observer: PrometheusObserver) -> None:
    observer.missed(0, {(WhyPassed.LATE, "orders"): 3, (EventType.SKIPPED, "orders"): 2})
    observer.missed(1, {(WhyPassed.LATE, "orders"): 1})
    seen = samples(observer)
    assert seen['delaystream_missed_total{destination="orders",reason="late"}'] == 4
    assert seen['delaystream_missed_total{destination="orders",reason="skipped"}'] == 2


def test_lateness_buckets_count_what_is_at_most_as_late(observer: PrometheusObserver) -> None:
    """Cumulative, bounds inclusive, whatever the order within a list."""
    commit(observer, fired={"a": [7_200_000, 0, 10, 11, 1], "b": [250]})
    seen = samples(observer)

    def bucket(le: str) -> float:
        return seen[f'delaystream_fire_lateness_seconds_bucket{{le="{le}"}}']

    assert [bucket(le) for le in ("0.001", "0.005", "0.01", "0.02", "0.15", "0.25", "3600.0", "+Inf")] == [
        2, 2, 3, 4, 4, 5, 5, 6,
    ]  # fmt: skip
    assert seen["delaystream_fire_lateness_seconds_count"] == 6
    assert seen["delaystream_fire_lateness_seconds_sum"] == pytest.approx(7200.272)


def test_there_is_a_bucket_for_every_bound(observer: PrometheusObserver) -> None:
    commit(observer, fired={"a": list(LATENESS_BUCKETS_MS)})
    counts = [
        v for n, v in samples(observer).items() if n.startswith("delaystream_fire_lateness_seconds_bucket")
    ]
    assert counts == [*range(1, len(LATENESS_BUCKETS_MS) + 1), len(LATENESS_BUCKETS_MS)]


def test_overdue_is_counted_from_the_moment_of_the_scrape(
    observer: PrometheusObserver, clock: FixedClock
) -> None:
    """It grows while nothing is committed: that is when it matters."""
    observer.pending(3, 10, 1_000_000)
    assert samples(observer)['delaystream_oldest_overdue_seconds{partition="3"}'] == 0
    clock.time_ms += 2_500
    seen = samples(observer)
    assert seen['delaystream_oldest_overdue_seconds{partition="3"}'] == 2.5
    assert seen['delaystream_pending_entries{partition="3"}'] == 10


def test_nothing_due_is_not_overdue(observer: PrometheusObserver) -> None:
    observer.pending(0, 0, None)
    observer.pending(1, 5, 2_000_000)
    seen = samples(observer)
    assert seen['delaystream_oldest_overdue_seconds{partition="0"}'] == 0
    assert seen['delaystream_oldest_overdue_seconds{partition="1"}'] == 0


def test_the_last_commit_is_dated_by_partition(observer: PrometheusObserver, clock: FixedClock) -> None:
    """One partition that stands still must not hide behind others that go on."""
    commit(observer)
    clock.time_ms += 90_000
    commit(observer, partition=1)
    seen = samples(observer)
    assert seen['delaystream_last_commit_timestamp_seconds{partition="0"}'] == 1_000
    assert seen['delaystream_last_commit_timestamp_seconds{partition="1"}'] == 1_090


def test_each_partition_counts_what_it_has_parked(observer: PrometheusObserver) -> None:
    """So that an alert can tell a partition that waits for a destination from one that is stuck."""
    for partition in (0, 1):
        observer.phase(partition, Phase.RUNNING)
    observer.parked(0, "orders", "missing")
    observer.parked(0, "reminders", "missing")
    seen = samples(observer)
    assert seen['delaystream_parked_destinations{partition="0"}'] == 2
    assert seen['delaystream_parked_destinations{partition="1"}'] == 0


def test_partitions_to_own_are_shown_once_they_are_known(observer: PrometheusObserver) -> None:
    assert samples(observer)["delaystream_request_partitions"] == 0
    observer.request_partitions(16, ["delay-requests"])
    # Prometheus sees no increase in what a counter has when it first appears.
    assert samples(observer)['delaystream_requests_accepted_total{topic="delay-requests"}'] == 0
    assert samples(observer)["delaystream_request_partitions"] == 16


def test_a_partition_that_is_given_up_leaves_no_sample(observer: PrometheusObserver) -> None:
    """Another worker reports it from now on; a stale one would be counted twice."""
    observer.phase(2, Phase.RUNNING)
    observer.pending(2, 7, None)
    observer.recovery(2, 5, 5, 5)
    observer.parked(2, "gone", "missing")
    commit(observer, partition=2)
    observer.overdue(2, {("gone", Wait.FIREABLE): 1})
    observer.read(2, {"requests": 5})
    observer.sources.found({TopicPartition("requests", 2): SourceEnds(9, 9)})
    assert samples(observer)['delaystream_partitions{phase="running"}'] == 1
    observer.phase(2, Phase.STOPPED)
    seen = samples(observer)
    assert seen['delaystream_partitions{phase="running"}'] == 0
    assert not [name for name in seen if 'partition="2"' in name or "gone" in name]


def test_recovered_records_add_up_over_partitions_and_attempts(observer: PrometheusObserver) -> None:
    """The engine reports totals of a recovery; a second one starts at zero."""
    observer.recovery(0, 100, 100, 300)
    observer.recovery(0, 300, 300, 300)
    observer.recovery(1, 50, 50, 50)
    observer.recovery(0, 10, 10, 300)
    seen = samples(observer)
    assert seen["delaystream_recovery_records_total"] == 360
    assert seen['delaystream_recovery_position{partition="0"}'] == 10
    assert seen['delaystream_recovery_end{partition="0"}'] == 300


def test_a_parked_destination_is_shown_until_the_last_partition_uses_it_again(
    observer: PrometheusObserver,
) -> None:
    observer.parked(0, "orders", "missing")
    observer.parked(1, "orders", "missing")
    name = 'delaystream_destination_parked_partitions{destination="orders"}'
    assert samples(observer)[name] == 2
    observer.parked(0, "orders", None)
    observer.parked(1, "orders", None)
    assert name not in samples(observer)
    observer.parked(1, "never-parked", None)


def test_the_number_of_destination_labels_is_bounded(observer: PrometheusObserver) -> None:
    """Destinations come from requests: anyone could create series without end."""
    for number in range(500):
        commit(observer, fired={f"topic-{number}": [1]})
        observer.parked(0, f"topic-{number}", "missing")
    seen = samples(observer)
    assert len([name for name in seen if name.startswith("delaystream_fires_total")]) == 201
    assert seen['delaystream_fires_total{destination="other"}'] == 300
    assert len([name for name in seen if "parked" in name]) == 200


def test_pending_counts_follow_what_changes(observer: PrometheusObserver, clock: FixedClock) -> None:
    """By destination, hour ahead and tenant, of each partition; what is at 0 is gone."""
    clock.time_ms = 1_000 * HOUR_MS + 1
    observer.counted(0, PendingChange({"a": 9}, {5: 9}, {"gone": 9}), anew=True)
    everything = PendingChange({"a": 3, "b": 4}, {998: 1, 1_000: 2, 1_023: 3, 1_024: 1}, {"t": 7})
    observer.counted(0, everything, anew=True)
    observer.counted(1, PendingChange({"a": 1}, {1_000: 1}, {"t": 1}), anew=True)
    observer.counted(0, PendingChange({"a": 0, "c": 1}, {998: 0, 5_000: 1}, {"t": 5}), anew=False)
    seen = samples(observer)
    name = "delaystream_pending_destination_entries"
    assert {key: value for key, value in seen.items() if key.startswith(name)} == {
        f'{name}{{destination="b",partition="0"}}': 4,
        f'{name}{{destination="c",partition="0"}}': 1,
        f'{name}{{destination="a",partition="1"}}': 1,
    }
    name = "delaystream_pending_hour_entries"
    hours = {key: value for key, value in seen.items() if key.startswith(name) and 'partition="0"' in key}
    assert len(hours) == 26, "past, 24 hours, and later"
    assert {key.split('"')[1]: value for key, value in hours.items() if value} == {
        "0": 2,
        "23": 3,
        "24+": 2,
    }
    assert seen['delaystream_tenant_pending_entries{partition="0",topic="t"}'] == 5
    assert not [key for key in seen if "gone" in key]
    clock.time_ms += HOUR_MS
    assert samples(observer)[f'{name}{{hours_ahead="past",partition="0"}}'] == 2, "time passes by itself"
    observer.phase(0, Phase.STOPPED)
    assert not [key for key in samples(observer) if "pending" in key and 'partition="0"' in key]


def test_pending_destinations_beyond_the_bound_are_counted_together(clock: FixedClock) -> None:
    """None is left out, and the labels are those of the fires."""
    observer = PrometheusObserver(clock, app_id="delays", destinations=2, hours_ahead=1)
    commit(observer, fired={"first": [1], "second": [1], "third": [1]})
    change = PendingChange({"second": 2, "third": 3, "fourth": 4}, {}, {})
    observer.counted(0, change, anew=True)
    seen = samples(observer)
    name = "delaystream_pending_destination_entries"
    assert seen[f'{name}{{destination="second",partition="0"}}'] == 2
    assert seen[f'{name}{{destination="other",partition="0"}}'] == 7
    assert len([key for key in seen if key.startswith(name)]) == 2
    assert len([key for key in seen if "hours_ahead" in key]) == 3


def test_names_follow_the_conventions(observer: PrometheusObserver) -> None:
    """One prefix, base units, help for each."""
    commit(observer, accepted={"r": 1}, fired={"d": [1]})
    text = observer.exposition().decode()
    own = [name for name in re.findall(r"^# HELP (\S+) \S", text, re.M) if name.startswith("delaystream_")]
    assert len(own) == len(re.findall(r"^# TYPE delaystream_", text, re.M)) >= 14
    assert not [name for name in own if name.endswith(("_ms", "_millis", "_created"))]
