"""Options that several commands share, in groups, and how they become settings."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from delaystream.cli.groups import ANY_BYTES, is_utf8, to_bytes
from delaystream.cli.output import Output

if TYPE_CHECKING:
    from delaystream.config import Loaded, Settings

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file of settings (DELAYSTREAM_CONFIG).", metavar="FILE"),
]
SettingPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting by its name (max_list=10); repeatable. `delaystream config` lists them.",
        metavar="NAME=VALUE",
    ),
]
BootstrapServers = Annotated[
    str | None,
    typer.Option(
        "--bootstrap-server",
        "--bootstrap-servers",
        "-b",
        help="Brokers to start from (DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS; default localhost:9092).",
        metavar="HOST:PORT,...",
    ),
]
KafkaProperties = Annotated[
    list[str] | None,
    typer.Option(
        "--property",
        "-X",
        help="A Kafka client setting by the Java client's name (security.protocol=SSL); repeatable.",
        metavar="NAME=VALUE",
    ),
]
RequestTopic = Annotated[
    str | None,
    typer.Option(
        "--topic",
        "--request-topic",
        help="Request topic; default: the first of request_topics. An id belongs to its request topic.",
        metavar="TOPIC",
    ),
]
Actor = Annotated[
    str | None,
    typer.Option(help="Who asks: shown in the schedule's events, not verified.", metavar="TEXT"),
]
Note = Annotated[str | None, typer.Option(help="Why: for people, at most 1024 bytes.", metavar="TEXT")]
Coordinates = Annotated[
    str | None,
    typer.Option(
        help="In place of an ID: where a request without one stands, as `send` printed it.",
        metavar="TOPIC/PARTITION/OFFSET",
    ),
]
To = Annotated[str | None, typer.Option("--to", "-t", help="Topic to deliver to.", metavar="TOPIC")]
RecordKey = Annotated[
    str | None, typer.Option("--key", "-k", help="The record's key.", metavar="KEY"), ANY_BYTES
]
RecordHeaders = Annotated[
    list[str] | None,
    typer.Option("--header", "-H", help="A header that is delivered; repeatable.", metavar="NAME=VALUE"),
    ANY_BYTES,
]
File = Annotated[
    Path | None, typer.Option("--file", "-f", help="Read the value from a file; - is standard input.")
]
Null = Annotated[bool, typer.Option("--null", help="Deliver a null value (a tombstone).")]
DestinationPartition = Annotated[
    int | None, typer.Option(help="Partition to deliver to; default: by the key.", metavar="N", min=0)
]
DestinationKey = Annotated[
    str | None, typer.Option(help="Key to deliver with, in place of --key.", metavar="KEY")
]
DryRun = Annotated[
    bool, typer.Option("--dry-run", "-n", help="Print the record that would be sent; send nothing.")
]


@dataclass(frozen=True)
class Connection:
    """The settings and the Kafka cluster."""

    config: ConfigFile = None
    bootstrap_server: BootstrapServers = None
    properties: KafkaProperties = None
    settings: SettingPairs = None

    def load(self, flags: Mapping[str, Any] | None = None) -> Loaded:
        """The settings, flags first. Raises ConfigurationError and `typer.BadParameter`."""
        return load_settings(self.config, self.bootstrap_server, self.properties, self.settings, flags)


@dataclass(frozen=True)
class Service:
    """The options of a process that stays: a worker, a console."""

    config: ConfigFile = None
    bootstrap_server: BootstrapServers = None
    app_id: Annotated[
        str | None,
        typer.Option(help="The application: the workers' group, and the beginning of names.", metavar="NAME"),
    ] = None
    data_dir: Annotated[
        Path | None, typer.Option(help="Local state; it is rebuilt if it is lost.", metavar="DIR")
    ] = None
    http_host: Annotated[
        str | None,
        typer.Option(help="Address to listen on; a console beyond loopback needs tokens.", metavar="HOST"),
    ] = None
    http_port: Annotated[
        int | None, typer.Option(help="Port to listen on; 0: a free one, logged.", metavar="PORT")
    ] = None
    log_format: Annotated[str | None, typer.Option(help="auto, human or json.", metavar="FORMAT")] = None
    log_level: Annotated[str | None, typer.Option(help="debug, info, warning or error.", metavar="LEVEL")] = (
        None
    )
    properties: KafkaProperties = None
    settings: SettingPairs = None

    def load(self, own: str = "", flags: Mapping[str, Any] | None = None) -> Loaded:
        """The settings, flags first. `own` begins the names of the process's own ones, as `console_`.

        Raises ConfigurationError and `typer.BadParameter`.
        """
        shared = {
            "app_id": self.app_id,
            f"{own}data_dir": self.data_dir,
            f"{own}http_host": self.http_host,
            f"{own}http_port": self.http_port,
            "log_format": self.log_format,
            "log_level": self.log_level,
        }
        return load_settings(
            self.config, self.bootstrap_server, self.properties, self.settings, {**shared, **(flags or {})}
        )


@dataclass(frozen=True)
class Timing:
    """The headers of a schedule's times."""

    delay: Annotated[
        str | None,
        typer.Option("--delay", "-d", help="From now: 15m, 1h30m, PT15M, 0; or a list.", metavar="DELAY"),
    ] = None
    at: Annotated[
        str | None,
        typer.Option(
            "--at",
            help="2030-01-31T09:00:00Z, epoch milliseconds, or 2030-01-31T09:00 in --timezone; or a list.",
            metavar="TIME",
        ),
    ] = None
    cron: Annotated[
        str | None,
        typer.Option(
            "--cron",
            help="Recurring: 5 fields, 6 with seconds first, or @daily; see `delaystream cron`.",
            metavar="EXPR",
        ),
    ] = None
    every: Annotated[
        str | None,
        typer.Option("--every", help="Recurring, at an interval: 30s, 15m, P1D.", metavar="INTERVAL"),
    ] = None
    timezone: Annotated[
        str | None, typer.Option(help="IANA zone of --cron (default UTC), or of --at.", metavar="ZONE")
    ] = None
    start: Annotated[
        str | None, typer.Option(help="Earliest time; --every counts from it.", metavar="TIME")
    ] = None
    end: Annotated[str | None, typer.Option(help="Not after.", metavar="TIME")] = None
    max_fires: Annotated[
        str | None, typer.Option(help="Recurring: end after this many deliveries.", metavar="N")
    ] = None
    jitter: Annotated[
        str | None, typer.Option(help="Recurring: each fire comes up to this much later.", metavar="DURATION")
    ] = None
    dst_gap: Annotated[
        str | None,
        typer.Option(help="A local time that does not exist: shift or skip.", metavar="CHOICE"),
    ] = None
    dst_overlap: Annotated[
        str | None,
        typer.Option(help="A local time that comes twice: first, second or both.", metavar="CHOICE"),
    ] = None

    def options(self) -> dict[str, object]:
        """As the client has them; None for what was not given."""
        return dict(vars(self))


