"""A request from the command line: checks it, sends or only shows it, and waits for its receipt."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, NoReturn

import typer

from delaystream.cli.output import Output, complain, say, say_json, tell
from delaystream.cli.requests.workers import Lookout, no_worker
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.cli.options import Waiting
    from delaystream.client import Accepted, Batch, Pending, Receipt, RequestRecord, Sent
    from delaystream.config import Settings
    from delaystream.core.request import Coordinates

ONE_TIMEOUT_S = 15.0
MANY_TIMEOUT_S = 300.0

#: Outcomes that mean that the request was not fulfilled.
REFUSED = frozenset({"rejected", "too-late", "unknown", "no-match"})


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


def due(settings: "Settings", request: "RequestRecord", timestamp_ms: int) -> str:
    """When a request is due that stands with this timestamp, as far as its sender can know."""
    times = check(settings, request, "schedule", timestamp_ms)
    # The present owner of the id decides whether the request is scheduled at all. Only a receipt can tell.
    return f"due {times}" if request.id is None else f"sent; if it is scheduled, due {times}"


def refuse(sentence: str) -> NoReturn:
    """End the command with a refusal."""
    complain(sentence)
    raise typer.Exit(ExitCode.REFUSED)


def show(request: "RequestRecord", due: str, output: Output = "human") -> None:
    """The record as it would be sent."""
    from delaystream.cli.rendering import lossless, rendered

    if output == "json":
        headers = [[name, lossless(value)] for name, value in request.headers]
        say_json(
            {
                "topic": request.topic,
                "partition": request.partition,
                "key": lossless(request.key),
                "value": lossless(request.value),
                "headers": headers,
                "due": due or None,
            }
        )
        return
    place = "" if request.partition is None else f", partition {request.partition}"
    say(
        f"topic    {request.topic}{place}",
        f"key      {rendered(request.key)}",
        f"value    {rendered(request.value)}",
        *(f"header   {name}: {rendered(value)}" for name, value in request.headers),
        *([f"due      {due}"] if due else []),
    )


def send(settings: "Settings", asked: Asked, waiting: "Waiting") -> None:
    """Send it, and print its coordinates. If the user wants it, wait for the receipt and print that.

    Ends the command with 65 when the request was not fulfilled, with 75 when no outcome comes in time. Ctrl-C
    ends it with 75 once the request may be on its way, with 130 before that, and says which.
    """
    from delaystream.client import Client, RejectedError

    reply_to = waiting.topic(settings) if waiting.wait else None
    fate = Fate()
    receipt: Receipt | None = None
    try:
        with Client(settings=settings, request_topic=asked.request.topic, reply_to=reply_to) as client:
            fate.batch = batch = client.batch()
            if reply_to is None:
                fate.pending = batch.send(asked.request)
                _tell(fate.pending.sent(), asked, waiting, waits=False)
                fate.told = True
                return
            timeout_s = waiting.timeout or asked.timeout_s
            fate.pending = _begun(settings, batch, asked, reply_to, timeout_s)
            # Whoever reads that it was sent may end the command at once.
            sent = fate.pending.sent()
            _tell(sent, asked, waiting, waits=True)
            try:
                with Lookout(settings):
                    receipt = fate.pending.result().receipt
            except RejectedError as rejected:
                receipt = rejected.receipt
            except TimeoutError:
                report_none(settings, sent.source, reply_to, timeout_s)
    except KeyboardInterrupt:
        # Closing the client waited for the acknowledgement, so by now most is known.
        if receipt is None:
            fate.end()
    assert receipt is not None
    try:
        _report(receipt, asked, as_json=waiting.output == "json")
    except KeyboardInterrupt:
        raise typer.Exit(ExitCode.TIMEOUT) from None  # it was carried out, or refused, and is partly told


def _begun(
    settings: "Settings", batch: "Batch", asked: Asked, reply_to: str, timeout_s: float
) -> "Pending[Accepted]":
    from delaystream.client import MissingTopicError

    try:
        return batch.send(asked.request, wait=timedelta(seconds=timeout_s))
    except MissingTopicError as error:
        if error.topic != reply_to:
            raise
        raise MissingTopicError(
            reply_to, f"{error} Nothing was sent. {_missing(settings, reply_to)}"
        ) from None


class Fate:
    """Where a request stands, for whoever interrupts the command that sends it."""

    def __init__(self) -> None:
        self.batch: Batch | None = None
        self.pending: Pending[Accepted] | None = None
        self.told = False
        """Whether all that was asked for is done and said."""

    def end(self) -> NoReturn:
        """End the command after Ctrl-C, and say whether the request is on its way."""
        if self.told:
            raise typer.Exit(ExitCode.OK) from None
        answer = None if self.pending is None else self.pending.answer()
        if isinstance(answer, Exception):
            raise answer from None
        if answer is not None:
            tell("")
            complain(f"no longer waiting. The request stands at {answer.source.text}, and stays in force.")
            raise typer.Exit(ExitCode.TIMEOUT) from None
        if self.batch is None or not self.batch.handed_over:
            raise KeyboardInterrupt  # of which `groups.sending` says that nothing was sent
        tell("")
        complain(
            "interrupted before Kafka acknowledged the request: it may be on its way. Sent again with the "
            "same --request-id it changes nothing more."
        )
        raise typer.Exit(ExitCode.TIMEOUT) from None


def _tell(sent: "Sent", asked: Asked, waiting: "Waiting", *, waits: bool) -> None:
    if waiting.output == "human":
        say(f"{sent.source.text}  {asked.summary(sent.timestamp_ms)}")
    elif waits:
        # Standard output has only the receipt.
        tell(f"{sent.source.text}  {asked.summary(sent.timestamp_ms)}")
    else:
        say_json(place_of(sent))


def place_of(sent: "Sent") -> dict[str, Any]:
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
    from delaystream.client import UnavailableError
    from delaystream.client.kafka.reading import topics_of

    try:
        topics = topics_of(ClientConfig.parse(settings.kafka).confluent())
    except (UnavailableError, KeyboardInterrupt):
        return  # it was sent, and this is advice only
    if destination in topics:
        return
    near = get_close_matches(destination, topics, n=1)
    advice = f"; did you mean {near[0]}?" if near else "."
    complain(
        f"warning: there is no topic {destination} that this user can see. The event waits until there is "
        f"one{advice}"
    )


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


def report_none(settings: "Settings", source: "Coordinates", reply_to: str, timeout_s: float) -> NoReturn:
    """End the command: the outcome of the request is unknown."""
    complain(no_receipt(settings, source, reply_to, timeout_s))
    raise typer.Exit(ExitCode.TIMEOUT)


def no_receipt(settings: "Settings", source: "Coordinates", reply_to: str, timeout_s: float) -> str:
    """That no receipt came, and why perhaps."""
    if (nobody := no_worker(settings)) is not None:
        question = nobody
    elif reply_to == settings.receipts_topic:
        question = "is a worker running, and may it write there?"
    else:
        question = (
            f"is a worker running, and does its destinations_allow include {reply_to}? The request's event "
            "says what became of it."
        )
    return (
        f"no receipt on {reply_to} within {timeout_s:g} s. The request stands at {source.text} and may have "
        f"been carried out, or may still be: {question}"
    )


def _report(receipt: "Receipt", asked: Asked, *, as_json: bool) -> None:
    from delaystream.cli.requests.answers import description, receipt_line

    if as_json:
        say_json(receipt.body)
    elif receipt.outcome == "described":
        say(*description(receipt))
    else:
        say(receipt_line(receipt, asked.about, asked.command))
    if receipt.outcome in REFUSED:
        raise typer.Exit(ExitCode.REFUSED)
