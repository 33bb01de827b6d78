"""Kafka's client settings, by the Java client's names, for the two clients in use.

aiokafka carries the records and the group membership; confluent-kafka serves the tools and reads topic ids.
Only names in `delaystream.config.kafka.SUPPORTED` get here.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from delaystream.adapters.security.client_security import Login, SecurityReading, Tls
from delaystream.adapters.security.oauth_tokens import TokenLogin
from delaystream.config.errors import ConfigurationError

PROTOCOLS = ("PLAINTEXT", "SSL", "SASL_PLAINTEXT", "SASL_SSL")
COMPRESSIONS = ("none", "gzip", "snappy", "lz4", "zstd")

_AIOKAFKA = {
    "request.timeout.ms": "request_timeout_ms",
    "retry.backoff.ms": "retry_backoff_ms",
    "metadata.max.age.ms": "metadata_max_age_ms",
    "connections.max.idle.ms": "connections_max_idle_ms",
}
_AIOKAFKA_CONSUMER = {
    "heartbeat.interval.ms": "heartbeat_interval_ms",
    "max.poll.interval.ms": "max_poll_interval_ms",
    "max.partition.fetch.bytes": "max_partition_fetch_bytes",
}
_CONFLUENT = {
    "request.timeout.ms": "socket.timeout.ms",
    "retry.backoff.ms": "retry.backoff.ms",
    "metadata.max.age.ms": "metadata.max.age.ms",
    "connections.max.idle.ms": "connections.max.idle.ms",
}


@dataclass(frozen=True, repr=False)
class ClientConfig:
    """Checked client settings; `parse` makes them."""

    bootstrap_servers: tuple[str, ...]
    security_protocol: str
    login: Login | TokenLogin | None
    tls: Tls | None
    client_id: str | None
    client_rack: str | None
    compression: str | None
    numbers: Mapping[str, int]
    """Every numeric setting that was given, by the Java client's name."""

    @classmethod
    def parse(cls, properties: Mapping[str, str]) -> ClientConfig:
        """Check the settings as a whole. Raises ConfigurationError with one sentence for each problem."""
        problems: list[str] = []
        protocol = _choice(properties, "security.protocol", PROTOCOLS, problems)
        compression = _choice(properties, "compression.type", COMPRESSIONS, problems)
        security = SecurityReading(properties, protocol, problems)
        config = cls(
            bootstrap_servers=_servers(properties.get("bootstrap.servers", ""), problems),
            security_protocol=protocol,
            login=security.login(),
            tls=security.tls(),
            client_id=properties.get("client.id") or None,
            client_rack=properties.get("client.rack") or None,
            compression=None if compression == "none" else compression,
            numbers=_numbers(properties, problems),
        )
        if problems:
            raise ConfigurationError(problems)
        return config

    def aiokafka(self) -> dict[str, Any]:
        """Keyword arguments common to aiokafka's producer, consumer, client and admin client.

        Raises ConfigurationError when certificates cannot be used.
        """
        arguments: dict[str, Any] = {
            "bootstrap_servers": list(self.bootstrap_servers),
            "security_protocol": self.security_protocol,
            "ssl_context": self._ssl_context(),
            **_renamed(self.numbers, _AIOKAFKA),
        }
        if self.client_id is not None:
            arguments["client_id"] = self.client_id
        if self.login is not None:
            arguments["sasl_mechanism"] = self.login.mechanism
        if isinstance(self.login, TokenLogin):
            arguments["sasl_oauth_token_provider"] = self.login
        elif self.login is not None:
            arguments["sasl_plain_username"] = self.login.username
            arguments["sasl_plain_password"] = self.login.password
        return arguments

    def aiokafka_producer(self) -> dict[str, Any]:
        """`aiokafka()`, and the arguments that only a producer takes."""
        compression = {} if self.compression is None else {"compression_type": self.compression}
        return {**self.aiokafka(), **compression}

    def aiokafka_consumer(self) -> dict[str, Any]:
        """`aiokafka()`, and the arguments that only a consumer takes."""
        rack = {} if self.client_rack is None else {"client_rack": self.client_rack}
        return {**self.aiokafka(), **rack, **_renamed(self.numbers, _AIOKAFKA_CONSUMER)}

    def confluent(self) -> dict[str, Any]:
        """Settings common to confluent-kafka's Producer, Consumer and AdminClient.

        Raises TokenUnavailable when the login needs a token and there is none. The clients themselves would
        wait for ten seconds, and not say why.
        """
        conf: dict[str, Any] = {
            "bootstrap.servers": ",".join(self.bootstrap_servers),
            "security.protocol": self.security_protocol,
            **_renamed(self.numbers, _CONFLUENT),
        }
        if self.client_id is not None:
            conf["client.id"] = self.client_id
        if self.client_rack is not None:
            conf["client.rack"] = self.client_rack
        if self.login is not None:
            conf["sasl.mechanism"] = self.login.mechanism
        if isinstance(self.login, TokenLogin):
            self.login.current()
            conf["oauth_cb"] = self.login.confluent
        elif self.login is not None:
            conf["sasl.username"] = self.login.username
            conf["sasl.password"] = self.login.password
        if self.tls is not None:
            conf.update(_confluent_tls(self.tls))
        return conf

    def confluent_producer(self) -> dict[str, Any]:
        """`confluent()` for a producer that partitions as the Java client does, and never half-writes."""
        compression = {} if self.compression is None else {"compression.type": self.compression}
        return {
            **self.confluent(),
            **compression,
            "partitioner": "murmur2_random",
            "enable.idempotence": True,
        }

    def _ssl_context(self) -> ssl.SSLContext | None:
        return None if self.tls is None else self.tls.context()


