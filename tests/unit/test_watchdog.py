"""What ends a worker that does nothing, and what does not."""

import pytest

from delaystream.adapters.membership.faust_host import PartitionStatus
from delaystream.adapters.operate.watchdog import Watchdog
from delaystream.engine.observer import Phase

PROGRESS_MS = 60_000
STARTING_MS = 120_000
LOOK_MS = 250.0


class Host:
    def __init__(self) -> None:
        self.joined = True
        self.membership_confirmed = True
        self.shortage: str | None = None
        self.consumer_failure: str | None = None
        self.unpolled_ms = 0
        self.found: list[PartitionStatus] = [PartitionStatus(0, True, Phase.RUNNING, 100, 0)]

    def partitions(self) -> list[PartitionStatus]:
        return self.found


@pytest.fixture
def host() -> Host:
    return Host()


@pytest.fixture
def ends() -> list[str]:
    return []


@pytest.fixture
def watchdog(host: Host, ends: list[str]) -> Watchdog:
    return Watchdog(host, PROGRESS_MS, STARTING_MS, ends.append)


def look_for(watchdog: Watchdog, duration_ms: float) -> None:
    for _ in range(int(duration_ms / LOOK_MS)):
        watchdog.look(LOOK_MS)


def test_a_worker_at_work_is_left_alone(watchdog: Watchdog, ends: list[str]) -> None:
    look_for(watchdog, 10 * STARTING_MS)
    assert ends == []
    assert watchdog.report.complaints == ()


def stalled(host: Host) -> None:
    host.found = [PartitionStatus(4, True, Phase.RUNNING, 30_000, 0)]


def unpolled(host: Host) -> None:
    host.unpolled_ms = 30_000


def vacant(host: Host) -> None:
    host.found = [PartitionStatus(4, True, None, 0, 10_000)]


def recovering_in_silence(host: Host) -> None:
    host.found = [PartitionStatus(4, True, Phase.RECOVERING, 30_000, 0)]


def not_joined(host: Host) -> None:
    host.joined = False


def undecided(host: Host) -> None:
    host.membership_confirmed = False


def shortage(host: Host) -> None:
    host.shortage, host.found = "the brokers do not know requests", []


@pytest.mark.parametrize(
    ("wrong", "patience_ms"),
    [
        (stalled, PROGRESS_MS),
        (unpolled, PROGRESS_MS),
        (vacant, STARTING_MS),
        (recovering_in_silence, STARTING_MS),
        (not_joined, STARTING_MS),
        (undecided, STARTING_MS),
        (shortage, STARTING_MS),
    ],
)
def test_what_stays_wrong_ends_the_process(
    watchdog: Watchdog, host: Host, ends: list[str], wrong: object, patience_ms: int
) -> None:
    """After the patience that it deserves, and not before."""
    wrong(host)  # type: ignore[operator]
    look_for(watchdog, patience_ms - LOOK_MS)
    assert ends == []
    assert len(watchdog.report.complaints) == 1
    look_for(watchdog, LOOK_MS)
    assert len(ends) == 1
    assert watchdog.report.complaints[0] in ends[0]


def test_what_passes_starts_again_from_zero(watchdog: Watchdog, host: Host, ends: list[str]) -> None:
    for _ in range(5):
        stalled(host)
        look_for(watchdog, PROGRESS_MS - LOOK_MS)
        host.found = []
        look_for(watchdog, LOOK_MS)
    assert ends == []


def test_a_client_that_has_ended_ends_the_process_at_once(
    watchdog: Watchdog, host: Host, ends: list[str]
) -> None:
    host.consumer_failure = "the client's fetching has ended"
    watchdog.look(LOOK_MS)
    assert len(ends) == 1
    assert "fetching" in ends[0]


def test_time_in_which_the_process_was_suspended_does_not_count(
    watchdog: Watchdog, host: Host, ends: list[str]
) -> None:
    """After SIGCONT everything seems to have stalled for hours; it gets the same patience as ever."""
    host.found = [PartitionStatus(0, True, Phase.RUNNING, 7_200_000, 0)]
    host.unpolled_ms = 7_200_000
    watchdog.look(LOOK_MS)
    assert ends == []


def test_a_worker_that_stops_is_not_watched(watchdog: Watchdog, host: Host, ends: list[str]) -> None:
    stalled(host)
    watchdog.stopping = True
    look_for(watchdog, 10 * STARTING_MS)
    assert ends == []


def test_a_worker_is_not_ready_while_partitions_are_withheld(watchdog: Watchdog, host: Host) -> None:
    """It has none that could fail to be at work, and does not do what it is there for."""
    watchdog.look(LOOK_MS)
    assert watchdog.report.ready
    shortage(host)
    watchdog.look(LOOK_MS)
    assert not watchdog.report.ready
    assert watchdog.report.complaints == ("the brokers do not know requests",)


def test_idle_waiting_is_no_stall(watchdog: Watchdog, host: Host, ends: list[str]) -> None:
    """An idle processor wakes once a second."""
    host.found = [PartitionStatus(0, True, Phase.RUNNING, 1_500, 0)]
    look_for(watchdog, 10 * STARTING_MS)
    assert ends == []
