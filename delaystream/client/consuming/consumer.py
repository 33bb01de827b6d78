"""What every consumer of deliveries has, whichever client it reads with.

What is *settled* is what is behind the consumer for good: the offsets of the deliveries that were handled,
and the records that were produced on the way, together. In a transaction that is exactly once. Without one
the records come first, then the offsets: a delivery may be read again, and its retry is asked for under the
same name.
"""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import timedelta
from hashlib import blake2b
from typing import Any, Final, Literal, TypedDict

from delaystream.client.consuming.retrying import (
    DEAD_LETTERS_TOPIC,
    Backoff,
    Retry,
    RetryPolicy,
    RetryTopics,
    dead_letter,
    retry,
    without_payload,
)
from delaystream.client.kafka.deliveries import Delivery
from delaystream.client.requests.numbers import real_number, span, whole_number
from delaystream.client.requests.timing import Duration
from delaystream.core.destinations import is_topic_name
from delaystream.core.rejection import shown

Isolation = Literal["read_committed", "read_uncommitted"]

SETTLE_RECORDS: Final = 500
"""Most deliveries that are settled together."""
SETTLE_AFTER: Final = timedelta(milliseconds=500)
"""Longest wait of a handled delivery for others to settle with."""
LARGEST_BYTES: Final = 1_040_000
"""Of a record that is produced: topics take 1 MiB, batch and all, unless they are told to take more."""
REMEMBERED_FIRES: Final = 100_000
"""Fire ids that a consumer remembers to drop copies by, where it does: some 12 MB."""
LONGEST_TAKE_S: Final = 315_360_000.0
"""The longest wait for a delivery that is not for ever: ten years."""
MOST_TOGETHER: Final = 1_000_000
"""The largest `settle_records`."""
MOST_REMEMBERED: Final = 100_000_000
"""The largest `remembered_fires`: some 12 GB."""
BOUNDS_OF_LARGEST_BYTES: Final = (1_000, 1_000_000_000)
"""Of `largest_bytes`, as librdkafka has them for `message.max.bytes`."""

_FIRE_BYTES: Final = 16


class ConsumingOptions(TypedDict, total=False):
    """Options of a consumer beside its topics and its group."""

    transactional_id: str | None
    isolation: Isolation
    remembered_fires: int | None
    retries: RetryPolicy | None
    dead_letters: str
    settle_records: int
    settle_after: timedelta
    largest_bytes: int
    from_beginning: bool
    kafka: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Consuming:
    """What a consumer is told; ValueError for what makes no sense.

    - `transactional_id`: what is produced and the offsets are one transaction. By confluent-kafka each member
      of the group has an id of its own, the same after a restart; by aiokafka all members have the same.
    - `isolation` is as Kafka has it. `remembered_fires`: by how many fire ids copies are dropped, 0 for none;
      not given, none with read_committed, else `REMEMBERED_FIRES`.
    - `retries`: the policy of a `retry()` that says no other. `topics`: where retries and dead letters go.
    - `largest_bytes`: of a record that is produced; a retry that would be larger is a dead letter, and a dead
      letter that would be has no key and value.
    - `settle_records`, `settle_after`: what is settled together, at most.
    - `from_beginning`: where a group begins that has no offsets yet, else at the end.
    - `kafka`: further settings of the consumer, by the names of the client.
    """

    sources: tuple[str, ...]
    group: str
    topics: RetryTopics
    transactional_id: str | None = None
    isolation: Isolation = "read_committed"
    remembered_fires: int = 0
    retries: RetryPolicy = field(default_factory=RetryPolicy.of)
    settle_records: int = SETTLE_RECORDS
    settle_after: timedelta = SETTLE_AFTER
    largest_bytes: int = LARGEST_BYTES
    from_beginning: bool = True
    kafka: Mapping[str, Any] = field(default_factory=dict)

    @classmethod
    def of(
        cls, sources: str | Sequence[str], group: str, topics: RetryTopics, options: ConsumingOptions
    ) -> Consuming:
        """From what a caller says. TypeError for an option that there is not."""
        known: dict[str, Any] = dict(options)
        dead_letters = known.pop("dead_letters", DEAD_LETTERS_TOPIC)
        remembered = known.pop("remembered_fires", None)
        policy = known.pop("retries", None)
        if remembered is None:
            # Copies of a fire are what a transaction that was aborted leaves behind.
            remembered = (
                0 if known.get("isolation", "read_committed") == "read_committed" else REMEMBERED_FIRES
            )
        found = cls(
            (sources,) if isinstance(sources, str) else tuple(sources),
            group,
            replace(topics, dead_letters=dead_letters),
            remembered_fires=remembered,
            retries=RetryPolicy.of() if policy is None else policy,
            **known,
        )
        found.check()
        return found

    def check(self) -> None:
        """Raises ValueError, TypeError with a sentence."""
        if not self.sources:
            raise ValueError("There is no topic to consume.")
        for topic in (*self.sources, self.topics.dead_letters):
            if not is_topic_name(topic):
                raise ValueError(f"{shown(topic)} is not a topic name.")
        if not self.group:
            raise ValueError("The group has no name.")
        if self.transactional_id == "":
            raise ValueError("The transactional id is empty.")
        if self.isolation not in ("read_committed", "read_uncommitted"):
            raise ValueError(
                f"isolation is {shown(str(self.isolation))}; expected read_committed or read_uncommitted."
            )
        whole_number("settle_records", self.settle_records, 1, MOST_TOGETHER)
        whole_number("remembered_fires", self.remembered_fires, 0, MOST_REMEMBERED)
        whole_number("largest_bytes", self.largest_bytes, *BOUNDS_OF_LARGEST_BYTES)
        span("settle_after", self.settle_after)

    @property
    def is_transactional(self) -> bool:
        """Whether offsets and records are one transaction."""
        return self.transactional_id is not None

    def retry(
        self,
        delivery: Delivery,
        *,
        delay: Duration | None,
        backoff: str | Backoff | None,
        max_attempts: int | None,
        error: BaseException | str | None,
        once: bool,
    ) -> Retry:
        """What becomes of a delivery that failed. Raises ValueError for a policy that makes no sense."""
        policy = self.retries
        if delay is not None or backoff is not None:
            policy = RetryPolicy.of(delay=delay, backoff=backoff, max_attempts=max_attempts)
        elif max_attempts is not None:
            policy = RetryPolicy(policy.backoff, max_attempts)
        return retry(delivery, policy, self.topics, error=error, once=once)

    def forms(self, delivery: Delivery, answer: Retry) -> Iterator[Retry]:
        """What becomes of a delivery, from its own form to the smallest."""
        yield answer
        if not answer.is_dead_letter:
            answer = self.dead_letter(delivery, "The request to retry it is too large")
            yield answer
        yield without_payload(answer)

    def dead_letter(self, delivery: Delivery, error: BaseException | str | None) -> Retry:
        """The dead letter of a delivery that is given up."""
        return dead_letter(delivery, self.topics, error=error)