@dataclass(frozen=True)
class Lateness:
    """The rule for late fires."""

    catch_up: Annotated[
        str | None,
        typer.Option(
            help="Recurring: which missed times are delivered, within --grace: latest, all, none.",
            metavar="CHOICE",
        ),
    ] = None
    on_late: Annotated[
        str | None,
        typer.Option(
            help="One-time: what happens when later than --grace: fire, drop, or a topic to deliver to.",
            metavar="CHOICE",
        ),
    ] = None
    grace: Annotated[str | None, typer.Option(help="How late is too late.", metavar="DURATION")] = None

    def options(self) -> dict[str, object]:
        """As the client has them; None for what was not given."""
        return dict(vars(self))


@dataclass(frozen=True)
class Labels:
    """For people."""

    name: Annotated[str | None, typer.Option(help="A name, for people.", metavar="TEXT")] = None
    description: Annotated[str | None, typer.Option(help="What it is for.", metavar="TEXT")] = None
    tags: Annotated[
        str | None, typer.Option(help="A comma list; --match-tags finds them.", metavar="TAG,...")
    ] = None

    def options(self) -> dict[str, object]:
        """As the client has them; None for what was not given."""
        return dict(vars(self))


@dataclass(frozen=True)
class Terms:
    """The reason and the conditions of a request."""

    note: Note = None
    if_version: Annotated[
        int | None,
        typer.Option(help="Only if the id has this version; 0: only if it is new.", metavar="N", min=0),
    ] = None
    request_id: Annotated[
        str | None,
        typer.Option(
            help="Name of this request: sent again with it, it changes nothing more.", metavar="TEXT"
        ),
    ] = None

    def options(self) -> dict[str, object]:
        """As the client has them; None for what was not given."""
        return dict(vars(self))


@dataclass(frozen=True)
class Declaration:
    """The set of schedules that an id belongs to."""

    declared_by: Annotated[
        str | None, typer.Option(help="The set of schedules that the id belongs to.", metavar="TEXT")
    ] = None
    deploy: Annotated[
        int | None,
        typer.Option(help="Number of that set's deployment: a lower one is refused.", metavar="N", min=0),
    ] = None

    def options(self) -> dict[str, object]:
        """As the client has them; None for what was not given."""
        return dict(vars(self))


