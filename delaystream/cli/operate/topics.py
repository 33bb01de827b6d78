"""`delaystream topics`: create, check and print the topics that delaystream works with."""

from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, cast

import msgspec
import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded
from delaystream.cli.output import say, say_all, say_json
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Sequence

    from delaystream.config import Settings
    from delaystream.topics import Role, TopicSpec

topics = typer.Typer(
    help="Create, check and print delaystream's topics.",
    no_args_is_help=True,
    rich_markup_mode=None,
)


@dataclass(frozen=True)
class Planned:
    """The plan of the topics."""

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


@dataclass(frozen=True)
class Access:
    """The users, for the forms with ACLs."""

    user: Annotated[
        list[str] | None,
        typer.Option(
            help="Name of a role's user, such as worker=svc-delay; default <app-id>-<role>. Repeatable.",
            metavar="ROLE=NAME",
        ),
    ] = None
    authentication: Annotated[
        Literal["scram-sha-512", "tls"],
        typer.Option(help="How users log in; with tls their names are CN=...", metavar="scram-sha-512|tls"),
    ] = "scram-sha-512"
    cluster: Annotated[str, typer.Option(help="strimzi: name of the Kafka object.", metavar="NAME")] = "kafka"
    namespace: Annotated[
        str | None, typer.Option(help="strimzi: namespace of the resources.", metavar="NAMESPACE")
    ] = None

    def rendered(
        self, specs: "list[TopicSpec]", settings: "Settings", form: str, bootstrap_servers: str | None
    ) -> str:
        """The topics, the ACLs or both, in the chosen form."""
        from delaystream.topics import StrimziTarget, kafka_acls, render, strimzi, terraform, users

        if form in {"table", "json", "kafka-topics"}:
            return render(specs, cast("Any", form), bootstrap_servers=bootstrap_servers)
        # ACLs without destinations would look complete, but no delivery would be allowed.
        settings.require_for_worker()
        everybody = users(settings, self._names())
        if form == "kafka-acls":
            return kafka_acls(everybody, self.authentication, bootstrap_servers)
        if form == "terraform":
            return terraform(specs, everybody, self.authentication)
        return strimzi(specs, everybody, StrimziTarget(self.cluster, self.namespace, self.authentication))

    def _names(self) -> "dict[Role, str]":
        from delaystream.topics import ROLES

        names = dict(options.named_values(self.user, "--user"))
        if unknown := [role for role in names if role not in ROLES]:
            raise typer.BadParameter(f"--user {unknown[0]}: a role is one of {', '.join(ROLES)}")
        return cast("dict[Role, str]", names)


def _objects(structs: "Sequence[msgspec.Struct]") -> list[dict[str, Any]]:
    return [msgspec.structs.asdict(struct) for struct in structs]


def _connect(settings: "Settings") -> Any:
    from delaystream.adapters.security.client_config import ClientConfig
    from delaystream.topics import connect

    return connect(ClientConfig.parse(settings.kafka).confluent())


@topics.command()
@expanded
def apply(
    *,
    planned: Planned,
    output: options.HumanOrJson = "human",
    connection: options.Connection,
) -> None:
    """Create what is missing, correct settings that differ.

    Partition counts and replicas of existing topics are never changed. What still differs is told at the end.
    """
    from delaystream.topics import apply as apply_plan
    from delaystream.topics import check as compare
    from delaystream.topics import summed_up

    loaded = connection.load()
    specs = planned.specs(loaded.settings)
    admin = _connect(loaded.settings)
    changes = apply_plan(admin, specs)
    if output == "human":
        say_all(change.sentence for change in changes)
    stays = compare(admin, specs, exact_partitions=planned.partitions is not None)
    if output == "json":
        say_json({"changes": _objects(changes), "stays": _objects(stays)})
        return
    say_all(f"stays as it is: {sentence}" for sentence in summed_up(stays))
    if not changes and not stays:
        say("Nothing to do: all topics are as they should be.")


@topics.command()
@expanded
def check(
    *,
    planned: Planned,
    output: options.HumanOrJson = "human",
    connection: options.Connection,
) -> None:
    """Say how the cluster's topics differ from what they should be.

    A difference that breaks a guarantee is an error: exit with 65. One that weakens it is a warning.
    """
    from delaystream.topics import check as compare

    loaded = connection.load()
    specs = planned.specs(loaded.settings)
    found = compare(_connect(loaded.settings), specs, exact_partitions=planned.partitions is not None)
    if output == "json":
        say_json(_objects(found))
    elif found:
        say_all(f"{difference.severity}: {difference.sentence}" for difference in found)
    else:
        say("All topics are as they should be.")
    if any(difference.severity == "error" for difference in found):
        raise typer.Exit(ExitCode.REFUSED)


@topics.command(name="print")
@expanded
def print_(
    *,
    planned: Planned,
    output: Annotated[
        Literal["table", "json", "kafka-topics", "kafka-acls", "strimzi", "terraform"],
        typer.Option(
            "--output",
            "--format",
            "-o",
            help="A table, JSON, command lines of kafka-topics or kafka-acls, KafkaTopic and KafkaUser of "
            "Strimzi, or Terraform (provider Mongey/kafka).",
            metavar="table|json|kafka-topics|kafka-acls|strimzi|terraform",
        ),
    ] = "table",
    access: Access,
    connection: options.Connection,
) -> None:
    """Print the topics as they should be, and who needs which ACLs. Needs no cluster.

    For people, or to create them by other means. The ACLs are the least that a worker, a requester, a reader,
    a console and an operator need; destinations are those of destinations_allow.
    """
    loaded = connection.load()
    text = access.rendered(
        planned.specs(loaded.settings), loaded.settings, output, connection.bootstrap_server
    )
    say(*text.split("\n"))
