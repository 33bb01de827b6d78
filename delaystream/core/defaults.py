"""Defaults of a request topic, for values that neither a request nor its existing schedule has."""

from __future__ import annotations

from typing import Final

import msgspec


class Defaults(msgspec.Struct, frozen=True, gc=False):
    """The defaults of a request's topic at the time of the first read."""

    timezone: str | None = None
    """For cron expressions, and for local times in `at`. None: UTC, and local times are refused."""
    grace_ms: int | None = None
    """The longest lateness, ms. None: no bound; for recurring schedules 15 minutes (`core.misfire`)."""

    @property
    def cron_zone(self) -> str:
        """The time zone of a cron expression that has none."""
        return self.timezone or "UTC"

    def grace_of(self, *, recurs: bool, diverts: bool) -> int | None:
        """The grace of a schedule without one; None if the topic has no default.

        Grace has a meaning for recurring schedules, and for those with a rule for late fires (`diverts`).
        """
        return self.grace_ms if recurs or diverts else None


NO_DEFAULTS: Final = Defaults()
