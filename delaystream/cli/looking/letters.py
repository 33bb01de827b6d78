"""What is done about dead letters, by a console: `redrive` and `discard`."""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final
from uuid import uuid4

import typer

from delaystream.cli.groups import expanded
from delaystream.cli.looking.commands import Asking, To, one
from delaystream.cli.output import complain, say
from delaystream.exit_codes import ExitCode
from delaystream.printable import printable

_LOOK_S: Final = 0.5
_ENDED: Final = frozenset({"done", "stopped", "failed", "interrupted"})

Place = Annotated[
    str | None,
    typer.Argument(
        help="The letter, as `dead-letters` has it: 0.12. Without one: --code, --to, --id, ….",
        metavar="LETTER",
    ),
]
Code = Annotated[str | None, typer.Option(help="All that are open and have this code.", metavar="CODE")]
OfId = Annotated[str | None, typer.Option("--id", help="All that are open and of this id.", metavar="ID")]
From = Annotated[str | None, typer.Option(help="Of many: not before.", metavar="TIME")]
Before = Annotated[str | None, typer.Option(help="Of many: before.", metavar="TIME")]
Note = Annotated[str | None, typer.Option(help="Why, for people.", metavar="TEXT")]


@expanded
def redrive(
    *,
    letter: Place = None,
    set_: Annotated[
        list[str] | None,
        typer.Option(
            "--set-header",
            help="Replace all headers of this name; delaystream's own have no prefix here: delay=15m. "
            "Repeatable.",
            metavar="NAME=VALUE",
        ),
    ] = None,
    remove: Annotated[
        list[str] | None,
        typer.Option(
            help="Leave out a header; delaystream's own have no prefix here. Repeatable.", metavar="NAME"
        ),
    ] = None,
    destination: Annotated[
        str | None, typer.Option(help="Deliver it to another topic.", metavar="TOPIC")
    ] = None,
    value_file: Annotated[
        Path | None, typer.Option(help="For one letter: a value in place of its own.", metavar="FILE")
    ] = None,
    if_exists: Annotated[
        str | None,
        typer.Option(help="If its id is in use: keep (default), replace or reject.", metavar="WHAT"),
    ] = None,
    again: Annotated[
        bool,
        typer.Option("--again", help="For one letter: also if it was sent again before, or discarded."),
    ] = False,
    code: Code = None,
    to: To = None,
    id: OfId = None,
    at_from: From = None,
    at_to: Before = None,
    rate: Annotated[
        float, typer.Option(help="For many letters: how many a second.", metavar="N", min=0.01, max=200)
    ] = 10,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Say what would be sent, and send nothing.")
    ] = False,
    note: Note = None,
    asking: Asking,
) -> None:
    """Send a dead letter again, or many, as they are or repaired, and tell what came of it, by a console.

    Each is checked as a worker would read it, and sent once, however often that is asked for.

    Exits with 0, 65 when it is refused, by the console or by the worker, 69 when no console answers, 75 when
    no worker answers in time.

    Example: delaystream redrive 0.12 --set-header delay=15m --note 'typo of release 4.2'
    """
    repair: dict[str, Any] = {
        "set": [_pair(text) for text in set_ or ()] or None,
        "remove": [_header(name) for name in remove or ()] or None,
        "if_exists": if_exists,
        "note": note,
    }
    if letter is None:
        if value_file is not None or again:
            raise typer.BadParameter("--value-file and --again need one letter: name it")
        repair |= {"new_destination": destination, "rate": rate}
        many = {**_wanted(asking, code, to, id, at_from, at_to), **repair}
        _many(asking, many, dry_run=dry_run)
        return
    repair["destination"] = destination
    if value_file is not None:
        repair["value_base64"] = _encoded(value_file)
    if dry_run:
        found = _change(asking, f"/v1/dead-letters/{letter}/check", repair)
        _say(one(asking.form, found))
        if not found["sendable"]:
            raise typer.Exit(ExitCode.REFUSED)
        return
    told = _change(asking, f"/v1/dead-letters/{letter}/redrive", {**repair, "again": again or None})
    _say(one(asking.form, told["last_act"]) if asking.form in {"table", "wide"} else one(asking.form, told))
    if told["standing"] == "rejected":
        raise typer.Exit(ExitCode.REFUSED)
    if told["standing"] == "sending":
        complain("it was sent, and no worker has decided on it yet")
        raise typer.Exit(ExitCode.TIMEOUT)


