"""The specification of topics as text: for people, for a shell, for programs."""

import shlex
from collections.abc import Sequence
from typing import Literal

import msgspec

from delaystream.topics.specification import TopicSpec

Form = Literal["table", "kafka-topics", "json"]

_HEADINGS = ("TOPIC", "PARTITIONS", "REPLICAS", "SETTINGS")


def render(specs: Sequence[TopicSpec], form: Form = "table", *, bootstrap_servers: str | None = None) -> str:
    """Return the topics as a table, as command lines of Kafka's own tool, or as JSON; no newline at the end.

    Without `bootstrap_servers` the command lines read them from the shell variable `BOOTSTRAP_SERVERS`.
    """
    match form:
        case "table":
            return _table(specs)
        case "kafka-topics":
            return "\n".join(_command(spec, bootstrap_servers) for spec in specs)
        case "json":
            topics = [
                {
                    "name": spec.name,
                    "partitions": spec.partitions,
                    "replication_factor": spec.replication_factor,
                    "config": spec.config,
                    "purpose": spec.purpose,
                }
                for spec in specs
            ]
            return msgspec.json.format(msgspec.json.encode(topics), indent=2).decode()


def _table(specs: Sequence[TopicSpec]) -> str:
    rows = [_HEADINGS]
    for spec in specs:
        settings = [f"{key}={value}" for key, value in spec.config.items()]
        rows.append((spec.name, str(spec.partitions), str(spec.replication_factor), settings[0]))
        rows += [("", "", "", setting) for setting in settings[1:]]
    widths = [max(len(row[column]) for row in rows) for column in range(3)]
    return "\n".join(
        f"{name:<{widths[0]}}  {partitions:>{widths[1]}}  {replicas:>{widths[2]}}  {setting}".rstrip()
        for name, partitions, replicas, setting in rows
    )


def _command(spec: TopicSpec, bootstrap_servers: str | None) -> str:
    servers = shlex.quote(bootstrap_servers) if bootstrap_servers else '"$BOOTSTRAP_SERVERS"'
    settings = "".join(f" --config {shlex.quote(f'{key}={value}')}" for key, value in spec.config.items())
    return (
        f"kafka-topics.sh --bootstrap-server {servers} --create --if-not-exists "
        f"--topic {shlex.quote(spec.name)} --partitions {spec.partitions} "
        f"--replication-factor {spec.replication_factor}{settings}"
    )
