"""The command line against Kafka: what it says of what it sends, of what lands, and of what is not there."""

from __future__ import annotations

import asyncio
import json
import re
import signal
import subprocess
from typing import Any
from uuid import uuid4

import pytest
from aiokafka import AIOKafkaProducer
from aiokafka.record.default_records import _DefaultRecordBatchBuilderPy

from delaystream.core.instants import parse_instant
from delaystream.exit_codes import ExitCode
from tests.integration.harness import Deployment, command, wait


def _said(app: Deployment, *arguments: str, exit_code: int = 0) -> str:
    done = app.run(*arguments)
    assert done.returncode == exit_code, done.stdout.decode() + done.stderr.decode()
    return (done.stdout + done.stderr).decode()


def test_the_due_time_that_is_said_is_that_of_the_delivery(app: Deployment) -> None:
    """It counts from the timestamp that the record has, which is later than when the command was typed."""
    out = app.destination("said")
    said = re.search(r"due (\S+Z)", _said(app, "send", "--to", out, "--delay", "100ms", "v"))
    (delivery,) = app.kafka.read(out, 1)
    assert said is not None
    assert parse_instant(said[1]) == int(delivery.text("delaystream-due-at"))


def test_what_an_id_makes_of_a_request_is_left_to_its_receipt(app: Deployment) -> None:
    """Without one, the due time is said with an if; with one, it is the receipt's."""
    out, id = app.destination("if"), uuid4().hex
    send = ("send", "--to", out, "--cron", "@yearly", "--id", id, "v")
    assert "if it is scheduled, due " in _said(app, *send)
    told = _said(app, *send, "--if-exists", "keep", "--reply-to", app.receipts)
    assert "kept" in told
    assert "due" not in told


def test_commands_about_the_same_stand_on_one_partition(app: Deployment) -> None:
    """In the order in which they were typed."""
    tag = uuid4().hex
    places = [
        _said(app, action, "--match-tags", tag, "--no-wait").split()[0].split("/")[1]
        for action in ("pause", "pause", "resume", "cancel")
    ]
    assert len(set(places)) == 1


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        ("send v --to r --delay 1s --partition 99", ExitCode.REFUSED, "has no partition 99: it has "),
        ("send v --to r --delay 1s --topic nowhere", ExitCode.CONFIGURATION, "nowhere cannot be used"),
        ("send v --to r --delay 1s --reply-to nowhere", ExitCode.CONFIGURATION, "Nothing was sent"),
        ("watch nowhere", ExitCode.CONFIGURATION, "Topic nowhere cannot be used: it does not exist"),
    ],
)
def test_what_is_not_there_is_no_trouble_of_kafka(
    app: Deployment, arguments: str, code: ExitCode, says: str
) -> None:
    """Trying again will not help."""
    assert says in _said(app, *arguments.split(), exit_code=code)


def test_a_destination_that_is_not_there_is_told_with_the_nearest_name(app: Deployment) -> None:
    """The event waits for it: nobody else would say so before it is due."""
    out = app.destination("typing")
    told = _said(app, "send", "--to", f"{out}x", "--delay", "1d", "v")
    assert f"there is no topic {out}x that this user can see" in told
    assert f"did you mean {out}?" in told
    assert "warning" not in _said(app, "send", "--to", out, "--delay", "1d", "v")


def test_who_sends_it_unless_it_exists_hears_whether_it_does(app: Deployment) -> None:
    """Without a word of receipts; and where it stands, for programs."""
    out, id = app.destination("once"), uuid4().hex
    send = ("send", "--to", out, "--delay", "1d", "v", "--id", id)
    assert "scheduled" in _said(app, *send, "--if-exists", "reject")
    assert "already-exists" in _said(app, *send, "--if-exists", "reject", exit_code=ExitCode.REFUSED)
    place = json.loads(app.run(*send, "-o", "json").stdout)
    assert place["source"] == f"{place['topic']}/{place['partition']}/{place['offset']}"
    assert json.loads(app.run(*send, "-o", "json", "--wait").stdout)["outcome"] == "replaced"


def test_a_watch_shows_one_key_or_one_schedule_alone(app: Deployment) -> None:
    out, id = app.destination("chosen"), uuid4().hex
    _said(app, "send", "--to", out, "--delay", "0", "named", "--id", id, "--key", "a")
    _said(app, "send", "--to", out, "--delay", "0", "other", "--key", "b")
    app.kafka.read(out, 2)
    watch = ("watch", out, "--from-beginning", "--timeout", "3")
    assert "waiting for records" in _said(app, *watch)
    assert [" named" in _said(app, *watch, "--id", id), " other" in _said(app, *watch, "--id", id)] == [
        True,
        False,
    ]
    assert [" named" in _said(app, *watch, "--key", "b"), " other" in _said(app, *watch, "--key", "b")] == [
        False,
        True,
    ]
    events = ("watch", app.events, "--from-beginning", "--timeout", "3", "--id")
    assert "fired" in _said(app, *events, id)
    assert "fired" not in _said(app, *events, "nobody")


