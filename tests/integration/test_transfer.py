"""A move to another partition count: export, grow the topics, import, go on; nothing lost, nothing twice."""

from __future__ import annotations

import json
import signal
import subprocess
import time
from pathlib import Path
from uuid import uuid4

import pytest
from confluent_kafka.admin import AdminClient, NewPartitions

from delaystream.client import schedule_request
from delaystream.codec.command import attach
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.partitioning import owner_partition
from delaystream.core.record import Record
from delaystream.core.request import Coordinates, Request
from delaystream.exit_codes import ExitCode
from tests.integration.harness import Deployment, command, wait
from tests.integration.harness_fixtures import Deploy
from tests.integration.harness_kafka import Delivery

OLD_PARTITIONS = 2
NEW_PARTITIONS = 5
ANONYMOUS = 40
NAMED = 12
UNREAD = 6


def grow(app: Deployment) -> None:
    """The same request and commands topics with more partitions, and a new changelog."""
    admin = AdminClient({"bootstrap.servers": app.kafka.bootstrap})
    wanted = [NewPartitions(topic, NEW_PARTITIONS) for topic in (app.requests, app.commands)]
    for done in admin.create_partitions(wanted).values():
        done.result(30)
    app.changelog = f"{app.changelog}-{NEW_PARTITIONS}"
    app.partitions = NEW_PARTITIONS
    app.apply_topics()


def command_on_its_way(app: Deployment, out: str, id: str, due_ms: int) -> None:
    """What a worker wrote for the owner of an id, and the owner had not applied when it stopped."""
    record = schedule_request(app.requests, out, b"on its way", at=str(due_ms), id=id)
    now_ms = int(time.time() * 1000)
    # A place that no other record of the test has.
    place = Coordinates(app.requests, 0, 1_000_000)
    parsed = RequestParser(DestinationFilter(["*"]), Limits()).parse(
        Record(place, now_ms, None, record.value, record.headers), now_ms
    )
    assert isinstance(parsed, Request)
    owner = owner_partition(id, OLD_PARTITIONS)
    app.kafka.produce(app.commands, [(None, record.value, attach(record.headers, parsed))], partition=owner)


def killed_import(app: Deployment, file: Path, after_lines: int) -> bool:
    """An import that is killed once it has told so many steps; whether it came to its end before."""
    arguments = command("import", str(file), "--rows", "7")
    with subprocess.Popen(
        arguments, env=app.environment(), stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, text=True
    ) as process:
        assert process.stderr is not None
        for number, line in enumerate(process.stderr, 1):
            assert not line.startswith("delaystream:"), line
            if number == after_lines:
                process.send_signal(signal.SIGKILL)
                break
        process.stderr.close()
        return process.wait(30) == 0


def fire_ids(deliveries: list[Delivery]) -> list[str]:
    return sorted(delivery.text("delaystream-fire-id") for delivery in deliveries)


