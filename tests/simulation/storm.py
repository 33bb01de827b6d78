"""How bad a world is, and how its engine is set: both drawn from the seed."""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

from delaystream.engine.settings import EngineSettings

#: The request topic that has a quota and a rate of its own, in some worlds.
LIMITED = "orders"


@dataclass
class Storm:
    """How bad a world is; drawn from its seed."""

    #: chance of a misfortune at any point of any port
    misfortune: float
    latency: float
    seconds: float
    #: chance for each store at each start
    tampering: float
    loses_writes: bool
    batch_records: int
    clock_steps: bool
    #: workers stay away for longer than tombstones are kept; with stepping clocks, some come back with one
    #: that hides how long they were away
    long_absence: bool
    events_per_second: float
    #: how much of a finished id is remembered: ids are forgotten while the storm lasts
    forgets_ids: bool
    #: destinations that cannot be written are given up while the storm lasts
    gives_up: bool
    #: refusals say which record they are about
    names_rows: bool

    @classmethod
    def draw(cls, random: Random) -> Storm:
        """Draw one."""
        long_absence = random.random() < 0.3
        return cls(
            misfortune=random.choice((0.0, 0.002, 0.005, 0.01, 0.03)),
            latency=random.choice((0.1, 0.5, 0.9)),
            seconds=random.choice((2.0, 4.0, 6.0)),
            tampering=random.choice((0.0, 0.2, 0.5)),
            loses_writes=random.random() < 0.5,
            batch_records=random.choice((1, 3, 20, 500)),
            clock_steps=random.random() < (0.9 if long_absence else 0.3),
            long_absence=long_absence,
            events_per_second=random.choice((0.5, 2.0, 5.0)),
            forgets_ids=random.random() < 0.2,
            gives_up=random.random() < 0.2,
            names_rows=random.random() < 0.5,
        )

    @property
    def hides_absence(self) -> bool:
        """Whether a worker's clock may be back by as much as it was away."""
        return self.long_absence and self.clock_steps

    @property
    def delete_retention_ms(self) -> int:
        """How long the changelog keeps tombstones."""
        return 30_000 if self.long_absence else 86_400_000

    def settings(self, random: Random) -> EngineSettings:
        """Draw the engine's settings."""
        return EngineSettings(
            partitions=random.choice((1, 1, 2, 3)),
            transaction_interval_ms=random.choice((0, 20)),
            transaction_max_records=random.choice((2, 10, 8_000)),
            transaction_max_bytes=random.choice((2_000, 8_388_608)),
            transaction_max_partitions=random.choice((2, 500)),
            inbox_max_records=random.choice((4, 50, 20_000)),
            id_retention_ms=800 if self.forgets_ids else 86_400_000,
            destination_timeout_ms=700 if self.gives_up else 86_400_000,
            destination_backoff_min_ms=50,
            destination_backoff_max_ms=2_000,
            restart_backoff_max_ms=2_000,
            stable_timeout_ms=20_000,
            failure_timeout_ms=random.choice((5_000, 300_000)),
            changelog_delete_retention_ms=self.delete_retention_ms,
            misfire_threshold_ms=500,
            bulk_slice=random.choice((1, 2, 1_000)),
            ownership_check_ms=random.choice((2_000, 60_000)),
        )
