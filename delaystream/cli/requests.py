"""`delaystream send` and `delaystream cancel`: requests from the command line."""

import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, NoReturn

import typer

from delaystream.cli import options
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.client import Receipt, RequestRecord, Sender
    from delaystream.config import Settings
    from delaystream.core.request import Coordinates

ReplyTo = Annotated[
    str | None,
    typer.Option(
        help="Topic for the receipt; with it, waits for the receipt and prints it. The workers' "
        "destinations_allow must include it.",
        metavar="TOPIC",
    ),
]
Timeout = Annotated[float, typer.Option(help="Longest wait for the receipt.", metavar="SECONDS", min=0.1)]


def send(
    value: Annotated[
        str | None,
        typer.Argument(help="The value. Without it and --file: standard input.", metavar="VALUE"),
    ] = None,
    to: Annotated[
        str | None, typer.Option("--to", "-t", help="Topic to deliver to.", metavar="TOPIC")
    ] = None,
    delay: Annotated[
        str | None,
        typer.Option(
            "--delay", "-d", help="When, from now: 15m, 1h30m, 500ms, PT15M, 0; or a list.", metavar="DELAY"
        ),
    ] = None,
    at: Annotated[
        str | None,
        typer.Option(
            "--at", help="When: 2030-01-31T09:00:00Z or epoch milliseconds; or a list.", metavar="TIME"
        ),
    ] = None,
    key: Annotated[str | None, typer.Option("--key", "-k", help="The record's key.", metavar="KEY")] = None,
    header: Annotated[
        list[str] | None,
        typer.Option("--header", "-H", help="A header that is delivered; repeatable.", metavar="NAME=VALUE"),
    ] = None,
    id: Annotated[
        str | None,
        typer.Option("--id", help="Name the schedule, to replace or cancel it later.", metavar="ID"),
    ] = None,
    if_exists: Annotated[
        str | None, typer.Option(help="When the id is pending: replace, keep or reject.", metavar="CHOICE")
    ] = None,
    on_late: Annotated[
        str | None, typer.Option(help="When later than --grace: fire, drop, or a topic.", metavar="CHOICE")
    ] = None,
    grace: Annotated[str | None, typer.Option(help="How late is too late.", metavar="DURATION")] = None,
    destination_partition: Annotated[
        int | None, typer.Option(help="Partition to deliver to; default: by the key.", metavar="N", min=0)
    ] = None,
    destination_key: Annotated[
        str | None, typer.Option(help="Key to deliver with, in place of --key.", metavar="KEY")
    ] = None,
    reply_to: ReplyTo = None,
    file: Annotated[
        Path | None, typer.Option("--file", "-f", help="Read the value from a file; - is standard input.")
    ] = None,
    null: Annotated[bool, typer.Option("--null", help="Deliver a null value (a tombstone).")] = False,
    request_topic: options.RequestTopic = None,
    partition: Annotated[
        int | None,
        typer.Option(help="Partition of the request topic; default: by the key.", metavar="N", min=0),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Print the record and when it would be due; send nothing.")
    ] = False,
    timeout: Timeout = 15.0,
    config: options.ConfigFile = None,
    bootstrap_server: options.BootstrapServers = None,
    properties: options.KafkaProperties = None,
    settings: options.SettingPairs = None,
) -> None:
    """Send a request: deliver a value to a topic, later.

    The request is checked before it is sent, as a worker would (except for the workers' allow-list).

    Example: delaystream send --to reminders --delay 15m --key 42 'call back'
    """
    import dataclasses

    from delaystream.client import schedule_request

    loaded = options.load_settings(config, bootstrap_server, properties, settings)
    request = schedule_request(
        request_topic or loaded.settings.request_topics[0],
        to,
        delay=delay,
        at=at,
        key=None if key is None else key.encode(),
        value=_value(value, file, null=null),
        options={
            "id": id,
            "if-exists": if_exists,
            "on-late": on_late,
            "grace": grace,
            "destination-partition": None if destination_partition is None else str(destination_partition),
            "destination-key": destination_key,
            "reply-to": reply_to,
        },
        headers=[(name, text.encode()) for name, text in options.named_values(header, "--header")],
    )
    request = dataclasses.replace(request, partition=partition)
    due_ms = _check(loaded.settings, request)
    if dry_run:
        _print_request(request, due_ms)
        return
    _send(loaded.settings, request, reply_to, timeout, f"due {_instants(due_ms)}")


