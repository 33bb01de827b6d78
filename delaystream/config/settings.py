"""Every setting of delaystream: name, default, bounds and meaning; the source for code, help and docs.

Durations end in `_ms`, sizes in `_bytes`. The environment variable of a setting is `DELAYSTREAM_` and its
name in capitals; in a file it stands under its own name; Kafka's client settings are in the table `kafka`.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from delaystream.config.errors import ConfigurationError
from delaystream.core.destinations import is_topic_name
from delaystream.core.limits import Limits
from delaystream.engine.settings import EngineSettings

ENVIRONMENT_PREFIX = "DELAYSTREAM_"

_SECOND_MS = 1_000
_MINUTE_MS = 60 * _SECOND_MS
_HOUR_MS = 60 * _MINUTE_MS
_DAY_MS = 24 * _HOUR_MS
_KIB = 1024
_MIB = 1024 * _KIB

_FRAMING_BYTES = 4 * _KIB
"""What Kafka's record format adds to one record's key, value and headers, generously."""


def environment_name(setting: str) -> str:
    """`http_port` -> `DELAYSTREAM_HTTP_PORT`."""
    return ENVIRONMENT_PREFIX + setting.upper()


def _split(value: Any) -> Any:
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _topic(value: Any) -> Any:
    if isinstance(value, str) and not is_topic_name(value):
        raise ValueError(f"{value!r} is not a topic name (1 to 249 of a-z, A-Z, 0-9, '.', '_', '-')")
    return value


def _empty_as_none(value: Any) -> Any:
    return None if value == "" else value


Topic = Annotated[str, BeforeValidator(_topic)]
OptionalTopic = Annotated[Topic | None, BeforeValidator(_empty_as_none)]
NameList = Annotated[tuple[str, ...], BeforeValidator(_split)]
TopicList = Annotated[tuple[Topic, ...], BeforeValidator(_split), Field(min_length=1)]
OptionalText = Annotated[str | None, BeforeValidator(_empty_as_none)]


class Settings(BaseModel):
    """All settings, validated and frozen. Made by `delaystream.config.load`; tests may call it."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    app_id: str = Field(
        "delaystream",
        pattern=r"^[a-zA-Z0-9._-]{1,200}$",
        description="Names the consumer group and the transactional ids (<app-id>-<partition>). "
        "Another value is another application: it needs request, commands and changelog topics of its own.",
    )
    data_dir: Path = Field(
        Path(".delaystream"),
        description="Local state: <data-dir>/<app-id>/<partition>. May be lost: "
        "it is rebuilt from the changelog.",
    )
    instance_id: OptionalText = Field(
        None,
        description="Static membership (group.instance.id): a worker that comes back "
        "under it within the session timeout causes no rebalance.",
    )
    session_timeout_ms: int = Field(
        45 * _SECOND_MS,
        ge=1 * _SECOND_MS,
        le=30 * _MINUTE_MS,
        description="How long a silent worker keeps its partitions; a takeover after a crash takes so long. "
        "The broker's group.min/max.session.timeout.ms bound it.",
    )

    request_topics: TopicList = Field(
        ("delay-requests",), description="Topics that requests are read from, one for each tenant."
    )
    default_destination: OptionalTopic = Field(
        None,
        description="Where requests without `delaystream-destination` are delivered. None: they are refused.",
    )
    destinations_allow: NameList = Field(
        (),
        description="Topics that may be delivered to: names and globs, comma-separated. A worker needs it. "
        "`*` never includes `__*` nor delaystream's own topics.",
    )
    commands_topic: Topic = Field(
        "delay-commands", description="Requests that name an id, on their way to its owner."
    )
    changelog_topic: Topic = Field("delay-wheel-changelog", description="The state; compacted.")
    events_topic: Topic = Field("delay-events", description="Lifecycle events.")
    dead_letters_topic: Topic = Field("delay-dead-letters", description="Refused requests, impossible fires.")

    http_host: str = Field("127.0.0.1", min_length=1, description="Where /metrics and /health listen.")
    http_port: int = Field(
        8642, ge=0, le=65_535, description="Port of /metrics and /health. 0: a free one, logged."
    )

    max_delay_ms: int = Field(
        3650 * _DAY_MS, ge=1, le=36_500 * _DAY_MS, description="Furthest due time of a request."
    )
    max_value_bytes: int = Field(_MIB, ge=1, le=64 * _MIB, description="Largest value of a request.")
    max_key_bytes: int = Field(32 * _KIB, ge=1, le=48 * _KIB, description="Largest key of a request.")
    max_headers: int = Field(
        100, ge=1, le=10_000, description="Most headers of a request, control headers included."
    )
    max_header_bytes: int = Field(32 * _KIB, ge=256, le=_MIB, description="Names and values of all headers.")
    max_list: int = Field(100, ge=1, le=10_000, description="Most due times in one request.")
    list_max_bytes: int = Field(
        32 * _MIB, ge=_MIB, le=1024 * _MIB, description="Size times due times of a request without an id."
    )
    max_id_bytes: int = Field(256, ge=1, le=4 * _KIB, description="Longest `delaystream-id`.")

    transaction_interval_ms: int = Field(
        20,
        ge=0,
        le=10 * _SECOND_MS,
        description="Least time between two transactions of a partition under load.",
    )
    transaction_max_records: int = Field(
        8_000, ge=1, le=100_000, description="Most requests and fires in one transaction."
    )
    transaction_max_bytes: int = Field(
        8 * _MIB, ge=64 * _KIB, le=256 * _MIB, description="About the most bytes written by one transaction."
    )
    transaction_max_partitions: int = Field(
        500, ge=1, le=10_000, description="About the most destination partitions of one transaction."
    )
    transaction_timeout_ms: int = Field(
        10 * _SECOND_MS,
        ge=1 * _SECOND_MS,
        le=15 * _MINUTE_MS,
        description="The broker aborts a transaction that is open longer (transaction.timeout.ms).",
    )
    transactions_per_second: int = Field(
        200,
        ge=1,
        le=10_000,
        description="Most transactions of one worker; with many partitions it stretches the interval.",
    )
    inbox_max_records: int = Field(
        20_000,
        ge=1,
        le=1_000_000,
        description="Most fetched requests of a partition that wait; then fetching pauses.",
    )
    inbox_max_bytes: int = Field(32 * _MIB, ge=64 * _KIB, le=1024 * _MIB, description="The same in bytes.")
    destination_timeout_ms: int = Field(
        24 * _HOUR_MS,
        ge=0,
        le=365 * _DAY_MS,
        description="How long a fire that proves impossible is tried again, before it is dead-lettered.",
    )
    destination_backoff_min_ms: int = Field(
        500, ge=1, le=_HOUR_MS, description="First wait before a failing destination is tried again."
    )
    destination_backoff_max_ms: int = Field(
        60 * _SECOND_MS,
        ge=1,
        le=_HOUR_MS,
        description="Longest wait before a failing destination is tried again.",
    )
    id_retention_ms: int = Field(
        24 * _HOUR_MS,
        ge=0,
        le=365 * _DAY_MS,
        description="How long an id is remembered after its schedule ended or was cancelled.",
    )
    on_requests_lost: Literal["stop", "continue"] = Field(
        "stop", description="When retention removed requests before they were read."
    )
    restart_backoff_min_ms: int = Field(
        100, ge=1, le=_HOUR_MS, description="First wait before a failed partition recovers again."
    )
    restart_backoff_max_ms: int = Field(
        10 * _SECOND_MS,
        ge=1,
        le=_HOUR_MS,
        description="Longest wait before a failed partition recovers again.",
    )
    failure_timeout_ms: int = Field(
        5 * _MINUTE_MS,
        ge=1 * _SECOND_MS,
        le=_DAY_MS,
        description="A partition that fails on end for this long ends the worker.",
    )
    stable_timeout_ms: int = Field(
        60 * _SECOND_MS,
        ge=1 * _SECOND_MS,
        le=_HOUR_MS,
        description="Longest wait, at recovery, for open transactions on the changelog to end.",
    )
    offsets_interval_ms: int = Field(
        1_000, ge=0, le=3_600_000, description="How far the group's committed offsets may lag; ms."
    )
    ownership_check_ms: int = Field(
        60 * _SECOND_MS,
        ge=1 * _SECOND_MS,
        le=_DAY_MS,
        description="How often an idle partition makes sure that it is still its own.",
    )
    idle_wait_max_ms: int = Field(
        1 * _SECOND_MS,
        ge=10,
        le=_MINUTE_MS,
        description="Longest sleep of an idle partition; notices clock steps.",
    )
    progress_timeout_ms: int = Field(
        60 * _SECOND_MS,
        ge=1 * _SECOND_MS,
        le=_DAY_MS,
        description="A worker with work to do and no progress for this long ends itself.",
    )

    rocksdb_block_cache_bytes: int = Field(
        64 * _MIB,
        ge=_MIB,
        le=64 * 1024 * _MIB,
        description="Block cache, shared by all partitions of a worker.",
    )
    rocksdb_write_buffer_bytes: int = Field(
        16 * _MIB, ge=64 * _KIB, le=1024 * _MIB, description="Write buffer of each partition."
    )

    log_format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human on a terminal, JSON otherwise."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Least level that is logged."
    )

    kafka: Mapping[str, str] = Field(
        default_factory=lambda: {"bootstrap.servers": "localhost:9092"},
        repr=False,
        description="Kafka's client settings by the Java client's names.",
    )

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        own = [self.commands_topic, self.changelog_topic, self.events_topic, self.dead_letters_topic]
        names = [*self.request_topics, *own]
        if len(set(names)) < len(names):
            raise ValueError("request_topics and delaystream's own topics must all have different names")
        for kind in ("destination_backoff", "restart_backoff"):
            if getattr(self, f"{kind}_min_ms") > getattr(self, f"{kind}_max_ms"):
                raise ValueError(f"{kind}_min_ms is larger than {kind}_max_ms")
        return self

    def require_for_worker(self) -> None:
        """Raise ConfigurationError when a worker must not start with these settings."""
        if not self.destinations_allow:
            raise ConfigurationError(
                [
                    "A worker needs to know where it may deliver to: set DELAYSTREAM_DESTINATIONS_ALLOW "
                    "(--destinations-allow) to topic names and globs, such as 'orders,reminders-*'; "
                    "'*' allows all but Kafka's and delaystream's own."
                ]
            )

    @property
    def bootstrap_servers(self) -> str:
        """`host:port,…` of the Kafka cluster."""
        return self.kafka["bootstrap.servers"]

    @property
    def own_topics(self) -> tuple[str, ...]:
        """Topics that no request may be delivered to: the request topics and delaystream's own."""
        own = (self.commands_topic, self.changelog_topic, self.events_topic, self.dead_letters_topic)
        return (*self.request_topics, *own)

    @property
    def max_message_bytes(self) -> int:
        """`max.message.bytes` that changelog, commands and dead letters need; also our producers' limit."""
        return self.max_value_bytes + self.max_header_bytes + 64 * _KIB

    def limits(self) -> Limits:
        """The bounds on one request."""
        return Limits(**{name: getattr(self, name) for name in Limits.__struct_fields__})

    def engine(self, partitions: int) -> EngineSettings:
        """The engine's bounds, for request topics of `partitions` partitions."""
        shared = {
            name: getattr(self, name)
            for name in EngineSettings.__struct_fields__
            if name in type(self).model_fields
        }
        return EngineSettings(
            **shared,
            partitions=partitions,
            continue_on_lost_requests=self.on_requests_lost == "continue",
            dead_letter_max_bytes=self.max_message_bytes - _FRAMING_BYTES,
        )
