"""What a request topic's settings say where neither a request nor the schedule that it changes does."""

from __future__ import annotations

from typing import Final

import msgspec


class Defaults(msgspec.Struct, frozen=True, gc=False):
    """The defaults of the topic that a request was produced to, when it was first read."""

    timezone: str | None = None
    """Of cron expressions, and of local times in `at`; None: UTC, and no local times."""
    grace_ms: int | None = None
    """How late is too late, ms; None: never, and of what recurs 15 minutes (`core.misfire`)."""

    @property
    def cron_zone(self) -> str:
        """The time zone of a cron expression that has none."""
        return self.timezone or "UTC"

    def grace_of(self, *, recurs: bool, diverts: bool) -> int | None:
        """The grace of what has none; None where there is no default of its own.

        It means something to what recurs, and to what says what is to be done when it is late (`diverts`).
        """
        return self.grace_ms if recurs or diverts else None


NO_DEFAULTS: Final = Defaults()
