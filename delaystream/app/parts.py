"""The settings of a worker's parts, made from the settings of the worker."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from delaystream.adapters.kafka.changelog import ChangelogSettings
from delaystream.adapters.membership.batch_fetcher import ReaderSettings
from delaystream.adapters.membership.faust_host import HostSettings
from delaystream.adapters.security.client_config import ClientConfig
from delaystream.adapters.transactions.settings import ProducerSettings
from delaystream.config import ConfigurationError, Settings

if TYPE_CHECKING:
    from delaystream.adapters.operate.tracing import Tracing


def client_config(settings: Settings) -> ClientConfig:
    """Kafka's client settings, checked. Raises ConfigurationError."""
    client = ClientConfig.parse(settings.kafka)
    client.aiokafka()  # reads the certificates
    return client


def tracing(settings: Settings) -> Tracing | None:
    """Tracing; None when it is off. Raises ConfigurationError when its packages are missing."""
    if settings.tracing == "off":
        return None
    try:
        from delaystream.adapters.operate.tracing import TracedTopics, Tracing  # noqa: PLC0415
    except ModuleNotFoundError as error:
        raise ConfigurationError(
            [f"tracing = otlp needs {error.name}: install delaystream[tracing], or set tracing = off."]
        ) from error
    topics = TracedTopics(
        frozenset(settings.request_topics),
        settings.changelog_topic,
        settings.dead_letters_topic,
        frozenset(settings.own_topics),
    )
    return Tracing(topics)


def host_settings(settings: Settings, client: ClientConfig) -> HostSettings:
    """The settings of the group's member."""
    return HostSettings(
        topics=(*settings.request_topics, settings.commands_topic),
        reader=ReaderSettings(
            client=client.aiokafka_consumer(),
            group_id=settings.app_id,
            group_instance_id=settings.instance_id,
            session_timeout_ms=settings.session_timeout_ms,
            heartbeat_interval_ms=min(500, settings.session_timeout_ms // 3),
            batch_max_decompressed_bytes=settings.batch_max_decompressed_bytes,
        ),
    )


def changelog_settings(settings: Settings) -> ChangelogSettings:
    """The settings of every changelog reader."""
    return ChangelogSettings(batch_max_decompressed_bytes=settings.batch_max_decompressed_bytes)


def producer_settings(settings: Settings, client: ClientConfig) -> ProducerSettings:
    """The settings of every transactional producer: each wait is well below the transaction timeout."""
    timeout_ms = settings.transaction_timeout_ms
    return ProducerSettings(
        transaction_timeout_ms=timeout_ms,
        commit_timeout_ms=timeout_ms * 8 // 10,
        write_timeout_ms=timeout_ms * 5 // 10,
        request_timeout_ms=timeout_ms * 25 // 100,
        max_record_bytes=settings.max_message_bytes,
        compression=client.compression or "none",
    )


def stored_partitions(directory: Path) -> list[int]:
    """The partitions with local state."""
    return [int(entry.name) for entry in directory.iterdir() if entry.name.isdecimal()]
