"""The project's topics as code: `plan` what they should be, `check` what differs, `apply` it, `render` it."""

from delaystream.topics.cluster import TopicsError, apply, check, connect, topic_ids
from delaystream.topics.differences import Change, Difference
from delaystream.topics.rendering import Form, render
from delaystream.topics.specification import (
    Environment,
    TopicSettings,
    TopicSpec,
    default_partitions,
    plan,
)

__all__ = [
    "Change",
    "Difference",
    "Environment",
    "Form",
    "TopicSettings",
    "TopicSpec",
    "TopicsError",
    "apply",
    "check",
    "connect",
    "default_partitions",
    "plan",
    "render",
    "topic_ids",
]
