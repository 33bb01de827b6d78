"""The failures of the outside world that the engine distinguishes; adapters raise these alone."""

from __future__ import annotations

from collections.abc import Collection
from typing import Final, TypeAlias

#: Begins the part of a sentence that names a right which Kafka does not give. A process that ends for want of
#: one ends as misconfigured, wherever it met the refusal.
MISSING_ACL: Final = "missing ACL: "

#: The record that a step failed on: a request by its topic and offset, or a row of the state by its key.
Culprit: TypeAlias = tuple[str, int] | bytes


class EngineError(Exception):
    """A failure after which the producer and every effect in memory are discarded."""


class ProducerFenced(EngineError):
    """Another producer has this transactional id, or our own transaction timed out on the broker."""


class WriteRefused(EngineError):
    """The broker or the client refused what was to be written to one topic partition.

    ``record_at_fault`` is true when the record itself can never be written as it is (too large, a null
    key for a compacted topic, …), false when the topic is at fault (missing, not authorized, no leader).
    ``row`` is the record's index among the rows for that partition, where it is known. ``also`` are other
    topics that were at fault in the same way, and at the same time.
    """

    def __init__(
        self,
        topic: str,
        partition: int,
        reason: str,
        *,
        record_at_fault: bool,
        row: int | None = None,
        also: Collection[str] = (),
    ) -> None:
        super().__init__(f"{topic}-{partition}: {reason}")
        self.topic = topic
        self.partition = partition
        self.reason = reason
        self.record_at_fault = record_at_fault
        self.row = row
        self.also = also


class TransactionFailed(EngineError):
    """The transaction was not committed, or nobody can say whether it was (a timeout on commit)."""


class LogUnavailable(EngineError):
    """Kafka did not answer in time; worth trying again."""


class TransactionStuck(LogUnavailable):
    """The last transaction was decided, and Kafka does not complete it: a person has to see to a broker.

    It concerns one partition alone, and ending the process would not help.
    """


class StoreUntrusted(EngineError):
    """The local state cannot be used (corrupt, unreadable, foreign): throw it away and rebuild."""


class StoreFailed(EngineError):
    """The data directory cannot be written (full, read-only, locked by another process)."""


class Misconfigured(Exception):
    """Carrying on would lose or repeat events: a person has to decide. The process exits."""


class Undecided(Exception):
    """Deciding on one request or entry failed as nobody expected; its cause is the failure.

    Nothing of the step was written. It is rolled back, and the culprit is decided on again alone.
    """

    def __init__(self, culprit: Culprit) -> None:
        super().__init__(culprit)
        self.culprit = culprit


class TooManyInternalErrors(Exception):
    """Too many requests and entries could not be decided on within a minute. The process exits.

    A bad release must not empty a topic into the dead letters.
    """


def about_the_record(failure: Exception) -> bool:
    """Whether a failure in the midst of deciding may come from the record that was decided on.

    Failures of the store, the system or Kafka do not, and neither do those that a person has to put right.
    """
    apart = (EngineError, Misconfigured, Undecided, TooManyInternalErrors, MemoryError, OSError)
    return not isinstance(failure, apart)
