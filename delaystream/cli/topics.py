"""`delaystream topics`: create, check and print the topics that delaystream works with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.config import Settings
    from delaystream.topics import TopicSpec

topics = typer.Typer(
    help="Create, check and print delaystream's topics.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dataclass(frozen=True)
class Planned:
    """What the topics should be."""

    partitions: Annotated[
        int | None,
        typer.Option(min=1, help="Partitions of request, commands and changelog topics.", metavar="N"),
    ] = None
    environment: Annotated[
        Literal["production", "single-node"],
        typer.Option(
            help="production: 3 replicas, 2 in sync. single-node: one of each.",
            metavar="production|single-node",
        ),
    ] = "production"
    replication_factor: Annotated[
        int | None, typer.Option(min=1, help="Replicas of each topic.", metavar="N")
    ] = None

    def specs(self, settings: "Settings") -> "list[TopicSpec]":
        """The plan, for these settings."""
        from delaystream.topics import plan

        return plan(
            settings,
            partitions=self.partitions,
            environment=self.environment,
            replication_factor=self.replication_factor,
        )


def _connect(settings: "Settings") -> Any:
    from delaystream.adapters.client_config import ClientConfig
    from delaystream.topics import connect

    return connect(ClientConfig.parse(settings.kafka).confluent())


@topics.command()
@expanded
def apply(
    *,
    planned: Planned,
    connection: options.Connection,
) -> None:
    """Create what is missing, correct settings that differ.

    Partition counts and replicas of existing topics are never changed.
    """
    from delaystream.topics import apply as apply_plan

    loaded = connection.load()
    specs = planned.specs(loaded.settings)
    changes = apply_plan(_connect(loaded.settings), specs)
    for change in changes:
        print(change.sentence)
    if not changes:
        print("Nothing to do: all topics are as they should be.")


@topics.command()
@expanded
def check(
    *,
    planned: Planned,
    connection: options.Connection,
) -> None:
    """Say how the cluster's topics differ from what they should be.

    A difference that breaks a guarantee is an error: exit with 65. One that weakens it is a warning.
    """
    from delaystream.topics import check as compare

    loaded = connection.load()
    specs = planned.specs(loaded.settings)
    found = compare(_connect(loaded.settings), specs, exact_partitions=planned.partitions is not None)
    for difference in found:
        print(f"{difference.severity}: {difference.sentence}")
    if not found:
        print("All topics are as they should be.")
    if any(difference.severity == "error" for difference in found):
        raise typer.Exit(ExitCode.REFUSED)


@topics.command(name="print")
@expanded
def print_(
    *,
    planned: Planned,
    output: Annotated[
        Literal["table", "kafka-topics", "json"],
        typer.Option(
            "--output",
            "-o",
            help="A table, kafka-topics command lines, or JSON.",
            metavar="table|kafka-topics|json",
        ),
    ] = "table",
    connection: options.Connection,
) -> None:
    """Print the topics as they should be. Needs no cluster.

    As a table, as command lines of kafka-topics, or as JSON: to create them by other means.
    """
    from delaystream.topics import render

    loaded = connection.load()
    print(
        render(
            planned.specs(loaded.settings),
            output,
            bootstrap_servers=connection.bootstrap_server,
        )
    )
