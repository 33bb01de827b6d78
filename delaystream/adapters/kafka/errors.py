"""Kafka's errors in words, for logs and for the reason that a process ends with.

Kafka's names for them are for programs, and those of aiokafka are old or wrong: to it, error 13 of a broken
connection is STALE_LEADER_EPOCH_CODE. The words are librdkafka's, which the command line shows as well.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from aiokafka.errors import (
    BrokerResponseError,
    GroupAuthorizationFailedError,
    TopicAuthorizationFailedError,
)
from confluent_kafka import KafkaError

from delaystream.engine.failures import MISSING_ACL, Misconfigured

TOPIC_AUTHORIZATION_FAILED: Final = 29
GROUP_AUTHORIZATION_FAILED: Final = 30

_OK: Final = 0


def told(code: int) -> str:
    """The meaning of an error code, as a part of a sentence; `it succeeded` for 0."""
    if code == _OK:
        return "it succeeded"
    words = KafkaError(code).str().removeprefix("Broker: ")
    if words.startswith("Err-"):
        return f"Kafka's error {code}, which this version does not know"
    # "API version" and "SASL" stay as they are.
    return words[0].lower() + words[1:] if words[1:2].islower() else words


def reason(error: BaseException) -> str:
    """The meaning of a connection's exception, as a part of a sentence."""
    said = ", ".join(str(part) for part in error.args).rstrip(".")
    if isinstance(error, BrokerResponseError) and isinstance(error.errno, int):
        return f"{told(error.errno)}: {said}" if said else told(error.errno)
    if isinstance(error, OSError) and error.strerror:
        return error.strerror
    if isinstance(error, EOFError):
        return "the connection was closed"
    if isinstance(error, TimeoutError):
        return said or "no answer in time"
    return said or _spaced(type(error).__name__.removesuffix("Error"))


def missing_right(error: BaseException | None, group: str) -> Misconfigured | None:
    """What to end with when a consumer of a group was refused; None when that was not the error.

    aiokafka wraps what its background tasks fail with, so the causes are looked at, too.
    """
    while error is not None:
        if isinstance(error, GroupAuthorizationFailedError):
            return Misconfigured(f"{group_refused(group)}. {ADVICE}")
        if isinstance(error, TopicAuthorizationFailedError):
            return Misconfigured(f"{topics_refused(_topics(error))}. {ADVICE}")
        error = error.__cause__
    return None


ADVICE: Final = "`delaystream topics print --output kafka-acls` prints all that a worker needs"


def group_refused(group: str) -> str:
    """The ACL that a member of a group lacks."""
    return f"{MISSING_ACL}Read on group {group}"


def topics_refused(topics: Iterable[str]) -> str:
    """The ACL that a reader of topics lacks."""
    return f"{MISSING_ACL}Read on topic {', '.join(sorted(topics)) or '(Kafka does not say which)'}"


def _topics(error: BaseException) -> set[str]:
    """aiokafka gives the topics as a set, a list or one name."""
    found: set[str] = set()
    for part in error.args:
        found |= {part} if isinstance(part, str) else {str(topic) for topic in part}
    return found


def _spaced(name: str) -> str:
    """`NodeNotReady` as `node not ready`."""
    return "".join(f" {c.lower()}" if c.isupper() and place else c.lower() for place, c in enumerate(name))
