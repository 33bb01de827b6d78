"""Settings for observing a worker."""

from typing import Literal

from pydantic import Field

from delaystream.config.values import Section


class ObservationSettings(Section):
    """HTTP, traces and logs."""

    http_host: str = Field("127.0.0.1", min_length=1, description="Where /metrics and /health listen.")
    http_port: int = Field(
        8642, ge=0, le=65_535, description="Port of /metrics and /health. 0: a free one, logged."
    )

    metrics_destinations: int = Field(
        200, ge=0, le=10_000, description="Destinations with labels of their own; the rest are `other`."
    )
    metrics_hours_ahead: int = Field(
        24, ge=1, le=744, description="Hours ahead with labels of their own; the rest are counted together."
    )

    tracing: Literal["off", "otlp"] = Field(
        "off",
        description="otlp: OpenTelemetry spans of requests with a sampled `traceparent`, sent as the OTEL_* "
        "variables say. Needs the extra `delaystream[tracing]`.",
    )

    log_format: Literal["auto", "human", "json"] = Field(
        "auto", description="auto: human on a terminal, JSON otherwise."
    )
    log_level: Literal["debug", "info", "warning", "error"] = Field(
        "info", description="Lowest level that is logged."
    )
