"""The group's coordinator: who owns which partition, and who has heard of it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from delaystream.testing import Process

if TYPE_CHECKING:
    from tests.simulation.member import Member
    from tests.simulation.world import World


class Group:
    """Assigns partitions to workers, and notices those that stand still or die."""

    def __init__(self, world: World) -> None:
        self._world = world
        self.owners: dict[int, Member] = {}
        self._reigns: dict[int, int] = {}

    def owned_by(self, partition: int, member: Member) -> bool:
        """Whether a partition is a member's in the eyes of the group."""
        return self.owners.get(partition) is member and member.owned.get(partition) == self._reigns[partition]

    def died(self, member: Member) -> None:
        """A process is gone: after a session timeout its partitions go to others, and it is started again."""
        world = self._world
        random = world.random
        world.later(random.choice((0.0, 0.05, 0.5)), lambda: self._evict(member))
        absence_s = (
            0.2 if world.calm else random.choice((0.01, 0.3, 2.0, 45.0 if world.storm.long_absence else 3.0))
        )
        world.later(absence_s, lambda: self._restart(member))

    def _restart(self, member: Member) -> None:
        world = self._world
        if not member.running:
            if not world.calm or world.random.random() < 0.5:
                member.tamper(world.random)
            if world.storm.hides_absence and world.random.random() < 0.9:
                member.lose_time(world.random)
            member.start()
            self.rebalance()

    def _evict(self, member: Member) -> None:
        for partition, owner in list(self.owners.items()):
            if owner is member:
                self.assign(partition, self.someone(but=member))

    def someone(self, but: Member | None = None) -> Member | None:
        world = self._world
        able = [m for m in world.members if m.running and not m.frozen and m is not but]
        return world.random.choice(able) if able else None

    def assign(self, partition: int, to: Member | None) -> None:
        """Move a partition; the old owner hears of it before, after, or long after the new one."""
        world = self._world
        old = self.owners.pop(partition, None)
        if to is not None:
            self.owners[partition] = to
        if old is to:
            if to is not None:
                to.own(partition, self._reigns[partition])
            return
        self._reigns[partition] = self._reigns.get(partition, 0) + 1
        world.say("group", f"partition {partition}: {old and old.name} -> {to and to.name}")
        if old is not None:
            world.later(
                0 if world.calm else world.random.choice((0.0, 0.0, 0.02, 1.0)),
                lambda: self._tell_off(old, partition),
            )
        if to is not None:
            world.later(
                0 if world.calm else world.random.choice((0.0, 0.01, 0.2)),
                lambda: self._tell_on(to, partition),
            )

    def _tell_off(self, member: Member, partition: int) -> None:
        world = self._world
        if member.frozen:
            world.later(0.1, lambda: self._tell_off(member, partition))
        elif self.owners.get(partition) is not member:
            member.disown(partition)

    def _tell_on(self, member: Member, partition: int) -> None:
        world = self._world
        if self.owners.get(partition) is member:
            if member.frozen:
                world.later(0.1, lambda: self._tell_on(member, partition))
            else:
                member.own(partition, self._reigns[partition])

    def rebalance(self) -> None:
        """Give every partition without a living owner to somebody, and move some others."""
        world = self._world
        for partition in range(world.settings.partitions):
            owner = self.owners.get(partition)
            if owner is None or not owner.running or (not world.calm and world.random.random() < 0.3):
                self.assign(partition, self.someone())
            else:
                owner.own(partition, self._reigns[partition])

    def freeze(self, member: Member) -> None:
        """SIGSTOP for a while, which may be longer than the session timeout."""
        world = self._world
        if member.frozen or not member.running:
            return
        process = member.process
        assert process is not None
        process.pause()
        duration_s = world.random.choice((0.05, 0.5, 3.0, 15.0))
        world.say(member.name, f"stands still for {duration_s} s")
        if duration_s > world.random.choice((0.2, 1.0)):
            world.later(
                0.3, lambda: self._evict(member) if member.process is process and member.frozen else None
            )
        world.later(duration_s, lambda: self._thaw(member, process))

    def _thaw(self, member: Member, process: Process) -> None:
        world = self._world
        if process.alive and process.paused:
            world.say(member.name, "goes on")
            process.resume()

    @property
    def vacant(self) -> bool:
        """Whether some partition has no living owner."""
        owners = [self.owners.get(partition) for partition in range(self._world.settings.partitions)]
        return any(owner is None or not owner.running for owner in owners)
