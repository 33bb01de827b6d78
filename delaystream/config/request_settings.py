"""What requests may ask for, and how much of it; a request topic may have a table of its own."""

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
        description="Least time between two fires of a recurring schedule, anywhere in its pattern.",
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
        description="Most records a second to a destination, of all workers together, each partition with "
        "an equal share: names and globs, comma-separated (`emails=50,sms-*=600/m`); the first that fits "
        "counts.",
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
        description="How late is too late for requests that recur, or have `delaystream-on-late`, and no "
        "`delaystream-grace`. None: 15 minutes where they recur, else never.",
    )
    events_anonymous: bool = Field(
        False,
        description="Whether requests without an id, and their fires, are told on the events topic too.",
    )
    events_key: bool = Field(
        True, description="Whether events hold the keys that are delivered, up to 256 bytes of them."
    )
    dialects: Dialects = Field(
        (),
        description="Other systems' headers that requests may have: of kaspr, etf1, nats, karafka and "
        "activemq, comma-separated. The first that a record speaks counts.",
    )

    describe_payload: bool = Field(
        False,
        description="Whether the receipt of `describe` has key, value and headers of what is delivered: "
        "whoever may write requests can read them then.",
    )

    def limits(self) -> Limits:
        """The bounds on one request."""
        return Limits(**{name: getattr(self, name) for name in Limits.__struct_fields__})
