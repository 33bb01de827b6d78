"""A request from the command line: checks it, sends or only shows it, and waits for its receipt."""

import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import msgspec
import typer

from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.cli.options import Waiting
    from delaystream.client import Receipt, RequestRecord, Sent
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
    from delaystream.client import RejectedError
    from delaystream.client.requests.checking import Checker
    from delaystream.core.recurrence import next_after

    if timestamp_ms is None:
        timestamp_ms = time.time_ns() // 1_000_000
    try:
        parsed = Checker.of(request.topic, settings).check(request, timestamp_ms)
    except RejectedError as rejected:
        detail = in_options(rejected.detail, command)
        refuse(f"not sent, a worker would refuse it as {rejected.code}: {detail}")
    if parsed.no_receipt is not None:
        refuse(f"not sent, there would be no receipt: {parsed.no_receipt}")
    if parsed.recurrence is None:
        # A worker counts `delay: 0` as now, too.
        past = bool(parsed.due_ms) and max(parsed.due_ms) < timestamp_ms
        if not past:
            return instants(parsed.due_ms)
        late = "it fires at once" if parsed.grace_ms is None else "the rule for late fires decides"
        return f"{instants(parsed.due_ms)}, which is over: {late}"
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
    from delaystream.client import Client, MissingTopicError, ReceiptTimeout, RejectedError

    as_json = waiting.output == "json"
    reply_to = waiting.topic(settings)
    with Client(settings=settings, request_topic=asked.request.topic, reply_to=reply_to) as client:
        batch = client.batch()
        if reply_to is None or not waiting.wait:
            sent = batch.send(asked.request).sent()
            if as_json:
                print(msgspec.json.encode(_place(sent)).decode(), flush=True)
            else:
                _tell(sent, asked, quiet=False)
            return
        timeout_s = waiting.timeout or asked.timeout_s
        try:
            pending = batch.send(asked.request, wait=timedelta(seconds=timeout_s))
        except MissingTopicError as error:
            if error.topic != reply_to:
                raise
            raise MissingTopicError(
                reply_to, f"{error} Nothing was sent. {_missing(settings, reply_to)}"
            ) from None
        source = pending.sent().source
        try:
            # Whoever reads that it was sent may end the command at once.
            _tell(pending.sent(), asked, quiet=as_json)
            receipt = pending.result().receipt
        except RejectedError as rejected:
            receipt = rejected.receipt
        except ReceiptTimeout:
            _report_none(source, reply_to, timeout_s, own=reply_to == settings.receipts_topic)
        except KeyboardInterrupt:
            _not_waited(source)
    assert receipt is not None
    _report(receipt, asked, as_json=as_json)


def _tell(sent: "Sent", asked: Asked, *, quiet: bool) -> None:
    # With --output json, standard output has only the receipt.
    print(
        f"{sent.source.text}  {asked.summary(sent.timestamp_ms)}",
        file=sys.stderr if quiet else sys.stdout,
        flush=True,
    )


def _place(sent: "Sent") -> dict[str, Any]:
    """Where a request stands, for programs."""
    source = sent.source
    return {
        "source": source.text,
        "topic": source.topic,
        "partition": source.partition,
        "offset": source.offset,
        "timestamp_ms": sent.timestamp_ms,
    }


def warn_of_missing(settings: "Settings", destination: str) -> None:
    """Say on standard error that a destination is not there: nobody else tells so soon."""
    from difflib import get_close_matches

    from delaystream.adapters.security.client_config import ClientConfig
    from delaystream.cli.rendering import printable
    from delaystream.client import UnavailableError
    from delaystream.client.kafka.reading import topics_of

    try:
        topics = topics_of(ClientConfig.parse(settings.kafka).confluent())
    except UnavailableError:
        return  # it was sent, and this is advice only
    if destination in topics:
        return
    near = get_close_matches(destination, topics, n=1)
    advice = f"; did you mean {near[0]}?" if near else "."
    print(
        printable(
            f"delaystream: warning: there is no topic {destination} that this user can see. The event waits "
            f"until there is one{advice}"
        ),
        file=sys.stderr,
    )


def _not_waited(source: "Coordinates") -> NoReturn:
    """End the command after Ctrl-C, and say that the request stays in force."""
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
    from delaystream.cli.requests.answers import description, receipt_line

    if as_json:
        print(receipt.json, flush=True)
    elif receipt.outcome == "described":
        print(description(receipt), flush=True)
    else:
        print(receipt_line(receipt, asked.about, asked.command), flush=True)
    if receipt.outcome in _REFUSED:
        raise typer.Exit(ExitCode.REFUSED)
