"""What a console knows: `list`, `get`, `fires`, `upcoming`, `pending`, `dead-letters`, `where`, `stats`."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Final
from urllib.parse import quote

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded
from delaystream.cli.output import complain, say
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.cli.looking.console_output import Column, Form
    from delaystream.config import Settings

_PAGE: Final = 500
_WATCH_S: Final = 2.0

_SCHEDULES: Final[Sequence[Column]] = (
    ("id", "id"),
    ("status", "status"),
    ("destination", "definition.destination"),
    ("next", "next_at"),
    ("last", "last_fired_at"),
    ("fired", "fired"),
)
_SCHEDULES_WIDE: Final[Sequence[Column]] = (
    *_SCHEDULES,
    ("missed", "missed"),
    ("request topic", "request_topic"),
    ("version", "version"),
    ("name", "definition.name"),
    ("tags", "definition.tags"),
    ("note", "note"),
)
_PENDING: Final[Sequence[Column]] = (
    ("due", "due_at"),
    ("destination", "destination"),
    ("what", "id|source"),
    ("key", "key|key_base64"),
    ("status", "status"),
)
_PENDING_WIDE: Final[Sequence[Column]] = (
    *_PENDING,
    ("source", "source"),
    ("request topic", "request_topic"),
    ("tags", "tags"),
    ("held by", "held_by"),
)
_FIRES: Final[Sequence[Column]] = (
    ("when", "at"),
    ("what", "type"),
    ("late, ms", "event.lateness_ms"),
    ("destination", "event.destination"),
)
_FIRES_WIDE: Final[Sequence[Column]] = (
    *_FIRES,
    ("fire id", "event.fire_id"),
    ("place", "partition"),
    ("offset", "offset"),
)
_FOUND: Final[Sequence[Column]] = (
    ("state", "state"),
    ("by", "by"),
    ("what", "schedule.id|pending.id|pending.source|event.event.schedule_id"),
    ("destination", "schedule.definition.destination|pending.destination|event.event.destination"),
    ("when", "schedule.next_at|pending.due_at|event.at"),
    ("detail", "detail"),
)
_UPCOMING: Final[Sequence[Column]] = (("at", "at"), ("local time", "local"), ("note", "note"))
_LETTERS: Final[Sequence[Column]] = (
    ("letter", "place"),
    ("when", "at"),
    ("code", "code"),
    ("what", "id|source"),
    ("destination", "destination"),
    ("detail", "detail"),
)
_LETTERS_WIDE: Final[Sequence[Column]] = (
    *_LETTERS,
    ("source", "source"),
    ("request topic", "request_topic"),
    ("key", "key|key_base64"),
    ("bytes", "value_bytes"),
    ("of", "kind"),
    ("standing", "standing"),
    ("by", "last_act.actor"),
)
_COUNTS: Final[Sequence[Column]] = (
    ("request topic", "request_topic"),
    ("destination", "destination"),
    ("status", "status"),
    ("count", "count"),
)

Id = Annotated[str, typer.Argument(help="The id that the request was sent with.", metavar="ID")]
To = Annotated[str | None, typer.Option("--to", "-t", help="Only with this destination.", metavar="TOPIC")]
Key = Annotated[str | None, typer.Option("--key", "-k", help="Only with this key.", metavar="KEY")]
Tag = Annotated[str | None, typer.Option(help="Only with this tag.", metavar="TAG")]
Limit = Annotated[int, typer.Option(help="At most so many.", metavar="N", min=1, max=1_000_000)]


@dataclass(frozen=True)
class Asking:
    """Whom to ask, and the form of the answer."""

    topic: Annotated[
        str | None,
        typer.Option("--topic", "--request-topic", help="Only of this request topic.", metavar="TOPIC"),
    ] = None
    output: Annotated[
        str, typer.Option("--output", "-o", help="table, wide, json, yaml or jsonl.", metavar="FORM")
    ] = "table"
    watch: Annotated[bool, typer.Option("--watch", help="Ask again every 2 seconds, until Ctrl-C.")] = False
    console_url: Annotated[
        str | None,
        typer.Option(
            help="The console (DELAYSTREAM_CONSOLE_URL; default http://127.0.0.1:8643).", metavar="URL"
        ),
    ] = None
    console_token_file: Annotated[
        Path | None,
        typer.Option(
            help="File of the token to show it (DELAYSTREAM_CONSOLE_TOKEN has the token itself).",
            metavar="FILE",
        ),
    ] = None
    config: options.ConfigFile = None
    bootstrap_server: options.BootstrapServers = None
    properties: options.KafkaProperties = None
    settings: options.SettingPairs = None

    @property
    def form(self) -> Form:
        """The form that is wanted. Raises `typer.BadParameter`."""
        match self.output:
            case "table" | "wide" | "json" | "yaml" | "jsonl":
                return self.output
        raise typer.BadParameter(f"--output is {self.output!r}: expected table, wide, json, yaml or jsonl")

    def load(self) -> Settings:
        """The settings. Raises ConfigurationError."""
        from delaystream.cli.looking.console_client import token_of

        token = None if self.console_token_file is None else token_of(self.console_token_file)
        flags = {"console_url": self.console_url, "console_token": token}
        return options.load_settings(
            self.config, self.bootstrap_server, self.properties, self.settings, flags
        ).settings


@expanded
def list_(
    *,
    status: Annotated[
        list[str] | None,
        typer.Option(help="Only these; pending and paused unless given. Repeatable.", metavar="STATUS"),
    ] = None,
    to: To = None,
    key: Key = None,
    tag: Tag = None,
    prefix: Annotated[str, typer.Option(help="Only ids that begin with this.", metavar="TEXT")] = "",
    search: Annotated[str, typer.Option(help="Words of id, name or description.", metavar="TEXT")] = "",
    sort: Annotated[str, typer.Option(help="next, last, id or created.", metavar="BY")] = "next",
    limit: Limit = 50,
    asking: Asking,
) -> None:
    """List schedules that have an id, by a console.

    Exits with 0, 65 when the console refuses the question, 69 when none answers.

    Example: delaystream list --to emails --status paused -o wide
    """
    wanted = {
        "request_topic": asking.topic,
        "status": status,
        "destination": to,
        "key": key,
        "tag": tag,
        "id_prefix": prefix or None,
        "q": search or None,
        "sort": sort,
    }
    _list(asking, "/v1/schedules", wanted, limit, _SCHEDULES, _SCHEDULES_WIDE)


@expanded
def pending(
    *,
    to: To = None,
    key: Key = None,
    tag: Tag = None,
    due_from: Annotated[str | None, typer.Option(help="Not before.", metavar="TIME")] = None,
    due_to: Annotated[str | None, typer.Option(help="Before.", metavar="TIME")] = None,
    limit: Limit = 50,
    asking: Asking,
) -> None:
    """List everything that is to come, in due order, by a console.

    Exits with 0, 65 when the console refuses the question, 69 when none answers.

    Example: delaystream pending --key customer-17
    """
    wanted = {
        "request_topic": asking.topic,
        "destination": to,
        "key": key,
        "tag": tag,
        "due_from": due_from,
        "due_to": due_to,
    }
    _list(asking, "/v1/pending", wanted, limit, _PENDING, _PENDING_WIDE)


@expanded
def fires(*, id: Id, limit: Limit = 50, asking: Asking) -> None:
    """List what became of a schedule's due times, the latest first, by a console.

    Exits with 0, 65 when the id is unknown, 69 when no console answers.

    Example: delaystream fires stand-up --limit 5
    """
    path = f"/v1/schedules/{quote(id, safe='')}/fires"
    _list(asking, path, {"request_topic": asking.topic}, limit, _FIRES, _FIRES_WIDE)


@expanded
def upcoming(
    *,
    id: Id,
    count: Annotated[int, typer.Option(help="So many times.", metavar="N", min=1, max=500)] = 10,
    asking: Asking,
) -> None:
    """List when a schedule fires next, with what the clocks do, by a console; of a paused one, when it would.

    Exits with 0, 65 when the id is unknown, 69 when no console answers.

    Example: delaystream upcoming stand-up --count 3
    """
    path = f"/v1/schedules/{quote(id, safe='')}/upcoming"
    _ask(asking, path, {"request_topic": asking.topic, "count": count}, "items", _UPCOMING)


@expanded
def dead_letters(
    *,
    code: Annotated[str | None, typer.Option(help="Only with this code.", metavar="CODE")] = None,
    to: To = None,
    id: Annotated[str | None, typer.Option("--id", help="Only of this id.", metavar="ID")] = None,
    at_from: Annotated[str | None, typer.Option(help="Not before.", metavar="TIME")] = None,
    at_to: Annotated[str | None, typer.Option(help="Before.", metavar="TIME")] = None,
    standing: Annotated[
        list[str] | None,
        typer.Option(
            help="Only with this standing: open, sending, accepted, unchanged, rejected, failed, discarded "
            "or all (default: those that need an action). Repeatable.",
            metavar="STANDING",
        ),
    ] = None,
    limit: Limit = 50,
    asking: Asking,
) -> None:
    """List refused requests, impossible fires and what consumers gave up, the latest first, by a console.

    It keeps the last 10,000; all of them are on their topic. `delaystream redrive` sends them again.

    Exits with 0, 65 when the console refuses the question, 69 when none answers.

    Example: delaystream dead-letters --code invalid-delay -o wide
    """
    wanted = {
        "request_topic": asking.topic,
        "code": code,
        "destination": to,
        "id": id,
        "at_from": at_from,
        "at_to": at_to,
        "standing": standing or None,
    }
    _list(asking, "/v1/dead-letters", wanted, limit, _LETTERS, _LETTERS_WIDE)


@expanded
def get(
    *,
    id: Id,
    payload: Annotated[bool, typer.Option("--payload", help="With what is delivered.")] = False,
    asking: Asking,
) -> None:
    """Tell what a schedule is, by a console; without one, by `describe`.

    Exits with 0, 65 when the id is unknown, 69 when neither console nor Kafka answers, 75 when no worker
    answers in time.

    Example: delaystream get stand-up -o yaml
    """
    path = f"/v1/schedules/{quote(id, safe='')}"
    parameters = {"request_topic": asking.topic, "payload": "true" if payload else None}
    _or_describe(asking, id, path, parameters, lambda body: one(asking.form, body))


@expanded
def where(
    *,
    word: Annotated[
        str,
        typer.Argument(
            help="An id, a key, a tag, a fire id, or coordinates such as delay-requests/3/1207.",
            metavar="WORD",
        ),
    ],
    asking: Asking,
) -> None:
    """Tell where an event is: all that a console knows by one word.

    Without a console, what `describe` says of an id.

    Exits with 0, 65 when nothing is known, 69 when neither console nor Kafka answers, 75 when no worker
    answers in time.

    Example: delaystream where delay-requests/3/1207
    """

    def show(body: dict[str, Any]) -> str:
        return _many(asking.form, body, body["items"], _FOUND, _FOUND)

    if not _or_describe(asking, word, "/v1/where", {"q": word}, show)["items"]:
        complain("nothing is known of it")
        raise typer.Exit(ExitCode.REFUSED)


@expanded
def stats(*, asking: Asking) -> None:
    """Tell how much is pending, by request topic, destination and status, by a console.

    Exits with 0, 69 when no console answers.

    Example: delaystream stats -o json
    """
    _ask(asking, "/v1/stats", {}, "by_destination", _COUNTS)


def _ask(
    asking: Asking, path: str, parameters: dict[str, Any], items: str, columns: Sequence[Column]
) -> None:
    """Show the answer to one question, and again if that is wanted."""
    from delaystream.cli.looking.console_client import ask, console_at

    at = console_at(asking.load())

    def shown() -> str:
        body = ask(at, path, parameters)
        return _many(asking.form, body, body[items], columns, columns)

    _show(asking, shown)


def _list(
    asking: Asking,
    path: str,
    parameters: dict[str, Any],
    limit: int,
    columns: Sequence[Column],
    wide: Sequence[Column],
) -> None:
    from delaystream.cli.looking.console_client import ask, console_at

    at = console_at(asking.load())

    def shown() -> str:
        items: list[dict[str, Any]] = []
        cursor = None
        while True:
            most = min(_PAGE, limit - len(items))
            body = ask(at, path, {**parameters, "limit": most, "cursor": cursor})
            items += body["items"]
            cursor = body["next_cursor"]
            if cursor is None or len(items) >= limit:
                return _many(asking.form, {**body, "items": items}, items, columns, wide)

    _show(asking, shown)


def _or_describe(
    asking: Asking,
    id: str,
    path: str,
    parameters: dict[str, Any],
    show: Callable[[dict[str, Any]], str],
) -> dict[str, Any]:
    """Ask the console, and show its answer; a worker, where no console answers. That ends the command."""
    from delaystream.cli.looking.console_client import ConsoleUnavailableError, ask, console_at

    settings = asking.load()
    at = console_at(settings)
    body: dict[str, Any] = {}

    def shown() -> str:
        nonlocal body
        body = ask(at, path, parameters)
        return show(body)

    try:
        _show(asking, shown)
    except ConsoleUnavailableError as unavailable:
        complain(f"{unavailable} A worker is asked, over Kafka.")
        _describe(settings, asking, id)
        raise typer.Exit from None
    return body


def _describe(settings: Settings, asking: Asking, id: str) -> None:
    from delaystream.cli.requests import replies
    from delaystream.client.requests.records import command_request

    as_json = asking.form in {"json", "jsonl", "yaml"}
    waiting = options.Waiting(output="json" if as_json else "human")
    said = {"reply_to": waiting.topic(settings)}
    request = command_request(asking.topic or settings.request_topics[0], "describe", id, said)
    replies.check(settings, request, "describe")
    asked = replies.Asked(request, "describe", lambda _: "describe requested")
    replies.send(settings, asked, waiting)


def _show(asking: Asking, shown: Callable[[], str]) -> None:
    """Print it, again and again if that is wanted."""
    _ = asking.form
    try:
        say(*shown().split("\n"))
        while asking.watch:
            time.sleep(_WATCH_S)
            say("", *shown().split("\n"))
    except KeyboardInterrupt:
        if not asking.watch:
            raise


def _many(
    form: Form,
    body: dict[str, Any],
    items: Sequence[dict[str, Any]],
    columns: Sequence[Column],
    wide: Sequence[Column],
) -> str:
    from delaystream.cli.looking import console_output

    _warn(body)
    match form:
        case "json":
            return console_output.json(body)
        case "yaml":
            return console_output.yaml(body)
        case "jsonl":
            return console_output.jsonl(items)
    return console_output.table(items, wide if form == "wide" else columns, cut=form == "table")


def one(form: Form, body: dict[str, Any]) -> str:
    """One thing, in the form that is wanted."""
    from delaystream.cli.looking import console_output

    match form:
        case "json":
            return console_output.json(body)
        case "yaml":
            return console_output.yaml(body)
        case "jsonl":
            return console_output.jsonl([body])
    return console_output.facts(body)


def _warn(body: dict[str, Any]) -> None:
    """Say what the answer lacks."""
    if missing := [one["partition"] for one in body.get("missing_partitions", ())]:
        numbers = ", ".join(map(str, missing))
        complain(f"not complete: the console still reads partitions {numbers}")
    if skipped := sum(one["skipped"] for one in body.get("reading", ())):
        complain(f"not complete: {skipped} letters or fewer are in batches that cannot be read")
