"""The context that all decisions on a partition share."""

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


class ProcessorContext(msgspec.Struct, frozen=True):
    """The parts that a processor keeps from one incarnation to the next: one partition and its policies."""

    partition: int
    settings: EngineSettings
    destinations: Destinations
    tenants: Tenants
    health: DestinationHealth
    rates: Rates
    suspects: Suspects
    observer: Observer


class Context(ProcessorContext, frozen=True):
    """The same with the partition's state; made anew when the state is loaded anew."""

    state: PartitionState
    holds: Holds
