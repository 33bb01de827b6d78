"""Those who ask: every kind of request, with ids and without, good and bad, some in own transactions."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from random import Random
from typing import TYPE_CHECKING

from delaystream.core.rejection import Code
from delaystream.engine.ports import TopicPartition
from tests.ledger import Asked, Beat, Selector, sent_again
from tests.simulation.storm import LIMITED
from tests.simulation.terms import Header, TermsOfRequests

if TYPE_CHECKING:
    from tests.simulation.world import World

_FOREIGN: list[list[Header]] = [
    [],
    [("trace", b"1")],
    [("trace", b"1"), ("trace", None), ("bin", b"\xff\x00")],
]
_KINDS = (
    *("plain", "plain", "plain", "list", "named", "named", "cancel", "late", "bad", "options"),
    *("beat", "beat", "plan", "command", "command", "command", "bulk"),
)
#: kinds that are about the ids of recurring schedules, plans and commands
_CONTROLLED = ("beat", "plan", "command", "bulk")
#: headers that say when
_WHEN = frozenset(
    f"delaystream-{name}" for name in ("at", "every", "cron", "start", "end", "max-fires", "jitter")
)
_DELAYS_MS = (0, 1, 50, 300, 300, 1_000, 2_500, 6_000)


def _duration(delay_ms: int) -> bytes:
    return b"%dms" % delay_ms if delay_ms else b"0"


class Producers:
    """Clients that put requests on the request topics while the storm lasts."""

    def __init__(self, world: World) -> None:
        self._world = world
        self._random = Random(f"{world.seed}-producers")
        #: of what was added later: what was drawn before that is drawn as ever
        self._further = Random(f"{world.seed}-producers-further")
        self._replies = Random(f"{world.seed}-producers-replies")
        self._later = Random(f"{world.seed}-producers-later")
        #: schedules that mean the same whenever they are sent: where to, what is known of them, their headers
        self._defining: list[tuple[TopicPartition, Asked, list[Header]]] = []
        self._selecting = Random(f"{world.seed}-producers-selecting")
        #: in some worlds nothing is held, nor cancelled without an id
        self._selects = self._selecting.choice((0.0, 0.1, 0.2))
        self._terms = TermsOfRequests(world)
        #: in some worlds one selector follows at once on another, on the same partition
        self._changing = Random(f"{world.seed}-producers-changing")
        self._hurrying = Random(f"{world.seed}-producers-hurrying")
        self._hurries = self._hurrying.choice((0.0, 0.5, 0.8))
        #: where cancels of unknown ids have a bound, some make ids up
        self._inventing = Random(f"{world.seed}-producers-inventing")
        self._invents = 0.2 if world.settings.max_remembered_cancels < 1_000 else 0.0
        self.asked: list[Asked] = []
        self._count = 0
        #: each id keeps to one request partition, mostly: there its requests apply in order
        self._homes: dict[tuple[str, str], int] = {}
        self._strays = self._random.random() < 0.3
        self._rate = self._random.choice((5.0, 15.0))

    async def run(self, seconds: float) -> None:
        """Ask, at random moments."""
        random, world = self._random, self._world
        end = world.loop.time() + seconds
        while world.loop.time() < end:
            await asyncio.sleep(random.expovariate(self._rate / 2))
            for _ in range(random.choice((1, 1, 1, 6))):
                self._ask()
            if self._selecting.random() < self._selects:
                at = self._select(self._selecting)
                while self._hurrying.random() < self._hurries:
                    self._select(self._hurrying, at)
            if self._inventing.random() < self._invents:
                self._cancel_unknown()
            for at, request, headers in self._terms.more(self.asked):
                row = (request.key, request.value, headers, request.timestamp_ms)
                self._note(at, request, world.log.append(at, row))

    def wake(self, topic: str) -> None:
        """Resume whatever a storm has left paused."""
        self._count += 1
        request = Asked("", None, None, (), "", (), self._world.clock.now_ms(), action="resume", prefix="b-")
        control: list[Header] = [("delaystream-action", b"resume"), ("delaystream-match-id-prefix", b"b-")]
        at = TopicPartition(topic, 0)
        self._note(at, request, self._world.log.append(at, (None, None, control, request.timestamp_ms)))
        everything = Selector("*")
        request = replace(request, prefix=None, selector=everything)
        control = [("delaystream-action", b"resume"), ("delaystream-match-destination", b"*")]
        self._note(at, request, self._world.log.append(at, (None, None, control, request.timestamp_ms)))

    def lift(self) -> None:
        """End the rates that commands have set: what waits for them is not to be waited for."""
        for at, request, headers in self._terms.lifted(self.asked):
            self._note(at, request, self._world.log.append(at, (None, None, headers, request.timestamp_ms)))

    def _ask(self) -> None:
        random, world = self._random, self._world
        if self._defining and self._later.random() < 0.06:
            self._again()
            return
        self._count += 1
        topic = random.choice(world.request_topics)
        partition = random.randrange(world.settings.partitions)
        now_ms = world.clock.now_ms()
        foreign = random.choice(_FOREIGN)
        key = random.choice((b"a", b"b", b"c", None, b""))
        value = random.choice((b"%d" % self._count, b"%d" % self._count, None, b""))
        request = Asked("", key, value, foreign, random.choice(("dest-a", "dest-a", "dest-b")), (), now_ms)
        control: list[Header] = []
        kind = random.choice(_KINDS)
        if kind in ("named", "cancel"):
            partition = self._name(request, control, topic, partition, cancel=kind == "cancel")
        if kind in _CONTROLLED:
            partition = self._controlled(request, control, topic, partition, kind)
        elif kind == "bad":
            self._spoil(request, control)
        elif kind != "cancel":
            self._schedule(request, control, kind)
        if kind == "options":
            self._options(request, control)
        if request.id is None and request.due_ms and self._further.random() < 0.3:
            request.receipt_expected = True
            control.append(("delaystream-reply-to", b"receipts"))
        if request.id is not None and (request.beat or request.due_ms) and request.action == "schedule":
            self._further_options(request, control)
        if request.receipt_expected and self._replies.random() < 0.1:
            # Nobody but workers may write there. It is carried out all the same.
            request.receipt_expected, request.receipt_refused = False, True
            control[control.index(("delaystream-reply-to", b"receipts"))] = (
                "delaystream-reply-to",
                b"delay-commands",
            )
        if request.id is not None:
            self._terms.add(request, control, topic)
        if topic == LIMITED and world.max_pending and (kind in _CONTROLLED or request.due_ms):
            request.errors |= {Code.QUOTA_EXCEEDED.value}
        if kind not in ("cancel", "command", "bulk", "bad") and self._selecting.random() < 0.3:
            request.tags = ("urgent",)
            control.append(("delaystream-tags", b"urgent"))
        headers = [*control, *foreign]
        if random.random() < 0.3:
            random.shuffle(control)
            headers = [*foreign, *control]
        at = TopicPartition(topic, partition)
        if kind in ("beat", "plan") and not request.relative and Code.NEVER_FIRES not in request.errors:
            self._defining.append((at, request, headers))
        if request.id is not None:
            self._terms.remember(at, request, headers)
        self._send(at, request, headers)

    def _select(self, random: Random, at: TopicPartition | None = None) -> TopicPartition:
        """Hold, let go or cancel what a selector matches; or a command about one request without an id.

        Where it was sent to: to the same partition as another one, if that is given.
        """
        world = self._world
        request = Asked("", None, None, (), "", (), world.clock.now_ms(), receipt_expected=True)
        control: list[Header] = [("delaystream-reply-to", b"receipts")]
        if at is None:
            topic = random.choice(world.request_topics)
            at = TopicPartition(topic, random.randrange(world.settings.partitions))
        # Only of what goes where it was asked for: a fire that was moved has another destination.
        asked = [
            r for r in self.asked if r.due_ms and r.id is None and r.on_late == "fire" and not r.hopeless
        ]
        asked = [r for r in asked if r.partition[0] == at.topic and r.action == "schedule"]
        if asked and random.random() < 0.3:
            request.action = random.choice(("cancel", "reschedule", "trigger"))
            request.subject = random.choice(asked[-20:]).source
            control.append(("delaystream-coordinates", request.subject.encode()))
            if request.action == "reschedule":
                control.append(("delaystream-delay", random.choice((b"0", b"300ms", b"2500ms"))))
        else:
            request.action = random.choice(("pause", "pause", "resume", "cancel"))
            request.selector = self._selector(random, request.action, control)
            self._terms.end(request, control)
            self._terms.resume(request, control)
        control.append(("delaystream-action", request.action.encode()))
        self._note(at, request, world.log.append(at, (None, None, control, request.timestamp_ms)))
        return at

    def _cancel_unknown(self) -> None:
        """Cancel an id that nobody has asked for, which is remembered."""
        random, world = self._inventing, self._world
        request = Asked("", None, None, (), "", (), world.clock.now_ms(), action="cancel")
        request.id, request.receipt_expected = random.choice(("n-1", "n-2", "n-3", "n-4", "n-5")), True
        control: list[Header] = [
            ("delaystream-reply-to", b"receipts"),
            ("delaystream-action", b"cancel"),
            ("delaystream-id", request.id.encode()),
        ]
        topic, partition = random.choice(world.request_topics), random.randrange(world.settings.partitions)
        at = TopicPartition(topic, partition)
        self._note(at, request, world.log.append(at, (None, None, control, request.timestamp_ms)))

    def _selector(self, random: Random, action: str, control: list[Header]) -> Selector:
        destination = key = tag = None
        kind = random.choice(("destination", "destination", "key", "tag", "two"))
        if kind in ("destination", "two"):
            destination = random.choice(("dest-a", "dest-b", "dest-*", "*"))
            control.append(("delaystream-match-destination", destination.encode()))
        if kind in ("key", "two"):
            key = random.choice((b"a", b"b", b""))
            control.append(("delaystream-match-key", key))
        if kind == "tag":
            tag = "urgent"
            control.append(("delaystream-match-tags", b"urgent"))
        arriving = action == "pause" and random.random() < 0.5
        anonymous = action == "cancel" and random.random() < 0.7
        if arriving:
            control.append(("delaystream-match-new", b"true"))
        if anonymous:
            control.append(("delaystream-match-anonymous", b"true"))
        return Selector(destination, key, tag, arriving, anonymous)

    def _schedule(self, request: Asked, control: list[Header], kind: str) -> None:
        random = self._random
        delays = [random.choice(_DELAYS_MS) for _ in range(random.choice((2, 3, 4)) if kind == "list" else 1)]
        if kind == "named" and random.random() < 0.2:
            delays.append(random.choice(_DELAYS_MS))
        request.due_ms = tuple(request.timestamp_ms + delay for delay in delays)
        if random.random() < 0.3:
            control.append(("delaystream-at", ",".join(str(due) for due in request.due_ms).encode()))
        else:
            request.relative = True
            control.append(("delaystream-delay", b",".join(_duration(delay) for delay in delays)))
        if kind == "named" and random.random() < 0.2:
            request.destination, request.hopeless = "dest-small", random.random() < 0.5
            request.value = b"x" * (1_000 if request.hopeless else 10)
        elif kind == "late" or (kind == "named" and random.random() < 0.2):
            request.on_late = random.choice(("drop", "dest-late"))
            request.grace_ms = random.choice((0, 100, 2_000))
            control.append(("Delaystream-On-Late", request.on_late.encode()))
            control.append(("delaystream-grace", _duration(request.grace_ms)))
        control.append(("delaystream-destination", request.destination.encode()))

    def _name(
        self, request: Asked, control: list[Header], topic: str, partition: int, *, cancel: bool
    ) -> int:
        random = self._random
        request.id = random.choice(("x", "y", "ü/z"))
        request.receipt_expected = True
        control.append(("delaystream-id", request.id.encode()))
        control.append(("delaystream-reply-to", b"receipts"))
        request.errors = frozenset({Code.CANCELLED_EARLIER.value, Code.ALREADY_EXISTS.value})
        if cancel:
            request.action = "cancel"
            control.append(("delaystream-action", b"cancel"))
        elif random.random() < 0.4:
            request.if_exists = random.choice(("replace", "keep", "reject"))
            control.append(("delaystream-if-exists", request.if_exists.encode()))
        if self._strays and random.random() < 0.3:
            return partition
        return self._homes.setdefault((topic, request.id), partition)

    # -- schedules of every kind, and commands

    def _controlled(
        self, request: Asked, control: list[Header], topic: str, partition: int, kind: str
    ) -> int:
        random = self._random
        request.receipt_expected = True
        request.errors = frozenset({Code.CANCELLED_EARLIER, Code.ALREADY_EXISTS})
        control.append(("delaystream-reply-to", b"receipts"))
        if kind == "bulk":
            request.action = random.choice(("cancel", "pause", "resume", "resume"))
            request.prefix = random.choice(("b-", "b-", "b-1"))
            control.append(("delaystream-action", request.action.encode()))
            control.append(("delaystream-match-id-prefix", request.prefix.encode()))
            self._terms.end(request, control)
            self._terms.resume(request, control)
            return partition
        request.id = random.choice(("b-1", "b-1", "b-2", "b-ü/"))
        control.append(("delaystream-id", request.id.encode()))
        if kind == "command":
            request.action = random.choice(
                ("cancel", "pause", "pause", "resume", "resume", "trigger", "trigger", "reschedule")
            )
            if request.action == "reschedule" and self._later.random() < 0.4:
                request.action = "update"
            control.append(("delaystream-action", request.action.encode()))
            if request.action in ("reschedule", "update"):
                self._when(request, control, random.choice(("beat", "plan")))
                # It may be over with the bounds that the schedule has.
                request.errors |= {Code.NEVER_FIRES}
                if request.action == "update":
                    self._change(request, control)
        else:
            self._when(request, control, kind)
            control.append(("delaystream-destination", request.destination.encode()))
            request.if_exists = random.choice(("replace", "keep", "keep", "reject"))
            control.append(("delaystream-if-exists", request.if_exists.encode()))
            self._what_if_late(request, control, kind)
            if self._later.random() < 0.15:
                request.wanted = self._later.choice(("pending", "paused"))
                control.append(("delaystream-status", request.wanted.encode()))
        if self._strays and random.random() < 0.3:
            return partition
        return self._homes.setdefault((topic, request.id), partition)

    def _change(self, request: Asked, control: list[Header]) -> None:
        """What an update changes beside when it fires, or in place of that."""
        random, update = self._changing, dict[str, object]()
        if random.random() < 0.5:
            control[:] = [header for header in control if header[0] not in _WHEN]
            request.beat, request.due_ms = None, ()
        if random.random() < 0.3:
            update["destination"] = random.choice(("dest-a", "dest-b"))
            control.append(("delaystream-destination", str(update["destination"]).encode()))
            request.errors |= {Code.DESTINATION_PARTITION_OUT_OF_RANGE}
        if random.random() < 0.3:
            tags = random.choice((("urgent",), ()))
            update["tags"] = tags
            control.append(("delaystream-tags", ",".join(tags).encode() or b"none"))
        if random.random() < 0.3:
            key = random.choice((b"c", b""))
            update |= {"has_delivered_key": True, "delivered_key": key}
            control.append(("delaystream-destination-key", key))
        replaces = random.random() < 0.4
        if replaces:
            update |= {"key": request.key, "value": request.value, "headers": request.headers}
        control.append(("delaystream-payload", b"replace" if replaces else b"keep"))
        request.update = update

    def _when(self, request: Asked, control: list[Header], kind: str) -> None:
        random, now_ms = self._random, request.timestamp_ms
        if kind == "plan":
            request.due_ms = tuple(
                now_ms + random.choice(_DELAYS_MS) for _ in range(random.choice((1, 1, 3)))
            )
            control.append(("delaystream-at", ",".join(str(due) for due in request.due_ms).encode()))
            return
        every_ms = random.choice((100, 400, 1_000))
        beat = Beat(every_ms, now_ms, now_ms)
        if every_ms == 1_000 and random.random() < 0.5:
            beat.anchor_ms = 0
            beat.cron = "* * * * * *"
            control.append(("delaystream-cron", beat.cron.encode()))
        else:
            control.append(("delaystream-every", b"%dms" % every_ms))
        if random.random() < 0.3:
            beat.start_ms = now_ms + random.choice((-1_300, 700))
            beat.anchor_ms = beat.anchor_ms and beat.start_ms
            control.append(("delaystream-start", b"%d" % beat.start_ms))
        # Bounded one way or the other: a world has an end.
        if random.random() < 0.5:
            beat.max_fires = random.choice((1, 3, 6))
            control.append(("delaystream-max-fires", b"%d" % beat.max_fires))
        else:
            beat.end_ms = now_ms + random.choice((1_500, 4_000))
            control.append(("delaystream-end", b"%d" % beat.end_ms))
        if random.random() < 0.2:
            beat.jitter_ms = 90
            control.append(("delaystream-jitter", b"90ms"))
        request.beat = beat
        if beat.after(now_ms) is None:
            request.errors = frozenset({Code.NEVER_FIRES})

    def _what_if_late(self, request: Asked, control: list[Header], kind: str) -> None:
        random = self._random
        if kind == "beat":
            request.catch_up = random.choice(("latest", "all", "none"))
            control.append(("delaystream-catch-up", request.catch_up.encode()))
            if random.random() < 0.4:
                request.grace_ms = random.choice((0, 250, 2_000))
                control.append(("delaystream-grace", _duration(request.grace_ms)))
        elif random.random() < 0.3:
            request.on_late = random.choice(("drop", "dest-late"))
            control.append(("delaystream-on-late", request.on_late.encode()))
            request.grace_ms = random.choice((0, 100, 2_000))
            control.append(("delaystream-grace", _duration(request.grace_ms)))

    def _options(self, request: Asked, control: list[Header]) -> None:
        random = self._random
        control[:] = [header for header in control if header[0] != "delaystream-destination"]
        choice = random.choice(("partition", "beyond", "key", "large"))
        if choice == "partition":
            request.destination, request.destination_partition = "dest-a", random.randrange(3)
        elif choice == "beyond":
            request.destination, request.destination_partition = "dest-b", 9
            request.hopeless = True
            request.errors = frozenset({Code.DESTINATION_PARTITION_OUT_OF_RANGE.value})
        elif choice == "key":
            request.has_delivered_key, request.delivered_key = True, random.choice((b"", b"a"))
            control.append(("delaystream-destination-key", request.delivered_key))
        else:
            request.destination = "dest-small"
            request.hopeless = random.random() < 0.5
            request.value = b"x" * (1_000 if request.hopeless else 10)
        if request.destination_partition is not None:
            control.append(("delaystream-destination-partition", b"%d" % request.destination_partition))
        control.append(("delaystream-destination", request.destination.encode()))

    def _further_options(self, request: Asked, control: list[Header]) -> None:
        """Those of a request with an id: where it goes on its destination."""
        further = self._further.random()
        if further < 0.15:
            request.has_delivered_key, request.delivered_key = True, b"c"
            control.append(("delaystream-destination-key", b"c"))
        elif further < 0.25 and request.destination == "dest-a":
            request.destination_partition = self._further.randrange(3)
            control.append(("delaystream-destination-partition", b"%d" % request.destination_partition))

    def _spoil(self, request: Asked, control: list[Header]) -> None:
        code, headers = self._random.choice(
            (
                (Code.NO_SCHEDULE, [("delaystream-destination", b"dest-a")]),
                (Code.MISSING_DESTINATION, [("delaystream-delay", b"1s")]),
                (Code.INVALID_DELAY, [("delaystream-destination", b"dest-a"), ("delaystream-delay", b"30")]),
                (Code.UNKNOWN_HEADER, [("delaystream-dealy", b"1s")]),
                (
                    Code.DESTINATION_DENIED,
                    [("delaystream-destination", b"delay-commands"), ("delaystream-delay", b"1s")],
                ),
                (
                    Code.VALUE_TOO_LARGE,
                    [("delaystream-destination", b"dest-a"), ("delaystream-delay", b"1s")],
                ),
                (Code.UNDECODABLE_RECORD, [("\udcff", b"1")]),
            )
        )
        request.errors = frozenset({code.value})
        if code is Code.VALUE_TOO_LARGE:
            request.value = b"x" * 5_000
        control.extend(headers)

    def _again(self) -> None:
        """Send a schedule once more, as services do whenever they start."""
        at, first, headers = self._later.choice(self._defining)
        now_ms = self._world.clock.now_ms()
        request = sent_again(first, now_ms)
        self._note(at, request, self._world.log.append(at, (request.key, request.value, headers, now_ms)))

    def _send(self, at: TopicPartition, request: Asked, headers: list[Header]) -> None:
        """Produce; now and then in a transaction that ends some time later, one way or the other."""
        random, world = self._random, self._world
        row = (request.key, request.value, headers, request.timestamp_ms)
        if random.random() >= 0.1:
            self._note(at, request, world.log.append(at, row))
            return
        epoch = world.log.init_producer(f"client-{self._count}", 60_000)
        offset = world.log.write(epoch, at, [row])
        commits = random.random() < 0.5
        world.later(random.choice((0.0, 0.05, 0.8)), lambda: world.log.end(epoch, commit=commits))
        if commits:
            self._note(at, request, offset)

    def _note(self, at: TopicPartition, request: Asked, offset: int) -> None:
        settings = self._world.settings
        if settings.max_commands_at_work < 1_000 and (request.is_for_many or request.subject is not None):
            request.errors |= {Code.TOO_MANY_COMMANDS}
        if settings.max_remembered_cancels < 1_000 and request.action == "cancel" and request.id is not None:
            request.errors |= {Code.TOO_MANY_CANCELS}
        request.source = f"{at.topic}/{at.partition}/{offset}"
        what = f"{request.action} {request.prefix or ''} {request.beat or request.due_ms or ''}"
        terms = (request.request_id, request.if_version, request.declared_by, request.deploy)
        what += f" {terms}" if terms != (None,) * 4 else ""
        self._world.say("client", f"{request.source}: {what} id {request.id}")
        self.asked.append(request)
