"""Tests without Kafka: the real engine and the real client, on a log in memory, with time that a test moves.

:func:`environment` is for tests of what uses delaystream; docs/testing.md is its tutorial.

The rest is for the engine's own proof. :class:`MemoryLog` is a log with Kafka's semantics;
:class:`MemoryProducer`, :class:`MemoryChangelog`, :class:`MemorySources`, :class:`MemoryDestinations` and
:class:`MemoryStateStores` are the engine's ports on top of it; :class:`ManualClock`, :class:`VirtualTimeLoop`
and :class:`Timeline` are its time.

All of it is imported when it is first used: pytest imports this package wherever delaystream is installed.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from delaystream.testing.changelog import MemoryChangelog, MemoryDestinations
    from delaystream.testing.clock import LoopClock, ManualClock
    from delaystream.testing.environments import (
        AsyncEnvironment,
        DeadLetter,
        Environment,
        Scheduled,
        environment,
    )
    from delaystream.testing.interruption import Calm, Interruptions
    from delaystream.testing.log import MemoryLog
    from delaystream.testing.loop import DeadlockError, Killed, Process, RunawayError, VirtualTimeLoop
    from delaystream.testing.partition import LogRecord
    from delaystream.testing.producer import MemoryProducer, SteadyProducer
    from delaystream.testing.sources import MemorySources
    from delaystream.testing.store import Disk, MemoryStateStores, MemoryStore
    from delaystream.testing.timeline import Timeline
    from delaystream.testing.worker import EngineFailedError

_MODULES: Final = {
    "changelog": ("MemoryChangelog", "MemoryDestinations"),
    "clock": ("LoopClock", "ManualClock"),
    "environments": ("AsyncEnvironment", "DeadLetter", "Environment", "Scheduled", "environment"),
    "interruption": ("Calm", "Interruptions"),
    "log": ("MemoryLog",),
    "loop": ("DeadlockError", "Killed", "Process", "RunawayError", "VirtualTimeLoop"),
    "partition": ("LogRecord",),
    "producer": ("MemoryProducer", "SteadyProducer"),
    "sources": ("MemorySources",),
    "store": ("Disk", "MemoryStateStores", "MemoryStore"),
    "timeline": ("Timeline",),
    "worker": ("EngineFailedError",),
}
_MODULE_OF: Final = {name: module for module, names in _MODULES.items() for name in names}

__all__ = [
    "AsyncEnvironment",
    "Calm",
    "DeadLetter",
    "DeadlockError",
    "Disk",
    "EngineFailedError",
    "Environment",
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
    "Scheduled",
    "SteadyProducer",
    "Timeline",
    "VirtualTimeLoop",
    "environment",
]


def __getattr__(name: str) -> object:
    module = _MODULE_OF.get(name)
    if module is None:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    found: object = getattr(import_module(f"{__name__}.{module}"), name)
    globals()[name] = found
    return found