def test_a_watch_says_how_much_it_has_seen(app: Deployment) -> None:
    out = app.destination("seldom")
    told = _said(app, "watch", out, "--count", "2", "--timeout", "1", exit_code=ExitCode.TIMEOUT)
    assert f"0 of 2 records landed on {out} within 1 s" in told


def test_a_watch_ends_when_nobody_reads_it_any_more(app: Deployment) -> None:
    """As in `watch … | head -1`, although no further record lands."""
    out = app.destination("headed")
    app.kafka.produce(out, [(None, b"one", [])])
    watch = subprocess.Popen(
        command("watch", out, "--from-beginning"), env=app.environment(), stdout=subprocess.PIPE
    )
    try:
        assert watch.stdout is not None
        assert b"one" in watch.stdout.readline()
        watch.stdout.close()
        assert watch.wait(10) == ExitCode.OK
    finally:
        watch.kill()
        watch.wait()


def test_who_does_not_wait_any_longer_is_told_that_the_request_stands(app: Deployment) -> None:
    idle, replies = app.destination("unread-requests"), app.destination("unread-replies")
    cancel = subprocess.Popen(
        command("cancel", "x", "--topic", idle, "--reply-to", replies),
        env=app.environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    try:
        assert cancel.stdout is not None
        assert b"cancel requested" in cancel.stdout.readline()
        cancel.send_signal(signal.SIGINT)
        _, told = cancel.communicate(timeout=10)
        assert cancel.returncode == ExitCode.TIMEOUT
        assert f"The request stands at {idle}/0/0, and stays in force" in told.decode()
    finally:
        cancel.kill()
        cancel.wait()


def test_a_description_is_told_in_lines(app: Deployment) -> None:
    out, id = app.destination("described"), uuid4().hex
    _said(app, "send", "--to", out, "--cron", "@yearly", "--id", id, "v", "--reply-to", app.receipts)
    told = _said(app, "describe", id)
    assert re.search(r"^  cron +@yearly$", told, re.MULTILINE)
    assert re.search(r"^  upcoming +\d{4}-01-01T00:00:00.000Z$", told, re.MULTILINE)


def test_a_rate_that_is_set_is_told_with_its_destination(app: Deployment) -> None:
    out = app.destination("rated")
    assert f"rate-set  {out} 600/m" in _said(app, "rate", out, "600/m")


def test_events_are_told_for_people(app: Deployment) -> None:
    out, id = app.destination("told"), uuid4().hex
    _said(app, "send", "--to", out, "--delay", "0", "--id", id, "v", "--reply-to", app.receipts)

    def lines() -> list[str]:
        told = app.run("watch", app.events, "--from-beginning", "--timeout", "2").stdout.decode()
        return [line for line in told.splitlines() if id in line]

    wait(lambda: any(re.search(rf"  fired +{id}  ", line) for line in lines()), "the event")


class _RawName(str):
    """A header name that no client lets one send, though Kafka takes it."""

    __slots__ = ()

    def encode(self, *_: Any) -> bytes:
        return b"\xff\xfe"


async def _send_raw_name(app: Deployment, topic: str) -> None:
    async with AIOKafkaProducer(bootstrap_servers=app.kafka.bootstrap) as producer:
        batch = producer.create_batch()
        batch._builder = _DefaultRecordBatchBuilderPy(2, 0, 0, -1, -1, 0, 1_000_000)
        batch.append(timestamp=1_000, key=b"k", value=b"v", headers=[(_RawName("x"), b"1"), ("fine", b"2")])
        await (await producer.send_batch(batch, topic, partition=0))


def test_a_record_with_a_name_that_is_no_text_is_shown_without_its_headers(app: Deployment) -> None:
    """Anybody may write to a destination; and to the topic for receipts, where every command reads."""
    out = app.destination("raw")
    asyncio.run(_send_raw_name(app, out))
    app.kafka.produce(out, [(b"k", b"next", [("fine", b"2")])])
    shown = _said(app, "watch", out, "--from-beginning", "--count", "2", "--timeout", "20").splitlines()
    assert "k: v  [(a name is not UTF-8)=(null)]" in shown[0]
    assert "k: next  [fine=2]" in shown[1]
    watch = app.run("watch", out, "--from-beginning", "--count", "1", "--timeout", "20", "-o", "json")
    found = json.loads(watch.stdout)
    assert (found["value"], found["headers"]) == ("v", [["(a name is not UTF-8)", None]])