def _renamed(numbers: Mapping[str, int], names: Mapping[str, str]) -> dict[str, int]:
    return {ours: numbers[name] for name, ours in names.items() if name in numbers}


def _confluent_tls(tls: Tls) -> dict[str, Any]:
    conf: dict[str, Any] = {}
    if not tls.check_hostname:
        conf["ssl.endpoint.identification.algorithm"] = "none"
    for name, pem in (("ca", tls.authorities), ("certificate", tls.certificate), ("key", tls.key)):
        if pem is None:
            continue
        if pem.path is not None:
            conf[f"ssl.{name}.location"] = str(pem.path)
        else:
            conf[f"ssl.{name}.pem"] = pem.read()
    if tls.key_password is not None:
        conf["ssl.key.password"] = tls.key_password
    return conf


def _servers(text: str, problems: list[str]) -> tuple[str, ...]:
    servers = tuple(server.strip() for server in text.split(",") if server.strip())
    for server in servers:
        host, _, port = server.rpartition(":")
        if not host or not port.isdecimal() or not 0 < int(port) <= 65_535:
            problems.append(f"Kafka's bootstrap.servers: {server!r} is not host:port.")
    if not servers:
        problems.append("Kafka's bootstrap.servers is empty: host:port of one or more brokers.")
    return servers


def _choice(properties: Mapping[str, str], name: str, choices: tuple[str, ...], problems: list[str]) -> str:
    value = properties.get(name, choices[0])
    for choice in choices:
        if choice.lower() == value.lower():  # the Java client reads them in any case
            return choice
    problems.append(f"Kafka's {name}: {value!r} is not one of {', '.join(choices)}.")
    return choices[0]


def _numbers(properties: Mapping[str, str], problems: list[str]) -> dict[str, int]:
    numbers: dict[str, int] = {}
    for name in (*_AIOKAFKA, *_AIOKAFKA_CONSUMER):
        text = properties.get(name)
        if text is None:
            continue
        if text.strip().isdecimal():
            numbers[name] = int(text)
        else:
            problems.append(f"Kafka's {name}: {text!r} is not a whole number.")
    return numbers
