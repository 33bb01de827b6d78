"""What commands say of the requests that they send: many at once, interrupted ones, and those that nobody
carries out."""

from __future__ import annotations

import io
import json
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from delaystream.cli import main
from delaystream.cli.requests import workers
from delaystream.cli.requests.lines import LONGEST_BYTES, Line, LineError, Shared, parsed
from delaystream.client import Client, Delivery, RequestRecord, Sent, UnavailableError
from delaystream.client.kafka.promises import Promise
from delaystream.client.kafka.transport import Done, Fail, Take
from delaystream.codec.outgoing import RECEIPT
from delaystream.core.request import Coordinates
from delaystream.exit_codes import ExitCode

CANCEL = ("cancel", "x")
SEND = ("send", "v", "--to", "out", "--delay", "1s")


class Kafka:
    """A transport that acknowledges at once and answers with a receipt, unless it is told otherwise."""

    def __init__(self) -> None:
        self.records: list[RequestRecord] = []
        self.acknowledges: Callable[[], bool] = lambda: True
        self.outcome: Callable[[int], str | None] = lambda _: "scheduled"
        #: raised while somebody is waited for
        self.interruption: BaseException | None = None
        self.following: BaseException | None = None
        self._takes: list[Take] = []
        self._unacknowledged: list[Callable[[], None]] = []

    def now_ms(self) -> int:
        return time.time_ns() // 1_000_000

    def partitions(self, topic: str) -> int:
        return 1

    def produce(self, record: RequestRecord, done: Done) -> None:
        offset = len(self.records)
        self.records.append(record)
        told = partial(done, Sent(Coordinates(record.topic, 0, offset), self.now_ms()))
        if self.acknowledges():
            told()
        else:
            self._unacknowledged.append(told)
        outcome = self.outcome(offset)
        if outcome is not None:
            source = f"{record.topic}/0/{offset}"
            body = {"outcome": outcome, "source": source, "schedule_id": "x", "code": "no"}
            for take in self._takes:
                take(Delivery("r", 0, offset, 1, None, json.dumps(body).encode(), [(RECEIPT, b"1")]))

    def follow(self, topic: str, each: Take, fail: Fail) -> None:
        if self.following is not None:
            raise self.following
        self._takes.append(each)

    def wait(self, promise: Promise[Any], timeout_s: float | None) -> Any:
        if not promise.done() and self.interruption is not None:
            raise self.interruption
        return promise.result(0)

    def close(self, timeout_s: float) -> None:
        """As Kafka's: what is on its way is acknowledged."""
        if type(self.interruption) is KeyboardInterrupt:
            for told in self._unacknowledged:
                told()


class NeverAcknowledged(KeyboardInterrupt):
    """Ctrl-C, and Kafka is away."""


@pytest.fixture
def kafka(monkeypatch: pytest.MonkeyPatch) -> Kafka:
    found = Kafka()

    def client(**options: Any) -> Client:
        return Client(transport=found, **options)

    monkeypatch.setattr("delaystream.client.Client", client)
    monkeypatch.setattr("delaystream.client.kafka.reading.topics_of", lambda _: frozenset({"out"}))
    monkeypatch.setattr("delaystream.client.kafka.reading.members_of", lambda *_: 1)
    return found


