"""Rights and bounds of requests; a request topic may have a table of its own."""

from pydantic import Field

from delaystream.config.values import (
    DAY_MS,
    KIB,
    MIB,
    SECOND_MS,
    Dialects,
    NameList,
    OptionalTopic,
    OptionalZone,
    Rates,
    Section,
)
from delaystream.core.limits import Limits


class RequestSettings(Section):
    """Destinations, the bounds on one request, and those on all requests of one topic."""

    default_destination: OptionalTopic = Field(
        None,
        description="Where requests without `delaystream-destination` are delivered. None: they are refused.",
    )
    destinations_allow: NameList = Field(
        (),
        description="Topics that may be delivered to: names and globs, comma-separated. A worker needs it. "
        "`*` never includes `__*` nor delaystream's own topics.",
    )

    max_delay_ms: int = Field(
        3650 * DAY_MS, ge=1, le=36_500 * DAY_MS, description="Furthest due time of a request."
    )
    max_value_bytes: int = Field(MIB, ge=1, le=64 * MIB, description="Largest value of a request.")
    max_key_bytes: int = Field(32 * KIB, ge=1, le=48 * KIB, description="Largest key of a request.")
    max_headers: int = Field(
        100, ge=1, le=10_000, description="Most headers of a request, control headers included."
    )
    max_header_bytes: int = Field(32 * KIB, ge=256, le=MIB, description="Names and values of all headers.")
    max_list: int = Field(100, ge=1, le=10_000, description="Most due times in one request.")
    max_id_bytes: int = Field(256, ge=1, le=4 * KIB, description="Longest `delaystream-id`.")
    max_cron_characters: int = Field(256, ge=9, le=4 * KIB, description="Longest `delaystream-cron`.")
    min_interval_ms: int = Field(
        1 * SECOND_MS,
        ge=1,
        le=DAY_MS,
        description="Shortest time between two fires of a recurring schedule, anywhere in its pattern.",
    )

    max_pending: int = Field(
        0,
        ge=0,
        le=1_000_000_000_000,
        description="Most fires that one request topic may have pending, in all partitions together; each "
        "partition has an equal share. 0: no bound.",
    )
    destination_rates: Rates = Field(
        (),
        description="Most records a second to a destination, from all workers together; each partition has "
        "an equal share. Names and globs, comma-separated (`emails=50,sms-*=600/m`); the first match counts.",
    )
    default_timezone: OptionalZone = Field(
        None,
        description="Time zone of `delaystream-cron`, and of local times in `delaystream-at`, without "
        "`delaystream-timezone`: an IANA name. None: UTC for `delaystream-cron`; local times are refused.",
    )
    default_grace_ms: int | None = Field(
        None,
        ge=0,
        le=3650 * DAY_MS,
        description="Default of `delaystream-grace`, for requests that recur or have `delaystream-on-late`. "
        "None: 15 minutes for those that recur; the others are never too late.",
    )
    events_anonymous: bool = Field(
        False,
        description="Whether the events topic also reports requests without an id, and their fires.",
    )
    events_key: bool = Field(
        True, description="Whether events have the key that is delivered, up to 256 bytes of it."
    )
    events_correlation_id: bool = Field(
        True,
        description="Whether events have a correlation id, up to 256 bytes of it: the first of the headers "
        "`correlation-id`, `x-correlation-id`, `request-id`, `x-request-id`, `kafka_correlationId`.",
    )
    dialects: Dialects = Field(
        (),
        description="Other systems whose headers requests may use: kaspr, etf1, nats, karafka, activemq; "
        "comma-separated. The first one that a record's headers belong to counts.",
    )

    describe_payload: bool = Field(
        False,
        description="Whether the receipt of `describe` has the delivery's key, value and headers. Then "
        "everybody who may write requests can read them.",
    )

    def limits(self) -> Limits:
        """The bounds on one request."""
        return Limits(**{name: getattr(self, name) for name in Limits.__struct_fields__})
