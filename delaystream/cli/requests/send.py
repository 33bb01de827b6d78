"""`delaystream send`: a request to deliver something later, once or again and again."""

import sys
from pathlib import Path
from typing import Annotated, Any

import typer

from delaystream.cli import options
from delaystream.cli.groups import ANY_BYTES, sending, to_bytes
from delaystream.cli.output import Output


@sending
def send(
    *,
    value: Annotated[
        str | None,
        typer.Argument(
            help="The value. Without it and --file: standard input, if that is not empty.", metavar="VALUE"
        ),
        ANY_BYTES,
    ] = None,
    to: options.To = None,
    timing: options.Timing,
    key: options.RecordKey = None,
    header: options.RecordHeaders = None,
    id: Annotated[
        str | None,
        typer.Option("--id", help="Name the schedule, to replace or cancel it later.", metavar="ID"),
    ] = None,
    if_exists: Annotated[
        str | None, typer.Option(help="When the id is pending: replace, keep or reject.", metavar="CHOICE")
    ] = None,
    lateness: options.Lateness,
    labels: options.Labels,
    destination_partition: options.DestinationPartition = None,
    destination_key: options.DestinationKey = None,
    status: Annotated[
        str | None, typer.Option(help="How the schedule begins: pending or paused.", metavar="CHOICE")
    ] = None,
    terms: options.Terms,
    declaration: options.Declaration,
    file: options.File = None,
    null: options.Null = False,
    topic: options.RequestTopic = None,
    actor: options.Actor = None,
    partition: Annotated[
        int | None,
        typer.Option(help="Partition of the request topic; default: by the key.", metavar="N", min=0),
    ] = None,
    wait: Annotated[
        bool | None,
        typer.Option(
            "--wait/--no-wait",
            help="Wait for the receipt and print it; default: with --reply-to and with --if-exists reject.",
        ),
    ] = None,
    reply_to: options.ReplyTo = None,
    timeout: Annotated[
        float, typer.Option(help="Longest wait for the receipt.", metavar="SECONDS", min=0.1)
    ] = 15.0,
    output: Annotated[
        Output,
        typer.Option(
            "--output", "-o", help="A line, or JSON: the receipt, or without one the request's coordinates."
        ),
    ] = "human",
    lines: Annotated[
        bool,
        typer.Option(
            "--lines", help="A request from each line of standard input, or of --file: a JSON object."
        ),
    ] = False,
    keep_going: Annotated[
        bool,
        typer.Option("--keep-going", help="With --lines: send what comes behind a bad line as well."),
    ] = False,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Print the record and when it would be due; send nothing.")
    ] = False,
    connection: options.Connection,
) -> None:
    """Send a request: deliver a value to a topic, later.

    The request is checked before it is sent, as a worker would. What only the workers know is not: their
    allow-list, their limits where their settings differ from those here, whether the destination is there and
    has the partition, what has the id by now, and how much may be pending.

    With --lines each line is a JSON object with the fields of the console's POST /v1/schedules (destination,
    delay, value, ...); what a line does not say comes from the options. A bad line is told with its number,
    and ends it: what is before it stands, what is behind it is sent with --keep-going only. Exits with 65
    when a line or a request was refused, 75 when a receipt did not come.

    Example: delaystream send --to reminders --delay 15m --key 42 'call back'

    Example: delaystream send --to reports --cron '0 9 * * MON-FRI' --timezone Europe/Paris --id daily go
    """
    from msgspec.structs import replace

    from delaystream.cli.requests import replies
    from delaystream.cli.requests.lines import Shared
    from delaystream.cli.requests.lines import read as read_lines
    from delaystream.cli.requests.many import Many
    from delaystream.client import schedule_request

    loaded = connection.load()
    waits = reply_to is not None or if_exists == "reject" if wait is None else wait
    if reply_to is None and waits:
        reply_to = loaded.settings.receipts_topic
    said: Any = {
        **timing.options(),
        "id": id,
        "if_exists": if_exists,
        **lateness.options(),
        "destination_partition": destination_partition,
        "destination_key": destination_key,
        **labels.options(),
        "status": status,
        **terms.options(),
        **declaration.options(),
        "reply_to": reply_to,
        "actor": actor,
    }
    waiting = options.Waiting(wait=waits, reply_to=reply_to, timeout=timeout, output=output)
    request_topic = topic or loaded.settings.request_topics[0]
    key_bytes = None if key is None else to_bytes(key)
    headers = options.record_headers(header)
    if lines:
        if value is not None or null or id is not None or terms.request_id is not None:
            raise typer.BadParameter("with --lines each line has its own value, id and request_id")
        shared = Shared(
            request_topic, to, key_bytes, headers, partition, {k: v for k, v in said.items() if v is not None}
        )
        run = Many(loaded.settings, shared, waiting, keep_going=keep_going)
        (run.show if dry_run else run.send)(read_lines(file))
        return
    if keep_going:
        raise typer.BadParameter("--keep-going belongs to --lines")
    request = schedule_request(
        request_topic, to, read_value(value, file, null=null), key=key_bytes, headers=headers, **said
    )
    request = replace(request, partition=partition)
    due = replies.check(loaded.settings, request, "schedule")
    if dry_run:
        replies.show(request, due, output)
        return

    def summary(timestamp_ms: int) -> str:
        return "sent" if waits else replies.due(loaded.settings, request, timestamp_ms)

    replies.send(loaded.settings, replies.Asked(request, "schedule", summary), waiting)
    if to is not None:
        replies.warn_of_missing(loaded.settings, to)


def read_value(argument: str | None, file: Path | None, *, null: bool) -> bytes | None:
    """The value, given at most once; otherwise standard input. Raises `typer.BadParameter`."""
    if sum((argument is not None, file is not None, null)) > 1:
        raise typer.BadParameter("give the value once: as the argument, by --file, or --null")
    if null:
        return None
    if argument is not None:
        return to_bytes(argument)
    if file is not None and str(file) != "-":
        try:
            return file.read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"--file {file} cannot be read: {error.strerror}") from None
    if sys.stdin is None or (file is None and sys.stdin.isatty()):
        raise typer.BadParameter("no value: give it as the argument, by --file, on standard input, or --null")
    value = sys.stdin.buffer.read()
    if not value and file is None:
        # A program that starts this one often leaves its own standard input open, with nothing in it.
        raise typer.BadParameter("standard input is empty: --file - sends an empty value, --null sends none")
    return value
