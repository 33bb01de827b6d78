"""What each query of each dashboard must return under the load: an expectation for every one.

A key is (panel's title, the query's reference). Each expectation says at which moment it is asked: `steady`
at the end of the steady load, or `settled` when all that was due has been delivered.
"""

from __future__ import annotations

import math
import shutil
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import pytest

from delaystream import __version__
from delaystream.adapters.operate.metrics_lateness import DESTINATION_BUCKETS_MS, LATENESS_BUCKETS_MS
from delaystream.codec.envelope import Status
from tests.deploy.monitoring import load as figures
from tests.deploy.monitoring.stage import MISSING, Sample

#: the topics that workers read
SOURCES = (figures.REQUESTS, "delay-commands")
Moment = Literal["steady", "settled"]
#: A rate over ten seconds, of a load in slots, on a machine that does other things too.
_RATE = 0.15
#: An increase misses what a counter had when it was first seen.
_INCREASE = 0.1


@dataclass(frozen=True)
class Truth:
    """What is known without Prometheus."""

    #: address of the console
    console: str
    sent: Mapping[str, int]
    #: (fired at, lateness) of every delivery by its headers, s
    fires: list[tuple[float, float]]
    at_s: Mapping[Moment, float]
    #: how long the stuck events have been due, s, by moment
    stuck_s: Mapping[Moment, float]
    #: by worker: cores used and transactions a second, at the end of the steady load
    cpu: Mapping[str, float]
    transactions: Mapping[str, float]
    #: by worker, when settled: bytes, share of the files it may open, s since its start, bytes
    memory: Mapping[str, float]
    files: Mapping[str, float]
    age_s: Mapping[str, float]
    state_bytes: Mapping[str, float]
    #: entries that the second worker found when it took its partitions over
    recovered_entries: int
    #: s, on average
    transaction_s: float
    #: attempts that a destination refused: two records, each tried at least once
    refusals: float
    directory: Path

    @property
    def late_share(self) -> float:
        """Of all deliveries, those later than 1 s."""
        return sum(lateness > 1.0 for _, lateness in self.fires) / len(self.fires)

    def quantile(self, q: float) -> float:
        """Of the lateness in the last ten seconds of the steady load, s."""
        end_s = self.at_s["steady"]
        ordered = sorted(lateness for at_s, lateness in self.fires if end_s - 10 < at_s <= end_s)
        return ordered[min(len(ordered) - 1, math.ceil(q * len(ordered)) - 1)]

    @property
    def waiting(self) -> int:
        """Entries that must be pending when all has settled."""
        return self.sent["far"] + self.sent["stuck"]


Check = Callable[[list[Sample], Truth], None]


def one(samples: list[Sample]) -> float:
    """The value of a query that returns one."""
    assert len(samples) == 1, samples
    return samples[0][1]


def by(samples: list[Sample], *labels: str) -> dict[str, float]:
    """Values by their labels, joined."""
    found = {" ".join(metric.get(label, "?") for label in labels): value for metric, value in samples}
    assert len(found) == len(samples), f"{labels} do not tell {samples} apart"
    return found


def value(expected: Callable[[Truth], float], relative: float = 0.0, absolute: float = 0.0) -> Check:
    """One sample, with this value."""

    def check(samples: list[Sample], truth: Truth) -> None:
        assert one(samples) == pytest.approx(expected(truth), rel=relative, abs=absolute)

    return check


def values(
    label: str,
    expected: Callable[[Truth], Mapping[str, float]],
    relative: float = 0.0,
    absolute: float = 0.0,
) -> Check:
    """One sample for each value of a label, no more and no fewer."""

    def check(samples: list[Sample], truth: Truth) -> None:
        assert by(samples, label) == pytest.approx(dict(expected(truth)), rel=relative, abs=absolute)

    return check


def quantile(q: float) -> Check:
    """A quantile of the lateness: in the true one's bucket of the histogram, or the one beside it."""

    def check(samples: list[Sample], truth: Truth) -> None:
        bounds = [0.0, *(ms / 1000 for ms in LATENESS_BUCKETS_MS), math.inf]
        place = next(n for n, bound in enumerate(bounds) if truth.quantile(q) <= bound)
        assert bounds[max(0, place - 2)] <= one(samples) <= bounds[min(len(bounds) - 1, place + 1)]

    return check


def heatmap(samples: list[Sample], truth: Truth) -> None:
    """Cumulative by bucket; the last holds all deliveries of ten seconds."""
    counts = {float(metric["le"]): value for metric, value in samples}
    assert counts[math.inf] == pytest.approx(figures.FIRED * 10, rel=_RATE)
    ordered = [counts[bound] for bound in sorted(counts)]
    assert ordered == sorted(ordered)
    median = truth.quantile(0.5)
    assert counts[min(bound for bound in counts if bound > 2 * median + 0.05)] > counts[math.inf] / 2


