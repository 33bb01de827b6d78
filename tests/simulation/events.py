"""What befalls a world from outside: to its workers, its topics and its clocks."""

from __future__ import annotations

import asyncio
from random import Random
from typing import TYPE_CHECKING

from delaystream.engine.ports import TopicPartition
from delaystream.testing.partition import Topic

if TYPE_CHECKING:
    from tests.simulation.member import Member
    from tests.simulation.world import World

_EVENTS = (
    *("kill", "freeze", "move", "jump", "compact", "compact"),
    *("trim", "clock", "backup", "refuse", "missing"),
)


class Events:
    """Events at random moments, for as long as the storm lasts."""

    def __init__(self, world: World) -> None:
        self._world = world

    async def run(self) -> None:
        world = self._world
        random = world.random
        end = world.loop.time() + world.storm.seconds
        if world.storm.long_absence:
            # Around the last request: what fires later leaves tombstones and rewrites nothing. So the last
            # record that these disks have applied may stay in the log, and does not give them away.
            world.later(world.storm.seconds + random.uniform(-1, 2), self._set_disks_aside)
        while world.loop.time() < end:
            await asyncio.sleep(random.expovariate(world.storm.events_per_second))
            self._event(random)
        if world.storm.long_absence:
            # Long enough for tombstones to go, and for those to come back who have never heard of them.
            for _ in range(12):
                await asyncio.sleep(random.uniform(2, 12))
                for at in self._changelogs():
                    world.log.compact(at)
                self._event(random)
            self._bring_disks_back(random)

    def _set_disks_aside(self) -> None:
        for member in self._world.members:
            member.set_aside()

    def _bring_disks_back(self, random: Random) -> None:
        """Machines that were away for most of the story are all there is: nobody else owns the partitions."""
        for member in self._world.members:
            member.crash()
            if random.random() < 0.9:
                member.bring_back()

    def _changelogs(self) -> list[TopicPartition]:
        world = self._world
        topic = world.settings.changelog_topic
        return [TopicPartition(topic, partition) for partition in range(world.settings.partitions)]

    def _event(self, random: Random) -> None:
        world = self._world
        kind = random.choice(_EVENTS)
        member = random.choice(world.members)
        partition = random.randrange(world.settings.partitions)
        at = TopicPartition(world.settings.changelog_topic, partition)
        match kind:
            case "kill" if member.running:
                member.crash()
            case "freeze":
                world.group.freeze(member)
            case "move":
                world.group.assign(partition, world.group.someone())
            case "jump":
                self._jump(member, partition)
            case "compact":
                end = world.log.bounds(at).end
                taken = world.log.compact(at, random.choice((end, random.randrange(end + 1))))
                world.say("broker", f"compaction of {at.partition} took {taken}")
            case "trim":
                for topic in (*world.request_topics, world.settings.commands_topic):
                    world.log.trim(TopicPartition(topic, partition), world.applied(topic, partition))
            case "clock" if world.storm.clock_steps:
                step_ms = random.choice((-3_000, -200, 200, 3_000))
                if abs(member.clock.ahead_ms + step_ms) <= 5_000:
                    member.step_clock(step_ms)
                    world.say(member.name, f"clock steps by {step_ms} ms")
            case "backup":
                member.back_up()
            case "refuse":
                own = (world.settings.dead_letters_topic, world.settings.events_topic)
                names = [*world.destinations, *own]
                self._refuse(world.log.topics.get(random.choice(names)), random)
            case "missing":
                self._hide(random.choice(list(world.destinations)), random)

    def _jump(self, member: Member, partition: int) -> None:
        """After a rebalance a fetcher may go on from the group's offset, or ahead of what was delivered."""
        world = self._world
        sources = member.sources.get(partition)
        if sources is None or not member.running:
            return
        topic = world.random.choice(world.request_topics)
        at = TopicPartition(topic, partition)
        start = world.log.bounds(at).start
        records = world.log.read(at, start)[0]
        if not records:
            return
        # Not beyond the last record: a gap is noticed by what comes behind it.
        position = world.random.choice((start, world.applied(topic, partition), records[-1].offset))
        sources.seek(topic, max(start, min(position, records[-1].offset)))
        world.say(member.name, f"fetches {topic}-{partition} from {position}")

    def _refuse(self, topic: Topic | None, random: Random) -> None:
        world = self._world
        if topic is None:
            return
        world.log.trouble(topic.name)
        topic.refusal = "not authorized, says the simulation"
        world.say("broker", f"{topic.name} is refused")
        world.later(random.choice((0.2, 2.0)), lambda: setattr(topic, "refusal", None))

    def _hide(self, name: str, random: Random) -> None:
        world = self._world
        topic = world.log.topics.pop(name, None)
        if topic is not None:
            world.say("broker", f"{name} is missing")
            world.log.trouble(name)
            world.later(random.choice((0.2, 2.0)), lambda: world.log.topics.setdefault(name, topic))
