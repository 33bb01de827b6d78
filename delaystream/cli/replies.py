"""A request from the command line: checks it, sends or only shows it, and waits for its receipt."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, NoReturn

import typer

from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.cli.options import Waiting
    from delaystream.client import Receipt, RequestRecord, Sender, Sent
    from delaystream.config import Settings
    from delaystream.core.request import Coordinates

ONE_TIMEOUT_S = 15.0
MANY_TIMEOUT_S = 300.0

#: Outcomes that mean that the request was not fulfilled.
_REFUSED = frozenset({"rejected", "too-late", "unknown", "no-match"})


@dataclass(frozen=True)
class Asked:
    """A request, and the sentences about it."""

    request: "RequestRecord"
    command: str
    """Its action."""
    summary: Callable[[int], str]
    """The sentence after it was sent, from the timestamp that it has on its topic, ms."""
    about: str | None = None
    """The subject of the request, if it is no schedule."""
    timeout_s: float = ONE_TIMEOUT_S
    """The longest wait for its receipt, unless the user gives another."""


def check(
    settings: "Settings", request: "RequestRecord", command: str, timestamp_ms: int | None = None
) -> str:
    """Its due times, as a worker will compute them; empty for a command that has no time.

    With the record's own timestamp these are its real due times; otherwise those of a request sent now.

    Ends the command when a worker would refuse the request.
    """
    from delaystream.cli.rendering import instants
    from delaystream.cli.wording import in_options
    from delaystream.codec.headers import RequestParser
    from delaystream.core.destinations import DestinationFilter
    from delaystream.core.recurrence import next_after
    from delaystream.core.rejection import Rejection

    now_ms = time.time_ns() // 1_000_000
    if timestamp_ms is None:
        timestamp_ms = now_ms
    # The workers' allow-list is unknown here, but some topics no worker can allow.
    destinations = DestinationFilter(["*"], settings.own_topics, settings.receipts_topic)
    requests = settings.requests(request.topic)
    parser = RequestParser(
        destinations, requests.limits(), requests.default_destination, requests.default_timezone
    )
    parsed = parser.parse(
        request.topic, 0, 0, timestamp_ms, request.key, request.value, list(request.headers), now_ms
    )
    if isinstance(parsed, Rejection):
        detail = in_options(parsed.detail, command)
        refuse(f"not sent, a worker would refuse it as {parsed.code.value}: {detail}")
    if parsed.no_receipt is not None:
        refuse(f"not sent, there would be no receipt: {parsed.no_receipt}")
    if parsed.recurrence is None:
        return instants(parsed.due_ms)
    first_ms = next_after(parsed.recurrence, timestamp_ms)
    return "never again" if first_ms is None else f"{instants((first_ms,))}, and again"


def refuse(sentence: str) -> NoReturn:
    """End the command with a refusal."""
    print(f"delaystream: {sentence}", file=sys.stderr)
    raise typer.Exit(ExitCode.REFUSED)


def show(request: "RequestRecord", due: str) -> None:
    """The record as it would be sent."""
    from delaystream.cli.rendering import rendered

    place = "" if request.partition is None else f", partition {request.partition}"
    print(f"topic    {request.topic}{place}")
    print(f"key      {rendered(request.key)}")
    print(f"value    {rendered(request.value)}")
    for name, value in request.headers:
        print(f"header   {name}: {rendered(value)}")
    if due:
        print(f"due      {due}")


def send(settings: "Settings", asked: Asked, waiting: "Waiting") -> None:
    """Send it, and print its coordinates. If the user wants it, wait for the receipt and print that.

    Ends the command with 65 when the request was not fulfilled, with 75 when no outcome comes in time, or
    when Ctrl-C ends the wait.
    """
    from delaystream.adapters.security.client_config import ClientConfig
    from delaystream.client import MissingTopicError, Reader, Sender, await_receipt

    client = ClientConfig.parse(settings.kafka)
    sender = Sender(client.confluent_producer())
    as_json = waiting.output == "json"
    reply_to = waiting.topic(settings)
    if reply_to is None or not waiting.wait:
        _produce(sender, asked, quiet=False)
        return
    timeout_s = waiting.timeout or asked.timeout_s
    reader = Reader(client.confluent(), reply_to)
    try:
        reader.start()
    except MissingTopicError as error:
        reader.close()
        raise MissingTopicError(f"{error} Nothing was sent. {_missing(settings, reply_to)}") from None
    try:
        source = _produce(sender, asked, quiet=as_json).source
        receipt = _awaited(lambda: await_receipt(reader, source, timeout_s), source)
    finally:
        reader.close()
    if receipt is None:
        _report_none(source, reply_to, timeout_s, own=reply_to == settings.receipts_topic)
    _report(receipt, asked, as_json=as_json)


def _produce(sender: "Sender", asked: Asked, *, quiet: bool) -> "Sent":
    sent = sender.send(asked.request)
    # With --output json, standard output has only the receipt.
    print(
        f"{sent.source.text}  {asked.summary(sent.timestamp_ms)}",
        file=sys.stderr if quiet else sys.stdout,
        flush=True,
    )
    return sent


def _awaited(wait: Callable[[], "Receipt | None"], source: "Coordinates") -> "Receipt | None":
    """The outcome of the wait. After Ctrl-C it says that the request stays in force."""
    try:
        return wait()
    except KeyboardInterrupt:
        print(
            f"\ndelaystream: no longer waiting. The request stands at {source.text}, and stays in force.",
            file=sys.stderr,
        )
        raise typer.Exit(ExitCode.TIMEOUT) from None


def _missing(settings: "Settings", reply_to: str) -> str:
    """Advice for a missing topic for receipts."""
    if reply_to == settings.receipts_topic:
        return (
            "The receipt needs it: `delaystream topics apply` creates it. Or name another one by --reply-to, "
            "or do not wait: --no-wait."
        )
    return (
        "The receipt needs a topic that the workers may deliver to: name one by --reply-to, or leave that "
        f"out for {settings.receipts_topic}."
    )


def _report_none(source: "Coordinates", reply_to: str, timeout_s: float, *, own: bool) -> NoReturn:
    """End the command: the outcome of the request is unknown."""
    question = (
        "is a worker running, and may it write there?"
        if own
        else f"is a worker running, and does its destinations_allow include {reply_to}? The request's event "
        "says what became of it."
    )
    print(
        f"delaystream: no receipt on {reply_to} within {timeout_s:g} s. The request stands at "
        f"{source.text} and may have been carried out, or may still be: "
        f"{question}",
        file=sys.stderr,
    )
    raise typer.Exit(ExitCode.TIMEOUT)


def _report(receipt: "Receipt", asked: Asked, *, as_json: bool) -> None:
    from delaystream.cli.answers import description, receipt_line

    if as_json:
        print(receipt.json, flush=True)
    elif receipt.outcome == "described":
        print(description(receipt), flush=True)
    else:
        print(receipt_line(receipt, asked.about, asked.command), flush=True)
    if receipt.outcome in _REFUSED:
        raise typer.Exit(ExitCode.REFUSED)
