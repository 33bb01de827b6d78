"""`delaystream watch`: deliveries as they land."""

import select
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack
from typing import TYPE_CHECKING, Annotated

import typer

from delaystream.cli import options
from delaystream.cli.groups import ANY_BYTES, expanded, to_bytes
from delaystream.cli.output import Output, complain, say, say_json
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.client import Delivery
    from delaystream.client.kafka.reading import Reader

_LOOK_S = 0.5
"""Longest delay until a closed output is noticed."""


@expanded
def watch(
    *,
    topic: Annotated[str, typer.Argument(help="A destination topic.", metavar="TOPIC")],
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start with the oldest record, not with the next one.")
    ] = False,
    key: Annotated[
        str | None, typer.Option("--key", "-k", help="Only records with this key.", metavar="KEY"), ANY_BYTES
    ] = None,
    id: Annotated[
        str | None, typer.Option("--id", help="Only records of this schedule.", metavar="ID")
    ] = None,
    count: Annotated[
        int | None, typer.Option(help="End after this many records.", metavar="N", min=1)
    ] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="End after this time; exit with 75 when --count was not reached.", metavar="SECONDS", min=0.1
        ),
    ] = None,
    output: Annotated[
        Output,
        typer.Option("--output", "-o", help="One line, or one JSON object, a record."),
    ] = "human",
    connection: options.Connection,
) -> None:
    """Print what lands on a topic, with its lateness.

    Ends at Ctrl-C, --count or --timeout. Lateness is the record's timestamp minus its delaystream-due-at.
    Only what is committed is shown (isolation.level=read_committed), as your consumers should read it too.
    Events and receipts are shown for people; --output json has every record whole. --id finds deliveries,
    events, receipts and dead letters of a schedule.
    """
    from delaystream.adapters.security.client_config import ClientConfig
    from delaystream.cli.rendering import delivery_fields
    from delaystream.cli.requests.answers import record_line, schedule_of
    from delaystream.cli.requests.workers import Lookout, no_worker
    from delaystream.client.kafka.reading import ANSWER_TIMEOUT_S, Reader

    loaded = connection.load()
    conf = ClientConfig.parse(loaded.settings.kafka).confluent()
    deadline = None if timeout is None else time.monotonic() + timeout
    seen, key_bytes = 0, None if key is None else to_bytes(key)

    def wanted(record: "Delivery") -> bool:
        if key_bytes is not None and record.key != key_bytes:
            return False
        return id is None or id in (record.schedule_id, schedule_of(record))

    try:
        answer_timeout_s = min(ANSWER_TIMEOUT_S, timeout or ANSWER_TIMEOUT_S)
        with ExitStack() as stack:
            reader = stack.enter_context(
                Reader(conf, topic, from_beginning=from_beginning, answer_timeout_s=answer_timeout_s)
            )
            complain(f"waiting for records on {topic}; Ctrl-C ends it")
            lookout = stack.enter_context(Lookout(loaded.settings))
            for record in _read(reader, deadline):
                lookout.end()
                if not wanted(record):
                    continue
                if output == "json":
                    say_json(delivery_fields(record))
                else:
                    say(record_line(record, loaded.settings.events_topic))
                seen += 1
                if seen == count:
                    return
    except KeyboardInterrupt:
        return
    if count is not None and not _is_closed():
        nobody = None if seen else no_worker(loaded.settings)
        why = "" if nobody is None else f": {nobody}"
        complain(f"{seen} of {count} records landed on {topic} within {timeout:g} s{why}")
        raise typer.Exit(ExitCode.TIMEOUT)


def _read(reader: "Reader", deadline: float | None) -> "Iterator[Delivery]":
    """Records as they come, until the deadline, or until the reader of our output is gone."""
    while not _is_closed():
        left_s = _LOOK_S if deadline is None else min(_LOOK_S, deadline - time.monotonic())
        if left_s <= 0:
            return
        yield from reader.read(left_s)


def _is_closed() -> bool:
    """Whether the reader of standard output is gone. A write would show that, but there may be none."""
    try:
        poll = select.poll()
        poll.register(sys.stdout.fileno(), 0)  # errors and hang-ups are always reported
        found = poll.poll(0)
    except (AttributeError, OSError, ValueError):  # no poll on this system, or no descriptor
        return False
    return any(flags & (select.POLLERR | select.POLLHUP) for _, flags in found)
