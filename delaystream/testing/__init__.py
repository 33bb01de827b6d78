"""Kafka in memory, and time that a test moves: for the engine's own proof and for its users' tests.

:class:`MemoryLog` is a log with Kafka's semantics; :class:`MemoryProducer`, :class:`MemoryChangelog`,
:class:`MemorySources`, :class:`MemoryDestinations` and :class:`MemoryStateStores` are the engine's ports on
top of it; :class:`ManualClock` and :class:`VirtualTimeLoop` are its time.
"""

from delaystream.testing.changelog import MemoryChangelog, MemoryDestinations
from delaystream.testing.clock import LoopClock, ManualClock
from delaystream.testing.interruption import Calm, Interruptions
from delaystream.testing.log import MemoryLog
from delaystream.testing.loop import DeadlockError, Killed, Process, RunawayError, VirtualTimeLoop
from delaystream.testing.partition import LogRecord
from delaystream.testing.producer import MemoryProducer, SteadyProducer
from delaystream.testing.sources import MemorySources
from delaystream.testing.store import Disk, MemoryStateStores, MemoryStore

__all__ = [
    "Calm",
    "DeadlockError",
    "Disk",
    "Interruptions",
    "Killed",
    "LogRecord",
    "LoopClock",
    "ManualClock",
    "MemoryChangelog",
    "MemoryDestinations",
    "MemoryLog",
    "MemoryProducer",
    "MemorySources",
    "MemoryStateStores",
    "MemoryStore",
    "Process",
    "RunawayError",
    "SteadyProducer",
    "VirtualTimeLoop",
]
