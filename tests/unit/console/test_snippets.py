"""What is copied from a page asks for the schedule that it was copied from, whatever is in its fields."""

from __future__ import annotations

import asyncio
import json
import subprocess
from base64 import b64decode
from dataclasses import replace
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
from typer.testing import CliRunner

import delaystream.client
from delaystream.cli.application import app
from delaystream.cli.requests import replies
from delaystream.client import schedule_request
from delaystream.client.requests.records import RequestRecord
from delaystream.console.api.models import ScheduleBody
from delaystream.console.api.rendering import schedule_body
from delaystream.console.pages.snippets import Target, first_snippets, snippets
from delaystream.engine.ports import TopicPartition
from tests.unit.console.serving import Told, console, told
from tests.unit.engine import REQUESTS, Engine

TARGET = Target("kafka-1.example.com:9092", "http://127.0.0.1:8643")
ODD = 'it\'s "odd" $HOME `id` \\n <b>&amp;</b> ; | ünï\u202e\t!'
ASKED: dict[str, dict[str, Any]] = {
    "plain": {
        "cron": "30 9 * * MON-FRI",
        "timezone": "Europe/Berlin",
        "tags": "a,b",
        "jitter": "5m",
        "grace": "2h",
    },
    "every": {
        "every": "15m",
        "start": "2030-01-01T00:00:00Z",
        "end": "2031-01-01T00:00:00Z",
        "max_fires": "8",
        "catch_up": "all",
    },
    "times": {"at": "2030-01-01T00:00:00Z,2030-01-02T00:00:00.500Z"},
    ODD: {
        "every": "1h",
        "name": ODD,
        "description": ODD,
        "key": ODD.encode(),
        "value": ODD.encode(),
        "foreign": ((ODD.replace("=", ""), ODD.encode()),),
    },
    "-dash": {"every": "1h", "name": "-n", "key": b"-k", "value": b"--help", "foreign": (("-h", b"-v"),)},
    "bytes": {"every": "1h", "key": b"\xff\xfe'", "value": b"\xff\n\\'"},
    "zeros": {"every": "1h", "value": b"a\0b"},
    "nothing": {"every": "1h", "value": None, "key": None},
    "empty": {"every": "1h", "value": b"", "key": b""},
}


async def _asked(engine: Engine) -> None:
    for id, request in ASKED.items():
        engine.request(**{"destination": "orders", "id": id, **request})
    await asyncio.sleep(1)


def bodies(of: Told, directory: Path) -> dict[str, ScheduleBody]:
    async def read() -> dict[str, ScheduleBody]:
        async with console(of, directory) as made:
            found = {id: made.catalog.get(REQUESTS, id) for id in ASKED}
            return {id: schedule_body(one, payload=True) for id, one in found.items() if one is not None}

    directory.mkdir(exist_ok=True)
    return asyncio.run(read())


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> dict[str, ScheduleBody]:
    found = bodies(told(_asked), tmp_path_factory.mktemp("console"))
    assert list(found) == list(ASKED)
    return found


def text(shown: ScheduleBody, name: str) -> str:
    (found,) = [one for one in snippets(shown, shown.payload, TARGET) if one.name == name]
    return found.text


def by_command_line(command: str) -> RequestRecord:
    """The record that a command would send, with what a shell makes of it."""
    script = 'delaystream() { printf "%s\\0" "$@"; cat > "$INPUT"; }\n' + command
    with_input = subprocess.run(
        ["bash", "-c", script],
        capture_output=True,
        check=True,
        env={"INPUT": "/dev/stderr", "PATH": "/usr/bin:/bin"},
        stdin=subprocess.DEVNULL,
    )
    arguments = [one.decode("utf-8", "surrogateescape") for one in with_input.stdout.split(b"\0")[:-1]]
    sent: list[RequestRecord] = []

    def send(_: object, asked: Any, __: object) -> None:
        sent.append(asked.request)

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(replies, "send", send)
        # Nothing was sent, so no broker is there to be asked for the destination.
        patched.setattr(replies, "warn_of_missing", lambda *_: None)
        outcome = CliRunner().invoke(app, arguments, input=with_input.stderr, catch_exceptions=False)
    assert outcome.exit_code == 0, outcome.output
    return sent[0]


def by_python(code: str) -> RequestRecord:
    """The record that a program would send."""
    sent: list[RequestRecord] = []

    class Client:
        def __init__(self, servers: str, request_topic: str) -> None:
            assert servers == TARGET.bootstrap_servers
            self.topic = request_topic

        def __enter__(self) -> Client:
            return self

        def __exit__(self, *_: object) -> None:
            pass

        def schedule(self, *arguments: Any, **options: Any) -> None:
            sent.append(schedule_request(self.topic, *arguments, **options))

    with pytest.MonkeyPatch.context() as patched:
        patched.setattr(delaystream.client, "Client", Client)
        exec(compile(code, "snippet", "exec"), {})
    return sent[0]


