"""The outages that the alerts are tried on, each with what must be told of it, by when, and nothing else.

Times are those of a real outage, in seconds; a run divides them by its factor.
"""

from __future__ import annotations

import os
import threading
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from confluent_kafka import KafkaException, Producer

from delaystream.dev import EmbeddedBroker
from tests.deploy.monitoring.supervised import Application

#: How long Kafka is away, and everything else lasts.
OUTAGE_S: Final = 600.0
#: How long it is watched before anything happens, and after Kafka is back.
BEFORE_S: Final = 240.0
AFTER_S: Final = 480.0
#: A broker and workers start in this machine's own seconds, whatever the factor: so many more for what is
#: told when Kafka is back.
STARTS_S: Final = 30.0
#: Requests of each application all the time, a second of this machine's; after how many each is due.
_STEADY: Final = 8
_DELAY_S: Final = 2.0
#: Events that were on time before anything happened: they stand for hours of history.
_HISTORY: Final = 600
#: Events that are due while Kafka is away.
_DUE: Final = 1_500
_PAST: Final = 1_500
_RATED: Final = 400
_DISK_BYTES: Final = 2 * 1024**3
MISSING: Final = "nowhere"


class Stage:
    """One application in one outage."""

    def __init__(self, application: Application, broker: EmbeddedBroker, factor: float) -> None:
        self.application = application
        self.broker = broker
        self.factor = factor
        self.over = threading.Event()
        self._threads: list[threading.Thread] = []
        self._undo: list[Callable[[], None]] = []
        self._producer = Producer(
            {"bootstrap.servers": broker.bootstrap_servers, "linger.ms": 5, "message.timeout.ms": 600_000}
        )

    def send(self, destination: str, partition: int = -1, key: bytes | None = None, **control: str) -> None:
        """One request; it goes out with the next ones."""
        headers: list[tuple[str, str | bytes | None]] = (
            [("delaystream-destination", destination)] if destination else []
        )
        headers += [(f"delaystream-{name.replace('_', '-')}", text) for name, text in control.items()]
        requests = self.application.deployment.requests
        self._producer.produce(requests, b"v", key, partition, headers=headers)
        self._producer.poll(0)

    def flush(self) -> None:
        """Until the broker has them all; nothing is waited for while it is away."""
        self._producer.flush(10)

    def beside(self, work: Callable[[], None]) -> None:
        """Do something in the background until the outage is over."""
        thread = threading.Thread(target=work, daemon=True)
        self._threads.append(thread)
        thread.start()

    def afterwards(self, undo: Callable[[], None]) -> None:
        """Take something back when all is over."""
        self._undo.append(undo)

    def load(self) -> None:
        """Events on time, from now on."""
        for number in range(_HISTORY):
            spread_s = 0.8 * number * BEFORE_S / self.factor / _HISTORY
            self.send(self.application.out, delay=f"{1_000 + int(1_000 * spread_s)}ms")
        self.flush()
        self.beside(self._steady)

    def _steady(self) -> None:
        while not self.over.wait(1 / _STEADY):
            self.send(self.application.out, delay=f"{_DELAY_S:.0f}s")

    def end(self) -> None:
        """Nothing more is sent, and nothing is held."""
        self.over.set()
        for thread in self._threads:
            thread.join(30)
        for undo in self._undo:
            undo()


@dataclass(frozen=True)
class Outage:
    """One of them: what happens, what must be told by when (s), and what may be."""

    name: str
    title: str
    begin: Callable[[Stage], None]
    must: Mapping[str, float] = field(default_factory=dict)
    may: frozenset[str] = frozenset()
    workers: int = 1
    consoles: int = 0
    partitions: int = 2
    #: whether its broker is its own
    alone: bool = False
    settings: Mapping[str, str] = field(default_factory=dict)
    clock_ahead_s: float = 0.0
    #: when it began, since all the others did
    began_s: float = 0.0
    #: what the rules of this application have otherwise
    thresholds: Callable[[Path], Mapping[str, float]] = lambda _: {}


