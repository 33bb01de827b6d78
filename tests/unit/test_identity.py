"""Names of schedules and fires."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.identity import (
    FireName,
    fire_id,
    named_fire_id,
    schedule_id,
    split_fire_id,
    split_schedule_id,
    trigger_index,
)

numbers = st.integers(min_value=0, max_value=2**31)
topics = st.text(alphabet="abcr019._-", min_size=1, max_size=6)
Anonymous = tuple[str, int, int, int, int]
Named = tuple[str, int, int, int, str]
anonymous = st.tuples(topics, numbers, numbers, numbers, numbers)
named = st.tuples(topics, numbers, numbers, numbers, st.text(min_size=1))


def test_an_anonymous_schedule_is_called_by_its_coordinates() -> None:
    assert schedule_id("delay-requests", 3, 42) == "delay-requests/3/42"
    assert fire_id("delay-requests/3/42", 0, 1_700_000_000_000) == "delay-requests/3/42/0/1700000000000"


def test_a_named_schedule_is_called_by_its_id() -> None:
    assert schedule_id("delay-requests", 3, 42, "order-7") == "order-7"
    assert (
        named_fire_id("delay-requests", 2, 1, 1_700_000_000_000, "order-7")
        == "delay-requests/r2/1/1700000000000/order-7"
    )


def test_an_id_that_looks_like_coordinates_has_other_fire_ids() -> None:
    assert fire_id("t/1/2", 3, 4) != named_fire_id("t", 1, 3, 4, "t/1/2")
    assert named_fire_id("t", 6, 3, 4, "5") != named_fire_id("t", 6, 3, 4, "5/4")


def _called(fire: Anonymous | Named) -> str:
    *_, last = fire
    if isinstance(last, str):
        return named_fire_id(*fire)
    topic, partition, offset, index, due_ms = fire
    return fire_id(schedule_id(topic, partition, offset), index, due_ms)  # type: ignore[arg-type]


@given(anonymous | named, anonymous | named)
def test_two_fires_have_the_same_name_only_when_they_are_the_same(
    one: Anonymous | Named, other: Anonymous | Named
) -> None:
    assert (_called(one) == _called(other)) == (one == other)


@given(anonymous, st.sampled_from(["", "AbC-1_"]))
def test_the_fire_id_of_a_request_without_an_id_can_be_taken_apart(fire: Anonymous, origin: str) -> None:
    topic, partition, offset, index, due_ms = fire
    where = schedule_id(f"{topic}@{origin}" if origin else topic, partition, offset)
    name = split_fire_id(fire_id(where, index, due_ms))
    assert name == FireName(where, index, due_ms)
    assert split_schedule_id(name.of) == (topic, partition, offset, origin)


@given(named, st.booleans(), st.sampled_from(["", "AbC-1_"]))
def test_a_named_fire_id_can_be_taken_apart_whatever_the_id_holds(
    fire: Named, by_command: bool, origin: str
) -> None:
    topic, revision, number, due_ms, id = fire
    index = trigger_index(3, number, origin) if by_command else number
    name = split_fire_id(named_fire_id(topic, revision, index, due_ms, id))
    assert name == FireName(topic, index, due_ms, revision, id)
    assert name.triggered == by_command


@pytest.mark.parametrize(
    "text",
    ["", "t", "t/1/2", "t/1/2/3", "t/1/2/3/4/5", "/1/2/3/4", "t/1/2/x/4", "t/1/2/3/-4", "t/1/2/3/٤",
     "t@/1/2/3/4", "t/r1/2/3", "t/r1/2/3/", "t/r/2/3/id", "t/rx/2/3/id", "t/r1/x/3/id", "t/r1/2/x/id",
     "t/1/2/3/" + "4" * 5_000],
)  # fmt: skip
def test_what_is_no_fire_id_is_none(text: str) -> None:
    assert split_fire_id(text) is None


@pytest.mark.parametrize(
    "text", ["", "t", "t/1", "t/1/2/3", "/1/2", "@o/1/2", "t@/1/2", "t/a/2", "t/1/²", "t/1/" + "2" * 5_000]
)
def test_what_are_no_coordinates_are_none(text: str) -> None:
    assert split_schedule_id(text) is None
