"""Nothing that a command prints is obeyed by a terminal, whoever wrote it: every command, against records,
receipts, topics and answers that were made up to harm."""

from __future__ import annotations

import json
import threading
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import orjson
import pytest
import typer

from delaystream.cli import main
from delaystream.cli.application import app
from delaystream.cli.dev.parked import ParkedDestinations
from delaystream.client import Delivery, MissingTopicError, UnavailableError
from delaystream.codec.outgoing import RECEIPT
from delaystream.topics import Change, Difference
from delaystream.transfer import Export, Import

HOSTILE = "x\x1b[2J\x9b31m\x07\u202e\U000e0001\r\nFORGED"
"""Clears a terminal, colours it, rings, turns the writing round, hides, and begins a line of its own."""


def commands(group: Any = None, path: tuple[str, ...] = ()) -> Iterator[str]:
    """Every command by its whole name."""
    group = typer.main.get_command(app) if group is None else group
    below = getattr(group, "commands", {})
    if path and (not below or group.invoke_without_command):
        yield " ".join(path)
    for name, command in below.items():
        yield from commands(command, (*path, name))


class World:
    """What a command meets: each part says something hostile."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, directory: Path) -> None:
        self.directory = directory
        self.patch = monkeypatch

    def run(self, *arguments: str) -> None:
        main(list(arguments))

    def receipts(self, **body: Any) -> None:
        """Every request has this receipt, although a worker would write another one."""
        told = dict.fromkeys(("outcome", "schedule_id", "detail", "code", HOSTILE), HOSTILE)
        self.patch.setattr("delaystream.client.Client", lambda **_: _FakeClient({**told, **body}))

    def landed(self, *records: Delivery) -> None:
        """These are on every topic that is read."""

        class Reader:
            def __init__(self, *_: object, **__: object) -> None:
                pass

            def __enter__(self) -> Reader:
                return self

            def __exit__(self, *_: object) -> None:
                pass

            def read(self, _: float) -> Iterator[Delivery]:
                yield from records

        self.patch.setattr("delaystream.client.kafka.reading.Reader", Reader)

    @contextmanager
    def console(self, status: int = 200) -> Iterator[None]:
        """Answers everything with the same, which has all that any answer has."""
        event = {**dict.fromkeys(("type", "schedule_id", "destination", HOSTILE), HOSTILE), "at_ms": 1}
        said = (
            "id status next_at due_at destination key at type local note state by detail code source "
            f"request_topic count last_fired_at fired {HOSTILE}"
        )
        one = {
            **dict.fromkeys(said.split(" "), HOSTILE),
            "definition": {"destination": HOSTILE, "tags": [HOSTILE]},
            "event": event,
            "standing": HOSTILE,
            "last_act": {HOSTILE: HOSTILE},
            "stage": HOSTILE,
            "progress": {"changed": HOSTILE, "failed": HOSTILE, HOSTILE: HOSTILE},
            "samples": [{"id": HOSTILE}],
        }
        body = {"items": [one], "by_destination": [one], "next_cursor": None, HOSTILE: HOSTILE, **one}
        if status != 200:
            body = {"code": HOSTILE, "detail": HOSTILE}

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                stream = b"id: 1\ndata: %b\n\nid: 2\n: end\n\n" % orjson.dumps(event)
                content = stream if "/events" in self.path and status == 200 else orjson.dumps(body)
                self.send_response(status)
                self.send_header("content-length", str(len(content)))
                self.end_headers()
                self.wfile.write(content)

            def do_POST(self) -> None:
                self.rfile.read(int(self.headers["content-length"]))
                self.do_GET()

            def log_message(self, *_: object) -> None:
                pass

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        self.patch.setenv("DELAYSTREAM_CONSOLE_URL", f"http://127.0.0.1:{server.server_port}/")
        try:
            yield
        finally:
            server.shutdown()
            thread.join()
            server.server_close()


class _FakeClient:
    """A client whose every request gets one made-up receipt; the request itself goes nowhere."""

    handed_over = 1

    def __init__(self, body: Mapping[str, Any]) -> None:
        from delaystream.client import Accepted, Receipt, Sent
        from delaystream.core.request import Coordinates

        self._sent = Sent(Coordinates(HOSTILE, 0, 1), 1)
        self._accepted = Accepted(self._sent, None, Receipt(json.dumps(body), body))

    def __enter__(self) -> _FakeClient:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def batch(self) -> _FakeClient:
        return self

    def send(self, *_: object, **__: object) -> _FakeClient:
        return self

    def sent(self) -> Any:
        return self._sent

    def answer(self) -> Any:
        return self._sent

    def done(self) -> bool:
        return True

    def result(self) -> Any:
        return self._accepted


def _record(topic: str = "t", **more: Any) -> Delivery:
    text = HOSTILE.encode()
    headers = [(HOSTILE, text), *more.pop("headers", [])]
    return Delivery(topic, 0, 1, 1, text, more.pop("value", text), headers, **more)


def _looking(world: World, *arguments: str) -> None:
    """By a console that answers, that refuses, and in every form."""
    for form in ("table", "wide", "json", "yaml", "jsonl"):
        with world.console():
            world.run(*arguments, "-o", form)
    with world.console(status=400):
        world.run(*arguments)


def _asking(world: World, *arguments: str) -> None:
    """With receipts of every kind; nothing is sent."""
    described = {"definition": {HOSTILE: HOSTILE}, "history": [HOSTILE, {"kind": HOSTILE}]}
    for body in ({}, {"outcome": "described", "schedule": described}, {"outcome": "rejected"}):
        world.receipts(**body)
        world.run(*arguments)
        world.run(*arguments, "-o", "json")


def _send(world: World) -> None:
    world.patch.setattr("delaystream.client.kafka.reading.topics_of", lambda _: frozenset({HOSTILE, "x"}))
    options = ["--to", "xx", "--delay", "1s", "-k", HOSTILE, "-H", f"{HOSTILE}={HOSTILE}", "--id", "id"]
    for form in ("human", "json"):
        world.run("send", HOSTILE, *options, "--dry-run", "-o", form)
    _asking(world, "send", HOSTILE, *options, "--wait")
    world.run("send", HOSTILE, *options, "--no-wait")
    file = world.directory / "lines"
    lines: list[dict[str, Any]] = [
        {"destination": HOSTILE, "delay": "1s", "value": HOSTILE},
        {"destination": "x", "delay": HOSTILE, "value": HOSTILE},
        {HOSTILE: HOSTILE},
        {"destination": "x", "delay": "1s", "value": HOSTILE, "headers": [[HOSTILE, HOSTILE]]},
    ]
    file.write_text("".join(json.dumps(line) + "\n" for line in lines))
    _asking(world, "send", "--lines", "--keep-going", "--wait", "-f", str(file))
    world.run("send", "--lines", "--keep-going", "--dry-run", "-f", str(file))


def _watch(world: World) -> None:
    event = {"type": HOSTILE, "at_ms": 1, "schedule_id": HOSTILE, HOSTILE: [HOSTILE, {HOSTILE: HOSTILE}]}
    receipt = {"outcome": HOSTILE, "schedule_id": HOSTILE, HOSTILE: HOSTILE}
    world.landed(
        _record(),
        _record(schedule_id=HOSTILE, fire_id=HOSTILE, due_ms=1),
        _record("delay-events", value=json.dumps(event).encode()),
        _record(value=json.dumps(receipt).encode(), headers=[(RECEIPT, b"1")]),
        _record("delay-dead-letters", headers=[("delaystream-error", HOSTILE.encode())]),
    )
    for form in ("human", "json"):
        world.run("watch", "t", "--count", "5", "--timeout", "5", "-o", form)


def _topics(world: World, *arguments: str) -> None:
    world.patch.setattr("delaystream.topics.connect", lambda _: None)
    change = Change(HOSTILE, "created", f"{HOSTILE} was created.")
    difference = Difference(HOSTILE, HOSTILE, "error", HOSTILE, HOSTILE, f"{HOSTILE} has {HOSTILE}.")
    world.patch.setattr("delaystream.topics.apply", lambda *_: [change])
    world.patch.setattr("delaystream.topics.check", lambda *_, **__: [difference])
    for form in ("human", "json"):
        world.run("topics", *arguments, "-o", form)


def _print_topics(world: World) -> None:
    own = HOSTILE.replace("\r\n", "")  # of the one who prints it: a line of their own is theirs
    world.patch.setenv("DELAYSTREAM_DESTINATIONS_ALLOW", own)
    for form in ("table", "json", "kafka-topics", "kafka-acls", "strimzi", "terraform"):
        world.run("topics", "print", "-o", form, "--user", f"worker={own}")


def _export(world: World) -> None:
    async def export(*_: object, **__: object) -> Export:
        return Export(HOSTILE, 1, 1, 1, {HOSTILE: 1})

    async def reopen(*_: object) -> str:
        return HOSTILE

    world.patch.setattr("delaystream.transfer.export", export)
    world.patch.setattr("delaystream.transfer.reopen", reopen)
    world.patch.setattr("delaystream.client.kafka.reading.partitions_of", lambda *_: 1)
    for place, form in enumerate(("jsonl", "table", "json")):
        world.run("export", "-f", str(world.directory / str(place)), "-o", form)
    for form in ("jsonl", "json"):
        world.run("export", "--reopen", "-o", form)


def _import(world: World) -> None:
    async def import_(*_: object, **__: object) -> Import:
        return Import(HOSTILE, 1, 1, 1, already=False)

    file = world.directory / "export"
    file.write_text(HOSTILE)
    world.patch.setattr("delaystream.topics.connect", lambda _: None)
    world.patch.setattr("delaystream.topics.check", lambda *_: [])
    world.patch.setattr("delaystream.topics.topic_ids", lambda *_: {})
    world.patch.setattr("delaystream.client.kafka.reading.partitions_of", lambda *_: 1)
    world.run("import", str(file))  # as it is: it is no export, and that is said
    world.patch.setattr("delaystream.transfer.import_", import_)
    for form in ("human", "json"):
        world.run("import", str(file), "-o", form)


def _service(name: str) -> Callable[[World], None]:
    """A process that stays prints its log, and why it does not begin."""

    def run(world: World) -> None:
        world.run(name, "--set", f"events_topic={HOSTILE}")

    return run


def _config(world: World) -> None:
    world.patch.setenv("DELAYSTREAM_INSTANCE_ID", HOSTILE)
    for form in ("human", "json"):
        world.run("config", "--describe", "-o", form)


def _token(world: World) -> None:
    for form in ("human", "json"):
        world.run("console", "token", "--name", HOSTILE, "-o", form)


WALK: dict[str, Callable[[World], None]] = {
    "worker": _service("worker"),
    "dev": _service("dev"),
    "console": _service("console"),
    "console token": _token,
    "topics apply": lambda world: _topics(world, "apply"),
    "topics check": lambda world: _topics(world, "check"),
    "topics print": _print_topics,
    "send": _send,
    "watch": _watch,
    "cancel": lambda world: _asking(world, "cancel", HOSTILE),
    "pause": lambda world: _asking(world, "pause", HOSTILE),
    "resume": lambda world: _asking(world, "resume", HOSTILE),
    "trigger": lambda world: _asking(world, "trigger", HOSTILE),
    "reschedule": lambda world: _asking(world, "reschedule", HOSTILE, "--delay", "1s"),
    "update": lambda world: _asking(world, "update", HOSTILE, HOSTILE),
    "describe": lambda world: _asking(world, "describe", HOSTILE),
    "rate": lambda world: _asking(world, "rate", "topic", "1/s"),
    "list": lambda world: _looking(world, "list"),
    "get": lambda world: _looking(world, "get", "id"),
    "fires": lambda world: _looking(world, "fires", "id"),
    "upcoming": lambda world: _looking(world, "upcoming", "id"),
    "pending": lambda world: _looking(world, "pending"),
    "where": lambda world: _looking(world, "where", "id"),
    "stats": lambda world: _looking(world, "stats"),
    "dead-letters": lambda world: _looking(world, "dead-letters"),
    "redrive": lambda world: _looking(world, "redrive", "0.1"),
    "discard": lambda world: _looking(world, "discard", "0.1"),
    "events": lambda world: _looking(world, "events"),
    "operations make": lambda world: _looking(world, "operations", "make", "cancel", "--key", HOSTILE),
    "operations list": lambda world: _looking(world, "operations", "list"),
    "operations show": lambda world: _looking(world, "operations", "show", "id"),
    "operations failures": lambda world: _looking(world, "operations", "failures", "id"),
    "operations start": lambda world: _looking(world, "operations", "start", "id"),
    "operations stop": lambda world: _looking(world, "operations", "stop", "id"),
    "operations undo": lambda world: _looking(world, "operations", "undo", "id"),
    "cron": lambda world: world.run("cron", HOSTILE),
    "export": _export,
    "import": _import,
    "config": _config,
}


@pytest.mark.parametrize("name", sorted(commands()))
def test_no_command_lets_a_terminal_obey_a_record(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    """A command that is new joins the walk: its name is looked up here."""
    monkeypatch.setattr("delaystream.client.kafka.reading.members_of", lambda *_: 1)
    WALK[name](World(monkeypatch, tmp_path))
    told = capfd.readouterr()
    text = told.out + told.err
    assert "FORGED" in text, "it met nothing hostile"
    assert not [c for c in text if not c.isprintable() and c != "\n"], text
    assert not [line for line in text.split("\n") if line.startswith("FORGED")], text
    assert "Traceback" not in text


def test_the_walk_knows_no_command_that_is_gone() -> None:
    assert set(WALK) == set(commands())


@pytest.mark.parametrize("name", sorted(commands()))
def test_no_command_has_an_option_twice(name: str) -> None:
    """Click takes the last one of a name, so that nobody reaches the first."""
    command: Any = typer.main.get_command(app)
    for part in name.split(" "):
        command = command.commands[part]
    options = Counter(option for parameter in command.params for option in parameter.opts)
    assert [option for option, times in options.items() if times > 1] == []


@pytest.mark.parametrize(
    "error", [UnavailableError(f"Kafka says {HOSTILE}"), MissingTopicError(HOSTILE)], ids=["away", "topic"]
)
def test_what_a_command_ends_with_is_escaped_as_well(
    error: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def refuse(**_: object) -> None:
        raise error

    monkeypatch.setattr("delaystream.client.Client", refuse)
    main(["cancel", "x"])
    told = capsys.readouterr().err
    assert "FORGED" in told
    assert not [c for c in told if not c.isprintable() and c != "\n"]


def test_a_destination_that_is_parked_is_told_once_and_when_it_is_over() -> None:
    """By the first partition that has something for it, and by the last one that lets it go."""
    events = [
        {"type": type, "destination": destination, "partition": partition, "reason": "it does not exist"}
        for type, destination, partition in (
            ("parked", "nowhere", 0),
            ("parked", "nowhere", 1),
            ("fired", "x", 0),
            ("released", "nowhere", 0),
            ("released", "nowhere", 1),
        )
    ]
    records = [_record(value=json.dumps(event).encode()) for event in events]
    told = ParkedDestinations(cast(Any, SimpleNamespace(read=lambda _: iter([_record(), *records]))))
    assert list(told.look()) == [
        "parked: nowhere cannot be written to (it does not exist); what is due waits for it",
        "no longer parked: nowhere is written to again",
    ]


def test_only_one_module_of_the_command_line_prints() -> None:
    """ruff's T20 sees `print`; this sees the streams."""
    streams = ("stdout.write", "stderr.write", "typer.echo", "secho(")
    modules = [path for path in Path("delaystream/cli").rglob("*.py") if path.name != "output.py"]
    assert modules
    assert [path for path in modules if any(word in path.read_text() for word in streams)] == []
