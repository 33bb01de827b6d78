"""A load whose every figure is known: what the dashboards show is held against it."""

from __future__ import annotations

import threading
import time
import urllib.error
import urllib.request
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field

from confluent_kafka import Producer

from tests.deploy.monitoring.stage import MISSING, Stage
from tests.integration.harness_kafka import Delivery

REQUESTS = "delay-requests"
PARTITIONS = 4
#: a second, each
SOON, AT_ONCE, FAR, WRONG, EXPIRED = 60, 20, 40, 5, 3
ACCEPTED = SOON + AT_ONCE + FAR + EXPIRED
FIRED = SOON + AT_ONCE
SOON_DELAY_S = 2
STEADY_S = 24.0
#: of the console, and by somebody whom it does not know; fewer than those after which it tells him to wait
ASKED, STRANGE = 5, 1
#: before the steady load: what the second worker has to recover
SEEDED = 120
#: for a destination that does not exist, all on one partition
STUCK = 6
STUCK_PARTITION = 0
#: larger than the destination takes, though not than the request topic does
TOO_LARGE_BYTES = 1024 * 1024
TOO_LARGE_PARTITION = 1
_SLOTS_A_SECOND = 20


def control(destination: str, delay: str) -> list[tuple[str, str | bytes | None]]:
    """The headers of a request."""
    return [("delaystream-destination", destination), ("delaystream-delay", delay)]


def _expired() -> list[tuple[str, str | bytes | None]]:
    """The headers of a request that is too late on arrival, and then not wanted."""
    return [
        ("delaystream-destination", "reminders"),
        ("delaystream-at", str(int((time.time() - 3600) * 1000))),
        ("delaystream-grace", "1m"),
        ("delaystream-on-late", "drop"),
    ]


@dataclass
class Load:
    """Sends, and keeps count of what it sent."""

    stage: Stage
    sent: Counter[str] = field(default_factory=Counter)
    stuck_at_s: float = 0.0
    #: the steady load, from its first request to its last
    began_s: float = 0.0
    ended_s: float = 0.0

    def __post_init__(self) -> None:
        servers = self.stage.kafka.bootstrap
        self._producer = Producer(
            {"bootstrap.servers": servers, "linger.ms": 5, "message.max.bytes": 4 * TOO_LARGE_BYTES}
        )

    def seed(self) -> None:
        """Events far ahead, on all partitions alike."""
        for number in range(SEEDED):
            self._send("far", control("reminders", "1h"), number % PARTITIONS)
        self._flush()

    def stick(self) -> None:
        """Events that are due and cannot be delivered."""
        for _ in range(STUCK):
            self._send("stuck", control(MISSING, "0"), STUCK_PARTITION)
        self._flush()
        self.stuck_at_s = time.time()

    def overload(self) -> None:
        """A record that its destination refuses."""
        self._send("too large", control("orders", "0"), TOO_LARGE_PARTITION, b"x" * TOO_LARGE_BYTES)
        self._flush()

    def steady(self) -> threading.Thread:
        """Send at the rates above for STEADY_S, in the background."""
        thread = threading.Thread(target=self._steady, name="load", daemon=True)
        asking = threading.Thread(target=self._ask, name="questions", daemon=True)
        self.began_s = time.time()
        thread.start()
        asking.start()
        return thread

    def _ask(self) -> None:
        console = self.stage.console
        assert console is not None
        known, began = {"Authorization": f"Bearer {self.stage.token}"}, time.monotonic()
        every = ASKED // STRANGE + 1
        for number in range(1, int(STEADY_S * (ASKED + STRANGE)) + 1):
            time.sleep(max(0.0, began + number / (ASKED + STRANGE) - time.monotonic()))
            headers = {"Authorization": "Bearer unknown"} if number % every == 0 else known
            request = urllib.request.Request(f"http://{console.address}/v1/stats", headers=headers)
            with suppress(urllib.error.HTTPError):
                urllib.request.urlopen(request, timeout=10).close()

    def _steady(self) -> None:
        kinds = {
            "soon": (SOON, control("reminders", f"{SOON_DELAY_S}s")),
            "at once": (AT_ONCE, control("orders", "0")),
            "far": (FAR, control("reminders", "1h")),
            "wrong": (WRONG, control("reminders", "30")),
            "expired": (EXPIRED, _expired()),
        }
        done = Counter[str]()
        began = time.monotonic()
        for slot in range(1, int(STEADY_S * _SLOTS_A_SECOND) + 1):
            time.sleep(max(0.0, began + slot / _SLOTS_A_SECOND - time.monotonic()))
            for kind, (rate, headers) in kinds.items():
                while done[kind] < rate * slot / _SLOTS_A_SECOND:
                    self._send(kind, headers, done[kind] % PARTITIONS)
                    done[kind] += 1
            self._producer.poll(0)
        self._flush()
        self.ended_s = time.time()

    def _send(
        self, kind: str, headers: list[tuple[str, str | bytes | None]], partition: int, value: bytes = b"v"
    ) -> None:
        self._producer.produce(REQUESTS, value, b"k", partition, headers=headers)
        self.sent[kind] += 1

    def _flush(self) -> None:
        assert self._producer.flush(20) == 0, "the broker did not take the load"

    def deliveries(self) -> list[Delivery]:
        """Everything that must have arrived by now, from the destinations."""
        kafka = self.stage.kafka
        return [
            *kafka.read("reminders", self.sent["soon"]),
            *kafka.read("orders", self.sent["at once"]),
        ]


def fired(delivery: Delivery) -> tuple[float, float]:
    """When it was fired and how late that was, s, by the delivery's own headers."""
    fired_at_ms = int(delivery.text("delaystream-fired-at"))
    return fired_at_ms / 1000, (fired_at_ms - int(delivery.text("delaystream-due-at"))) / 1000
