"""The command line's control of schedules, against a worker: each command, its receipt, its exit code."""

from __future__ import annotations

import json
from uuid import uuid4

import pytest

from delaystream.exit_codes import ExitCode
from tests.integration.harness import Deployment
from tests.integration.harness_fixtures import Deploy
from tests.integration.harness_kafka import Delivery


def test_each_command_waits_for_its_outcome(app: Deployment) -> None:
    """Printed as the worker wrote it; 0 for what was asked for, 65 for anything else, 75 for nothing."""
    out, replies, tag = app.destination("controlled"), app.destination("control-replies"), uuid4().hex
    first, second = f"a {tag} ☂", f"b {tag}"

    def run(*arguments: str, exit_code: int = 0) -> str:
        done = app.run(*arguments, "--reply-to", replies)
        assert done.returncode == exit_code, done.stderr.decode()
        return done.stdout.decode()

    for id in (first, second):
        cron = ["--cron", "@yearly", "--id", id, "--tags", f"{tag},x", "--to", out]
        assert "scheduled" in run("send", *cron, "v")
    assert "triggered" in run("trigger", first)
    assert "rescheduled" in run("reschedule", first, "--cron", "@monthly")
    (fired,) = app.kafka.read(out, 1)
    assert (fired.value, fired.text("delaystream-schedule-id")) == (b"v", first)

    bulk = json.loads(run("pause", "--match-tags", tag, "--output", "json"))
    assert (bulk["outcome"], bulk["count"]) == ("paused", 2)
    assert json.loads(run("cancel", "--match-id-prefix", f"a {tag}", "--output", "json"))["count"] == 1
    assert "too-late" in run("pause", first, exit_code=ExitCode.REFUSED)
    missing = app.run("cancel", second, "--reply-to", app.topic("nowhere"))
    assert missing.returncode == ExitCode.CONFIGURATION
    assert b"Nothing was sent" in missing.stderr


@pytest.mark.timeout(120)
def test_what_is_cancelled_is_not_delivered_by_a_worker_with_an_allow_list(deploy: Deploy) -> None:
    """As in the README: the command line's receipts need no place in the allow-list.

    Where a receipt may not be written, the command counts all the same, and its event and the log say it.
    """
    app = deploy(partitions=2, DELAYSTREAM_DESTINATIONS_ALLOW="").apply_topics()
    out = app.destination("reminders")
    worker = app.worker(DELAYSTREAM_DESTINATIONS_ALLOW=out)
    worker.wait_ready()
    denied = app.destination("denied")

    def send(id: str, delay: str) -> None:
        asked = ("--id", id, "--to", out, "--delay", delay, "--reply-to", app.receipts)
        done = app.run("send", id, *asked)
        assert b"scheduled" in done.stdout, done.stderr

    send("invoice-7", "15s")
    cancelled = app.run("cancel", "invoice-7")
    assert (cancelled.returncode, b"cancelled" in cancelled.stdout) == (0, True), cancelled.stderr
    send("silent", "15s")
    silent = app.run("cancel", "silent", "--reply-to", denied, "--timeout", "1")
    assert silent.returncode == ExitCode.TIMEOUT
    assert f"does its destinations_allow include {denied}" in silent.stderr.decode()
    send("waits", "1h")
    for command in (["pause", "waits"], ["resume", "waits"], ["reschedule", "waits", "--delay", "16s"]):
        done = app.run(*command)
        assert done.returncode == 0, done.stderr

    # What is due later goes out first: nothing was left of the others.
    assert [delivery.value for delivery in app.kafka.read(out, 1)] == [b"waits"]
    with app.reader(app.events) as reader:
        events = [json.loads(event.value or b"") for event in reader.take(2, wanted=_cancelled)]
    told = {event["id"]: event.get("no_receipt") for event in events}
    assert told == {"invoice-7": None, "silent": f"'{denied}' is not in the allow-list"}
    assert "1 requests got no receipt" in worker.output()
    assert app.kafka.end_offsets(denied) == [0]


def _cancelled(event: Delivery) -> bool:
    return bool(json.loads(event.value or b"{}")["type"] == "cancelled")


def test_a_topic_that_no_receipt_may_be_written_to_is_refused_before_anything_is_sent(
    app: Deployment,
) -> None:
    """Nobody waits for what cannot come."""
    done = app.run("cancel", "x", "--reply-to", app.commands)
    assert done.returncode == ExitCode.REFUSED
    assert b"not sent, there would be no receipt" in done.stderr


@pytest.mark.timeout(120)
def test_a_worker_runs_without_the_topic_for_receipts(deploy: Deploy) -> None:
    """It warns; the command line says what to do, and sends nothing that nobody would hear of."""
    app = deploy(partitions=1).apply_topics()
    app.kafka.delete(app.receipts)
    worker = app.worker()
    worker.wait_ready()
    assert f"The topic {app.receipts} does not exist" in worker.output()
    done = app.run("cancel", "x")
    assert done.returncode == ExitCode.CONFIGURATION
    assert b"Nothing was sent" in done.stderr
    assert b"delaystream topics apply" in done.stderr
    app.apply_topics()
    done = app.run("cancel", "x")
    assert (done.returncode, b"unknown" in done.stdout) == (ExitCode.REFUSED, True), done.stderr


def test_a_command_that_nobody_carries_out_ends_in_time(app: Deployment) -> None:
    """It says where the request stands, for it may still be carried out."""
    replies, idle = app.destination("idle-replies"), app.destination("idle-requests")
    done = app.run("cancel", "x", "--topic", idle, "--reply-to", replies, "--timeout", "1")
    assert done.returncode == ExitCode.TIMEOUT
    assert f"The request stands at {idle}/0/0 and may have been carried out" in done.stderr.decode()
