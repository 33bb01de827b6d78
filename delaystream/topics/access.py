"""The least rights that each role needs on a cluster with ACLs.

`topics/topics.json` says it by kind of topic; names come from the settings. Operations are Kafka's. In its
StandardAuthorizer, Read and Write include Describe, and AlterConfigs includes DescribeConfigs; Create
includes neither.
"""

import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Literal, Protocol, get_args

import msgspec

from delaystream.topics.specification import TopicSettings, description, names_by_kind

Role = Literal["worker", "requester", "reader", "console", "operator"]
ROLES: tuple[Role, ...] = get_args(Role)

Resource = Literal["topic", "group", "transactional-id"]

_OF_A_TENANT: frozenset[Role] = frozenset({"requester", "reader"})
_GLOB = re.compile(r"[*?\[]")


class RequestPolicy(Protocol):
    """The settings of one request topic that this module needs."""

    @property
    def destinations_allow(self) -> Sequence[str]:
        """Names and globs of the topics that may be delivered to."""


class AccessSettings(TopicSettings, Protocol):
    """The settings that this module needs; `delaystream.config` has them."""

    @property
    def app_id(self) -> str:
        """The workers' group, and the prefix of their transactional ids."""

    def requests(self, topic: str) -> "RequestPolicy":
        """The settings of one topic's requests."""


class Acl(msgspec.Struct, frozen=True):
    """Allows one operation on one resource, or on all whose names begin with `name` (`prefixed`).

    The literal name `*` stands for all resources of the kind, as everywhere in Kafka. `remark` names the
    excess of an ACL that allows more than intended, because no narrower one can be expressed; otherwise it is
    empty.
    """

    resource: Resource
    name: str
    operation: str
    prefixed: bool = False
    remark: str = ""

    def __str__(self) -> str:
        """As the command line tools name it: `Read on topic delay-requests`."""
        pattern = " with prefix" if self.prefixed else ""
        return f"{self.operation} on {self.resource}{pattern} {self.name}"


class User(msgspec.Struct, frozen=True):
    """Somebody with a role; `name` is the principal's, without its `User:`."""

    role: Role
    name: str
    purpose: str
    acls: tuple[Acl, ...]


def users(settings: AccessSettings, names: Mapping[Role, str] | None = None) -> list[User]:
    """Return one user for each role, with the rights that the role needs.

    `names` overrides `<app-id>-<role>`. With several request topics, each has a requester and a reader of its
    own, whose names end with the topic's. So tenants cannot read each other's records, or the receipts of all
    tenants.
    """
    given = names or {}
    everybody = []
    for role in ROLES:
        name = given.get(role) or f"{settings.app_id}-{role}"
        if role in _OF_A_TENANT and len(settings.request_topics) > 1:
            everybody += [
                _user(role, f"{name}-{topic}", settings, [topic]) for topic in settings.request_topics
            ]
        else:
            everybody.append(_user(role, name, settings, settings.request_topics))
    return everybody


def _user(role: Role, name: str, settings: AccessSettings, tenants: Sequence[str]) -> User:
    needed = description().access[role]
    topics = {**names_by_kind(settings), "requests": list(tenants)}
    allowed = [pattern for topic in tenants for pattern in settings.requests(topic).destinations_allow]
    acls: list[Acl] = []
    shared = len(tenants) < len(settings.request_topics)
    for kind, operations in needed.topics.items():
        if kind == "receipts" and shared:
            continue
        if kind == "destinations":
            patterns = [_narrowest(pattern) for pattern in allowed]
        else:
            patterns = [Acl("topic", topic, "") for topic in topics[kind]]
        acls += [
            msgspec.structs.replace(acl, operation=operation) for acl in patterns for operation in operations
        ]
    acls += [Acl("group", settings.app_id, operation) for operation in needed.own_group]
    acls += [Acl("group", name, operation, prefixed=True) for operation in needed.reader_groups]
    acls += [Acl("group", group, operation) for group, ops in needed.groups.items() for operation in ops]
    acls += [
        Acl("transactional-id", f"{settings.app_id}-", operation, prefixed=True)
        for operation in needed.transactional_ids
    ]
    return User(role, name, needed.purpose, tuple(dict.fromkeys(acls)))


def _narrowest(pattern: str) -> Acl:
    """The narrowest ACL that covers every topic that a name or glob of the allow-list matches."""
    glob = _GLOB.search(pattern)
    if glob is None:
        return Acl("topic", pattern, "")
    prefix, rest = pattern[: glob.start()], pattern[glob.start() :]
    if not prefix:
        remark = "all topics, Kafka's and delaystream's own too: name the destinations"
        if rest != "*":
            remark = f"ACLs cannot say {pattern}; this allows {remark}"
        return Acl("topic", "*", "", remark=remark)
    remark = (
        "" if rest == "*" else f"ACLs cannot say {pattern}; this allows all topics that begin with {prefix}"
    )
    return Acl("topic", prefix, "", prefixed=True, remark=remark)


def by_resource(acls: Sequence[Acl]) -> Iterator[tuple[Acl, list[str]]]:
    """The first ACL of each resource, and all allowed operations on it, in their order."""
    operations: dict[tuple[Resource, str, bool], list[str]] = {}
    first: dict[tuple[Resource, str, bool], Acl] = {}
    for acl in acls:
        key = (acl.resource, acl.name, acl.prefixed)
        first.setdefault(key, acl)
        operations.setdefault(key, []).append(acl.operation)
    for key, acl in first.items():
        yield acl, operations[key]
