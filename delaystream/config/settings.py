"""Every setting of delaystream, put together: the source for code, help and docs.

Durations end in `_ms`, sizes in `_bytes`. The environment variable of a setting is `DELAYSTREAM_` and its
name in capitals; in a file it stands under its own name; Kafka's client settings are in the table `kafka`,
and what differs for one request topic in the table `tenants.<topic>`.
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
"""What Kafka's record format adds to one record's key, value and headers, generously."""

_FRAMED_BYTES = 64 * KIB
"""Beside value and headers: a key, which takes up to 48 KiB of these, the framing, and what we add to a
record that has few due times, few headers and a short id."""

_SPARE_BYTES = _FRAMED_BYTES - 48 * KIB - _FRAMING_BYTES
"""Of the above for what we add."""

_ADDED_BYTES = 4 * KIB
_DUE_BYTES = 9
_HEADER_FRAMING_BYTES = 12
_ADDED_IDS = 3
"""What we add at most to a record: topics, coordinates, a sentence that says why; a due time of the command
header; the lengths of a header, in msgpack or in Kafka's format; and how often the id stands in it."""

_RECEIPT_FIRE_BYTES = 400
_RECEIPT_IDS = 3
_JSON_CHARACTER_BYTES = 6
"""In a receipt: a fire without the schedule's id; how often the id stands in it beside its fires; and a byte
of an id that JSON escapes (`\\u0001`)."""

LARGEST_RECEIPT_BYTES = 16 * MIB
"""Of receipts that are larger, which only long lists with long ids could make, there are none."""

_WAITING_BYTES = 40
_TRIGGERED_BYTES = 128
_REMEMBERED_BYTES = 128
"""In the record of a named schedule: a fire that waits, and one that its history remembers."""


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
        default_factory=dict, description="What differs for the requests of one topic, by request topic."
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
                    f"A worker needs to know where requests of {shut[0]} may be delivered to: set "
                    "DELAYSTREAM_DESTINATIONS_ALLOW (--destinations-allow) to topic names and globs, such "
                    "as 'orders,reminders-*'; '*' allows all but Kafka's and delaystream's own."
                ]
            )

    def requests(self, topic: str) -> RequestSettings:
        """What holds for the requests of one topic: its own table, and for the rest the shared settings."""
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

        The largest of what is written for one request fits: the request re-routed, with its due times; its
        payload; the record of a named schedule, which the headers, the pending times, the waiting triggers
        and the history make up; a receipt with all fires, up to 16 MiB.
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
