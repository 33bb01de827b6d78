"""`delaystream dev`: a whole delaystream on this machine."""

from pathlib import Path
from typing import Annotated

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded


def _one_or_three(brokers: int) -> int:
    if brokers not in (1, 3):
        raise typer.BadParameter(f"{brokers}; a cluster has 1 broker or 3 here.")
    return brokers


@expanded
def dev(
    brokers: Annotated[
        int,
        typer.Option(
            help="1, or 3: a cluster with three replicas of everything, which outlives any one of them.",
            metavar="1|3",
            callback=_one_or_three,
        ),
    ] = 1,
    port: Annotated[
        int,
        typer.Option(
            help="The broker's port on 127.0.0.1; 0: a free one. With three brokers it is the port of the "
            "first; the others take the next ports, or free ones.",
            metavar="PORT",
        ),
    ] = 29092,
    data_dir: Annotated[
        Path,
        typer.Option(
            help="Where the brokers and the worker keep their state; it survives a restart.", metavar="DIR"
        ),
    ] = Path(".delaystream/dev"),
    partitions: Annotated[
        int, typer.Option(help="Partitions of topics that are created.", metavar="N", min=1)
    ] = 4,
    samples: Annotated[bool, typer.Option("--samples/--no-samples", help="Send five delayed events.")] = True,
    worker: Annotated[
        bool, typer.Option("--worker/--no-worker", help="With --no-worker: broker and topics only.")
    ] = True,
    http_port: Annotated[
        int | None,
        typer.Option(help="The worker's /metrics and /health; default 8642, or a free one.", metavar="PORT"),
    ] = None,
    console: Annotated[
        bool, typer.Option("--console/--no-console", help="With --no-console: no console beside the worker.")
    ] = True,
    console_port: Annotated[
        int | None,
        typer.Option(
            help="The console's page and HTTP interface; default 8643, or a free one; 0: a free one.",
            metavar="PORT",
        ),
    ] = None,
    config: options.ConfigFile = None,
    settings: options.SettingPairs = None,
) -> None:
    """Run a real Kafka, the topics, a worker and a console on this machine.

    Sends five delayed events, and prints what arrives on the topic reminders. The console
    shows what is pending and what fired; its address is printed when it answers. Stays up for your own
    requests until Ctrl-C. Kafka is fetched at the first start. The line `ready` on standard output says that
    requests are accepted. What is pending is kept in the data directory, for the next start with as many
    brokers.
    """
    from delaystream.cli.dev.session import Plan, Session

    loaded = options.load_local_settings(config, settings)
    forwarded = [] if config is None else ["--config", str(config)]
    for pair in settings or []:
        forwarded += ["--set", pair]
    session = Session(
        Plan(
            settings=loaded.settings,
            data_dir=data_dir,
            brokers=brokers,
            port=port,
            http_port=http_port,
            partitions=partitions,
            samples=samples,
            with_worker=worker,
            with_console=console,
            console_port=console_port,
            forwarded=forwarded,
        )
    )
    raise typer.Exit(int(session.run()))
