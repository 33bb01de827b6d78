"""Options that several commands share, and how they become settings."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from delaystream.config import Loaded

ConfigFile = Annotated[
    Path | None,
    typer.Option("--config", "-c", help="TOML file of settings (DELAYSTREAM_CONFIG).", metavar="FILE"),
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
SettingPairs = Annotated[
    list[str] | None,
    typer.Option(
        "--set",
        help="Any setting by its name (max_list=10); repeatable. `delaystream config` lists them.",
        metavar="NAME=VALUE",
    ),
]
RequestTopic = Annotated[
    str | None,
    typer.Option(
        "--request-topic",
        help="Request topic to produce to; default: the first of request_topics.",
        metavar="TOPIC",
    ),
]


def load_settings(
    config: Path | None,
    bootstrap_servers: str | None,
    properties: list[str] | None,
    pairs: list[str] | None,
    flags: Mapping[str, Any] | None = None,
    defaults: Mapping[str, Any] | None = None,
) -> Loaded:
    """The settings of a command, its flags first. Raises ConfigurationError and `typer.BadParameter`."""
    from delaystream.config import load

    given: dict[str, Any] = dict(flags or {})
    given.update({f"kafka.{name}": value for name, value in named_values(properties, "--property")})
    if bootstrap_servers is not None:
        given["kafka.bootstrap.servers"] = bootstrap_servers
    return load(given, pairs=_setting_pairs(pairs), config=config, defaults=defaults)


def _setting_pairs(texts: list[str] | None) -> dict[str, str]:
    pairs = named_values(texts, "--set")
    return {name if name.startswith("kafka.") else name.replace("-", "_"): value for name, value in pairs}


def load_local_settings(config: Path | None, pairs: list[str] | None) -> Loaded:
    """The settings for a broker of our own: every destination allowed, no other cluster's client settings.

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
    pairs = []
    for text in texts or []:
        name, equals, value = text.partition("=")
        if not name or not equals:
            raise typer.BadParameter(f"{option} {text!r} is not NAME=VALUE")
        pairs.append((name, value))
    return pairs