def alerts(samples: list[Sample], truth: Truth) -> None:
    """Of the load's faults, dead letters and misses are told at once; all others only when they last."""
    # A disk that is almost full is this machine's.
    ours = [(metric, value) for metric, value in samples if "StateDisk" not in metric["alertname"]]
    assert {(metric["alertname"], metric["severity"]) for metric, _ in ours} == {
        ("DelaystreamDeadLetters", "warning"),
        ("DelaystreamFiresMissed", "warning"),
    }
    assert {metric["code"] for metric, _ in ours if "code" in metric} == {"invalid-delay", "quarantined"}


def median_transaction(samples: list[Sample], truth: Truth) -> None:
    """A commit takes more than a millisecond; a few take much longer, so half are below the average."""
    assert 0.001 < one(samples) < truth.transaction_s


def slow_transaction(samples: list[Sample], truth: Truth) -> None:
    assert truth.transaction_s < one(samples) < 5


def failed(samples: list[Sample], truth: Truth) -> None:
    """All but those that were there when the counter was first seen: the first of two records, at most."""
    assert truth.refusals >= 2
    assert truth.refusals / 2 - 0.5 < one(samples) < truth.refusals + 0.5


def recovered(samples: list[Sample], truth: Truth) -> None:
    """The first worker began with nothing but its own rows; the second one read at least its entries.

    Its own: what the partition was made for, two positions, and the row that tells the brokers' time.
    """
    first, second = sorted(by(samples, "instance").values())
    assert first <= 4 * figures.PARTITIONS
    assert truth.recovered_entries <= second < 3 * truth.recovered_entries + 50


def nothing_left(samples: list[Sample], truth: Truth) -> None:
    """A partition whose changelog was empty had nothing to recover, and says nothing."""
    found = by(samples, "partition")
    assert 2 <= len(found) <= figures.PARTITIONS
    assert set(found.values()) == {0}


def by_hour(samples: list[Sample], truth: Truth) -> None:
    """Half of the load waits for an hour from now on, the stuck part is due; the clock's hour may pass by."""
    found = by(samples, "hours_ahead")
    assert sum(found.values()) == truth.waiting
    if (
        int(truth.at_s["settled"]) // 3600
        == int(truth.at_s["settled"] - truth.stuck_s["settled"] - 30) // 3600
    ):
        assert found == {"0": truth.sent["stuck"], "1": truth.sent["far"]}


def recent_commits(samples: list[Sample], truth: Truth) -> None:
    """Under load every partition commits several times a second; a scrape is at most a second old."""
    found = by(samples, "partition")
    assert len(found) == figures.PARTITIONS
    assert all(0 <= age_s < 3 for age_s in found.values()), found


def waits(samples: list[Sample], truth: Truth) -> None:
    """What is due for the missing destination, for as long as it has been."""
    assert by(samples, "destination", "waits_for") == {
        f"{MISSING} parked": pytest.approx(truth.stuck_s["settled"], abs=2.5)
    }


def delays(samples: list[Sample], truth: Truth) -> None:
    """A quantile over few bounds: at most as much as the next one above the true one."""
    found = by(samples, "destination")
    assert found.keys() == {"reminders", "orders"}
    bounds = [*(ms / 1000 for ms in DESTINATION_BUCKETS_MS), math.inf]
    most = next(bound for bound in bounds if truth.quantile(0.999) <= bound)
    assert all(0 < delay_s <= most for delay_s in found.values()), found


def nobody_holds_up(samples: list[Sample], truth: Truth) -> None:
    """All source partitions are told, and none is held up."""
    assert len(by(samples, "topic", "partition")) == figures.PARTITIONS * len(SOURCES)
    assert {seconds for _, seconds in samples} == {0}


def overdue(samples: list[Sample], truth: Truth) -> None:
    found = by(samples, "partition")
    stuck = found.pop(str(figures.STUCK_PARTITION))
    assert stuck == pytest.approx(truth.stuck_s["settled"], abs=2.5)
    assert set(found.values()) == {0}


def refused(samples: list[Sample], truth: Truth) -> None:
    assert by(samples, "reason").keys() == {"WriteRefused"}
    assert 0 < one(samples) * 10 <= truth.refusals


def skew(samples: list[Sample], truth: Truth) -> None:
    """One machine, one clock; and each worker wrote to the one broker."""
    assert by(samples, "instance", "broker").keys() == {f"{worker} 1" for worker in truth.cpu}
    assert all(abs(skew_s) < 0.1 for _, skew_s in samples), samples