def deadline_of(timeout_s: float | None) -> float | None:
    """When so many seconds are over, on the monotonic clock; None: never. Raises ValueError, TypeError."""
    if timeout_s is None:
        return None
    return time.monotonic() + real_number("timeout_s", timeout_s, 0, LONGEST_TAKE_S)


def kafka_needed(properties: Mapping[str, str] | None) -> Mapping[str, str]:
    """The settings of a client's Kafka. Raises ValueError where it has none."""
    if properties is None:
        raise ValueError("This client has a transport in place of Kafka, and a consumer needs Kafka.")
    return properties


class Fires:
    """The fires that were seen last, `most` of them: the oldest is forgotten first.

    A copy that comes later than so many others is not recognised. A fire counts as seen once it is `keep`t:
    after `forget` it was not seen, and may be handled again.
    """

    def __init__(self, most: int) -> None:
        self._most = most
        self._kept: dict[bytes, None] = {}
        self._new: dict[bytes, tuple[str, int]] = {}

    def is_copy(self, delivery: Delivery) -> bool:
        """Whether its fire was seen before; from now on it was. A record that is no delivery is no copy."""
        if not self._most or delivery.fire_id is None:
            return False
        # Of one length, whatever the id: memory has a bound.
        fire = blake2b(delivery.fire_id.encode("utf-8", "surrogatepass"), digest_size=_FIRE_BYTES).digest()
        if fire in self._kept or fire in self._new:
            return True
        self._new[fire] = (delivery.topic, delivery.partition)
        return False

    def keep(self) -> None:
        """All fires seen so far are settled."""
        self._kept.update(dict.fromkeys(self._new))
        self._new.clear()
        while len(self._kept) > self._most:
            del self._kept[next(iter(self._kept))]

    def forget(self, place: tuple[str, int] | None = None) -> None:
        """Fires of a partition, or of all, that were seen and not settled will be read again."""
        if place is None:
            self._new.clear()
        else:
            self._new = {fire: seen for fire, seen in self._new.items() if seen != place}


class Checkpoint:
    """Deliveries that were handled and are not settled: where they begin in each partition, and where reading
    goes on.

    Partitions are pairs of topic and number.
    """

    def __init__(self) -> None:
        self.next: dict[tuple[str, int], int] = {}
        self.first: dict[tuple[str, int], int] = {}
        self.records = 0

    def begin(self, delivery: Delivery) -> None:
        """A delivery is in hand: until it is settled, reading would begin there again."""
        self.first.setdefault((delivery.topic, delivery.partition), delivery.offset)

    def add(self, delivery: Delivery) -> None:
        """A delivery was handled, or left out."""
        place = (delivery.topic, delivery.partition)
        self.first.setdefault(place, delivery.offset)
        self.next[place] = delivery.offset + 1
        self.records += 1

    def clear(self) -> None:
        """All of it is settled, or to be read again."""
        self.next, self.first, self.records = {}, {}, 0

    def drop(self, place: tuple[str, int]) -> None:
        """A partition is another consumer's."""
        self.next.pop(place, None)
        self.first.pop(place, None)
