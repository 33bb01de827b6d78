"""The files for the start of an embedded broker: its properties and its log configuration. Pure text."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from delaystream.dev.jars import version_key

LOOPBACK = "127.0.0.1"
FIRST_NODE = 1
REPLICAS = 3
"""Replicas of each record, if there are this many brokers."""


@dataclass(frozen=True, eq=False)
class Listener:
    """One more listener of a broker, on the loopback interface like the others.

    `protocol` is Kafka's security protocol; `settings` are the broker's properties for this listener alone,
    without their `listener.name.<name>.`, such as `ssl.keystore.location`.
    """

    name: str
    protocol: str
    settings: Mapping[str, str] = field(default_factory=dict)

    def properties(self) -> dict[str, str]:
        """The broker's properties for `settings`."""
        return {f"listener.name.{self.name.lower()}.{key}": value for key, value in self.settings.items()}


@dataclass(frozen=True)
class Seat:
    """A broker's place in a cluster whose brokers are all controllers as well.

    `controllers` are the voters of the quorum: the port of each node's controller, by node. `cluster_id`
    None: that of the data directory, or a new one.
    """

    node: int
    controllers: Mapping[int, int]
    cluster_id: str | None = None

    @property
    def replicas(self) -> int:
        """The number of replicas of a record."""
        return min(REPLICAS, len(self.controllers))

    @property
    def in_sync(self) -> int:
        """The number of replicas that must have a record before it counts as written: one may be missing."""
        return max(1, self.replicas - 1)


def server_properties(
    log_dir: Path,
    port: int,
    seat: Seat,
    extra: Mapping[str, str] | None = None,
    listeners: Mapping[Listener, int] | None = None,
) -> dict[str, str]:
    """Return the properties of a broker that is also a controller, and reachable from this machine only.

    Everything about a topic's life (retention, compaction, transactions) has Kafka's defaults, so that
    behaviour here is the same elsewhere. The differences are settings that need more nodes, or that delay the
    start. `listeners` are additional, with their ports. `extra` wins over everything.
    """
    more = {} if listeners is None else listeners
    others = [f"{listener.name}://{LOOPBACK}:{at}" for listener, at in more.items()]
    protocols = [f"{listener.name}:{listener.protocol}" for listener in more]
    internal = f"PLAINTEXT://{LOOPBACK}:{port}"
    replicas, in_sync = str(seat.replicas), str(seat.in_sync)
    replication = {
        "default.replication.factor": replicas,
        # It also holds for __consumer_offsets, which has no such property of its own.
        "min.insync.replicas": in_sync,
        "offsets.topic.replication.factor": replicas,
        "transaction.state.log.replication.factor": replicas,
        "transaction.state.log.min.isr": in_sync,
        "share.coordinator.state.topic.replication.factor": replicas,
        "share.coordinator.state.topic.min.isr": in_sync,
    }
    quick_and_small = {
        # 50 partitions each by default: their creation delays the first group and the first transaction.
        "offsets.topic.num.partitions": "4",
        "transaction.state.log.num.partitions": "4",
        "share.coordinator.state.topic.num.partitions": "4",
        # A group waits 3 s for further members by default.
        "group.initial.rebalance.delay.ms": "0",
        # 6 s by default: too long to watch another worker take over.
        "group.min.session.timeout.ms": "1000",
        # The controller refuses a broker that was killed until its former session has timed out: 9 s by
        # default.
        "broker.session.timeout.ms": "4000",
        "broker.heartbeat.interval.ms": "1000",
        # 128 MiB of heap by default, allocated at start.
        "log.cleaner.dedupe.buffer.size": str(16 * 1024 * 1024),
    }
    return {
        "process.roles": "broker,controller",
        "node.id": str(seat.node),
        "listeners": ",".join([internal, *others, f"CONTROLLER://{LOOPBACK}:{seat.controllers[seat.node]}"]),
        "advertised.listeners": ",".join([internal, *others]),
        "listener.security.protocol.map": ",".join(
            ["PLAINTEXT:PLAINTEXT", "CONTROLLER:PLAINTEXT", *protocols]
        ),
        "inter.broker.listener.name": "PLAINTEXT",
        "controller.listener.names": "CONTROLLER",
        # Static voters are named in this file and not in the stored log, so ports may change between starts.
        "controller.quorum.voters": ",".join(
            f"{node}@{LOOPBACK}:{controller_port}" for node, controller_port in seat.controllers.items()
        ),
        "log.dirs": str(log_dir),
        "auto.create.topics.enable": "false",
        **replication,
        **quick_and_small,
        **{name: value for listener in more for name, value in listener.properties().items()},
        **(extra or {}),
    }


def as_properties(values: Mapping[str, str]) -> str:
    """Return a Java properties file. A backslash is doubled, as the format demands."""
    return "".join(f"{key}={value}\n" for key, value in values.items()).replace("\\", "\\\\")


def log_configuration(version: str, log_file: Path) -> tuple[str, str, str]:
    """Return (file name, text, JVM option with `{path}`) of a configuration that logs into `log_file` only.

    Kafka 4 logs through log4j 2, Kafka 3 through log4j 1 (reload4j). Bounded: 10 MB, three older files.
    """
    if version_key(version) >= (4, 0):
        return "log4j2.properties", _LOG4J2.format(log_file=log_file), "-Dlog4j2.configurationFile={path}"
    return "log4j.properties", _LOG4J1.format(log_file=log_file), "-Dlog4j.configuration=file:{path}"


_LOG4J2 = """\
status = error
appender.file.type = RollingFile
appender.file.name = file
appender.file.fileName = {log_file}
appender.file.filePattern = {log_file}.%i
appender.file.layout.type = PatternLayout
appender.file.layout.pattern = [%d] %p %m (%c)%n
appender.file.policies.type = Policies
appender.file.policies.size.type = SizeBasedTriggeringPolicy
appender.file.policies.size.size = 10MB
appender.file.strategy.type = DefaultRolloverStrategy
appender.file.strategy.max = 3
rootLogger.level = info
rootLogger.appenderRef.file.ref = file
"""

_LOG4J1 = """\
log4j.rootLogger=INFO, file
log4j.appender.file=org.apache.log4j.RollingFileAppender
log4j.appender.file.File={log_file}
log4j.appender.file.MaxFileSize=10MB
log4j.appender.file.MaxBackupIndex=3
log4j.appender.file.layout=org.apache.log4j.PatternLayout
log4j.appender.file.layout.ConversionPattern=[%d] %p %m (%c)%n
"""
