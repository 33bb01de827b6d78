"""The application of a worker: its identity, its topics, and the directory of its state."""

from pathlib import Path

from pydantic import Field

from delaystream.config.values import (
    MINUTE_MS,
    SECOND_MS,
    DirectoryName,
    OptionalText,
    Section,
    Topic,
    TopicList,
)


class ApplicationSettings(Section):
    """Identity, membership and topics."""

    app_id: DirectoryName = Field(
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
        45 * SECOND_MS,
        ge=1 * SECOND_MS,
        le=30 * MINUTE_MS,
        description="How long a silent worker keeps its partitions: a takeover after a crash takes this "
        "long. The broker's group.min/max.session.timeout.ms bound it.",
    )

    allow_untested_clients: bool = Field(
        False,
        description="Whether a worker, an export and an import run although aiokafka or faust-streaming is "
        "installed in another version than the one they were tested with. They use private parts of both. "
        "These may have changed, and the guarantees rest on them.",
    )

    request_topics: TopicList = Field(
        ("delay-requests",), description="Topics that requests are read from, one for each tenant."
    )
    commands_topic: Topic = Field(
        "delay-commands", description="Requests that name an id, on their way to its owner."
    )
    changelog_topic: Topic = Field("delay-wheel-changelog", description="The state; compacted.")
    events_topic: Topic = Field("delay-events", description="Lifecycle events.")
    dead_letters_topic: Topic = Field("delay-dead-letters", description="Refused requests, impossible fires.")
    receipts_topic: Topic = Field(
        "delay-receipts",
        description="Receipts. The command line waits here, unless --reply-to names another topic. Every "
        "request may name it in `reply-to`, whatever destinations_allow says. Only receipts are written to "
        "it.",
    )
