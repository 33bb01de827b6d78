"""A real Kafka for the tests that need one.

`kafka` is shared by a whole run, found in this order: DELAYSTREAM_TEST_BOOTSTRAP, the embedded broker,
testcontainers where a Docker engine answers. With pytest-xdist all workers share one. `own_broker` gives a
test brokers that it may stop, kill and pause. Nothing is skipped for want of a broker: its absence is an
error.
"""

import fcntl
import os
import signal
import warnings
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Any

import pytest
from hypothesis import settings

from delaystream.dev import BrokerError, EmbeddedBroker
from delaystream.dev.progress import on_stderr
from tests.examples import examples

settings.register_profile("delaystream", examples(100))
settings.load_profile("delaystream")

TEST_BOOTSTRAP = "DELAYSTREAM_TEST_BOOTSTRAP"
"""Bootstrap servers of a broker to test against; tests create and leave topics there."""

TEST_BROKER = "DELAYSTREAM_TEST_BROKER"
"""`embedded` or `containers`: take that kind of broker, or fail."""

TEST_FAILURES = "DELAYSTREAM_TEST_FAILURES"
"""A file to which a line is added for each test that fails: its name, and the first line of why."""

_LONGEST_REASON = 120


def pytest_configure() -> None:
    """Ctrl-C is ignored where a shell runs the tests in the background, and their processes inherit that."""
    if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
        signal.signal(signal.SIGINT, signal.default_int_handler)


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    """Told at once: a run that is stopped for the time that it takes has named what failed until then."""
    _name_failure(report)


def pytest_collectreport(report: pytest.CollectReport) -> None:
    """A file that cannot be imported fails as a test does."""
    _name_failure(report)


def _name_failure(report: pytest.TestReport | pytest.CollectReport) -> None:
    # With pytest-xdist the controller is told of all failures.
    if report.failed and (path := os.environ.get(TEST_FAILURES)) and "PYTEST_XDIST_WORKER" not in os.environ:
        crash = getattr(report.longrepr, "reprcrash", None)
        reason = str(crash.message if crash else report.longrepr).strip().partition("\n")[0]
        with Path(path).open("a", encoding="utf-8") as file:
            file.write(f"{report.nodeid} - {reason[:_LONGEST_REASON]}\n")


@pytest.fixture(scope="session")
def kafka(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """Bootstrap servers of the broker that all tests of a run share: use topic names of your own."""
    if given := os.environ.get(TEST_BOOTSTRAP):
        yield given
        return
    base = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" not in os.environ:
        with _any_broker(base / "kafka") as servers:
            yield servers
        return
    # The directory above belongs to all workers of the run.
    with _shared_broker(base.parent / "shared-kafka") as servers:
        yield servers


@pytest.fixture
def own_broker(tmp_path: Path) -> Iterator[Callable[..., EmbeddedBroker]]:
    """A factory of embedded brokers, started unless `start=False`; all are killed after the test.

    It takes what `EmbeddedBroker` takes; each gets a data directory of its own unless told otherwise.
    """
    with ExitStack() as brokers:
        made = 0

        def make(data_dir: Path | None = None, *, start: bool = True, **options: Any) -> EmbeddedBroker:
            nonlocal made
            made += 1
            broker = EmbeddedBroker(data_dir or tmp_path / f"kafka-{made}", progress=on_stderr, **options)
            brokers.callback(broker.kill)
            return broker.start() if start else broker

        yield make


@contextmanager
def _any_broker(data_dir: Path) -> Iterator[str]:
    kind = os.environ.get(TEST_BROKER)
    if kind != "containers":
        broker = EmbeddedBroker(data_dir, progress=on_stderr)
        try:
            broker.start()
        except BrokerError as error:
            if kind == "embedded":
                raise
            warnings.warn(f"no embedded broker, trying a container: {error}", stacklevel=1)
        else:
            with broker_stopped_at_the_end(broker):
                yield broker.bootstrap_servers
            return
    from testcontainers.kafka import KafkaContainer

    with KafkaContainer().with_kraft() as container:
        yield container.get_bootstrap_server()


@contextmanager
def broker_stopped_at_the_end(broker: EmbeddedBroker) -> Iterator[None]:
    try:
        yield
    finally:
        # What it holds is of no use any more, so it need not end in good order.
        broker.kill()


@contextmanager
def _shared_broker(directory: Path) -> Iterator[str]:
    """The first worker starts a broker, and stops it when no other worker uses it any more.

    Each user holds a shared lock, which the kernel gives up for a worker that crashes.
    """
    directory.mkdir(exist_ok=True)
    address = directory / "bootstrap-servers"
    with (directory / "users").open("w") as users, ExitStack() as own:
        with (directory / "starting").open("w") as starting:
            fcntl.flock(starting, fcntl.LOCK_EX)
            fcntl.flock(users, fcntl.LOCK_SH)
            if not address.exists():
                address.write_text(own.enter_context(_any_broker(directory / "kafka")))
                own.callback(_wait_for_others, users)
        yield address.read_text()


def _wait_for_others(users: IO[str]) -> None:
    fcntl.flock(users, fcntl.LOCK_EX)
