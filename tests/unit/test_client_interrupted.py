"""Ctrl-C at any instruction of the blocking client: what it has begun hinders nobody afterwards.

A signal's handler is called by the interpreter between two instructions, but not between any two: when a
function begins, after a call, and when a loop goes back. KeyboardInterrupt is raised here at each such place
of the client's own code and of `threading`, one after the other, without a broker and without a clock.
Then `tests/integration/interrupted_client.py` does the same at random, with real signals and librdkafka.
"""

from __future__ import annotations

import dis
import faulthandler
import platform
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import partial
from itertools import pairwise
from pathlib import Path
from types import CodeType, FrameType
from typing import Any

import pytest

import delaystream.client
from delaystream.client import Client, Delivery
from delaystream.client.kafka import confluent_transport
from delaystream.codec.outgoing import Answer, Outcome, receipt
from delaystream.core.request import Coordinates
from tests.unit.test_client_threads import Acknowledgement

OURS = str(Path(delaystream.client.__file__).parent)
WAIT = timedelta(seconds=20)
STUCK_S = 60
"""Whoever is stuck shows the stacks of all threads, and ends the process."""
_TRACED_ANEW = platform.python_version_tuple()[:2] == ("3", "12")


class Kafka:
    """What was produced, and the receipts that a worker writes of it at once."""

    def __init__(self) -> None:
        self.receipts: list[Delivery] = []

    def producer(self, _settings: dict[str, Any]) -> Any:
        """As confluent-kafka's: each call is one instruction."""
        kafka = self

        class Producer:
            def __init__(self) -> None:
                self.waiting: deque[Callable[[], None]] = deque()

            def list_topics(self, timeout: float) -> Any:
                return Topics()

            def produce(self, *arguments: Any, headers: Any) -> None:
                offset = len(kafka.receipts)
                source = Coordinates(arguments[0], 0, offset)
                _, value, marks = receipt(source, None, Answer(Outcome.SCHEDULED), 1)
                kafka.receipts.append(Delivery.of(("replies", 0, offset), 1, None, value, marks))
                self.waiting.append(partial(arguments[4], None, Acknowledgement(offset)))

            def poll(self, timeout: float) -> int:
                if not self.waiting:
                    time.sleep(timeout)
                return self.flush(0)

            def flush(self, timeout: float) -> int:
                while self.waiting:
                    self.waiting.popleft()()
                return 0

            def purge(self) -> None:
                """Nothing stays for long."""

        return Producer()

    def reader(self, _settings: Any, _topic: str) -> Any:
        kafka = self

        class Reader:
            position = 0

            def start(self) -> None:
                self.position = len(kafka.receipts)

            def read(self, timeout_s: float) -> Iterator[Delivery]:
                time.sleep(timeout_s)
                while self.position < len(kafka.receipts):
                    self.position += 1
                    yield kafka.receipts[self.position - 1]

            def close(self) -> None:
                """There is no connection."""

        return Reader()


class Topics:
    """One partition of any topic."""

    @property
    def topics(self) -> Any:
        return self

    def get(self, _topic: str) -> Any:
        return self

    error = None
    partitions = (0,)


def work(client: Client) -> None:
    """All that a client does: it connects, asks, follows, sends, waits and closes."""
    with client.batch() as batch:
        waits = batch.schedule("out", b"", delay="1h", wait=WAIT)
        batch.schedule("out", b"", delay="1h")
    assert waits.result().outcome == "scheduled"
    client.close()


def goes_on(client: Client) -> None:
    """A request is answered, unless it was closed; and it closes."""
    closed = client._sending._closed
    if not closed:
        assert client.schedule("out", b"", delay="1h", wait=WAIT).outcome == "scheduled"
    client.close()
    sending = client._sending
    assert not sending._waiting
    assert not any(receipts._announced for receipts in sending._receipts.values())


@pytest.mark.timeout(300)
def test_whoever_is_interrupted_at_any_place_has_a_client_that_goes_on_and_ends(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    for name in ("_POLL_S", "_NAP_S"):
        monkeypatch.setattr(confluent_transport, name, 0.001)
    place = 0
    try:
        while True:
            place += 1
            kafka = Kafka()
            monkeypatch.setattr(confluent_transport, "Producer", kafka.producer)
            monkeypatch.setattr(confluent_transport, "Reader", kafka.reader)
            faulthandler.dump_traceback_later(STUCK_S, exit=True)
            client = Client("nowhere:1", reply_to="replies")
            if not interrupted_at(place, lambda client=client: work(client)):  # type: ignore[misc]
                break
            goes_on(client)
    finally:
        faulthandler.cancel_dump_traceback_later()
    assert place > 300
    deadline = time.monotonic() + STUCK_S
    while left := [one for one in [*threading._limbo, *threading._active.values()] if of_a_client(one)]:  # type: ignore[attr-defined]
        assert time.monotonic() < deadline, f"{len(left)} threads never begin, or never end: {left[:3]}"
        time.sleep(0.01)


def of_a_client(thread: threading.Thread) -> bool:
    return thread.name.startswith("delaystream")


@pytest.mark.timeout(300)
def test_whoever_is_interrupted_at_random_has_a_keyboard_interrupt_and_a_client_that_goes_on() -> None:
    """By real signals, which reach librdkafka's C code, too; a round that is stuck shows all stacks.

    `tests/integration/interrupted_client.py` run by hand takes a real broker, more rounds, and another seed.
    """
    topics = ["delay-requests", "delay-receipts"]
    kafka = [sys.executable, "-m", "tests.unit.mocked_kafka", *topics]
    with subprocess.Popen(kafka, stdout=subprocess.PIPE, text=True) as broker:
        try:
            assert broker.stdout is not None
            bootstrap = broker.stdout.readline().strip()
            program = [sys.executable, "-m", "tests.integration.interrupted_client"]
            command = [*program, bootstrap, *topics, "out", "120", "7"]
            done = subprocess.run(command, capture_output=True, text=True, timeout=240, check=False)
        finally:
            broker.kill()
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 40, done.stdout


def interrupted_at(place: int, work: Callable[[], object]) -> bool:
    """Whether there was such a place in the client's code; KeyboardInterrupt was raised there."""
    left = place

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        code = frame.f_code
        if not code.co_filename.startswith((OURS, threading.__file__)):
            return None
        if _TRACED_ANEW and not frame.f_trace_opcodes:
            frame.f_trace_opcodes = True
            sys.settrace(trace)
        frame.f_trace_opcodes = True
        if event == "opcode" and frame.f_lasti in places_of(code):
            left -= 1
            if not left:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    finally:
        sys.settrace(before)
    return False


_places: dict[CodeType, frozenset[int]] = {}


def places_of(code: CodeType) -> frozenset[int]:
    """The instructions of a function before which a signal's handler may be called.

    An exception of a call is one of the call, and not of what follows it: so only where both are within the
    same `try` or `with` it is the same to raise it here.
    """
    if code not in _places:
        entries = dis.Bytecode(code).exception_entries  # type: ignore[attr-defined]
        instructions = list(dis.get_instructions(code))

        def handler(offset: int) -> list[int]:
            return [entry.target for entry in entries if entry.start <= offset < entry.end]

        found = {
            after.offset
            for before, after in pairwise(instructions)
            if before.opname.startswith(("CALL", "RESUME"))
            and handler(before.offset) == handler(after.offset)
        }
        found |= {
            one.argval
            for one in instructions
            if one.opname == "JUMP_BACKWARD" and handler(one.offset) == handler(one.argval)
        }
        _places[code] = frozenset(found)
    return _places[code]
