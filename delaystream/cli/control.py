"""`delaystream cancel`, `pause`, `resume`, `trigger`, `reschedule`: schedules that are there already."""

from collections.abc import Mapping
from typing import Annotated

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded

Id = Annotated[str, typer.Argument(help="The id that the request was sent with.", metavar="ID")]
OptionalId = Annotated[
    str | None,
    typer.Argument(help="The id that the request was sent with; or select many.", metavar="ID"),
]


@expanded
def cancel(
    *,
    id: OptionalId = None,
    selection: options.Selection,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Cancel a schedule, or many.

    By the id that it was sent with, or all that --match-… select: that meet each of them.

    Exits with 0 when it is cancelled, 65 when it is too late or the id is unknown, 75 without a receipt in
    time.
    """
    _one_or_many("cancel", id, selection, waiting, connection, topic, actor, dry_run=dry_run)


@expanded
def pause(
    *,
    id: OptionalId = None,
    selection: options.Selection,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Pause a schedule, or many.

    Nothing of it fires until it is resumed. By id, or all that --match-… select.

    Exits with 0 when it is paused, 65 when the id is unknown or over, 75 without a receipt in time.
    """
    _one_or_many("pause", id, selection, waiting, connection, topic, actor, dry_run=dry_run)


@expanded
def resume(
    *,
    id: OptionalId = None,
    selection: options.Selection,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Resume a paused schedule, or many.

    By id, or all that --match-… select. What it missed meanwhile is subject to its catch-up and grace, as
    after any other absence. Exits as pause.
    """
    _one_or_many("resume", id, selection, waiting, connection, topic, actor, dry_run=dry_run)


@expanded
def trigger(
    *,
    id: Id,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Fire a schedule now.

    Besides its own times, which stay as they are. Exits as pause.
    """
    _send("trigger", id, {}, waiting, connection, topic, actor, dry_run=dry_run)


@expanded
def reschedule(
    *,
    id: Id,
    timing: options.Timing,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    waiting: options.Waiting,
    dry_run: options.DryRun = False,
    connection: options.Connection,
) -> None:
    """Give a schedule another time.

    What it delivers, and where, stays as it is. Exits as pause.

    Example: delaystream reschedule order-42 --delay 1h
    """
    _send("reschedule", id, timing.headers(), waiting, connection, topic, actor, dry_run=dry_run)


def _one_or_many(
    action: str,
    id: str | None,
    selection: options.Selection,
    waiting: options.Waiting,
    connection: options.Connection,
    topic: str | None,
    actor: str | None,
    *,
    dry_run: bool,
) -> None:
    if (id is None) != bool(selection):
        raise typer.BadParameter(f"{action} takes an ID, or --match-… options, and not both")
    _send(action, id, selection.headers(), waiting, connection, topic, actor, dry_run=dry_run)


def _send(
    action: str,
    id: str | None,
    headers: Mapping[str, str | None],
    waiting: options.Waiting,
    connection: options.Connection,
    topic: str | None,
    actor: str | None,
    *,
    dry_run: bool,
) -> None:
    from delaystream.cli import replies
    from delaystream.client import control_request

    loaded = connection.load()
    request = control_request(
        topic or loaded.settings.request_topics[0],
        action,
        id,
        {**headers, "reply-to": waiting.topic(loaded.settings), "actor": actor},
    )
    due = replies.check(loaded.settings, request)
    if dry_run:
        replies.show(request, due)
        return
    timeout_s = replies.ONE_TIMEOUT_S if id is not None else replies.MANY_TIMEOUT_S
    replies.send(loaded.settings, request, f"{action} requested", waiting, default_timeout_s=timeout_s)
