"""What everything that decides on a partition shares."""

from __future__ import annotations

import msgspec

from delaystream.engine.observer import Observer
from delaystream.engine.policy.destination_health import DestinationHealth
from delaystream.engine.policy.holds import Holds
from delaystream.engine.policy.rates import Rates
from delaystream.engine.policy.tenants import Tenants
from delaystream.engine.ports import Destinations
from delaystream.engine.settings import EngineSettings
from delaystream.engine.state.partition_state import PartitionState
from delaystream.engine.suspects import Suspects


class Context(msgspec.Struct, frozen=True):
    """One partition, its state and what bounds decisions on it; made anew when the state is loaded anew."""

    partition: int
    settings: EngineSettings
    state: PartitionState
    destinations: Destinations
    tenants: Tenants
    health: DestinationHealth
    rates: Rates
    holds: Holds
    suspects: Suspects
    observer: Observer