def made_of(record: RequestRecord, directory: Path) -> ScheduleBody:
    """The schedule that a worker makes of a record."""

    async def story(engine: Engine) -> None:
        engine.log.append(
            TopicPartition(REQUESTS, 0),
            (record.key, record.value, list(record.headers), engine.clock.now_ms()),
        )
        await asyncio.sleep(1)

    (made,) = bodies(told(story), directory).values()
    return made


def same(made: ScheduleBody, shown: ScheduleBody) -> None:
    assert made.id == shown.id
    assert made.definition == shown.definition
    assert made.payload == shown.payload


@pytest.mark.parametrize("id", ASKED)
def test_the_command_line_asks_for_the_same(shown: dict[str, ScheduleBody], id: str, tmp_path: Path) -> None:
    record = by_command_line(text(shown[id], "Command line"))
    assert record.topic == REQUESTS
    same(made_of(record, tmp_path / "made"), shown[id])


def by_put(command: str) -> RequestRecord:
    """The record that the body of a request asks for: its fields are the headers of their names."""
    script = 'curl() { printf "%s\\0" "$@"; }\n' + command
    arguments = [
        one.decode()
        for one in subprocess.run(["bash", "-c", script], capture_output=True, check=True).stdout.split(b"\0")
    ]
    assert arguments[:3] == ["--fail-with-body", "-X", "PUT"]
    address = urlsplit(arguments[3])
    assert parse_qs(address.query) == {"request_topic": [REQUESTS]}
    body = json.loads(arguments[arguments.index("--data-binary") + 1])
    foreign = [(name, None if text is None else text.encode()) for name, text in body.pop("headers", [])]
    contents = {
        name: b64decode(body.pop(f"{name}_base64")) if f"{name}_base64" in body else body.pop(name, None)
        for name in ("key", "value")
    }
    body["id"] = unquote(address.path.removeprefix("/v1/schedules/"))
    control = [
        (
            f"delaystream-{name.replace('_', '-')}",
            (",".join(value) if isinstance(value, list) else value).encode(),
        )
        for name, value in body.items()
    ]
    key, value = (one.encode() if isinstance(one, str) else one for one in contents.values())
    return RequestRecord(REQUESTS, key, value, [*control, *foreign])


@pytest.mark.parametrize("id", ASKED)
def test_curl_asks_for_the_same(shown: dict[str, ScheduleBody], id: str, tmp_path: Path) -> None:
    target = replace(TARGET, writes=True)
    (curl,) = [one for one in snippets(shown[id], shown[id].payload, target) if one.name == "curl"]
    same(made_of(by_put(curl.text), tmp_path / "made"), shown[id])


def test_a_console_that_takes_no_requests_is_only_asked(shown: dict[str, ScheduleBody]) -> None:
    assert text(shown["-dash"], "curl") == (
        "curl --fail-with-body 'http://127.0.0.1:8643/v1/schedules/-dash?request_topic=delay-requests'\n"
    )


@pytest.mark.parametrize("id", ASKED)
def test_python_asks_for_the_same(shown: dict[str, ScheduleBody], id: str, tmp_path: Path) -> None:
    same(made_of(by_python(text(shown[id], "Python")), tmp_path / "made"), shown[id])


@pytest.mark.parametrize("id", ["plain", "every", "times", "nothing"])
def test_the_headers_are_those_of_the_same(shown: dict[str, ScheduleBody], id: str, tmp_path: Path) -> None:
    lines = text(shown[id], "Headers").splitlines()
    headers = [(name, value.encode()) for name, _, value in (line.partition(": ") for line in lines)]
    asked = ASKED[id]
    record = RequestRecord(REQUESTS, asked.get("key", b"key"), asked.get("value", b"value"), headers)
    same(made_of(record, tmp_path / "made"), shown[id])


def test_without_the_payload_nothing_of_it_is_shown(shown: dict[str, ScheduleBody]) -> None:
    for one in snippets(shown[ODD], None, TARGET):
        assert one.remark is not None
        if one.name == "curl":
            continue
        assert "fill them in" in one.remark
        assert "VALUE" in one.text or one.name == "Headers"


def test_what_no_argument_can_hold_is_said(shown: dict[str, ScheduleBody]) -> None:
    payload = shown["plain"].payload
    assert payload is not None
    for change in (
        {"key": "a\0b"},
        {"headers": [("a=b", "c")]},
        {"headers": [("a", None)]},
        {"headers": [("a", "\0")]},
    ):
        (_, command, *_) = snippets(shown["plain"], payload.model_copy(update=change), TARGET)
        assert command.remark is not None, change
        assert "Python has" in command.remark
        assert "\0" not in command.text


def test_the_first_requests_are_requests(tmp_path: Path) -> None:
    target = Target("kafka-1.example.com:9092,kafka-2.example.com:9092", "")
    command, _, python = first_snippets(target, REQUESTS)
    sent = by_command_line(command.text)
    assert (sent.id, sent.value) == ("first", b"call back")
    with pytest.MonkeyPatch.context() as patched:
        patched.setattr("tests.unit.console.test_snippets.TARGET", target)
        assert sorted(by_python(python.text).headers) == sorted(sent.headers)
