"""`delaystream operations`: what it asks a console for, and what it shows of the answers."""

import json
from typing import Any

import pytest

from delaystream.cli import main
from delaystream.cli.looking import operations
from delaystream.exit_codes import ExitCode
from tests.unit.console.test_looking import HOSTILE, Asked, console

__all__ = ["console"]


def operation(stage: str = "dry-run", failed: int = 0, **said: Any) -> dict[str, Any]:
    return {
        "id": "3f9c",
        "action": "cancel",
        "stage": stage,
        "count": 2,
        "made_at": "2030-01-01T00:00:00.000Z",
        "made_by": "boss",
        "note": HOSTILE,
        "progress": {"changed": 2 - failed, "failed": failed, "left": 0},
        "samples": [{"id": HOSTILE, "source": "a/0/1"}, {"id": None, "source": "a/0/2"}],
        **said,
    }


def test_a_dry_run_is_asked_for_by_a_filter(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    console.answer(operation(), 201)
    arguments = ["operations", "make", "cancel", "--key", "customer-7", "--unnamed", "--note", "closed"]
    assert main(arguments) == ExitCode.OK
    assert console.questions == [("/v1/operations", {})]
    assert console.bodies == [
        {"action": "cancel", "filter": {"key": "customer-7", "unnamed": True}, "note": "closed"}
    ]
    out = capsys.readouterr().out
    assert "3f9c" in out
    assert "a/0/2" in out
    assert all(character.isprintable() or character == "\n" for character in out)


def test_a_list_of_ids_and_all_of_it(console: Asked) -> None:
    console.answer(operation(), 201)
    arguments = ["operations", "make", "pause", "--id", "a", "--id", "b", "--topic", "one", "--until", "1d"]
    assert main(arguments) == ExitCode.OK
    console.answer(operation(), 201)
    assert main(["operations", "make", "resume", "--everything", "--catch-up", "none"]) == ExitCode.OK
    named = [{"id": "a", "request_topic": "one"}, {"id": "b", "request_topic": "one"}]
    assert console.bodies == [
        {"action": "pause", "schedules": named, "until": "1d"},
        {"action": "resume", "filter": {}, "catch_up": "none"},
    ]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        # All events without an id would be everything, too.
        ["--unnamed"],
        ["--topic", "one"],
        ["--id", "a", "--key", "b"],
        ["--id", "a", "--everything"],
    ],
)
def test_nothing_is_asked_for_without_saying_which(arguments: list[str], console: Asked) -> None:
    assert main(["operations", "make", "cancel", *arguments]) == ExitCode.USAGE
    assert console.bodies == []


def test_a_start_waits_until_it_has_ended(
    console: Asked, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not changed is told by the exit code."""
    monkeypatch.setattr(operations, "_WATCH_S", 0.0)
    for failed, code in ((0, ExitCode.OK), (1, ExitCode.REFUSED)):
        console.answer(operation("running"))
        console.answer(operation("running"))
        console.answer(operation("done", failed))
        arguments = ["operations", "start", "3f9c", "--rate", "50", "--wait", "-o", "json"]
        assert main(arguments) == code
        assert json.loads(capsys.readouterr().out)["stage"] == "done"
    assert console.bodies == [{"rate": 50}] * 2
    assert [path for path, _ in console.questions[:3]] == [
        "/v1/operations/3f9c/start", "/v1/operations/3f9c", "/v1/operations/3f9c",
    ]  # fmt: skip


def test_stop_undo_show_and_lists(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    console.answer(operation("stopped"))
    console.answer(operation("running", undo_of="3f9c"), 201)
    console.answer(operation("done"))
    for what in ("stop", "undo", "show"):
        assert main(["operations", what, "3f9c"]) == ExitCode.OK
    console.answer({"items": [operation("done")], "next_cursor": None})
    assert main(["operations", "list"]) == ExitCode.OK
    failure = {"id": None, "source": "a/0/1", "request_topic": "a", "code": "too-late", "detail": HOSTILE}
    console.answer({"items": [failure], "next_cursor": None})
    assert main(["operations", "failures", "3f9c"]) == ExitCode.OK
    assert [path for path, _ in console.questions] == [
        "/v1/operations/3f9c/stop", "/v1/operations/3f9c/undo", "/v1/operations/3f9c", "/v1/operations",
        "/v1/operations/3f9c/failures",
    ]  # fmt: skip
    out = capsys.readouterr().out
    assert "too-late" in out
    assert all(character.isprintable() or character == "\n" for character in out)


def test_what_the_console_refuses_is_a_sentence(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    console.answer({"code": "expired", "detail": "The dry run is too old."}, 409)
    assert main(["operations", "start", "3f9c"]) == ExitCode.REFUSED
    assert "The dry run is too old." in capsys.readouterr().err
