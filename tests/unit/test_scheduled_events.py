"""Events as classes: what a class says, what is sent, and what comes back, from other versions as well."""

from __future__ import annotations

from dataclasses import FrozenInstanceError, field
from datetime import UTC, datetime
from decimal import Decimal
from enum import Enum
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, Field

from delaystream.client.consuming.events import (
    EventError,
    Events,
    EventVersionError,
    InvalidEventError,
    ScheduledEvent,
    UnknownEventError,
    event_record,
    read_event,
)
from delaystream.client.kafka.deliveries import NO_HEADERS, Delivery
from delaystream.core.request import Header


class Level(Enum):
    FIRST = "first"
    LAST = "last"


class InvoiceDue(ScheduledEvent, topic="invoices", key="customer"):
    customer: str
    amount: Decimal
    level: Level = Level.FIRST
    lines: list[str] = field(default_factory=list)
    at: datetime | None = None


class CustomerLeft(
    ScheduledEvent, BaseModel, topic="customers", key="id", name="customer-left", version=3, reads_from=2
):
    id: UUID
    reason: str = Field(default="none", max_length=10)


class Base(ScheduledEvent):
    tenant: str


class Derived(Base, topic="derived", key="tenant", version=7):
    number: int


IS_DUE: Header = ("event_type", b"InvoiceDue")
HAS_LEFT: Header = ("event_type", b"customer-left")
ID = UUID("12345678-1234-5678-1234-567812345678")
DUE = InvoiceDue("acme", Decimal("7.10"), Level.LAST, ["a", "ü"], datetime(2030, 1, 31, 9, tzinfo=UTC))


def delivered(*headers: Header, value: bytes | None = b"{}") -> Delivery:
    return Delivery.of(("invoices", 0, 7), 1, b"k", value, headers)


def sent(event: ScheduledEvent, **changes: bytes | None) -> Delivery:
    """What a consumer gets of an event; `changes` are of headers."""
    record = event_record(event)
    headers = [(name, changes.get(name, value)) for name, value in record.headers]
    return delivered(*headers, value=record.value)


@pytest.mark.parametrize("event", [DUE, CustomerLeft(id=ID), Derived("t", 3)])
def test_an_event_comes_back_as_it_was(event: ScheduledEvent) -> None:
    assert read_event(type(event), sent(event)) == event
    assert Events([InvoiceDue, CustomerLeft, Derived]).of(sent(event)) == event


def test_an_event_is_a_record_with_its_name_and_what_it_belongs_to_as_headers_and_tags() -> None:
    record = event_record(DUE, "order-7")
    assert (record.destination, record.key) == ("invoices", b"acme")
    assert record.headers == (
        ("event_type", b"InvoiceDue"),
        ("event_version", b"1"),
        ("correlation_id", b"order-7"),
    )
    assert record.tags == ("InvoiceDue", "order-7")
    other = event_record(CustomerLeft(id=ID))
    assert (other.destination, other.key, other.tags) == ("customers", str(ID).encode(), ("customer-left",))
    assert dict(other.headers)["event_version"] == b"3"


def test_fields_are_those_of_a_frozen_dataclass() -> None:
    with pytest.raises(FrozenInstanceError):
        DUE.customer = "globex"  # type: ignore[misc]
    with pytest.raises(TypeError):
        InvoiceDue("acme")  # type: ignore[call-arg]
    assert InvoiceDue(customer="a", amount=Decimal(1)) == InvoiceDue("a", Decimal(1))


@pytest.mark.parametrize(
    ("headers", "value", "error", "says"),
    [
        ([], b"{}", UnknownEventError, "is not an event: it has no header event_type"),
        ([("event_type", None)], b"{}", UnknownEventError, "is not an event"),
        ([("event_type", b"Other")], b"{}", UnknownEventError, "'Other', which is not expected here"),
        ([("event_type", b"\xff")], b"{}", UnknownEventError, "which is not expected here"),
        ([IS_DUE], b"{}", EventVersionError, "version '(none)'; this program reads 1 to 1"),
        ([IS_DUE, ("event_version", b"2")], b"{}", EventVersionError, "version '2'"),
        ([IS_DUE, ("event_version", b"x")], b"{}", EventVersionError, "version 'x'"),
        ([IS_DUE, ("event_version", b"9" * 5000)], b"{}", EventVersionError, "version '9"),
        ([HAS_LEFT, ("event_version", b"1")], b"{}", EventVersionError, "reads 2 to 3"),
        ([HAS_LEFT, ("event_version", b"4")], b"{}", EventVersionError, "reads 2 to 3"),
        ([IS_DUE, ("event_version", b"1")], None, InvalidEventError, "without a value"),
        ([IS_DUE, ("event_version", b"1")], b"\xff", InvalidEventError, "cannot be read as InvoiceDue"),
        ([IS_DUE, ("event_version", b"1")], b"{}", InvalidEventError, "`customer`"),
        ([IS_DUE, ("event_version", b"1")], b"[" * 9000, InvalidEventError, "cannot be read as Invoice"),
        ([HAS_LEFT, ("event_version", b"2")], b"{}", InvalidEventError, "id Field required"),
        (list(NO_HEADERS), b"{}", UnknownEventError, "is not an event"),
    ],
)  # fmt: skip
def test_what_is_no_event_of_these_is_told_with_a_clear_error_and_the_delivery_is_still_there(
    headers: list[Header], value: bytes | None, error: type[EventError], says: str
) -> None:
    delivery = delivered(*headers, value=value)
    with pytest.raises(error, match=r"^invoices/0/7") as told:
        Events([InvoiceDue, CustomerLeft]).of(delivery)
    assert says in str(told.value)
    assert "\n" not in str(told.value)
    assert delivery.value == value


