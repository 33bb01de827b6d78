"""Tenants: what the requests of each topic may do, when they arrive and again when they fire.

A request's policy is always that of the topic it was produced to, also when it was handed on over the
commands topic: workers may write wherever any tenant may, and must not be talked into it by another one (the
confused deputy). A topic that is not a tenant any more has the shared policy.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Final, NamedTuple

import msgspec
from msgspec.structs import replace

from delaystream.codec.command import COMMAND_HEADER, Report, detach
from delaystream.codec.envelope import Bound
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.rates import RateTable
from delaystream.core.record import Record
from delaystream.core.rejection import Rejection
from delaystream.core.request import Request
from delaystream.dialects import Dialect, Translated

_MEMO_ENTRIES: Final = 10_000
_UNLIMITED: Final = RateTable()


class TenantEvents(NamedTuple):
    """The contents of the events of one tenant's requests."""

    #: the delivered key
    key: bool = True
    correlation_id: bool = True
    #: whether requests without an id have events, too; None: as the worker's setting says
    anonymous: bool | None = None


_EVENTS: Final = TenantEvents()


class Tenant:
    """One request topic's policy.

    ``max_pending`` bounds what it has pending in all partitions together, 0 stands for no bound; ``rates``
    are of its own fires, beside those of all tenants together. Of ``dialects`` the first that a record speaks
    is the one that it is read in. ``describes_payload``: whether `describe` tells what a schedule delivers.
    """

    def __init__(
        self,
        parser: RequestParser,
        *,
        max_pending: int = 0,
        rates: RateTable = _UNLIMITED,
        dialects: Sequence[Dialect] = (),
        describes_payload: bool = False,
        events: TenantEvents = _EVENTS,
    ) -> None:
        self.events = events
        self.parser = parser
        self.describes_payload = describes_payload
        self.max_pending = max_pending
        self.rates = rates
        self.dialects = tuple(dialects)
        #: as the parser's, of a record in any of the languages that the topic speaks
        self.parse: Callable[[Record, int], Request | Rejection] = (
            self._translated if dialects else parser.parse
        )

    def _translated(self, record: Record, now_ms: int) -> Request | Rejection:
        stamped = record if record.timestamp_ms >= 0 else replace(record, timestamp_ms=now_ms)
        translated = self.translate(stamped)
        if type(translated) is Rejection:
            return self.parser.addressed(translated, record.headers)
        if type(translated) is Translated:
            record = replace(record, key=translated.key, headers=translated.headers)
        return self.parser.parse(record, now_ms)

    def translate(self, record: Record) -> Translated | Rejection | None:
        """A record in our names; None when it speaks none of the dialects, and is read as it is."""
        for dialect in self.dialects:
            if (translated := dialect.translate(record)) is not None:
                return translated
        return None


class Denial(msgspec.Struct, frozen=True):
    """Whose requests may not be delivered to one destination."""

    #: every tenant's
    everyone: bool
    #: at least one tenant's
    anyone: bool
    shared: bool
    own: Mapping[str, bool]

    def of(self, tenant: str) -> bool:
        """Whether those of a request topic may not."""
        return self.own.get(tenant, self.shared)


class Tenants:
    """All policies: those of the topics that have one of their own, and the shared one of all others."""

    def __init__(
        self, shared: Tenant, own: Mapping[str, Tenant] | None = None, rates: RateTable = _UNLIMITED
    ) -> None:
        self._shared = shared
        self._own = dict(own or {})
        #: of all tenants together
        self.rates = rates
        self._denials: dict[str, Denial] = {}

    def of(self, topic: str) -> Tenant:
        """The policy of a request topic."""
        return self._own.get(topic, self._shared)

    @property
    def have_quotas(self) -> bool:
        """Whether any tenant's pending entries are bounded."""
        return any(tenant.max_pending for tenant in (self._shared, *self._own.values()))

    @property
    def have_rates(self) -> bool:
        """Whether any destination is limited, or any tenant's part of one."""
        return any((self.rates, self._shared.rates, *(tenant.rates for tenant in self._own.values())))

    def tell_anonymous(self, unless_said: bool) -> bool:
        """Whether any tenant's requests without an id have events."""
        said = [tenant.events.anonymous for tenant in (self._shared, *self._own.values())]
        return any(unless_said if own is None else own for own in said)

    def bounds(self) -> list[Bound]:
        """The rates of the settings."""
        tables = [("", self.rates), *((topic, tenant.rates) for topic, tenant in sorted(self._own.items()))]
        return [Bound(whose, glob, rate) for whose, table in tables for glob, rate in table.written]

    def permits(self, tenant: str, destination: str) -> bool:
        """Whether requests of a topic may be delivered to a destination."""
        return self.of(tenant).parser.permits(destination)

    def denial(self, destination: str) -> Denial:
        """Whose requests may not be delivered to a destination; remembered."""
        denial = self._denials.get(destination)
        if denial is None:
            shared = not self._shared.parser.permits(destination)
            own = {topic: not tenant.parser.permits(destination) for topic, tenant in self._own.items()}
            verdicts = [shared, *own.values()]
            denial = Denial(all(verdicts), any(verdicts), shared, own)
            if len(self._denials) >= _MEMO_ENTRIES:
                self._denials.clear()
            self._denials[destination] = denial
        return denial

    def parse_command(self, record: Record, now_ms: int) -> Request | Report | Rejection:
        """A record of the commands topic, read by the policy of the topic that it was produced to."""
        command, own = detach(record.headers)
        if isinstance(command, Report):
            return self.of(command.source.topic).parser.judged(command)
        if command is None:
            tenant = self._shared
        else:
            tenant = self.of(command.source.topic)
            if tenant.dialects:
                translated = tenant.translate(
                    Record(command.source, command.timestamp_ms, record.key, record.value, own)
                )
                if type(translated) is Rejection:
                    return tenant.parser.addressed(translated, own)
                if type(translated) is Translated:
                    headers = [*translated.headers, (COMMAND_HEADER, record.headers[-1][1])]
                    record = replace(record, key=translated.key, headers=headers)
        return tenant.parser.parse_command(record, now_ms)
