"""What requests may ask for."""

from pydantic import Field

from delaystream.config.values import DAY_MS, KIB, MIB, SECOND_MS, NameList, OptionalTopic, Section


class RequestSettings(Section):
    """Destinations, and the bounds on one request."""

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
