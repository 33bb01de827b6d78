"""The command line's control of schedules, against a worker: each command, its receipt, its exit code."""

from __future__ import annotations

import json
from uuid import uuid4

from delaystream.exit_codes import ExitCode
from tests.integration.harness import Deployment


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
    assert missing.returncode == ExitCode.UNAVAILABLE
    assert b"Nothing was sent" in missing.stderr


def test_a_command_that_nobody_carries_out_ends_in_time(app: Deployment) -> None:
    """It says where the request stands, for it may still be carried out."""
    replies, idle = app.destination("idle-replies"), app.destination("idle-requests")
    done = app.run("cancel", "x", "--topic", idle, "--reply-to", replies, "--timeout", "1")
    assert done.returncode == ExitCode.TIMEOUT
    assert f"The request stands at {idle}/0/0 and may still be carried out" in done.stderr.decode()