def _kafka_away(stage: Stage) -> None:
    """Stopped as a machine is; back after the outage."""
    for number in range(_DUE):
        stage.send(
            stage.application.out, delay=f"{5_000 + int(1_000 * OUTAGE_S / stage.factor * number / _DUE)}ms"
        )
    stage.flush()
    time.sleep(2)
    stage.broker.kill()

    def back() -> None:
        time.sleep(OUTAGE_S / stage.factor)
        stage.broker.start()

    stage.beside(back)


def _one_gone(stage: Stage) -> None:
    stage.application.workers[1].leave()


def _all_gone(stage: Stage) -> None:
    for worker in stage.application.workers:
        worker.leave()


def _held_up(stage: Stage) -> None:
    """Somebody begins a transaction on the first partition, and forgets it."""
    producer = Producer(
        {
            "bootstrap.servers": stage.broker.bootstrap_servers,
            "transactional.id": f"{stage.application.app_id}-forgetful",
            "transaction.timeout.ms": 890_000,
        }
    )
    producer.init_transactions(30)
    producer.begin_transaction()
    producer.produce(stage.application.deployment.requests, b"v", partition=0)
    producer.flush(30)
    stage.afterwards(lambda: producer.abort_transaction(30))


def _stuck(stage: Stage) -> None:
    """Somebody uses the transactional id of the first partition, again and again."""
    settings = {
        "bootstrap.servers": stage.broker.bootstrap_servers,
        "transactional.id": f"{stage.application.app_id}-0",
    }

    def fence() -> None:
        while not stage.over.wait(0.02):
            try:
                Producer(settings).init_transactions(5)
            except KafkaException:
                continue  # the worker was faster, this time

    stage.beside(fence)


def _missing(stage: Stage) -> None:
    for _ in range(20):
        stage.send(MISSING, delay="1s")
    stage.flush()


def _waits(stage: Stage) -> None:
    """More than its rate lets out for one destination, and a hold on another one."""
    deployment = stage.application.deployment
    limited, held = deployment.topic("limited"), deployment.topic("held")
    for _ in range(_RATED):
        stage.send(limited, delay="1s")
    for _ in range(100):
        stage.send(held, delay="5s")
    stage.flush()
    time.sleep(0.5)
    for partition in range(deployment.partitions):
        stage.send("", partition, action="pause", match_destination=held)
    stage.flush()
    stage.afterwards(lambda: None)


def _past_due(stage: Stage) -> None:
    at_ms = int((time.time() - 3_600) * 1000)
    for _ in range(_PAST):
        stage.send(stage.application.out, at=str(at_ms))
    stage.flush()


def _flood(stage: Stage) -> None:
    """A producer forgets the unit, for a while."""

    def wrong() -> None:
        for _ in range(int(20 * OUTAGE_S / stage.factor)):
            if stage.over.wait(0.05):
                break
            stage.send(stage.application.out, delay="30")

    stage.beside(wrong)


def _nothing(stage: Stage) -> None:
    """It is so from the start on."""


def _disk(stage: Stage) -> None:
    path = stage.application.deployment.directory / "filler"
    with path.open("wb") as file:
        os.posix_fallocate(file.fileno(), 0, _DISK_BYTES)
    stage.afterwards(path.unlink)


def _consoles(stage: Stage) -> None:
    """One goes; of the other one somebody spoils the file of tokens, and somebody else guesses."""
    application = stage.application
    application.consoles[0].kill()
    application.tokens.write_text("[[tokens]]\n")
    address = f"http://{application.consoles[1].address}/v1/stats"

    def guess() -> None:
        while not stage.over.wait(0.1):
            request = urllib.request.Request(address, headers={"Authorization": "Bearer guessed"})
            with suppress(OSError):
                urllib.request.urlopen(request, timeout=5).close()

    stage.beside(guess)


