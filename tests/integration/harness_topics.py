"""Fixtures that make topics on the shared broker."""

import time
from collections.abc import Callable
from typing import Any
from uuid import uuid4

import pytest
from confluent_kafka.admin import NewTopic

from delaystream.topics import Admin, connect, topic_ids


@pytest.fixture
def admin(kafka: str) -> Admin:
    """An admin client of the shared broker."""
    return connect({"bootstrap.servers": kafka})


@pytest.fixture
def create_topic(admin: Admin) -> Callable[..., str]:
    """Create a topic of a given name, and wait until the broker shows it."""

    def create(name: str, *, partitions: int = 1, config: dict[str, str] | None = None) -> str:
        admin.create_topics([NewTopic(name, partitions, 1, config=config or {})])[name].result(30)
        deadline = time.monotonic() + 30
        # The controller answers before the broker has heard of it.
        while name not in topic_ids(admin, [name]):
            assert time.monotonic() < deadline, f"{name} does not show up"
        return name

    return create


@pytest.fixture
def make_topic(create_topic: Callable[..., str]) -> Callable[..., str]:
    """Create a topic with a name that no other test has: `make_topic("orders", partitions=2)`."""

    def make(name: str = "topic", **options: Any) -> str:
        return create_topic(f"{name}-{uuid4().hex[:12]}", **options)

    return make
