"""Commands about how fast a destination gets a tenant's records: in force on every partition, and kept there.

The partition that reads a command carries it out, and sends a copy to all others over the commands topic;
each reports there that it has done so. When all have, there is one receipt and one event (`Bulks.gather`).

A tenant with a rate of its own has a wheel of its own for the destination. What is in the common wheel when
the rate is set moves there as it comes due, and so keeps to the rate too (`Firing`).
"""

from __future__ import annotations

from typing import Final

from delaystream.codec.command import Report, report_headers
from delaystream.codec.envelope import Gathering, Rate, encode, kept_actor
from delaystream.codec.keys import rate_key
from delaystream.core.order import newer
from delaystream.core.record import Record
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import Request
from delaystream.engine.accept.bulk import send_to_others
from delaystream.engine.policy.context import Context
from delaystream.engine.state.step import Step

MOST_RATES: Final = 1_000
"""Destinations with a rate by command, of all tenants together; those that were cleared again make room."""


class RateCommands:
    """Carries out `rate` on one partition."""

    def __init__(self, context: Context) -> None:
        self._partition = context.partition
        self._settings = context.settings
        self._state = context.state
        self._rates = context.rates

    def spread(self, step: Step, record: Record, request: Request) -> Rejection | None:
        """Carry out a command that was just read, and send it to all other partitions; all report here."""
        if self._full and (request.source.topic, request.destination) not in self._rates.commanded:
            return Rejection(
                Code.TOO_MANY_RATES,
                f"a rate for {shown(request.destination)} would be one more than the {MOST_RATES} that may "
                "be set by commands; expected a 'none' for one of them first",
                reply_to=request.reply_to,
            )
        gathering = Gathering(
            request.action,
            [],
            0,
            request.actor,
            request.no_receipt,
            request.destination,
            request.rate,
            note=request.terms.note,
        )
        send_to_others(step, self._settings, self._partition, record, request, gathering)
        self.apply(step, request)
        return None

    @property
    def _full(self) -> bool:
        commanded = self._rates.commanded
        return len(commanded) >= MOST_RATES and all(row.rate is not None for row in commanded.values())

    def apply(self, step: Step, request: Request) -> None:
        """Set the rate on this partition, unless a later command has set it, and report."""
        source = request.source
        row = Rate(
            source.topic,
            request.destination,
            request.rate,
            source.partition,
            source.offset,
            request.timestamp_ms,
            kept_actor(request.actor),
            source.origin,
            request.terms.note,
        )
        old = self._rates.commanded.get((row.tenant, row.destination))
        if old is None or not _older(row, old):
            if old is None:
                self._make_room(step)
            step.changes[rate_key(row.tenant, row.destination)] = encode(row)
            self._set(step, row)
        if source.origin:
            return  # it was imported on its way, and nobody here gathers what is reported of it
        settings = self._settings
        step.writes_to(settings.commands_topic, settings.partitions).write(
            None,
            None,
            report_headers(Report(source, self._partition, 0, request.reply_to)),
            step.now_ms,
            source.partition,
        )

    def _set(self, step: Step, row: Rate) -> None:
        rates, state = self._rates, self._state
        rates.command(row, step.loop_ms)
        state.use_lanes(rates.lane if rates.active else None)
        # The routes of this step, and the times when wheels open, come from the rate before.
        step.routes.pop((row.destination, row.tenant), None)
        for wheel in state.wheels([row.destination]):
            state.heads.open(wheel)
        # The wheels of this step were chosen by the rate before. So it drains nothing of the destination:
        # entries of one wheel would overtake those that had to wait in the other.
        step.requeued.add(row.destination)

    def _make_room(self, step: Step) -> None:
        """Forget the oldest rate that was cleared, where there are many."""
        commanded = self._rates.commanded
        if len(commanded) < MOST_RATES:
            return
        cleared = [row for row in commanded.values() if row.rate is None]
        if cleared:
            oldest = min(cleared, key=lambda row: row.timestamp_ms)
            step.changes[rate_key(oldest.tenant, oldest.destination)] = None
            self._rates.drop(oldest)


def _older(row: Rate, old: Rate) -> bool:
    """Whether a command was produced before another one about the same.

    Across partitions two of one time have an order too, or partitions would not agree.
    """
    if newer(old.moment, row.moment) or newer(row.moment, old.moment):
        return newer(old.moment, row.moment)
    return (row.partition, row.origin) < (old.partition, old.origin)