def _threshold(directory: Path) -> Mapping[str, float]:
    """The disk has a little more than it must have, until it is filled."""
    disk = os.statvfs(directory)
    return {"diskFreeBytes": disk.f_bavail * disk.f_frsize - _DISK_BYTES // 2}


#: While Kafka is away, whoever looks may be told of each worker, too.
_OF_WORKERS: Final = frozenset(
    {
        *("DelaystreamWorkerDown", "DelaystreamWorkersMissing", "DelaystreamWorkerRestarts"),
        *("DelaystreamNoProgress", "DelaystreamRequestsNotRead", "DelaystreamRecoveryTooLong"),
        *("DelaystreamTransactionsAbort", "DelaystreamPartitionUnowned"),
    }
)

OUTAGES: Final = (
    Outage(
        "kafka",
        "Kafka away for ten minutes",
        _kafka_away,
        # 300 s of failures end a worker; what was overdue until then pages before that.
        must={
            "DelaystreamOverdueGrows": 420,
            "DelaystreamDown": 780,
            "DelaystreamLatenessBudgetBurnsFast": OUTAGE_S + AFTER_S,
            "DelaystreamConsoleBehind": 540,
        },
        may=_OF_WORKERS | {"DelaystreamLatenessBudgetBurnsSlowly"},
        workers=2,
        consoles=1,
        alone=True,
    ),
    Outage(
        "one gone",
        "one worker of two gone",
        _one_gone,
        must={"DelaystreamWorkerDown": 420},
        may=frozenset({"DelaystreamWorkersMissing"}),
        workers=2,
        partitions=4,
    ),
    Outage(
        "all gone",
        "all workers of one application gone",
        _all_gone,
        must={"DelaystreamDown": 420, "DelaystreamWorkerDown": 420},
        may=frozenset({"DelaystreamWorkersMissing"}),
    ),
    Outage(
        "held up",
        "a request partition held up by somebody's open transaction",
        _held_up,
        must={"DelaystreamRequestsHeldUp": 300},
    ),
    Outage(
        "stuck",
        "somebody else uses the transactional id of one partition, again and again",
        _stuck,
        # The worker gets through in between, less and less often: when it is overdue is a matter of chance.
        must={"DelaystreamWorkersFenceEachOther": 300},
        may=_OF_WORKERS
        | {
            "DelaystreamOverdueGrows",
            "DelaystreamLatenessBudgetBurnsFast",
            "DelaystreamLatenessBudgetBurnsSlowly",
        },
    ),
    Outage("missing", "one destination missing", _missing, must={"DelaystreamDestinationParked": 420}),
    Outage("waits", "one destination rate-limited, one held", _waits),
    Outage("past", "a burst of 1,500 events that were due an hour ago", _past_due),
    Outage(
        "flood",
        "a flood of dead letters",
        _flood,
        must={"DelaystreamDeadLetters": 60, "DelaystreamDeadLettersFlood": 240},
    ),
    Outage(
        "clock",
        "one worker's clock 2 s ahead",
        _nothing,
        must={"DelaystreamClockSkew": 420},
        began_s=-BEFORE_S,
        clock_ahead_s=2.0,
    ),
    Outage(
        "consoles",
        "one console of two gone, the other's file of tokens spoilt, and somebody guesses tokens",
        _consoles,
        must={
            "DelaystreamConsoleDown": 420,
            "DelaystreamConsoleTokensNotTaken": 480,
            "DelaystreamConsoleRefuses": 300,
        },
        may=frozenset({"DelaystreamConsolesMissing"}),
        consoles=2,
    ),
    Outage(
        "disk",
        "the disk of the state nearly full",
        _disk,
        must={"DelaystreamStateDiskAlmostFull": 420},
        may=frozenset({"DelaystreamStateDiskFilling"}),
        thresholds=_threshold,
    ),
)