def cancel(
    id: Annotated[str, typer.Argument(help="The id that the request was sent with.", metavar="ID")],
    reply_to: ReplyTo = None,
    request_topic: options.RequestTopic = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", "-n", help="Print the record that would be sent; send nothing.")
    ] = False,
    timeout: Timeout = 15.0,
    config: options.ConfigFile = None,
    bootstrap_server: options.BootstrapServers = None,
    properties: options.KafkaProperties = None,
    settings: options.SettingPairs = None,
) -> None:
    """Cancel what was sent with an id.

    Without --reply-to the exit code says only that Kafka took the request. With it: 0 cancelled,
    65 too late or unknown, 75 no receipt in time.
    """
    from delaystream.client import cancel_request

    loaded = options.load_settings(config, bootstrap_server, properties, settings)
    topic = request_topic or loaded.settings.request_topics[0]
    request = cancel_request(topic, id, reply_to=reply_to)
    _check(loaded.settings, request)
    if dry_run:
        _print_request(request, ())
        return
    _send(loaded.settings, request, reply_to, timeout, "cancel requested")


def _value(argument: str | None, file: Path | None, *, null: bool) -> bytes | None:
    if sum((argument is not None, file is not None, null)) > 1:
        raise typer.BadParameter("give the value once: as the argument, by --file, or --null")
    if null:
        return None
    if argument is not None:
        return argument.encode()
    if file is not None and str(file) != "-":
        try:
            return file.read_bytes()
        except OSError as error:
            raise typer.BadParameter(f"--file cannot be read: {error}") from None
    if file is None and sys.stdin.isatty():
        raise typer.BadParameter("no value: give it as the argument, by --file, on standard input, or --null")
    return sys.stdin.buffer.read()


def _check(settings: "Settings", request: "RequestRecord") -> tuple[int, ...]:
    """The due times as a worker will see them. Ends the command when a worker would refuse the request."""
    from delaystream.codec.headers import RequestParser
    from delaystream.core.destinations import DestinationFilter
    from delaystream.core.rejection import Rejection

    now_ms = time.time_ns() // 1_000_000
    # What the workers allow is not known here; what no worker can allow is.
    destinations = DestinationFilter(["*"], settings.own_topics)
    parser = RequestParser(destinations, settings.limits(), settings.default_destination)
    parsed = parser.parse(
        request.topic, 0, 0, now_ms, request.key, request.value, list(request.headers), now_ms
    )
    if isinstance(parsed, Rejection):
        _refuse(f"not sent, a worker would refuse it as {parsed.code.value}: {parsed.detail}")
    return parsed.due_ms


def _refuse(sentence: str) -> NoReturn:
    print(f"delaystream: {sentence}", file=sys.stderr)
    raise typer.Exit(ExitCode.REFUSED)


def _print_request(request: "RequestRecord", due_ms: tuple[int, ...]) -> None:
    from delaystream.cli.rendering import rendered

    place = "" if request.partition is None else f", partition {request.partition}"
    print(f"topic    {request.topic}{place}")
    print(f"key      {rendered(request.key)}")
    print(f"value    {rendered(request.value)}")
    for name, value in request.headers:
        print(f"header   {name}: {rendered(value)}")
    if due_ms:
        print(f"due      {_instants(due_ms)}")


def _instants(due_ms: tuple[int, ...]) -> str:
    from delaystream.core.instants import format_instant

    return ", ".join(format_instant(due) for due in due_ms)


def _send(
    settings: "Settings", request: "RequestRecord", reply_to: str | None, timeout_s: float, summary: str
) -> None:
    from delaystream.adapters.client_config import ClientConfig
    from delaystream.client import Reader, Sender, await_receipt

    client = ClientConfig.parse(settings.kafka)
    sender = Sender(client.confluent_producer())
    if reply_to is None:
        _produce(sender, request, summary)
        return
    with Reader(client.confluent(), reply_to) as receipts:
        source = _produce(sender, request, summary)
        receipt = await_receipt(receipts, source, timeout_s)
    _print_receipt(receipt, timeout_s)


def _produce(sender: "Sender", request: "RequestRecord", summary: str) -> "Coordinates":
    source = sender.send(request)
    print(f"{source.topic}/{source.partition}/{source.offset}  {summary}", flush=True)
    return source


def _print_receipt(receipt: "Receipt | None", timeout_s: float) -> None:
    if receipt is None:
        print(
            f"delaystream: no receipt within {timeout_s:g} s: is a worker running, "
            "and may it deliver to the topic of --reply-to?",
            file=sys.stderr,
        )
        raise typer.Exit(ExitCode.TIMEOUT)
    details = [text for text in (receipt.code, receipt.detail, receipt.fire_id) if text]
    print("  ".join([receipt.outcome, *details]))
    if receipt.outcome in {"rejected", "too-late", "unknown"}:
        raise typer.Exit(ExitCode.REFUSED)