@dataclass(frozen=True)
class Selection:
    """A selection of schedules, in place of one id."""

    match_tags: Annotated[
        str | None,
        typer.Option(help="All that have these tags (a comma list: every one).", metavar="TAG,..."),
    ] = None
    match_destination: Annotated[
        str | None, typer.Option(help="All that deliver to this topic.", metavar="TOPIC")
    ] = None
    match_id_prefix: Annotated[
        str | None, typer.Option(help="All whose id begins with this.", metavar="TEXT")
    ] = None
    match_key: Annotated[str | None, typer.Option(help="All that deliver with this key.", metavar="KEY")] = (
        None
    )

    def options(self) -> dict[str, object]:
        """As the client has them; None for what was not given."""
        return dict(vars(self))

    def __bool__(self) -> bool:
        return any(value is not None for value in vars(self).values())


ReplyTo = Annotated[
    str | None,
    typer.Option(
        help="Topic for the receipt; default: the setting receipts_topic. The workers' "
        "destinations_allow must include any other.",
        metavar="TOPIC",
    ),
]
HumanOrJson = Annotated[
    Output, typer.Option("--output", "-o", help="Lines for people, or JSON.", metavar="human|json")
]


@dataclass(frozen=True)
class Waiting:
    """Whether to wait for the outcome, and the topic of the receipt."""

    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Wait for the receipt and print it.")] = True
    reply_to: ReplyTo = None
    timeout: Annotated[
        float | None,
        typer.Option(help="Longest wait; default 15, for many schedules 300.", metavar="SECONDS", min=0.1),
    ] = None
    output: Annotated[Output, typer.Option("--output", "-o", help="The receipt as a line, or as JSON.")] = (
        "human"
    )

    def topic(self, settings: Settings) -> str | None:
        """The topic of the receipt; None when nobody waits for one."""
        if self.reply_to is not None:
            return self.reply_to
        return settings.receipts_topic if self.wait else None


@dataclass(frozen=True)
class Answer:
    """The topic and the form of an answer, for commands that only ask."""

    reply_to: ReplyTo = None
    timeout: Annotated[
        float, typer.Option(help="Longest wait for the answer.", metavar="SECONDS", min=0.1)
    ] = 15.0
    output: Annotated[
        Output, typer.Option("--output", "-o", help="Lines for people, or the receipt as JSON.")
    ] = "human"

    def waiting(self) -> Waiting:
        """These commands always wait."""
        return Waiting(reply_to=self.reply_to, timeout=self.timeout, output=self.output)


def load_settings(
    config: Path | None,
    bootstrap_servers: str | None,
    properties: list[str] | None,
    pairs: list[str] | None,
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Loaded:
    """The settings of a command; its flags win. Raises ConfigurationError and `typer.BadParameter`."""
    from delaystream.config import load

    given: dict[str, Any] = dict(flags or {})
    given.update({f"kafka.{name}": value for name, value in named_values(properties, "--property")})
    if bootstrap_servers is not None:
        given["kafka.bootstrap.servers"] = bootstrap_servers
    return load(given, pairs=_setting_pairs(pairs), config=config, defaults=defaults)


def _setting_pairs(texts: list[str] | None) -> dict[str, str]:
    pairs = named_values(texts, "--set")
    return {
        name if name.startswith(("kafka.", "tenants.")) else name.replace("-", "_"): value
        for name, value in pairs
    }


def load_local_settings(config: Path | None, pairs: list[str] | None) -> Loaded:
    """The settings for our own broker: all destinations allowed, no client settings of another cluster.

    Raises ConfigurationError.
    """
    import os

    from delaystream.config import ConfigurationError, load

    environ = {name: value for name, value in os.environ.items() if not name.startswith("DELAYSTREAM_KAFKA_")}
    loaded = load(
        pairs=_setting_pairs(pairs), config=config, environ=environ, defaults={"destinations_allow": "*"}
    )
    if given := sorted(set(loaded.settings.kafka) - {"bootstrap.servers"}):
        raise ConfigurationError(
            [
                f"Kafka's {given[0]} is for another cluster: "
                "`dev` runs a broker of its own, without login and TLS."
            ]
        )
    return loaded


def named_values(texts: list[str] | None, option: str) -> list[tuple[str, str]]:
    """`NAME=VALUE` texts as pairs, in order. Raises `typer.BadParameter`."""
    pairs: list[tuple[str, str]] = []
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not name or not equals:
            # The message omits the text, which may be a password.
            raise typer.BadParameter(f"{option} number {len(pairs) + 1} is not NAME=VALUE")
        pairs.append((name, value))
    return pairs


def record_headers(texts: list[str] | None) -> list[tuple[str, bytes]]:
    """The headers from `RecordHeaders`: names are text, values any bytes. Raises `typer.BadParameter`."""
    headers = []
    for number, (name, value) in enumerate(named_values(texts, "--header"), 1):
        if not is_utf8(name):
            raise typer.BadParameter(f"--header number {number}: its name is not UTF-8")
        headers.append((name, to_bytes(value)))
    return headers
