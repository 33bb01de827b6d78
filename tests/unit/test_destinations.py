"""Which topics may be written to on a request's behalf."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.destinations import DestinationFilter, is_topic_name
from delaystream.core.globs import _compiled, matches_glob

OWN = ("delay-requests", "delay-commands", "delay-wheel-changelog", "delay-events", "delay-dead-letters")


@pytest.mark.parametrize("name", ["orders", "a", "A.b_c-9", "x" * 249, "...", "__internal"])
def test_kafka_topic_names_are_known(name: str) -> None:
    assert is_topic_name(name)


@pytest.mark.parametrize("name", ["", ".", "..", "x" * 250, "a b", "a/b", "ä", "orders\n", "a,b", "٣"])
def test_what_kafka_refuses_is_no_topic_name(name: str) -> None:
    assert not is_topic_name(name)


def test_names_and_globs_open_what_they_match_and_nothing_else() -> None:
    destinations = DestinationFilter(["orders", "billing.*", "team-[ab]", "log?"], OWN)
    for topic in ("orders", "billing.invoices", "team-a", "logs"):
        assert destinations.permits(topic)
    for topic in ("orders2", "Orders", "my-orders", "billing", "team-c", "log", "logs2"):
        assert not destinations.permits(topic)


@pytest.mark.parametrize("topic", [*OWN, "__consumer_offsets", "__transaction_state", "a/b", ""])
@pytest.mark.parametrize("allow", [["*"], ["*", "__*", "delay-*"], [*OWN, "__consumer_offsets"]])
def test_internal_and_own_topics_are_never_open(topic: str, allow: list[str]) -> None:
    assert not DestinationFilter(allow, OWN).permits(topic)


def test_an_empty_allow_list_opens_nothing() -> None:
    assert not DestinationFilter([]).permits("orders")
    assert not DestinationFilter(["", " "]).permits("orders")


def test_a_refusal_says_why() -> None:
    destinations = DestinationFilter(["orders"], OWN)
    assert destinations.refusal("orders") is None
    assert destinations.refusal("billing") == "is not in the allow-list"
    assert destinations.refusal("__consumer_offsets") == "is internal to Kafka"
    assert destinations.refusal("delay-requests") == "is a request topic or one of delaystream's own"
    assert "not a topic name" in str(destinations.refusal("a b"))


def test_more_topics_than_are_remembered_are_still_judged_alike() -> None:
    destinations = DestinationFilter(["even-*"])
    names = [f"{'even' if number % 2 == 0 else 'odd'}-{number}" for number in range(25_000)]
    for _ in range(2):
        assert [destinations.permits(name) for name in names] == [name.startswith("even") for name in names]


@given(st.text())
def test_no_topic_name_breaks_the_filter(topic: str) -> None:
    destinations = DestinationFilter(["*"], OWN)
    assert destinations.permits(topic) == (
        is_topic_name(topic) and not topic.startswith("__") and topic not in OWN
    )


def test_globs_are_bounded_in_what_they_cost() -> None:
    """Anybody may send one: those that were compiled are kept, and no more than a few hundred of them."""
    assert matches_glob("orders-eu", "orders-*")
    assert not matches_glob("orders", "ORDERS")
    assert matches_glob("a", "[ab]")
    assert not matches_glob("a", "[!ab]")
    assert not matches_glob("orders", "[" * 249)
    assert not matches_glob("a" * 249, "*a" * 124 + "b")
    for number in range(2_000):
        matches_glob("orders", f"{number}*")
    assert _compiled.cache_info().currsize <= 512