@pytest.mark.timeout(300)
def test_a_move_fires_everything_once(deploy: Deploy, tmp_path: Path) -> None:
    """Killed at many points of the import, repeated, with requests unread and a command on its way."""
    app = deploy(partitions=OLD_PARTITIONS).apply_topics()
    worker = app.worker().wait_ready()
    out, replies = app.destination("out"), app.destination("replies")
    # Long enough for a slow machine to have asked for everything, and stopped the worker, before.
    due_ms = int(time.time() * 1000) + 20_000
    expected: list[str] = []
    for number in range(ANONYMOUS):
        partition, offset = app.request(
            b"a%d" % number, {"destination": out, "at": str(due_ms)}, partition=number % OLD_PARTITIONS
        )
        expected.append(f"{app.requests}/{partition}/{offset}/0/{due_ms}")
    names = [f"order {uuid4()} ☂" for _ in range(NAMED)]
    with app.reader(replies) as reader:
        for name in names:
            app.request(b"n", {"destination": out, "at": str(due_ms), "id": name, "reply-to": replies})
        app.request(b"far", {"destination": out, "delay": "1h", "id": "far", "reply-to": replies})
        app.request(b"y", {"destination": out, "cron": "@yearly", "id": "yearly"}, partition=0)
        app.request(b"", {"action": "pause", "id": "yearly", "reply-to": replies}, partition=0)
        receipts = [json.loads(receipt.value or b"") for receipt in reader.take(NAMED + 2)]
    expected += [
        fire["fire_id"] for receipt in receipts if receipt["id"] in names for fire in receipt["fires"]
    ]
    assert worker.terminate() == 0
    for number in range(UNREAD):
        partition, offset = app.request(
            b"u%d" % number, {"destination": out, "at": str(due_ms)}, partition=number % OLD_PARTITIONS
        )
        expected.append(f"{app.requests}/{partition}/{offset}/0/{due_ms}")
    command_on_its_way(app, out, "a command", due_ms)

    file = tmp_path / "moved.jsonl"
    exported = app.run("export", "--final", "--file", str(file))
    assert exported.returncode == 0, exported.stderr.decode()
    assert (
        f"exported {NAMED + 2} schedules, {ANONYMOUS} fires without an id, 1 command on the way"
        in exported.stderr.decode()
    )
    assert f"{UNREAD} requests on {app.requests} were not read yet" in exported.stderr.decode()
    # The old application is closed for good, whoever starts it again; and can be exported again.
    late = app.worker("late")
    assert late.wait_exit() == ExitCode.CONFIGURATION
    assert "exported for good" in late.reason
    again = app.run("export", "--final", "--file", str(tmp_path / "again.jsonl"))
    assert again.returncode == 0, again.stderr.decode()
    headers = [json.loads(path.open().readline()) for path in (file, tmp_path / "again.jsonl")]
    assert headers[0]["transfer"] == headers[1]["transfer"]

    grow(app)
    for after_lines in (2, NEW_PARTITIONS + 1, NEW_PARTITIONS + 8):
        assert not killed_import(app, file, after_lines)
    early = app.worker("early")
    assert early.wait_exit() == ExitCode.CONFIGURATION
    assert "has not ended" in early.reason
    assert not killed_import(app, tmp_path / "again.jsonl", 2 * NEW_PARTITIONS + 6)
    done = app.run("import", str(file))
    assert done.returncode == 0, done.stderr.decode()
    done = app.run("import", str(file))
    assert done.returncode == 0, done.stderr.decode()
    assert b"nothing to do" in done.stdout

    new = app.worker("new").wait_ready()
    with app.reader(out) as reader:
        deliveries = reader.take(len(expected) + 1)
        reader.quiet(2.0)
    values = [delivery.value for delivery in deliveries]
    assert values.count(b"on its way") == 1
    assert fire_ids([d for d in deliveries if d.value != b"on its way"]) == sorted(expected)
    for action, id, outcome in (("cancel", "far", "cancelled"), ("resume", "yearly", "resumed")):
        answered = app.run(action, id, "--reply-to", replies, "--output", "json")
        assert answered.returncode == 0, answered.stderr.decode()
        assert json.loads(answered.stdout)["outcome"] == outcome
    # A complete import is left alone, also when its fires are over and a worker is at it.
    done = app.run("import", str(file))
    assert b"nothing to do" in done.stdout, done.stderr.decode()
    with app.reader(out) as reader:
        reader.take(len(expected) + 1)
        reader.quiet(2.0)
    assert new.alive
    assert new.terminate() == 0