def test_an_older_version_that_the_class_still_reads_is_read() -> None:
    delivery = sent(CustomerLeft(id=ID), event_version=b"2")
    assert read_event(CustomerLeft, delivery) == CustomerLeft(id=ID)


def test_an_event_of_another_class_is_not_read_as_this_one() -> None:
    with pytest.raises(UnknownEventError, match="is an event 'InvoiceDue'; expected customer-left"):
        read_event(CustomerLeft, sent(DUE))
    with pytest.raises(UnknownEventError, match="is no event; expected customer-left"):
        read_event(CustomerLeft, delivered())


@given(
    st.lists(st.tuples(st.sampled_from(["event_type", "event_version"]), st.none() | st.binary())),
    st.binary(),
)
def test_no_record_makes_the_reading_raise_anything_else(headers: list[Header], value: bytes) -> None:
    with pytest.raises(EventError):
        Events([InvoiceDue]).of(delivered(*headers, value=value))


def test_two_classes_of_one_name_are_refused() -> None:
    class Other(ScheduledEvent, topic="others", name="InvoiceDue"):
        pass

    with pytest.raises(ValueError, match="Two classes have the name 'InvoiceDue'"):
        Events([InvoiceDue, Other])
    assert Events([InvoiceDue, InvoiceDue]).kinds == {"InvoiceDue": InvoiceDue}
    with pytest.raises(ValueError, match="has no topic"):
        Events([Base])


@pytest.mark.parametrize(
    ("said", "says"),
    [
        ({"topic": "a b"}, "not a topic name"),
        ({"topic": "t", "key": "nothing"}, "has no field 'nothing'"),
        ({"key": "customer"}, "has no topic"),
        ({"topic": "t", "version": 0}, "version 0"),
        ({"topic": "t", "version": 2, "reads_from": 3}, "reads from 3"),
        ({"topic": "t", "name": "a,b"}, "'a,b'"),
        ({"topic": "t", "name": ""}, "''"),
    ],
)
def test_a_class_that_cannot_be_is_refused_where_it_is_written(said: dict[str, Any], says: str) -> None:
    with pytest.raises((TypeError, ValueError), match=says):
        type("Wrong", (ScheduledEvent,), {"__annotations__": {"customer": "str"}}, **said)


@pytest.mark.parametrize("correlation_id", ["", "a,b", " a", "\udcff"])
def test_a_correlation_id_that_is_no_tag_is_refused(correlation_id: str) -> None:
    with pytest.raises(ValueError, match="correlation id"):
        event_record(DUE, correlation_id)


def test_a_base_of_events_is_no_event_itself() -> None:
    with pytest.raises(TypeError, match="has no topic"):
        event_record(Base("t"))


class Keyed(ScheduledEvent, topic="keyed", key="key"):
    key: Any


@pytest.mark.parametrize(
    ("key", "written"),
    [("ü", "ü".encode()), (7, b"7"), (b"\xff", b"\xff"), (ID, str(ID).encode()), (None, None)],
)
def test_a_key_is_made_of_a_field(key: Any, written: bytes | None) -> None:
    record = event_record(Keyed(key))
    assert record.key == written


@pytest.mark.parametrize("key", [True, 1.5, [1], {"a": 1}])
def test_what_is_no_key_is_refused(key: Any) -> None:
    with pytest.raises(TypeError, match="The key of Keyed is a"):
        event_record(Keyed(key))


def test_an_event_without_a_key_has_a_null_key() -> None:
    class Bare(ScheduledEvent, topic="bare"):
        pass

    assert event_record(Bare()).key is None
