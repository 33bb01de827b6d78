"""`delaystream topics`: create, check and print the topics that delaystream works with."""

from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from delaystream.cli import options
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.config import Settings
    from delaystream.topics import TopicSpec

topics = typer.Typer(
    help="Create, check and print delaystream's topics.",
    no_args_is_help=True,
    rich_markup_mode=None,
)

Partitions = Annotated[
    int | None,
    typer.Option(min=1, help="Partitions of request, commands and changelog topics.", metavar="N"),
]
ReplicationFactor = Annotated[int | None, typer.Option(min=1, help="Replicas of each topic.", metavar="N")]
Environment = Annotated[
    Literal["production", "single-node"],
    typer.Option(
        help="production: 3 replicas, 2 in sync. single-node: one of each.", metavar="production|single-node"
    ),
]


def _plan(
    settings: "Settings", partitions: int | None, environment: Any, replication_factor: int | None
) -> "list[TopicSpec]":
    from delaystream.topics import plan

    return plan(
        settings, partitions=partitions, environment=environment, replication_factor=replication_factor
    )


def _connect(settings: "Settings") -> Any:
    from delaystream.adapters.client_config import ClientConfig
    from delaystream.topics import connect

    return connect(ClientConfig.parse(settings.kafka).confluent())


@topics.command()
def apply(
    config: options.ConfigFile = None,
    bootstrap_server: options.BootstrapServers = None,
    partitions: Partitions = None,
    environment: Environment = "production",
    replication_factor: ReplicationFactor = None,
    properties: options.KafkaProperties = None,
    settings: options.SettingPairs = None,
) -> None:
    """Create what is missing, correct settings that differ.

    Partition counts and replicas of existing topics are never changed.
    """
    from delaystream.topics import apply as apply_plan

    loaded = options.load_settings(config, bootstrap_server, properties, settings)
    specs = _plan(loaded.settings, partitions, environment, replication_factor)
    changes = apply_plan(_connect(loaded.settings), specs)
    for change in changes:
        print(change.sentence)
    if not changes:
        print("Nothing to do: all topics are as they should be.")


@topics.command()
def check(
    config: options.ConfigFile = None,
    bootstrap_server: options.BootstrapServers = None,
    partitions: Partitions = None,
    environment: Environment = "production",
    replication_factor: ReplicationFactor = None,
    properties: options.KafkaProperties = None,
    settings: options.SettingPairs = None,
) -> None:
    """Say how the cluster's topics differ from what they should be.

    A difference that breaks a guarantee is an error: exit with 65. One that weakens it is a warning.
    """
    from delaystream.topics import check as compare

    loaded = options.load_settings(config, bootstrap_server, properties, settings)
    specs = _plan(loaded.settings, partitions, environment, replication_factor)
    found = compare(_connect(loaded.settings), specs, exact_partitions=partitions is not None)
    for difference in found:
        print(f"{difference.severity}: {difference.sentence}")
    if not found:
        print("All topics are as they should be.")
    if any(difference.severity == "error" for difference in found):
        raise typer.Exit(ExitCode.REFUSED)


@topics.command(name="print")
def print_(
    config: options.ConfigFile = None,
    bootstrap_server: options.BootstrapServers = None,
    partitions: Partitions = None,
    environment: Environment = "production",
    replication_factor: ReplicationFactor = None,
    output: Annotated[
        Literal["table", "kafka-topics", "json"],
        typer.Option(
            "--output",
            "-o",
            help="A table, kafka-topics command lines, or JSON.",
            metavar="table|kafka-topics|json",
        ),
    ] = "table",
    properties: options.KafkaProperties = None,
    settings: options.SettingPairs = None,
) -> None:
    """Print the topics as they should be. Needs no cluster.

    As a table, as command lines of kafka-topics, or as JSON: to create them by other means.
    """
    from delaystream.topics import render

    loaded = options.load_settings(config, bootstrap_server, properties, settings)
    print(
        render(
            _plan(loaded.settings, partitions, environment, replication_factor),
            output,
            bootstrap_servers=bootstrap_server,
        )
    )
