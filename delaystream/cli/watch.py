"""`delaystream watch`: deliveries as they land."""

import time
from typing import Annotated, Literal

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded
from delaystream.exit_codes import ExitCode


@expanded
def watch(
    *,
    topic: Annotated[str, typer.Argument(help="A destination topic.", metavar="TOPIC")],
    from_beginning: Annotated[
        bool, typer.Option("--from-beginning", help="Start with the oldest record, not with the next one.")
    ] = False,
    count: Annotated[int | None, typer.Option(help="End after so many records.", metavar="N", min=1)] = None,
    timeout: Annotated[
        float | None,
        typer.Option(
            help="End after so long; with 75 when --count was not reached.", metavar="SECONDS", min=0.1
        ),
    ] = None,
    output: Annotated[
        Literal["human", "json"],
        typer.Option("--output", "-o", help="One line, or one JSON object, a record."),
    ] = "human",
    connection: options.Connection,
) -> None:
    """Print what lands on a topic, with its lateness.

    Until Ctrl-C, --count or --timeout. Lateness is the record's timestamp minus its delaystream-due-at. Only
    what is committed is shown (isolation.level=read_committed), as your consumers should read it too.
    """
    import orjson

    from delaystream.adapters.client_config import ClientConfig
    from delaystream.cli.rendering import delivery_fields, delivery_line
    from delaystream.client import ANSWER_TIMEOUT_S, Reader

    loaded = connection.load()
    conf = ClientConfig.parse(loaded.settings.kafka).confluent()
    deadline = None if timeout is None else time.monotonic() + timeout
    seen = 0
    try:
        answer_timeout_s = min(ANSWER_TIMEOUT_S, timeout or ANSWER_TIMEOUT_S)
        with Reader(conf, topic, from_beginning=from_beginning, answer_timeout_s=answer_timeout_s) as reader:
            for record in reader.read(None if deadline is None else deadline - time.monotonic()):
                if output == "json":
                    print(orjson.dumps(delivery_fields(record)).decode(), flush=True)
                else:
                    print(delivery_line(record), flush=True)
                seen += 1
                if seen == count:
                    return
    except KeyboardInterrupt:
        return
    if count is not None:
        raise typer.Exit(ExitCode.TIMEOUT)
