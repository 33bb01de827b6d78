"""What requests say beside what they ask for, and those that change no schedule: descriptions, and rates.

In some worlds only: in the others ids live as they would without.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from random import Random
from typing import TYPE_CHECKING

from delaystream.core.rejection import Code
from delaystream.engine.ports import TopicPartition
from tests.ledger import Asked, Once, Selector, sent_again

if TYPE_CHECKING:
    from tests.simulation.world import World

Header = tuple[str, bytes | None]
Sent = tuple[TopicPartition, Asked, list[Header]]
IDS = ("x", "y", "ü/z", "b-1", "b-2", "b-ü/")
#: as it is written, and records a second
_RATES = ((b"8", 8.0), (b"30/s", 30.0), (b"1/m", 1 / 60), (b"1/m", 1 / 60), (b"none", None))
_DECLARES = frozenset({"schedule", "update", "cancel"})


class TermsOfRequests:
    """Draws them; what else is drawn of a seed stays as it is."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = random = Random(f"{world.seed}-producers-terms")
        #: how many of the requests about an id say more; and how often a client asks for what changes none
        self._chance = random.choice((0.0, 0.0, 0.25, 0.6))
        #: how many pauses end by themselves, some after the storm
        self._ends = random.choice((0.0, 0.9))
        self._holding = Random(f"{world.seed}-producers-terms-holding")
        self._letting_go = Random(f"{world.seed}-producers-terms-letting-go")
        self._says = self._letting_go.choice((0.0, 0.6))
        self._describes = random.choice((0.0, 0.0, 0.2))
        self._holds = self._letting_go.choice((0.0, 0.0, 0.2))
        #: the resumes that end the holds of tags of their own, each with when it is to be sent
        self._to_resume: list[tuple[int, Sent]] = []
        self._asking = Random(f"{world.seed}-producers-terms-asking")
        self._asks = self._asking.choice((0.0, 0.3))
        self._repeats = 0.15 if self._chance else 0.0
        self._paces = random.choice((0.0, 0.0, 0.0, 0.1, 0.1))
        self._count = 0
        self._named: list[Sent] = []
        self._declared: list[Sent] = []

    # -- what a request about an id says more

    def add(self, request: Asked, control: list[Header], topic: str) -> None:
        """Some of these, to what a request about an id says."""
        random = self._random
        self.end(request, control)
        self.resume(request, control)
        if random.random() >= self._chance:
            return
        if random.random() < 0.4:
            self._count += 1
            request.request_id = f"request {self._count}"
            control.append(("delaystream-request-id", request.request_id.encode()))
        if random.random() < 0.25:
            assert request.id is not None
            request.if_version = random.choice((0, self._version(topic, request.id), self._version(topic)))
            request.errors |= {Code.VERSION_CHANGED}
            control.append(("delaystream-if-version", b"%d" % request.if_version))
        if request.action in _DECLARES and random.random() < 0.5:
            request.declared_by = random.choice(("team a", "team a", "team b"))
            control.append(("delaystream-declared-by", request.declared_by.encode()))
            if random.random() < 0.8:
                request.deploy = random.choice((0, 1, 2, 3))
                request.errors |= {Code.DEPLOY_SUPERSEDED}
                control.append(("delaystream-deploy", b"%d" % request.deploy))

    def end(self, request: Asked, control: list[Header]) -> None:
        """When a pause ends by itself, of some."""
        random = self._random
        if request.selector is not None:
            random = self._holding
        if request.action == "pause" and random.random() < self._ends:
            request.until_ms = request.timestamp_ms + random.choice((100, 700, 2_500, 9_000))
            control.append(("delaystream-until", b"%d" % request.until_ms))

    def resume(self, request: Asked, control: list[Header]) -> None:
        """What a resume says of what is late, of some."""
        random = self._letting_go
        if request.action != "resume" or random.random() >= self._says:
            return
        catch_up = random.choice((None, "latest", "all", "none"))
        on_late = random.choice((None, "fire", "drop", "dest-late"))
        grace_ms = random.choice((None, 0, 150, 2_000))
        grace = None if grace_ms is None else f"{grace_ms}ms" if grace_ms else "0"
        words = {"catch-up": catch_up, "on-late": on_late, "grace": grace}
        said = [(f"delaystream-{name}", word.encode()) for name, word in words.items() if word is not None]
        if said:
            request.once = Once(catch_up, on_late, grace_ms)
            control.extend(said)

    def _held_and_let_go(self) -> Iterator[Sent]:
        """What one pause alone holds while it comes due, and then a resume lets go."""
        random, world = self._letting_go, self._world
        now_ms = world.clock.now_ms()
        if random.random() < self._holds:
            self._count += 1
            tag = f"held {self._count}"
            at = TopicPartition(
                random.choice(world.request_topics), random.randrange(world.settings.partitions)
            )
            pause, resume = self._asked("pause", now_ms), self._asked("resume", now_ms)
            pause.selector, resume.selector = Selector(tag=tag, arriving=True), Selector(tag=tag)
            selects: Header = ("delaystream-match-tags", tag.encode())
            yield at, pause, [*self._command(pause), selects, ("delaystream-match-new", b"true")]
            request = Asked("", b"a", b"%d" % self._count, [], "dest-a", (now_ms + 600,), now_ms)
            request.tags, request.relative = (tag,), True
            said = {"delay": "600ms", "destination": request.destination, "tags": tag}
            headers: list[Header] = [(f"delaystream-{name}", word.encode()) for name, word in said.items()]
            request.errors |= {Code.QUOTA_EXCEEDED}
            yield at, request, headers
            control = [*self._command(resume), selects]
            self.resume(resume, control)
            self._to_resume.append((now_ms + random.choice((1_200, 2_500)), (at, resume, control)))
        for sent in [sent for sent in self._to_resume if sent[0] <= now_ms]:
            self._to_resume.remove(sent)
            at, resume, control = sent[1]
            resume.timestamp_ms = now_ms
            yield at, resume, control

    def _version(self, topic: str, id: str | None = None) -> int:
        """The last version that was told of an id, or of anything; 0 if nothing was."""
        world = self._world
        latest_ms, version = -1, 0
        for _, record in world.log.all(world.settings.events_topic):
            if id is not None and record.key != id.encode():
                continue
            facts = json.loads(record.value or b"{}")
            if record.appended_ms > latest_ms and facts.get("request_topic") == topic and "version" in facts:
                latest_ms, version = record.appended_ms, facts["version"]
        return version

    def remember(self, at: TopicPartition, request: Asked, headers: list[Header]) -> None:
        """A request was sent: its client may send it again if it has a request-id, or is a deployment's."""
        if request.request_id is not None:
            self._named.append((at, request, headers))
        elif request.action == "schedule" and request.deploy is not None and request.if_version is None:
            self._declared.append((at, request, headers))

    # -- further requests

    def more(self, asked: list[Asked]) -> Iterator[Sent]:
        """What clients send beside all else."""
        random = self._random
        if self._named and random.random() < self._repeats:
            at, first, headers = random.choice(self._named[-6:])
            yield at, sent_again(first, self._world.clock.now_ms()), headers
        if self._declared and random.random() < self._repeats:
            yield from self._late_deployment()
        if random.random() < self._describes:
            yield self._description(asked)
        yield from self._held_and_let_go()
        if self._asking.random() < self._asks:
            yield from self._description_by_coordinates(asked)
        if random.random() < self._paces:
            yield self._rate(*random.choice(_RATES))
            # What changes often is in force for no time: nobody could tell whether it is kept to.
            self._paces /= 3

    def _late_deployment(self) -> Iterator[Sent]:
        """A deployment takes out what it has no more; and one before it, that is late, puts it in again."""
        at, first, headers = self._random.choice(self._declared[-6:])
        assert first.id is not None
        assert first.deploy is not None
        assert first.declared_by is not None
        prune = self._asked("cancel", self._world.clock.now_ms())
        prune.id, prune.declared_by, prune.deploy = first.id, first.declared_by, first.deploy + 1
        prune.errors = frozenset({Code.DEPLOY_SUPERSEDED})
        said = {"id": first.id, "declared-by": first.declared_by, "deploy": f"{first.deploy + 1}"}
        told = [(f"delaystream-{name}", text.encode()) for name, text in said.items()]
        yield at, prune, [*self._command(prune), *told]
        if self._random.random() < 0.7:
            yield at, sent_again(first, self._world.clock.now_ms()), headers

    def _description(self, asked: list[Asked]) -> Sent:
        random, world = self._random, self._world
        at = TopicPartition(random.choice(world.request_topics), random.randrange(world.settings.partitions))
        known = [request for request in asked if request.id is not None]
        if known and random.random() < 0.8:
            # Where its other requests are read, so that it has its turn among them.
            last = random.choice(known[-10:])
            at, id = TopicPartition(*last.partition), last.id
        else:
            id = random.choice(IDS)
        assert id is not None
        request = self._asked("describe", world.clock.now_ms())
        request.id = id
        control = [*self._command(request), ("delaystream-id", id.encode())]
        if self._chance and self._asking.random() < 0.3:
            request.if_version = self._asking.choice(
                (0, self._version(at.topic, id), self._version(at.topic, id))
            )
            request.errors |= {Code.VERSION_CHANGED}
            control.append(("delaystream-if-version", b"%d" % request.if_version))
        return at, request, control

    def _description_by_coordinates(self, asked: list[Asked]) -> Iterator[Sent]:
        """Of one request without an id; only of what goes where it was asked for."""
        random, world = self._asking, self._world
        plain = [r for r in asked if r.due_ms and r.id is None and r.on_late == "fire" and not r.hopeless]
        plain = [r for r in plain if r.action == "schedule"]
        if not plain:
            return
        subject = random.choice(plain[-12:])
        topic, partition = subject.partition
        if random.random() < 0.3:
            partition = random.randrange(world.settings.partitions)
        request = self._asked("describe", world.clock.now_ms())
        request.subject = subject.source
        at = TopicPartition(topic, partition)
        yield at, request, [*self._command(request), ("delaystream-coordinates", subject.source.encode())]

    def _rate(self, written: bytes, rate: float | None) -> Sent:
        random, world = self._random, self._world
        topic = random.choice(world.request_topics)
        request = self._asked("rate", world.clock.now_ms())
        request.destination, request.rate = random.choice(("dest-a", "dest-a", "dest-b")), rate
        at = TopicPartition(topic, random.randrange(world.settings.partitions))
        return at, request, self._paced(request, written)

    def lifted(self, asked: Iterable[Asked]) -> Iterator[Sent]:
        """Commands that end all rates that were asked for."""
        paced = {(r.partition[0], r.destination): r for r in asked if r.action == "rate"}
        for topic, destination in paced:
            request = self._asked("rate", self._world.clock.now_ms())
            request.destination = destination
            yield TopicPartition(topic, 0), request, self._paced(request, b"none")

    def _paced(self, request: Asked, written: bytes) -> list[Header]:
        destination = ("delaystream-destination", request.destination.encode())
        return [*self._command(request), destination, ("delaystream-rate", written)]

    @staticmethod
    def _asked(action: str, now_ms: int) -> Asked:
        return Asked("", None, None, (), "", (), now_ms, action=action, receipt_expected=True)

    @staticmethod
    def _command(request: Asked) -> list[Header]:
        return [("delaystream-action", request.action.encode()), ("delaystream-reply-to", b"receipts")]
