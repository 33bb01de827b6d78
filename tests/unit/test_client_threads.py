"""Which thread tells of acknowledgements: never one that Ctrl-C is raised in."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable
from typing import Any

import pytest
from confluent_kafka import KafkaError

from delaystream.client import Client, RequestRecord, UnavailableError, schedule_request
from delaystream.client.kafka import confluent_transport
from delaystream.client.kafka.confluent_transport import ConfluentTransport
from delaystream.client.requests.records import Sent


class Acknowledgement:
    """What a producer tells of one record."""

    def __init__(self, offset: int) -> None:
        self._offset = offset

    def partition(self) -> int:
        return 0

    def offset(self) -> int:
        return self._offset

    def timestamp(self) -> tuple[int, int]:
        return 1, 1_900_000_000_000


class FakeProducer:
    """As confluent-kafka's: callbacks run in whichever thread polls or flushes."""

    def __init__(self, _settings: dict[str, Any], room: int = 100_000) -> None:
        self.room = room
        self.waiting: deque[Callable[[Any, Any], None]] = deque()
        self.produced = 0
        self.held = False
        self.came = threading.Event()

    def list_topics(self, timeout: float) -> Any:
        raise AssertionError(f"partitions are known: {timeout}")

    def produce(self, *arguments: Any, headers: Any) -> None:
        if len(self.waiting) >= self.room:
            raise BufferError
        self.waiting.append(arguments[4])
        self.produced += 1
        self.came.set()

    def poll(self, timeout: float) -> int:
        if not self.waiting:
            self.came.wait(timeout)
        return self._serve(None)

    def flush(self, timeout: float) -> int:
        if not self.held:
            self._serve(None)
        return len(self.waiting)

    def purge(self) -> None:
        if self.held:
            self.held = False
            self.waiting = deque(purged(told) for told in self.waiting)

    def _serve(self, error: Any) -> int:
        served = 0
        while self.waiting and not self.held:
            self.came.clear()
            self.waiting.popleft()(error, Acknowledgement(served))
            served += 1
        return served


def purged(told: Callable[[Any, Any], None]) -> Callable[[Any, Any], None]:
    return lambda _error, message: told(KafkaError(KafkaError._PURGE_QUEUE), message)


@pytest.fixture
def transport(monkeypatch: pytest.MonkeyPatch) -> ConfluentTransport:
    monkeypatch.setattr(confluent_transport, "Producer", FakeProducer)
    found = ConfluentTransport({}, {})
    monkeypatch.setattr(found, "partitions", lambda _topic: 1)
    return found


def test_acknowledgements_are_told_by_a_thread_of_their_own(transport: ConfluentTransport) -> None:
    """Whoever sends any number, waits, fills the queue or closes."""
    producer: Any = transport._producer
    producer.room = 300
    threads: set[int] = set()
    answers: list[Any] = []
    request = schedule_request("delay-requests", "out", delay="1s")

    def done(answer: Sent | UnavailableError) -> None:
        threads.add(threading.get_ident())
        answers.append(answer)

    for _ in range(2_000):
        transport.produce(request, done)
    transport.close(30)
    assert len(answers) == 2_000
    assert all(isinstance(answer, Sent) for answer in answers)
    assert threading.get_ident() not in threads


def test_what_is_not_acknowledged_when_a_client_is_closed_is_told_so(transport: ConfluentTransport) -> None:
    producer: Any = transport._producer
    client = Client(transport=transport)
    producer.held = True
    pending = [client.batch().schedule("out", b"", delay="1s") for _ in range(3)]
    client.close()
    for one in pending:
        with pytest.raises(UnavailableError):
            one.result()


def test_a_client_of_which_nothing_was_sent_closes_at_once(transport: ConfluentTransport) -> None:
    Client(transport=transport).close()
    transport.close(0)


@pytest.mark.parametrize("masked", [TypeError("expected header key to be unicode string"), SystemError("?")])
def test_ctrl_c_in_confluent_kafkas_code_is_a_keyboard_interrupt(
    transport: ConfluentTransport, masked: Exception
) -> None:
    """Its C code looks for signals while it reads headers, and raises an error of its own in their place."""
    producer: Any = transport._producer

    def interrupted(*_arguments: Any, headers: Any) -> None:
        raise masked

    producer.produce = interrupted
    with pytest.raises(KeyboardInterrupt):
        transport.produce(schedule_request("delay-requests", "out", delay="1s"), print)
    odd: Any = ("a name", 7)
    with pytest.raises(type(masked)):
        transport.produce(RequestRecord("delay-requests", None, b"", [odd]), print)
    transport.close(0)
