"""`delaystream cancel`, `pause`, `resume`, …: commands about existing schedules, and about rates."""

from collections.abc import Mapping
from typing import Annotated, Any

import typer

from delaystream.cli import options
from delaystream.cli.groups import ANY_BYTES, sending, to_bytes

Id = Annotated[str, typer.Argument(help="The id that the request was sent with.", metavar="ID")]
OptionalId = Annotated[
    str | None,
    typer.Argument(help="The id that the request was sent with; or select many.", metavar="ID"),
]
IdOrCoordinates = Annotated[
    str | None,
    typer.Argument(help="The id that the request was sent with; or --coordinates.", metavar="ID"),
]


@sending
def cancel(
    *,
    id: OptionalId = None,
    coordinates: options.Coordinates = None,
    selection: options.Selection,
    match_anonymous: Annotated[
        bool, typer.Option("--match-anonymous", help="With --match-…: requests without an id as well.")
    ] = False,
    terms: options.Terms,
    declaration: options.Declaration,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Cancel a schedule, or many.

    By the id that it was sent with, or all that --match-… select: that meet each of them. A request without
    an id by its --coordinates.

    Exits with 0 when it is cancelled, 65 when it is too late, the id is unknown or nothing matches, 75
    without a receipt in time.
    """
    _check_one("cancel", id, coordinates, selection)
    said = {
        "coordinates": coordinates,
        **selection.options(),
        "match_anonymous": match_anonymous or None,
        **terms.options(),
        **declaration.options(),
        "actor": actor,
    }
    _send("cancel", id, said, waiting, connection, topic, dry_run=dry_run)


@sending
def pause(
    *,
    id: OptionalId = None,
    selection: options.Selection,
    match_new: Annotated[
        bool, typer.Option("--match-new", help="With --match-…: also hold later requests that match.")
    ] = False,
    until: Annotated[
        str | None,
        typer.Option(
            help="When the pause ends by itself: 2030-01-31T09:00:00Z. Default: it stays until a resume.",
            metavar="TIME",
        ),
    ] = None,
    terms: options.Terms,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Pause a schedule, or many.

    Nothing of it fires until it is resumed, or until the time of --until. By id, or all that --match-…
    select, also without an id.

    Exits with 0 when it is paused, 65 when the id is unknown or over or nothing matches, 75 without a receipt
    in time.

    Example: delaystream pause --match-key customer-17 --match-new
    """
    _check_one("pause", id, None, selection)
    said = {
        **selection.options(),
        "match_new": match_new or None,
        "until": until,
        **terms.options(),
        "actor": actor,
    }
    _send("pause", id, said, waiting, connection, topic, dry_run=dry_run)


@sending
def resume(
    *,
    id: OptionalId = None,
    selection: options.Selection,
    lateness: options.Lateness,
    terms: options.Terms,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Resume a paused schedule, or many.

    By id, or all that --match-… select: what was paused by these options, or by narrower ones. What it missed
    meanwhile is subject to its catch-up and grace, as after any other absence; --catch-up, --on-late and
    --grace take their place for this once.

    Exits with 0 when it is resumed, 65 when the id is unknown or over or nothing matches, 75 without a
    receipt in time.
    """
    _check_one("resume", id, None, selection)
    said = {**selection.options(), **lateness.options(), **terms.options(), "actor": actor}
    _send("resume", id, said, waiting, connection, topic, dry_run=dry_run)


@sending
def trigger(
    *,
    id: IdOrCoordinates = None,
    coordinates: options.Coordinates = None,
    terms: options.Terms,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Fire a schedule now.

    Its own times stay as they are. A request without an id, by its --coordinates, fires in
    place of its times, also if it is paused.

    Exits with 0 when a fire is on its way, 65 when the id is unknown or over or it is refused, 75 without a
    receipt in time.
    """
    _check_one("trigger", id, coordinates)
    said = {"coordinates": coordinates, **terms.options(), "actor": actor}
    _send("trigger", id, said, waiting, connection, topic, dry_run=dry_run)


@sending
def reschedule(
    *,
    id: IdOrCoordinates = None,
    coordinates: options.Coordinates = None,
    timing: options.Timing,
    terms: options.Terms,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Give a schedule another time.

    What it delivers, and where, stays as it is.

    Exits with 0 when it has the new time, 65 when the id is unknown or over or it is refused, 75 without a
    receipt in time.

    Example: delaystream reschedule order-42 --delay 1h
    """
    _check_one("reschedule", id, coordinates)
    said = {"coordinates": coordinates, **timing.options(), **terms.options(), "actor": actor}
    _send("reschedule", id, said, waiting, connection, topic, dry_run=dry_run)


@sending
def update(
    *,
    id: Id,
    value: Annotated[
        str | None,
        typer.Argument(help="The new value. Without one, the old one stays.", metavar="VALUE"),
        ANY_BYTES,
    ] = None,
    to: options.To = None,
    timing: options.Timing,
    key: options.RecordKey = None,
    header: options.RecordHeaders = None,
    lateness: options.Lateness,
    labels: options.Labels,
    destination_partition: options.DestinationPartition = None,
    destination_key: options.DestinationKey = None,
    file: options.File = None,
    null: options.Null = False,
    terms: options.Terms,
    declaration: options.Declaration,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Change a schedule.

    What is given changes, everything else stays: also a pause, and what it has fired so far. `none` clears:
    --end none, and so --jitter, --max-fires, --timezone, --tags, --name, --description, --grace, --on-late. A
    new value takes the place of key, value and headers together.

    Exits with 0 when it is changed, 65 when the id is unknown or over or it is refused, 75 without a receipt
    in time.

    Example: delaystream update stand-up --cron '0 10 * * MON-FRI' --note 'an hour later in winter'
    """
    from delaystream.cli.requests.send import read_value

    replaces = value is not None or file is not None or null
    if not replaces and (key is not None or header):
        raise typer.BadParameter("--key and --header belong to a new value: give the value, too")
    said: dict[str, Any] = {
        "destination": to,
        **timing.options(),
        **lateness.options(),
        "destination_partition": destination_partition,
        "destination_key": destination_key,
        **labels.options(),
        **terms.options(),
        **declaration.options(),
        "actor": actor,
    }
    if replaces:
        said["value"] = read_value(value, file, null=null)
        said["key"] = None if key is None else to_bytes(key)
        said["headers"] = options.record_headers(header)
    _send("update", id, said, waiting, connection, topic, dry_run=dry_run)


@sending
def describe(
    *,
    id: IdOrCoordinates = None,
    coordinates: options.Coordinates = None,
    terms: options.Terms,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    answer: options.Answer,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Tell what a schedule is, and where it stands.

    In order with the other commands about it; nothing changes. A request without an id, by its --coordinates,
    while anything of it is pending.

    Exits with 0 when it is told, 65 when the id is unknown, 75 without an answer in time.
    """
    _check_one("describe", id, coordinates)
    said = {"coordinates": coordinates, **terms.options(), "actor": actor}
    _send("describe", id, said, answer.waiting(), connection, topic, dry_run=dry_run)


@sending
def rate(
    *,
    destination: Annotated[str, typer.Argument(help="The destination.", metavar="TOPIC")],
    rate: Annotated[
        str,
        typer.Argument(help="Records a second (50), 600/m, 36/h; none: as the settings say.", metavar="RATE"),
    ],
    note: options.Note = None,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Change how fast a destination is delivered to.

    For the requests of one request topic, without a restart.

    Exits with 0 when it is in force on every partition, 65 when it is refused, 75 without a receipt in time.

    Example: delaystream rate emails 600/m --note 'the provider asked for it'
    """
    said = {"destination": destination, "rate": rate, "note": note, "actor": actor}
    about = f"{destination} {rate}"
    _send("rate", None, said, waiting, connection, topic, dry_run=dry_run, about=about)


def _check_one(
    action: str, id: str | None, coordinates: str | None, selection: options.Selection | None = None
) -> None:
    """Refuse a command without a subject, or with more than one."""
    if sum((id is not None, coordinates is not None, bool(selection))) == 1:
        return
    ways = ["an ID"]
    if action not in {"pause", "resume"}:
        ways.append("--coordinates")
    if selection is not None:
        ways.append("--match-… options")
    raise typer.BadParameter(f"{action} takes {', or '.join(ways)}, and one of them only")


def _send(
    action: str,
    id: str | None,
    said: Mapping[str, Any],
    waiting: options.Waiting,
    connection: options.Connection,
    topic: str | None,
    *,
    dry_run: bool,
    about: str | None = None,
) -> None:
    from delaystream.cli.requests import replies
    from delaystream.client import update_request
    from delaystream.client.requests.records import command_request

    loaded = connection.load()
    to = topic or loaded.settings.request_topics[0]
    said = {**said, "reply_to": waiting.topic(loaded.settings)}
    if action == "update" and id is not None:
        request = update_request(to, id, **said)
    else:
        request = command_request(to, action, id, said)
    due = replies.check(loaded.settings, request, action)
    if dry_run:
        replies.show(request, due, waiting.output)
        return
    many = any(name.startswith("match_") and value is not None for name, value in said.items())
    timeout_s = replies.MANY_TIMEOUT_S if many or action == "rate" else replies.ONE_TIMEOUT_S
    sentence = f"{action} requested" if about is None else f"{action} requested: {about}"
    asked = replies.Asked(request, action, lambda _: sentence, about, timeout_s)
    replies.send(loaded.settings, asked, waiting)