# -- interrupted -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [CANCEL, SEND, ("describe", "x"), ("rate", "out", "1/s")])
def test_before_it_is_sent_nothing_was_sent(
    arguments: tuple[str, ...], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("delaystream.cli.options.load_settings", interrupted)
    assert main(arguments) == ExitCode.INTERRUPTED
    assert "delaystream: interrupted: nothing was sent\n" in capsys.readouterr().err


def test_while_receipts_are_prepared_nothing_was_sent_either(
    kafka: Kafka, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka.following = KeyboardInterrupt()
    assert main(CANCEL) == ExitCode.INTERRUPTED
    assert "interrupted: nothing was sent" in capsys.readouterr().err
    assert not kafka.records


@pytest.mark.parametrize("arguments", [CANCEL, (*CANCEL, "--no-wait"), SEND])
def test_without_an_acknowledgement_it_may_be_on_its_way(
    kafka: Kafka, arguments: tuple[str, ...], capsys: pytest.CaptureFixture[str]
) -> None:
    kafka.acknowledges, kafka.outcome = (lambda: False), lambda _: None
    kafka.interruption = NeverAcknowledged()
    assert main(arguments) == ExitCode.TIMEOUT
    assert "it may be on its way" in capsys.readouterr().err


def test_what_is_acknowledged_at_the_end_stands(kafka: Kafka, capsys: pytest.CaptureFixture[str]) -> None:
    """Closing the client waits for acknowledgements: then it is known."""
    kafka.acknowledges, kafka.outcome = (lambda: False), lambda _: None
    kafka.interruption = KeyboardInterrupt()
    assert main(CANCEL) == ExitCode.TIMEOUT
    assert "The request stands at delay-requests/0/0, and stays in force" in capsys.readouterr().err


def test_what_is_interrupted_while_its_receipt_is_waited_for_stands(
    kafka: Kafka, capsys: pytest.CaptureFixture[str]
) -> None:
    kafka.outcome, kafka.interruption = (lambda _: None), KeyboardInterrupt()
    assert main(CANCEL) == ExitCode.TIMEOUT
    assert "The request stands at delay-requests/0/0" in capsys.readouterr().err


def test_what_is_interrupted_after_it_was_sent_was_sent(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """While its destination is looked up, which is advice only."""

    def interrupted(_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("delaystream.client.kafka.reading.topics_of", interrupted)
    assert main(SEND) == ExitCode.OK
    told = capsys.readouterr()
    assert "delay-requests/0/0" in told.out
    assert "nothing was sent" not in told.err


@pytest.mark.parametrize("arguments", ["list", "topics check", "export", "config"])
def test_what_sends_nothing_says_that_it_was_interrupted(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(*_: object, **__: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr("delaystream.cli.options.load_settings", interrupted)
    assert main(arguments.split()) == ExitCode.INTERRUPTED
    assert capsys.readouterr().err.splitlines()[-1] == "delaystream: interrupted"


# -- nobody there ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("arguments", [CANCEL, (*SEND, "--wait"), ("describe", "x"), ("rate", "out", "1/s")])
def test_a_group_without_members_is_named(
    kafka: Kafka,
    arguments: tuple[str, ...],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Some seconds into the wait, and again when it is over."""
    monkeypatch.setattr("delaystream.client.kafka.reading.members_of", lambda *_: 0)
    monkeypatch.setattr(workers, "LOOK_AFTER_S", 0.0)
    kafka.outcome = lambda _: None
    waited = Promise[None]()
    monkeypatch.setattr(Kafka, "wait", lambda _self, _promise, _s: waited.result(0.3))
    assert main(arguments) == ExitCode.TIMEOUT
    told = capsys.readouterr().err
    assert told.count("no worker is running: the group delaystream has no members") == 2, told
    assert "waiting anyway" in told


@pytest.mark.parametrize("members", [1, None], ids=["one", "who may not know"])
def test_where_somebody_may_be_there_it_is_asked(
    kafka: Kafka, members: int | None, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("delaystream.client.kafka.reading.members_of", lambda *_: members)
    kafka.outcome = lambda _: None
    assert main(CANCEL) == ExitCode.TIMEOUT
    assert "is a worker running, and may it write there?" in capsys.readouterr().err


# -- many at once ----------------------------------------------------------------------------------------

LINES = [
    '{"destination":"out","delay":"1s","value":"a"}',
    "",
    '{"delay":"1s","value":"of the options"}',
    '{"destination":"out","dealy":"1s","value":"b"}',
    '{"destination":"out","delay":"1s","value_json":{"n":[1]},"key":"k","id":"i"}',
]


@pytest.fixture
def lines(tmp_path: Path) -> Path:
    file = tmp_path / "lines"
    file.write_text("\n".join(LINES) + "\n")
    return file


def _send(lines: Path, *arguments: str) -> int:
    return main(["send", "--lines", "--to", "out", "-f", str(lines), *arguments])


def test_lines_before_a_bad_one_stand_and_nothing_behind_it_is_sent(
    kafka: Kafka, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _send(lines) == ExitCode.REFUSED
    assert [record.value for record in kafka.records] == [b"a", b"of the options"]
    told = capsys.readouterr()
    places = [line.split("  ")[0] for line in told.out.splitlines()]
    assert places == ["delay-requests/0/0", "delay-requests/0/1"]
    assert all("  due 20" in line for line in told.out.splitlines())
    assert "line 4: not sent, there is no field dealy" in told.err
    assert "2 requests sent, 1 refused, 0 without a receipt; nothing behind line 4 was sent" in told.err


def test_with_keep_going_the_rest_is_sent_as_well(
    kafka: Kafka, lines: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert _send(lines, "--keep-going", "-o", "json") == ExitCode.REFUSED
    assert [record.value for record in kafka.records] == [b"a", b"of the options", b'{"n":[1]}']
    assert (kafka.records[-1].key, kafka.records[-1].id) == (b"k", "i")
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert {each["line"]: each.get("source") for each in told} == {
        1: "delay-requests/0/0", 3: "delay-requests/0/1", 4: None, 5: "delay-requests/0/2",
    }  # fmt: skip
    [bad] = [each for each in told if each["line"] == 4]
    assert bad["error"]["code"] == "bad-line"


def test_good_lines_end_with_0_and_none_with_0_as_well(kafka: Kafka, tmp_path: Path) -> None:
    file = tmp_path / "good"
    file.write_text(LINES[0])
    assert _send(file) == ExitCode.OK
    assert len(kafka.records) == 1
    file.write_text("")
    assert _send(file) == ExitCode.OK
    assert len(kafka.records) == 1


def test_receipts_of_lines_are_told_and_one_that_refuses_ends_with_65(
    kafka: Kafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """A refusal by a worker does not stop the lines behind it: they are on their way by then."""
    file = tmp_path / "lines"
    file.write_text(f"{LINES[0]}\n" * 3)
    kafka.outcome = lambda offset: "rejected" if offset == 1 else "scheduled"
    assert _send(file, "--wait") == ExitCode.REFUSED
    assert len(kafka.records) == 3
    told = capsys.readouterr()
    assert [line.split("  ")[1] for line in told.out.splitlines()] == ["scheduled", "rejected", "scheduled"]
    assert "3 requests sent, 1 refused, 0 without a receipt" in told.err


def test_a_line_without_a_receipt_ends_with_75(
    kafka: Kafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lines"
    file.write_text(f"{LINES[0]}\n" * 2)
    kafka.outcome = lambda offset: None if offset == 1 else "scheduled"
    assert _send(file, "--wait", "-o", "json") == ExitCode.TIMEOUT
    told = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert told[0]["receipt"]["outcome"] == "scheduled"
    assert told[1]["error"]["code"] == "no-receipt"


def test_lines_of_standard_input_are_told_of_before_it_ends(
    kafka: Kafka, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Who writes a line and waits for its answer before the next one is not kept waiting."""
    seen: list[str] = []

    class Slow(io.RawIOBase):
        """Gives its second line once the first one has been told of."""

        sent = 0

        def readable(self) -> bool:
            return True

        def readinto(self, buffer: Any) -> int:
            if self.sent == 1:
                deadline = time.monotonic() + 20
                while not seen and time.monotonic() < deadline:
                    seen.extend(capsys.readouterr().out.splitlines())
                    time.sleep(0.01)
            if self.sent == 2:
                return 0
            self.sent += 1
            line = f"{LINES[0]}\n".encode()
            buffer[: len(line)] = line
            return len(line)

    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BufferedReader(Slow())))
    assert main(["send", "--lines"]) == ExitCode.OK
    assert len(seen) == 1
    assert len(kafka.records) == 2


def test_interrupted_lines_are_counted(
    kafka: Kafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lines"
    file.write_text(f"{LINES[0]}\n" * 3)
    kafka.acknowledges = lambda: len(kafka.records) < 3
    kafka.interruption = NeverAcknowledged()
    assert _send(file) == ExitCode.TIMEOUT
    told = capsys.readouterr().err
    assert "interrupted. 2 requests stood on delay-requests by then and stay in force, 1 more may be" in told


def test_where_kafka_is_away_it_is_said_how_many_stand(
    kafka: Kafka, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "lines"
    file.write_text(f"{LINES[0]}\n" * 2)
    kafka.acknowledges = lambda: len(kafka.records) < 2
    kafka.interruption = UnavailableError("Kafka is away.")
    assert _send(file) == ExitCode.UNAVAILABLE
    assert "1 request stood on delay-requests by then" in capsys.readouterr().err


@pytest.mark.parametrize("options", [["v"], ["--null"], ["--id", "i"], ["--request-id", "r"]])
def test_what_belongs_to_one_request_is_refused_beside_lines(options: list[str], lines: Path) -> None:
    assert _send(lines, *options) == ExitCode.USAGE


def test_keep_going_belongs_to_lines() -> None:
    assert main([*SEND, "--keep-going"]) == ExitCode.USAGE


@pytest.mark.parametrize(
    ("text", "says"),
    [
        (b"{", "it is not JSON"),
        (b"[]", "expected object, got a list"),
        (b"\xff", "it is not JSON"),
        (b'{"value":"\xff","delay":"1s"}', "UTF-8"),
        (b'{"delay":1,"value":"v"}', "delay: expected text or a list or null, got a whole number"),
        (b'{"delay":"1s"}', "none of value, value_json and value_base64 is given"),
        (b'{"delay":"1s","value":"v","value_json":1}', "value and value_json are given"),
        (b'{"delay":"1s","value_base64":"?"}', "value_base64 is no base64"),
        (b'{"delay":"1s","value":"v","key":"k","key_base64":"aw=="}', "key and key_base64 are given"),
        (b'{"delay":"1s","value":"v","headers":[["a"]]}', "headers"),
        (b'{"delay":"1s","value":"v","partition":-1}', "partition is -1; expected 0 or more"),
        (b'{"delay":"1s","value":"v","partition":true}', "partition: expected"),
        (b'{"delay":"1s","value_json":' + b"[" * 50_000 + b"]" * 50_000 + b"}", "nested too deeply"),
        (b"x" * (LONGEST_BYTES + 1), f"it is longer than {LONGEST_BYTES} bytes"),
    ],
)
def test_a_bad_line_says_what_is_wrong_with_it(text: bytes, says: str) -> None:
    with pytest.raises(LineError, match=says.replace("(", r"\(")):
        parsed(Line(1, text), Shared("requests", "out", None, [], None, {}))


def test_a_line_has_all_that_a_request_may_say() -> None:
    """What it does not say comes from the options of the command."""
    line = {
        "at": ["2030-01-01T00:00:00Z", 1893456000000], "tags": ["a", "b"], "max_fires": 3, "if_version": 0,
        "value_base64": "/w==", "key_base64": "/w==", "headers": [["h", None], ["b", {"base64": "/w=="}]],
        "partition": 2,
    }  # fmt: skip
    shared = Shared("requests", "out", b"of all", [("x", b"y")], 7, {"grace": "1m", "max_fires": 9})
    found = parsed(Line(1, json.dumps(line).encode()), shared)
    assert (found.destination, found.request.partition) == ("out", 2)
    assert (found.request.key, found.request.value) == (b"\xff", b"\xff")
    assert dict(found.request.headers) == {
        "delaystream-destination": b"out",
        "delaystream-at": b"2030-01-01T00:00:00Z,1893456000000",
        "delaystream-tags": b"a,b",
        "delaystream-max-fires": b"3",
        "delaystream-if-version": b"0",
        "delaystream-grace": b"1m",
        "x": b"y",
        "h": None,
        "b": b"\xff",
    }
