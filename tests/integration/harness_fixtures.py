"""Fixtures of the integration tests: the shared broker as tests use it, and applications on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from tests.integration.harness import Deployment
from tests.integration.harness_kafka import Kafka

Deploy = Callable[..., Deployment]


@pytest.fixture(scope="session")
def cluster(kafka: str) -> Kafka:
    """The broker that the tests share."""
    return Kafka(kafka)


@pytest.fixture(scope="session")
def shared(cluster: Kafka, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Deployment]:
    """One application with one worker for all tests that only send requests and look at what comes out."""
    directory = tmp_path_factory.mktemp("shared")
    with Deployment(cluster, directory, partitions=4) as deployment:
        worker = deployment.apply_topics().worker()
        yield deployment
        assert worker.alive, f"the worker exited with {worker.exit_code}:\n{worker.output()[-6000:]}"
        assert worker.terminate() == 0, worker.output()[-6000:]


@pytest.fixture
def app(shared: Deployment) -> Deployment:
    """The shared application, its worker ready."""
    shared.workers[0].wait_ready()
    return shared


@pytest.fixture
def deploy(cluster: Kafka, tmp_path: Path) -> Iterator[Deploy]:
    """Make applications of a test's own; their workers are killed at its end."""
    with ExitStack() as stack:
        yield lambda **settings: stack.enter_context(Deployment(cluster, tmp_path, **settings))
