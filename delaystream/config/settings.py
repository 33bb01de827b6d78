"""Every setting of delaystream, put together: the source for code, help and docs.

Durations end in `_ms`, sizes in `_bytes`. The environment variable of a setting is `DELAYSTREAM_` and its
name in capitals; in a file it stands under its own name; Kafka's client settings are in the table `kafka`.
"""

from collections.abc import Mapping

from pydantic import Field, model_validator

from delaystream.config.application_settings import ApplicationSettings
from delaystream.config.errors import ConfigurationError
from delaystream.config.observation_settings import ObservationSettings
from delaystream.config.processing_settings import ProcessingSettings
from delaystream.config.request_settings import RequestSettings
from delaystream.config.values import KIB
from delaystream.core.limits import Limits
from delaystream.engine.settings import EngineSettings

ENVIRONMENT_PREFIX = "DELAYSTREAM_"

_FRAMING_BYTES = 4 * KIB
"""What Kafka's record format adds to one record's key, value and headers, generously."""


def environment_name(setting: str) -> str:
    """`http_port` -> `DELAYSTREAM_HTTP_PORT`."""
    return ENVIRONMENT_PREFIX + setting.upper()


# The fields of the last base come first.
class Settings(ObservationSettings, ProcessingSettings, RequestSettings, ApplicationSettings):
    """All settings, validated and frozen. Made by `delaystream.config.load`; tests may call it."""

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
        return self.max_value_bytes + self.max_header_bytes + 64 * KIB

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