def workers(samples: list[Sample], truth: Truth) -> None:
    assert {metric["version"] for metric, _ in samples} == {__version__}
    assert by(samples, "instance") == pytest.approx(dict(truth.age_s), abs=3)


def schedules(samples: list[Sample], truth: Truth) -> None:
    """The load has none with an id; each status is told all the same."""
    assert by(samples, "status") == dict.fromkeys(Status, 0)


def routes(samples: list[Sample], truth: Truth) -> None:
    """What was asked of the console, beside Prometheus' own questions."""
    found = by(samples, "route")
    assert found["/v1/stats"] == pytest.approx(figures.ASKED, rel=2 * _RATE)
    assert found["/metrics"] > 0


def answers(samples: list[Sample], truth: Truth) -> None:
    found = by(samples, "status")
    assert found.keys() == {"200", "401"}
    assert found["401"] == pytest.approx(figures.STRANGE, rel=3 * _RATE)


def answer_time(samples: list[Sample], truth: Truth) -> None:
    assert 0 < one(samples) <= 5


def codes(rates: bool) -> Check:
    """The wrong ones at their rate, and the two that were too large."""

    def check(samples: list[Sample], truth: Truth) -> None:
        found = by(samples, "code")
        assert {metric.get("topic", figures.REQUESTS) for metric, _ in samples} == {figures.REQUESTS}
        assert found.keys() == {"invalid-delay", "quarantined"}
        expected, tolerance = (figures.WRONG, _RATE) if rates else (truth.sent["wrong"], _INCREASE)
        assert found["invalid-delay"] == pytest.approx(expected, rel=tolerance)
        assert found["quarantined"] <= (0.3 if rates else 2)

    return check


def _free(truth: Truth) -> float:
    disk = shutil.disk_usage(truth.directory)
    return disk.free / disk.total


def _accepted(truth: Truth) -> float:
    return sum(truth.sent.values()) - truth.sent["wrong"]


def _rejected(truth: Truth) -> float:
    return truth.sent["wrong"] + truth.sent["too large"]


