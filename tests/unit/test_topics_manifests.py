"""Users, ACLs and manifests, as far as no tool is needed to judge them."""

from __future__ import annotations

import re

import pytest

from delaystream.config import Settings
from delaystream.topics import (
    ROLES,
    Acl,
    StrimziTarget,
    kafka_acls,
    plan,
    strimzi,
    terraform,
    users,
)
from delaystream.topics.yaml_text import yaml_document


def settings(*destinations: str, **others: str) -> Settings:
    return Settings(destinations_allow=destinations, **others)


def acls_of(role: str, *destinations: str) -> list[Acl]:
    return [acl for user in users(settings(*destinations)) if user.role == role for acl in user.acls]


def test_nobody_but_workers_may_write_to_delaystreams_own_topics() -> None:
    """Who may write commands or the changelog can deliver anything anywhere."""
    own = {"delay-commands", "delay-wheel-changelog", "delay-events", "delay-dead-letters", "delay-receipts"}
    for user in users(settings("orders")):
        may_write = {acl.name for acl in user.acls if acl.operation in {"Write", "All"}} & own
        assert may_write == (own if user.role == "worker" else set())


def test_nobody_may_delete_or_change_who_may_what() -> None:
    """Least privilege: not even the operator."""
    operations = {acl.operation for user in users(settings("orders")) for acl in user.acls}
    assert operations == {"Read", "Write", "Create", "Describe", "DescribeConfigs", "AlterConfigs"}
    assert {acl.resource for user in users(settings("orders")) for acl in user.acls} == {
        "topic", "group", "transactional-id",
    }  # fmt: skip


@pytest.mark.parametrize(
    ("allowed", "name", "prefixed", "remark"),
    [
        ("orders", "orders", False, ""),
        ("orders-*", "orders-", True, ""),
        ("orders-?", "orders-", True, "all topics that begin with orders-"),
        ("o[rt]*", "o", True, "cannot say o[rt]*"),
        ("*", "*", False, "all topics"),
        ("*-late", "*", False, "cannot say *-late"),
    ],
)
def test_the_allow_list_as_acls(allowed: str, name: str, prefixed: bool, remark: str) -> None:
    """As narrow as Kafka can say it; where it cannot, the ACL says that it allows more."""
    acls = [acl for acl in acls_of("worker", allowed) if acl.name == name]
    assert [acl.operation for acl in acls] == ["Write", "DescribeConfigs"]
    for acl in acls:
        assert acl.prefixed == prefixed
        assert (remark in acl.remark) if remark else acl.remark == ""
    everybody = users(settings(allowed))
    forms = [
        kafka_acls(everybody, "scram-sha-512", None),
        strimzi([], everybody, StrimziTarget()),
        terraform([], everybody, "scram-sha-512"),
    ]
    assert all((remark in text) if remark else "cannot say" not in text for text in forms)


def test_each_tenant_has_a_requester_and_a_reader_of_its_own() -> None:
    """With its own request topic and its own destinations; the workers have them all."""
    shared = settings("shared-*", request_topics="a,b", tenants={"b": {"destinations_allow": "b-out"}})  # type: ignore[arg-type]
    rights = {
        user.name: {(acl.name, acl.operation) for acl in user.acls if acl.resource == "topic"}
        for user in users(shared)
    }
    assert rights["delaystream-requester-a"] == {("a", "Write")}
    assert rights["delaystream-requester-b"] == {("b", "Write")}
    assert rights["delaystream-reader-a"] == {("shared-", "Read")}
    assert rights["delaystream-reader-b"] == {("b-out", "Read")}
    assert {("shared-", "Write"), ("b-out", "Write"), ("a", "Read"), ("b", "Read")} <= rights[
        "delaystream-worker"
    ]


def test_who_sends_requests_may_read_the_receipts() -> None:
    """But not those of other tenants, which are in the same topic."""
    receipts = Acl("topic", "delay-receipts", "Read")
    assert receipts in acls_of("requester", "orders")
    several = settings("orders", request_topics="a,b")
    assert [user.role for user in users(several) if receipts in user.acls] == ["console", "operator"]


def test_principals_have_the_names_that_brokers_give_them() -> None:
    """A user by password, and one by certificate."""
    everybody = users(settings("orders"), {"worker": "svc"})
    assert "--allow-principal User:svc " in kafka_acls(everybody, "scram-sha-512", None)
    assert "--allow-principal User:CN=svc " in kafka_acls(everybody, "tls", "h:9092")
    assert '"User:CN=svc"' in terraform([], everybody, "tls")
    assert [user.name for user in users(settings("x", app_id="a"))] == [f"a-{role}" for role in ROLES]


def test_names_that_kubernetes_does_not_take_stay_apart() -> None:
    """Kafka takes capitals, underscores and dots anywhere."""
    specs = plan(settings("x", request_topics="A_b,a-b,a.b,a..b,-"))
    names = re.findall(r'^  name: "(.*)"$', strimzi(specs, [], StrimziTarget()), re.MULTILINE)
    assert len(set(names)) == len(specs)
    assert all(
        re.fullmatch(r"[a-z0-9]([a-z0-9-]*[a-z0-9])?(\.[a-z0-9]([a-z0-9-]*[a-z0-9])?)*", n) for n in names
    )
    assert {"a-b", "a.b"} <= set(names)


def test_terraforms_labels_are_unique_and_its_templates_are_escaped() -> None:
    """Two ACLs of one label would be one."""
    text = terraform(plan(settings("x", request_topics="a.b,a_b")), users(settings("x", "x-*")), "tls")
    labels = re.findall(r'^resource "(\w+)" "([A-Za-z_][A-Za-z0-9_-]*)" {$', text, re.MULTILINE)
    assert len(set(labels)) == len(labels) == text.count('\nresource "')
    odd = users(settings("x"), {"worker": "a${b}%{c}"})
    assert '"User:a$${b}%%{c}"' in terraform([], odd, "scram-sha-512")


def test_yaml_of_nested_values() -> None:
    """Lists of mappings, empty ones, and text that YAML would take for something else."""
    value = {"a": [{"b": 1, "c": ["no", "1"]}, {"d": {}}], "e": [], "f": 'say "hi"\n'}
    assert yaml_document(value) == "\n".join(
        [
            "---",
            "a:",
            "  - b: 1",
            "    c:",
            '      - "no"',
            '      - "1"',
            "  - d: {}",
            "e: []",
            'f: "say \\"hi\\"\\n"',
        ]
    )
