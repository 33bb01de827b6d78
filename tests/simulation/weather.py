"""What happens at the points of the ports: latency, errors, the death of the process, a standstill."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING, Final

from delaystream.engine.failures import (
    LogUnavailable,
    StoreFailed,
    StoreUntrusted,
    TransactionFailed,
    WriteRefused,
)
from delaystream.testing import Killed, MemoryProducer
from delaystream.testing.loop import never
from delaystream.testing.partition import Epoch, StaleEpochError

if TYPE_CHECKING:
    from tests.simulation.member import Member

_TRANSACTION_POINTS: Final = frozenset({"write", "written", "offsets", "end", "ended"})
_LOG_POINTS: Final = frozenset({"fence", "fenced", "open-changelog", "bounds", "read", "source-bounds"})


class Weather:
    """The :class:`~delaystream.testing.Interruptions` of one process."""

    def __init__(self, member: Member, seed: str) -> None:
        self._member = member
        self._world = member.world
        self._random = Random(seed)

    async def at(self, point: str, subject: str) -> None:
        """Let a moment pass, and something happen."""
        random, world = self._random, self._world
        if random.random() < world.storm.misfortune and not world.calm:
            await self._misfortune(point, subject)
        elif random.random() < world.storm.latency:
            await asyncio.sleep(random.choice((0.001, 0.003, 0.01, 0.04)))
        else:
            await asyncio.sleep(0)

    async def _misfortune(self, point: str, subject: str) -> None:
        random, world, member = self._random, self._world, self._member
        kind = random.choice(("crash", "freeze", "delay", "error", "error", "error"))
        if kind == "error" and subject == "receipts":
            return  # a receipt that cannot be delivered now is not delivered; the ledger wants every one
        world.say(member.name, f"{kind} at {point} {subject}")
        if kind == "crash":
            member.crash()
            await never()
        if kind == "freeze":
            world.group.freeze(member)
            await asyncio.sleep(0)
            return
        if kind == "delay":
            await asyncio.sleep(random.choice((0.3, 2.0, 12.0)))
            return
        if point in _TRANSACTION_POINTS:
            if point == "write" and subject in world.destinations and random.random() < 0.5:
                world.log.trouble(subject)
                raise WriteRefused(subject, 0, "no leader, says the simulation", record_at_fault=False)
            raise TransactionFailed(f"at {point}, says the simulation")
        if point in _LOG_POINTS or point == "ensure":
            raise LogUnavailable(f"at {point}, says the simulation")

    def at_once(self, point: str, subject: str) -> None:
        """Let something happen to a call of the local store."""
        random, world, member = self._random, self._world, self._member
        if world.calm or random.random() >= world.storm.misfortune * (0.2 if point == "look" else 1):
            return
        kind = random.choice(("crash", "crash", "error"))
        world.say(member.name, f"{kind} at {point} {subject}")
        if kind == "crash":
            member.crash()
            raise Killed
        if point in ("open-store", "look"):
            raise StoreUntrusted("it cannot be read, says the simulation")
        if point == "store":
            raise StoreFailed("the disk is full, says the simulation")


class LateProducer(MemoryProducer):
    """A producer whose EndTxn may reach the broker after the caller has given it up."""

    member: Member

    async def _end(self, epoch: Epoch) -> None:
        world = self.member.world
        random = world.random
        if not world.calm and random.random() < world.storm.misfortune:
            delay_s = random.choice((0.0, 0.005, 0.05, 0.5))
            world.say(self.member.name, f"the commit of {epoch} arrives {delay_s} s after it was given up")

            def arrive() -> None:
                try:
                    self._log.end(epoch, commit=True)
                except StaleEpochError:
                    world.say("broker", f"a late commit of {epoch} is refused")

            world.later(delay_s, arrive)
            raise TransactionFailed("timed out, says the simulation")
        await super()._end(epoch)
