"""The specification of the project's topics.

`topics/topics.json` is the only description; a wheel has it inside the package.
"""

from collections.abc import Sequence
from importlib.resources import files
from pathlib import Path
from typing import Literal, Protocol

import msgspec

Environment = Literal["production", "single-node"]


class TopicSettings(Protocol):
    """The settings that this module needs; `delaystream.config` has them."""

    @property
    def request_topics(self) -> Sequence[str]:
        """The request topics."""

    @property
    def commands_topic(self) -> str:
        """Topic of re-routed requests."""

    @property
    def changelog_topic(self) -> str:
        """Topic of the state."""

    @property
    def events_topic(self) -> str:
        """Topic of lifecycle events."""

    @property
    def dead_letters_topic(self) -> str:
        """Topic of refused requests."""

    @property
    def receipts_topic(self) -> str:
        """Topic of receipts."""

    @property
    def max_message_bytes(self) -> int:
        """The largest record that these topics must accept."""


class TopicSpec(msgspec.Struct, frozen=True):
    """The specification of one topic. `config` has Kafka's topic settings, values as text."""

    name: str
    partitions: int
    replication_factor: int
    config: dict[str, str]
    purpose: str = ""
    partitioned_alike: bool = False
    """Whether partition n of this topic belongs together with partition n of the others so marked."""
    written_by_workers: bool = True
    """Whether workers write to it in transactions, with the time of writing as timestamp."""
    required: bool = True
    """Whether workers need it. Without a topic that is not required, only that topic's purpose is lost."""


class _Described(msgspec.Struct, frozen=True):
    default_name: str
    purpose: str
    partitioned_alike: bool
    config: dict[str, str]
    required: bool = True


class _Profile(msgspec.Struct, frozen=True):
    replication_factor: int
    config: dict[str, str]


class _Defaults(msgspec.Struct, frozen=True):
    partitions: int


class NeededRights(msgspec.Struct, frozen=True):
    """Operations that a role needs: on each kind of topic, on the workers' group, on groups whose names begin
    with its own, on named groups (`delaystream watch` names one, but does not join it), on transactional ids.
    """

    purpose: str
    topics: dict[str, list[str]]
    own_group: list[str] = []
    reader_groups: list[str] = []
    groups: dict[str, list[str]] = {}
    transactional_ids: list[str] = []


class Description(msgspec.Struct, frozen=True):
    """The content of `topics.json`."""

    description: str
    defaults: _Defaults
    environments: dict[str, _Profile]
    topics: dict[str, _Described]
    access: dict[str, NeededRights]


def description() -> Description:
    """Read the one description."""
    packaged = files("delaystream.topics") / "topics.json"
    # A wheel has the file inside the package; a source tree has it at the top, where people look for it.
    source_tree = Path(__file__).parents[2] / "topics" / "topics.json"
    text = packaged.read_bytes() if packaged.is_file() else source_tree.read_bytes()
    return msgspec.json.decode(text, type=Description)


def default_partitions() -> int:
    """Return the default partition count of the topics."""
    return description().defaults.partitions


def names_by_kind(settings: TopicSettings) -> dict[str, list[str]]:
    """Return the names of the topics, by their kind in the description."""
    return {
        "requests": list(settings.request_topics),
        "commands": [settings.commands_topic],
        "changelog": [settings.changelog_topic],
        "events": [settings.events_topic],
        "dead_letters": [settings.dead_letters_topic],
        "receipts": [settings.receipts_topic],
    }


def plan(
    settings: TopicSettings,
    *,
    partitions: int | None = None,
    environment: Environment = "production",
    replication_factor: int | None = None,
) -> list[TopicSpec]:
    """Return the specifications: the request topics, then commands, changelog, events, dead letters and
    receipts.

    All accept the settings' largest record, the request topics too: a request that a broker accepts must also
    fit into the topics that it goes to from there. Raises `ValueError` for counts below 1.
    """
    described = description()
    profile = described.environments[environment]
    partitions = described.defaults.partitions if partitions is None else partitions
    replicas = profile.replication_factor if replication_factor is None else replication_factor
    if partitions < 1 or replicas < 1:
        raise ValueError(f"partitions ({partitions}) and replication factor ({replicas}) must be 1 or more")
    # A topic with fewer replicas than min.insync.replicas could not be written to.
    in_sync = min(int(profile.config["min.insync.replicas"]), replicas)
    common = {
        **profile.config,
        "min.insync.replicas": str(in_sync),
        "max.message.bytes": str(settings.max_message_bytes),
    }
    names = names_by_kind(settings)
    return [
        TopicSpec(
            name=name,
            partitions=partitions,
            replication_factor=replicas,
            config={**topic.config, **common},
            purpose=topic.purpose,
            partitioned_alike=topic.partitioned_alike,
            written_by_workers=kind != "requests",
            required=topic.required,
        )
        for kind, topic in described.topics.items()
        for name in names[kind]
    ]