EXPECTATIONS: dict[tuple[str, str], tuple[Moment, Check]] = {
    # overview
    ("On time", "A"): ("settled", value(lambda t: 1 - t.late_share, absolute=0.02)),
    ("Error budget left", "A"): ("settled", value(lambda t: 1 - t.late_share / 0.01, absolute=0.5)),
    ("Oldest overdue", "A"): ("settled", value(lambda t: t.stuck_s["settled"], absolute=2.5)),
    ("Waiting", "A"): ("settled", value(lambda t: t.waiting)),
    ("Dead letters", "A"): ("settled", value(_rejected, _INCREASE)),
    ("Destinations set aside", "A"): ("settled", value(lambda _: 1)),
    ("Lateness", "A"): ("steady", quantile(0.5)),
    ("Lateness", "B"): ("steady", quantile(0.99)),
    ("Lateness", "C"): ("steady", quantile(0.999)),
    ("Lateness of all deliveries", "A"): ("steady", heatmap),
    ("In and out", "A"): ("steady", value(lambda _: figures.ACCEPTED, _RATE)),
    ("In and out", "B"): ("steady", value(lambda _: figures.FIRED, _RATE)),
    ("In and out", "C"): ("steady", value(lambda _: figures.WRONG, _RATE, absolute=0.3)),
    ("Waiting, by application", "A"): ("settled", values("app_id", lambda t: {"delaystream": t.waiting})),
    ("Later than 1 s", "A"): ("settled", values("app_id", lambda t: {"delaystream": t.late_share}, 0, 0.02)),
    ("Later than 1 s", "B"): ("settled", values("app_id", lambda t: {"delaystream": t.late_share}, 0, 0.02)),
    ("Alerts", "A"): ("settled", alerts),
    # operation
    ("Workers ready", "A"): ("steady", value(lambda _: 2)),
    ("Partitions running", "A"): ("steady", value(lambda _: figures.PARTITIONS)),
    ("Partitions without owner", "A"): ("steady", value(lambda _: 0)),
    # What is stuck waits for its destination; nothing waits for a worker.
    ("Overdue", "A"): ("settled", value(lambda _: 0)),
    ("Failed transactions", "A"): ("settled", failed),
    ("Least disk left", "A"): ("settled", value(_free, absolute=0.02)),
    ("Partitions by phase", "A"): (
        "steady",
        values(
            "phase",
            lambda _: {"running": figures.PARTITIONS, "fencing": 0, "recovering": 0, "backoff": 0},
        ),
    ),
    ("Partitions by worker", "A"): ("steady", values("instance", lambda t: dict.fromkeys(t.cpu, 2))),
    ("Overdue, by partition", "A"): ("settled", overdue),
    ("Since the last commit, by partition", "A"): ("steady", recent_commits),
    ("Waiting beyond the due time", "A"): ("settled", waits),
    ("Delay, by destination", "A"): ("steady", delays),
    ("Unread requests", "A"): ("settled", values("topic", lambda _: dict.fromkeys(SOURCES, 0))),
    ("Held up by an open transaction", "A"): ("settled", nobody_holds_up),
    ("Transactions a second, by worker", "A"): ("steady", values("instance", lambda t: t.transactions, 0.25)),
    ("Time of a transaction", "A"): ("steady", median_transaction),
    ("Time of a transaction", "B"): ("steady", slow_transaction),
    ("Deliveries in a transaction", "A"): (
        "steady",
        value(lambda t: figures.FIRED / sum(t.transactions.values()), 0.25),
    ),
    ("Failures, by reason", "A"): ("steady", refused),
    ("Changelog left to read, by partition", "A"): ("settled", nothing_left),
    ("Records recovered, by worker", "A"): ("settled", recovered),
    ("CPU, by worker", "A"): ("steady", values("instance", lambda t: t.cpu, 0.3, 0.1)),
    ("Memory, by worker", "A"): ("settled", values("instance", lambda t: t.memory, 0.15)),
    ("Open files, by worker", "A"): ("settled", values("instance", lambda t: t.files, 0.2)),
    ("Local state, by worker", "A"): ("settled", values("instance", lambda t: t.state_bytes, 0.1)),
    ("Disk free, by worker", "A"): (
        "settled",
        values("instance", lambda t: dict.fromkeys(t.cpu, _free(t)), 0, 0.02),
    ),
    ("Clock against brokers", "A"): ("settled", skew),
    ("Workers", "A"): ("settled", workers),
    ("Consoles", "A"): ("settled", value(lambda _: 1)),
    ("Copies behind", "A"): ("settled", value(lambda _: 0, absolute=3)),
    ("Partitions caught up", "A"): ("settled", value(lambda _: 1)),
    ("Events lost to the history", "A"): ("settled", value(lambda _: 0)),
    ("Open streams", "A"): ("settled", value(lambda _: 0)),
    ("Tokens", "A"): ("settled", value(lambda _: 1)),
    **{
        ("Not read yet, by console", ref): ("settled", values("instance", lambda t: {t.console: 0}))
        for ref in "ABCD"
    },
    ("Named schedules, by status", "A"): ("settled", schedules),
    ("Named schedules, by status", "B"): ("settled", value(lambda t: t.waiting)),
    ("Refused, by code", "A"): (
        "steady",
        values("code", lambda _: {"invalid-token": figures.STRANGE}, 3 * _RATE),
    ),
    ("Requests, by route", "A"): ("steady", routes),
    ("Answers, by status", "A"): ("steady", answers),
    ("Time of an answer", "A"): ("steady", answer_time),
    ("Time of an answer", "B"): ("steady", answer_time),
    # tenants
    ("Accepted", "A"): ("settled", value(_accepted, _INCREASE)),
    ("Accepted, by request topic", "A"): (
        "steady",
        values("topic", lambda _: {figures.REQUESTS: figures.ACCEPTED}, _RATE),
    ),
    ("Dead letters, by code", "A"): ("steady", codes(rates=True)),
    ("Dead letters, with their codes", "A"): ("settled", codes(rates=False)),
    ("Waiting, by request topic", "A"): ("settled", values("topic", lambda t: {figures.REQUESTS: t.waiting})),
    ("Waiting, by request topic", "B"): ("settled", values("topic", lambda _: {figures.REQUESTS: 0})),
    ("Waiting, by destination", "A"): (
        "settled",
        values("destination", lambda t: {"reminders": t.sent["far"], MISSING: t.sent["stuck"]}),
    ),
    ("Waiting, by hour", "A"): ("settled", by_hour),
    ("Delivered", "A"): ("settled", value(lambda t: t.sent["soon"] + t.sent["at once"], _INCREASE)),
    ("Delivered, by destination", "A"): (
        "steady",
        values("destination", lambda _: {"reminders": figures.SOON, "orders": figures.AT_ONCE}, _RATE),
    ),
    ("Not delivered in their own right", "A"): (
        "steady",
        values("reason", lambda _: {"expired": figures.EXPIRED}, _RATE, 0.3),
    ),
    ("Set aside, by destination", "A"): ("settled", values("destination", lambda _: {MISSING: 1})),
}
