"""Kafka's errors reach people in words: no constant of a protocol, no name of a class."""

from __future__ import annotations

import errno
import re

import pytest
from aiokafka.errors import (
    GroupAuthorizationFailedError,
    KafkaConnectionError,
    NodeNotReadyError,
    NotLeaderForPartitionError,
    RequestTimedOutError,
    TopicAuthorizationFailedError,
    kafka_errors,
)

from delaystream.adapters.kafka.errors import missing_right, reason, told


@pytest.mark.parametrize("code", [*range(-1, 128), 7777])
def test_every_code_has_words(code: int) -> None:
    """Also those that a newer broker sends."""
    words = told(code)
    assert words
    assert not re.search(r"[A-Z]+_[A-Z]|Err-", words), words


def test_a_broken_connection_is_none_of_a_stale_leader() -> None:
    """To aiokafka, error 13 is STALE_LEADER_EPOCH_CODE; to Kafka, NETWORK_EXCEPTION."""
    assert told(13) == "broker disconnected before response received"


def test_a_code_that_is_no_error_is_not_told_as_one() -> None:
    assert told(0) == "it succeeded"


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (KafkaConnectionError("no connection to kafka:9092"), "no connection to kafka:9092"),
        (RequestTimedOutError("kafka:9092 did not answer"), "request timed out: kafka:9092 did not answer"),
        (NotLeaderForPartitionError(), "not leader for partition"),
        (NodeNotReadyError(), "node not ready"),
        (ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused"), "Connection refused"),
        (TimeoutError(), "no answer in time"),
        (EOFError(), "the connection was closed"),
    ],
)
def test_an_exception_says_what_happened(error: Exception, words: str) -> None:
    assert reason(error) == words


@pytest.mark.parametrize("kind", sorted(set(kafka_errors.values()), key=str))
def test_no_exception_is_told_by_its_class(kind: type[Exception]) -> None:
    words = reason(kind("it is so"))
    assert kind.__name__ not in words
    assert str(getattr(kind, "message", None)) not in words


@pytest.mark.parametrize(
    ("error", "acl"),
    [
        (GroupAuthorizationFailedError("app"), "missing ACL: Read on group app"),
        (TopicAuthorizationFailedError("one"), "missing ACL: Read on topic one"),
        (TopicAuthorizationFailedError({"two", "one"}), "missing ACL: Read on topic one, two"),
    ],
)
def test_a_refused_consumer_names_the_right(error: Exception, acl: str) -> None:
    refused = missing_right(error, "app")
    assert refused is not None
    assert str(refused).startswith(acl)
    assert missing_right(KafkaConnectionError("away"), "app") is None
    wrapped = KafkaConnectionError("Unexpected error during coordination")
    wrapped.__cause__ = error
    assert str(missing_right(wrapped, "app")) == str(refused)