@expanded
def discard(
    *,
    letter: Place = None,
    code: Code = None,
    to: To = None,
    id: OfId = None,
    at_from: From = None,
    at_to: Before = None,
    undo: Annotated[bool, typer.Option("--undo", help="For one letter: open it again.")] = False,
    note: Note = None,
    asking: Asking,
) -> None:
    """Set a dead letter aside, or many: lists leave them out. They stay on their topic. By a console.

    Exits with 0, 65 when the console refuses it, 69 when none answers.

    Example: delaystream discard 0.14 --note 'of a test'
    """
    if letter is None:
        if undo:
            raise typer.BadParameter("--undo needs one letter: name it")
        body = {**_wanted(asking, code, to, id, at_from, at_to), "note": note}
        say(f"{_change(asking, '/v1/dead-letters/discard', body)['count']} discarded")
        return
    what = "reopen" if undo else "discard"
    told = _change(asking, f"/v1/dead-letters/{letter}/{what}", {"note": note})
    if asking.form in {"table", "wide"}:
        say(told["standing"])
    else:
        _say(one(asking.form, told))


def _many(asking: Asking, body: Mapping[str, Any], *, dry_run: bool) -> None:
    told = _change(asking, "/v1/dead-letters/redrive", {**body, "dry_run": dry_run})
    if dry_run:
        _say(one(asking.form, told) if asking.form not in {"table", "wide"} else _look(told))
        return
    from delaystream.cli.looking.console_client import ask, console_at

    at = console_at(asking.load())
    try:
        while told["stage"] not in _ENDED:
            time.sleep(_LOOK_S)
            told = ask(at, f"/v1/dead-letters/runs/{told['run']}", {})
    except KeyboardInterrupt:
        _change(asking, f"/v1/dead-letters/runs/{told['run']}/stop", {})
        complain("stopped; what was sent stands")
        raise
    _say(one(asking.form, told))
    if told["stage"] != "done" or told["refused"] or "rejected" in told["standing"]:
        raise typer.Exit(ExitCode.REFUSED)


def _look(told: Mapping[str, Any]) -> str:
    refused = sum(told["refused"].values())
    lines = [f"{told['total'] - refused} of {told['total']} would be sent"]
    lines += [
        f"{count} would be refused: {printable(code)}" for code, count in sorted(told["refused"].items())
    ]
    return "\n".join(lines)


def _wanted(
    asking: Asking,
    code: str | None,
    to: str | None,
    id: str | None,
    at_from: str | None,
    at_to: str | None,
) -> dict[str, Any]:
    return {
        "request_topic": None if asking.topic is None else [asking.topic],
        "code": code,
        "destination": to,
        "id": id,
        "at_from": at_from,
        "at_to": at_to,
    }


def _change(asking: Asking, path: str, body: Mapping[str, Any]) -> dict[str, Any]:
    from delaystream.cli.looking.console_client import change, console_at

    # A connection that breaks and is tried again asks for nothing twice.
    return change(
        console_at(asking.load()), path, body, {"Idempotency-Key": uuid4().hex, "Prefer": "wait=60"}
    )


def _say(text: str) -> None:
    say(*text.split("\n"))


def _pair(text: str) -> list[str]:
    name, equals, value = text.partition("=")
    if not equals:
        raise typer.BadParameter(f"--set-header is {text!r}: expected NAME=VALUE")
    return [_header(name), value]


def _header(name: str) -> str:
    from delaystream.codec.requests.names import PREFIX, SUPPORTED

    return PREFIX + name if name in SUPPORTED else name


def _encoded(path: Path) -> str:
    from base64 import b64encode

    try:
        return b64encode(path.read_bytes()).decode()
    except OSError as error:
        raise typer.BadParameter(f"--value-file: {error.strerror}") from None
