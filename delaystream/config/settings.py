"""Every setting of delaystream: the source of code, help and docs.

Durations end in `_ms`, sizes in `_bytes`. The environment variable of a setting is `DELAYSTREAM_` and its
name in capitals; in a file it stands under its own name. Kafka's client settings are in the table `kafka`;
settings that differ for one request topic are in the table `tenants.<topic>`.
"""

from collections.abc import Mapping

from pydantic import Field, model_validator

from delaystream.codec.envelope import INLINE_BYTES
from delaystream.config.application_settings import ApplicationSettings
from delaystream.config.console_settings import ConsoleSettings
from delaystream.config.errors import ConfigurationError, suggestion
from delaystream.config.observation_settings import ObservationSettings
from delaystream.config.processing_settings import ProcessingSettings
from delaystream.config.request_settings import RequestSettings
from delaystream.config.tenant_settings import TABLE, TenantSettings
from delaystream.config.values import KIB, MIB, Topic
from delaystream.engine.settings import EngineSettings

ENVIRONMENT_PREFIX = "DELAYSTREAM_"

_FRAMING_BYTES = 4 * KIB
"""A generous bound of the bytes that Kafka's record format adds to one record's key, value and headers."""

_FRAMED_BYTES = 64 * KIB
"""Bytes of a record in addition to value and headers: a key (up to 48 KiB of these), the framing, and our
additions to a record with few due times, few headers and a short id."""

_SPARE_BYTES = _FRAMED_BYTES - 48 * KIB - _FRAMING_BYTES
"""The part of the above for our additions."""

_ADDED_BYTES = 4 * KIB
_DUE_BYTES = 9
_HEADER_FRAMING_BYTES = 12
_ADDED_IDS = 3
"""The most that we add to a record. In this order: topics, coordinates and a sentence with the reason; one
due time in the command header; the lengths of a header, in msgpack or in Kafka's format; the number of times
that the record has the id."""

_RECEIPT_FIRE_BYTES = 400
_RECEIPT_IDS = 3
_JSON_CHARACTER_BYTES = 6
"""Of a receipt, in this order: one fire without the schedule's id; the number of times that the receipt has
the id, its fires not counted; one byte of an id that JSON escapes (`\\u0001`)."""

LARGEST_RECEIPT_BYTES = 16 * MIB
"""A larger receipt is not written. Only long lists with long ids could make one."""

_WAITING_BYTES = 40
_TRIGGERED_BYTES = 128
_REMEMBERED_BYTES = 128
"""In the record of a named schedule: a waiting fire, a triggered fire, and a fire in its history."""


TABLES = frozenset({"kafka", TABLE})
"""The settings that are tables."""


def environment_name(setting: str) -> str:
    """`http_port` -> `DELAYSTREAM_HTTP_PORT`."""
    return ENVIRONMENT_PREFIX + setting.upper()


# The fields of the last base come first.
class Settings(
    ConsoleSettings, ObservationSettings, ProcessingSettings, RequestSettings, ApplicationSettings
):
    """All settings, validated and frozen. Made by `delaystream.config.load`; tests may call it."""

    tenants: Mapping[Topic, TenantSettings] = Field(
        default_factory=dict, description="Settings that differ for one request topic, by topic."
    )
    kafka: Mapping[str, str] = Field(
        default_factory=lambda: {"bootstrap.servers": "localhost:9092"},
        repr=False,
        description="Kafka's client settings by the Java client's names.",
    )

    @model_validator(mode="after")
    def _agree(self) -> "Settings":
        names = self.own_topics
        if len(set(names)) < len(names):
            raise ValueError("request_topics and delaystream's own topics must all have different names")
        for topic in self.tenants:
            if topic not in self.request_topics:
                hint = suggestion(topic, self.request_topics)
                raise ValueError(f"there is no request topic {topic} for the table tenants.{topic}.{hint}")
        for kind in ("destination_backoff", "restart_backoff"):
            if getattr(self, f"{kind}_min_ms") > getattr(self, f"{kind}_max_ms"):
                raise ValueError(f"{kind}_min_ms is larger than {kind}_max_ms")
        if self.batch_max_decompressed_bytes < self.max_message_bytes:
            raise ValueError(
                f"batch_max_decompressed_bytes is smaller than the {self.max_message_bytes} bytes that the "
                "largest record for one request may have (max_value_bytes, max_header_bytes, max_list, "
                "max_id_bytes)"
            )
        return self

    def require_for_worker(self) -> None:
        """Raise ConfigurationError when a worker must not start with these settings."""
        shut = [topic for topic in self.request_topics if not self.requests(topic).destinations_allow]
        if shut:
            raise ConfigurationError(
                [
                    f"A worker needs the destinations that requests of {shut[0]} may have: set "
                    "DELAYSTREAM_DESTINATIONS_ALLOW (--destinations-allow) to topic names and globs, such "
                    "as 'orders,reminders-*'; '*' allows all but Kafka's and delaystream's own."
                ]
            )

    def requests(self, topic: str) -> RequestSettings:
        """The settings of one topic's requests: its own table, and the shared settings for the rest."""
        tenant = self.tenants.get(topic)
        return self if tenant is None else tenant.requests(self)

    @property
    def bootstrap_servers(self) -> str:
        """`host:port,…` of the Kafka cluster."""
        return self.kafka["bootstrap.servers"]

    @property
    def own_topics(self) -> tuple[str, ...]:
        """Topics that no request may be delivered to: the request topics and delaystream's own."""
        return (
            *self.request_topics,
            self.commands_topic,
            self.changelog_topic,
            self.events_topic,
            self.dead_letters_topic,
            self.receipts_topic,
        )

    @property
    def max_message_bytes(self) -> int:
        """`max.message.bytes` that our own topics need; also our producers' limit.

        It fits the largest record that is written for one request. Candidates are: the re-routed request with
        its due times; its payload; the record of a named schedule, which consists of headers, pending times,
        waiting triggers and history; and a receipt with all fires, up to 16 MiB.
        """
        return max(self._largest_row(self.requests(topic)) for topic in self.request_topics)

    def _largest_row(self, requests: RequestSettings) -> int:
        waiting = requests.max_list * _WAITING_BYTES + self.max_triggers * _TRIGGERED_BYTES
        schedule = waiting + self.history_length * _REMEMBERED_BYTES + INLINE_BYTES
        added = (
            _ADDED_BYTES
            + requests.max_list * _DUE_BYTES
            + requests.max_headers * _HEADER_FRAMING_BYTES
            + requests.max_id_bytes * _ADDED_IDS
            + requests.max_cron_characters
        )
        content = max(requests.max_value_bytes, schedule) + requests.max_header_bytes
        row = content + _FRAMED_BYTES + max(0, added - _SPARE_BYTES)
        return max(row, min(_largest_receipt(requests), LARGEST_RECEIPT_BYTES) + _FRAMING_BYTES)

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
            own_record_max_bytes=self.max_message_bytes - _FRAMING_BYTES,
        )


def _largest_receipt(requests: RequestSettings) -> int:
    id_bytes = requests.max_id_bytes * _JSON_CHARACTER_BYTES
    return (
        _ADDED_BYTES
        + requests.max_id_bytes
        + id_bytes * _RECEIPT_IDS
        + requests.max_list * (_RECEIPT_FIRE_BYTES + id_bytes)
    )
