"""`delaystream operations`: cancel, pause, resume or trigger many, by a console."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from delaystream.cli.groups import expanded
from delaystream.cli.looking.commands import Asking, Key, Limit, Tag, To
from delaystream.cli.output import complain, say
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.cli.looking.console_output import Column

_PATH: Final = "/v1/operations"
_PAGE: Final = 100
_WATCH_S: Final = 1.0

_OPERATIONS: Final[Sequence[Column]] = (
    ("id", "id"),
    ("action", "action"),
    ("stage", "stage"),
    ("count", "count"),
    ("changed", "progress.changed"),
    ("failed", "progress.failed"),
    ("left", "progress.left"),
    ("made", "made_at"),
    ("by", "made_by"),
)
_OPERATIONS_WIDE: Final[Sequence[Column]] = (
    *_OPERATIONS,
    ("started by", "started_by"),
    ("ended", "ended_at"),
    ("undo until", "undo_until"),
    ("undone by", "undone_by"),
    ("note", "note"),
)
_FAILURES: Final[Sequence[Column]] = (
    ("what", "id|source"),
    ("request topic", "request_topic"),
    ("code", "code"),
    ("detail", "detail"),
)

Operation = Annotated[
    str, typer.Argument(help="Id of the operation, as `make` and `list` print it.", metavar="OPERATION")
]
Rate = Annotated[
    int | None,
    typer.Option("--rate", help="Commands a second; default: the console's setting.", metavar="N", min=1),
]
Wait = Annotated[bool, typer.Option("--wait", help="Until it has ended.")]

operations = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Cancel, pause, resume or trigger many, by a console: `make` freezes them, `start` changes them.",
)


@operations.command("make")
@expanded
def make(
    *,
    action: Annotated[str, typer.Argument(help="cancel, pause, resume or trigger.", metavar="ACTION")],
    to: To = None,
    key: Key = None,
    tag: Tag = None,
    prefix: Annotated[str, typer.Option(help="Only ids that begin with this.", metavar="TEXT")] = "",
    search: Annotated[str, typer.Option(help="Words of id, name or description.", metavar="TEXT")] = "",
    unnamed: Annotated[bool, typer.Option("--unnamed", help="Events without an id, too.")] = False,
    id: Annotated[
        list[str] | None,
        typer.Option("--id", help="An id, in place of a filter. Repeatable.", metavar="ID"),
    ] = None,
    everything: Annotated[
        bool, typer.Option("--everything", help="All that you may change, without a filter.")
    ] = False,
    note: Annotated[str | None, typer.Option(help="Why, for people.", metavar="TEXT")] = None,
    until: Annotated[str | None, typer.Option(help="For pause: when it ends.", metavar="TIME")] = None,
    catch_up: Annotated[
        str | None, typer.Option(help="For resume: latest, all, none.", metavar="WHAT")
    ] = None,
    asking: Asking,
) -> None:
    """Freeze what matches, and tell what would be changed; nothing is sent before `start`.

    Exits with 0, 64 without a filter, 65 when the console refuses it, 69 when none answers.

    Example: delaystream operations make cancel --key customer-7 --unnamed --note 'account closed'
    """
    filter: dict[str, Any] = {
        "request_topic": asking.topic,
        "destination": to,
        "key": key,
        "tag": tag,
        "id_prefix": prefix or None,
        "q": search or None,
        "unnamed": unnamed or None,
    }
    filter = {name: value for name, value in filter.items() if value is not None}
    narrows = filter.keys() - {"unnamed", "request_topic"}
    if id and (narrows or unnamed or everything):
        raise typer.BadParameter("--id and a filter are given: expected one of them")
    if not (id or narrows or everything):
        raise typer.BadParameter("no schedules are selected: give a filter, --id, or --everything")
    body = {
        "action": action,
        "filter": None if id else filter,
        "schedules": [{"id": one, **_of_topic(asking.topic)} for one in id] if id else None,
        "note": note,
        "until": until,
        "catch_up": catch_up,
    }
    _told(asking, _PATH, body)


@operations.command("list")
@expanded
def list_(*, limit: Limit = 50, asking: Asking) -> None:
    """List operations, the latest first.

    Exits with 0, 65 when the console refuses the question, 69 when none answers.

    Example: delaystream operations list -o wide
    """
    _pages(asking, _PATH, limit, _OPERATIONS, _OPERATIONS_WIDE)


@operations.command("show")
@expanded
def show(*, operation: Operation, asking: Asking) -> None:
    """Tell what an operation is about, and how far it is.

    Exits with 0, 65 when it is unknown, 69 when no console answers.

    Example: delaystream operations show 3f9c0a --watch
    """
    from delaystream.cli.looking.console_client import ask, console_at

    at = console_at(asking.load())
    say(*_one(asking, ask(at, _path(operation), {})).split("\n"))
    while asking.watch:
        time.sleep(_WATCH_S)
        say("", *_one(asking, ask(at, _path(operation), {})).split("\n"))


@operations.command("failures")
@expanded
def failures(*, operation: Operation, limit: Limit = 50, asking: Asking) -> None:
    """List what an operation did not change, and why.

    Exits with 0, 65 when it is unknown, 69 when no console answers.

    Example: delaystream operations failures 3f9c0a
    """
    _pages(asking, _path(operation, "/failures"), limit, _FAILURES, _FAILURES)


@operations.command("start")
@expanded
def start(*, operation: Operation, rate: Rate = None, wait: Wait = False, asking: Asking) -> None:
    """Send an operation's commands at a bounded rate; one that was stopped goes on.

    Exits with 0, 65 when the console refuses it, or with --wait when something was not changed; 69 when no
    console answers.

    Example: delaystream operations start 3f9c0a --rate 50 --wait
    """
    _told(asking, _path(operation, "/start"), {"rate": rate}, wait=wait)


@operations.command("stop")
@expanded
def stop(*, operation: Operation, asking: Asking) -> None:
    """Send no more of an operation; what was sent, stands.

    Exits with 0, 65 when the console refuses it, 69 when none answers.

    Example: delaystream operations stop 3f9c0a
    """
    _told(asking, _path(operation, "/stop"), {})


@operations.command("undo")
@expanded
def undo(*, operation: Operation, rate: Rate = None, wait: Wait = False, asking: Asking) -> None:
    """Send again what a cancel took away, for ten minutes after its end; tells the operation that does.

    Exits with 0, 65 when the console refuses it, or with --wait when something did not come back; 69 when no
    console answers.

    Example: delaystream operations undo 3f9c0a --wait
    """
    _told(asking, _path(operation, "/undo"), {"rate": rate}, wait=wait)


def _path(operation: str, what: str = "") -> str:
    return f"{_PATH}/{quote(operation, safe='')}{what}"


def _of_topic(topic: str | None) -> dict[str, str]:
    return {} if topic is None else {"request_topic": topic}


def _told(asking: Asking, path: str, body: dict[str, Any], *, wait: bool = False) -> None:
    from delaystream.cli.looking.console_client import ask, change, console_at

    _ = asking.form
    at = console_at(asking.load())
    told = change(at, path, body)
    while wait and told["stage"] == "running":
        time.sleep(_WATCH_S)
        told = ask(at, _path(told["id"]), {})
    say(*_one(asking, told).split("\n"))
    if wait and (told["stage"] != "done" or told["progress"]["failed"]):
        complain("some of it failed: `delaystream operations failures` says why")
        raise typer.Exit(ExitCode.REFUSED)


def _pages(asking: Asking, path: str, limit: int, columns: Sequence[Column], wide: Sequence[Column]) -> None:
    from delaystream.cli.looking import console_output
    from delaystream.cli.looking.console_client import ask, console_at

    form = asking.form
    at = console_at(asking.load())
    items: list[dict[str, Any]] = []
    cursor = None
    while True:
        body = ask(at, path, {"limit": min(_PAGE, limit - len(items)), "cursor": cursor})
        items += body["items"]
        cursor = body["next_cursor"]
        if cursor is None or len(items) >= limit:
            break
    match form:
        case "json":
            say(*console_output.json({**body, "items": items}).split("\n"))
        case "yaml":
            say(*console_output.yaml({**body, "items": items}).split("\n"))
        case "jsonl":
            say(*console_output.jsonl(items).split("\n"))
        case _:
            say(
                *console_output.table(items, wide if form == "wide" else columns, cut=form == "table").split(
                    "\n"
                )
            )


def _one(asking: Asking, body: dict[str, Any]) -> str:
    from delaystream.cli.looking import console_output

    match asking.form:
        case "json":
            return console_output.json(body)
        case "yaml":
            return console_output.yaml(body)
        case "jsonl":
            return console_output.jsonl([body])
    return console_output.facts({**body, "samples": [one["id"] or one["source"] for one in body["samples"]]})