def test_an_import_refuses_what_would_fire_twice(deploy: Deploy, tmp_path: Path) -> None:
    """A copy of an application that is still there, a changelog that holds something, another transfer."""
    old = deploy(partitions=1).apply_topics()
    old.worker().wait_ready()
    out = old.destination("out")
    with old.reader(old.destination("replies")) as reader:
        old.request(b"v", {"destination": out, "delay": "1h", "id": "a", "reply-to": old.topic("replies")})
        reader.take(1)
    copy = tmp_path / "copy.jsonl"
    assert old.run("export", "--file", str(copy)).returncode == 0

    new = deploy(partitions=1).apply_topics()
    refused = new.run("import", str(copy))
    assert refused.returncode == ExitCode.REFUSED
    assert b"no final export" in refused.stderr
    # From a pipe it is no other than from a file.
    done = new.run("import", "--from-copy", "/dev/stdin", stdin=copy.read_bytes())
    assert done.returncode == 0, done.stderr.decode()
    onto_itself = old.run("import", "--from-copy", str(copy))
    assert onto_itself.returncode == ExitCode.REFUSED
    assert b"has state already" in onto_itself.stderr

    assert old.workers[0].terminate() == 0
    final = tmp_path / "final.jsonl"
    assert old.run("export", "--final", "--file", str(final)).returncode == 0
    other = new.run("import", str(final))
    assert other.returncode == ExitCode.REFUSED
    assert b"another transfer" in other.stderr

    # Taken back, it is the old application's again.
    assert old.run("export", "--reopen").returncode == 0
    worker = old.worker("again").wait_ready()
    listed = old.run("export", "--output", "table")
    assert "a  " in listed.stdout.decode()
    assert worker.alive


def anew(app: Deployment) -> None:
    """Topics of the same names with other ids, as another cluster has them; and a new changelog."""
    admin = AdminClient({"bootstrap.servers": app.kafka.bootstrap})
    for gone in admin.delete_topics([app.requests, app.commands]).values():
        gone.result(30)
    wait(
        lambda: not {app.requests, app.commands} & admin.list_topics(timeout=10).topics.keys(),
        "the topics to be gone",
    )
    app.changelog = f"{app.changelog}-anew"
    app.apply_topics()


@pytest.mark.timeout(180)
def test_a_move_to_a_topic_of_the_same_name_mixes_up_nothing(deploy: Deploy, tmp_path: Path) -> None:
    """Its offsets begin anew: orders are told by timestamps, and no name is given twice."""
    app = deploy(partitions=1).apply_topics()
    app.worker().wait_ready()
    out, replies = app.destination("out"), app.destination("replies")
    due_ms = int(time.time() * 1000) + 20_000
    with app.reader(replies) as reader:
        _, offset = app.request(b"old", {"destination": out, "at": str(due_ms)})
        assert offset == 0
        app.request(None, {"action": "cancel", "id": "b"})
        app.request(b"a", {"destination": out, "delay": "1h", "id": "a", "reply-to": replies})
        reader.take(1)
    assert app.workers[0].terminate() == 0
    file = tmp_path / "moved.jsonl"
    exported = app.run("export", "--final", "--file", str(file))
    assert exported.returncode == 0, exported.stderr.decode()

    anew(app)
    done = app.run("import", str(file))
    assert done.returncode == 0, done.stderr.decode()
    new = app.worker("new").wait_ready()
    assert app.request(b"new", {"destination": out, "at": str(due_ms)}) == (0, 0)
    answered = app.run("cancel", "--match-id-prefix", "a", "--reply-to", replies, "--output", "json")
    assert json.loads(answered.stdout)["count"] == 1, answered.stderr.decode()
    app.request(b"b", {"destination": out, "at": str(due_ms), "id": "b"})
    with app.reader(out) as reader:
        deliveries = reader.take(3)
        reader.quiet(1.0)
    origin = next(
        json.loads(line)["topic_id"]
        for line in file.read_bytes().splitlines()
        if json.loads(line).get("topic") == app.requests
    )
    named = {delivery.value: delivery.text("delaystream-fire-id") for delivery in deliveries}
    assert named[b"old"] == f"{app.requests}@{origin}/0/0/0/{due_ms}"
    assert named[b"new"] == f"{app.requests}/0/0/0/{due_ms}"
    assert named[b"b"].startswith(f"{app.requests}/r")
    assert new.terminate() == 0
