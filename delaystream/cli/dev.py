"""`delaystream dev`: a whole delaystream on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from delaystream.cli import options


def dev(
    port: Annotated[
        int, typer.Option(help="The broker's port on 127.0.0.1; 0: a free one.", metavar="PORT")
    ] = 29092,
    data_dir: Annotated[
        Path, typer.Option(help="The broker's and the worker's state; survives a restart.", metavar="DIR")
    ] = Path(".delaystream/dev"),
    partitions: Annotated[
        int, typer.Option(help="Partitions of topics that are created.", metavar="N", min=1)
    ] = 4,
    samples: Annotated[
        bool, typer.Option("--samples/--no-samples", help="Send a few delayed events.")
    ] = True,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="Without: broker and topics only.")
    ] = True,
    http_port: Annotated[
        int | None,
        typer.Option(help="The worker's /metrics and /health; default 8642, or a free one.", metavar="PORT"),
    ] = None,
    config: options.ConfigFile = None,
    settings: options.SettingPairs = None,
) -> None:
    """Run a real Kafka, the topics and a worker on this machine.

    Sends a few delayed events and prints what lands on the topic reminders. Then it stays up, for your
    own requests, until Ctrl-C. Kafka is fetched once. A line `ready` on standard output says that requests
    are accepted.
    """
    from delaystream.cli.dev_session import Plan, Session

    loaded = options.load_local_settings(config, settings)
    forwarded = [] if config is None else ["--config", str(config)]
    for pair in settings or []:
        forwarded += ["--set", pair]
    session = Session(
        Plan(
            settings=loaded.settings,
            data_dir=data_dir,
            port=port,
            http_port=http_port,
            partitions=partitions,
            samples=samples,
            with_worker=worker,
            worker_arguments=forwarded,
        )
    )
    raise typer.Exit(int(session.run()))
