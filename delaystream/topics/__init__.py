"""The project's topics as code: `plan` them, `check` a cluster against the plan, `apply` or `render` it."""

from delaystream.topics.access import ROLES, Acl, Role, User, users
from delaystream.topics.cluster import Admin, TopicsError, TopicsRefused, apply, check, connect, topic_ids
from delaystream.topics.differences import Change, Difference, summed_up
from delaystream.topics.manifests import Authentication, StrimziTarget, kafka_acls, strimzi, terraform
from delaystream.topics.rendering import Form, render
from delaystream.topics.rights import missing_rights
from delaystream.topics.specification import (
    Environment,
    TopicSettings,
    TopicSpec,
    default_partitions,
    plan,
)

__all__ = [
    "ROLES",
    "Acl",
    "Admin",
    "Authentication",
    "Change",
    "Difference",
    "Environment",
    "Form",
    "Role",
    "StrimziTarget",
    "TopicSettings",
    "TopicSpec",
    "TopicsError",
    "TopicsRefused",
    "User",
    "apply",
    "check",
    "connect",
    "default_partitions",
    "kafka_acls",
    "missing_rights",
    "plan",
    "render",
    "strimzi",
    "summed_up",
    "terraform",
    "topic_ids",
    "users",
]
