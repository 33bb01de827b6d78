"""Names of schedules and fires."""

from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.identity import fire_id, named_fire_id, schedule_id

numbers = st.integers(min_value=0, max_value=2**31)
topics = st.text(alphabet="abcr019._-", min_size=1, max_size=6)
Anonymous = tuple[str, int, int, int, int]
Named = tuple[str, int, int, int, str]
anonymous = st.tuples(topics, numbers, numbers, numbers, numbers)
named = st.tuples(topics, numbers, numbers, numbers, st.text(min_size=1))


def test_an_anonymous_schedule_is_called_by_its_coordinates() -> None:
    assert schedule_id("delay-requests", 3, 42) == "delay-requests/3/42"
    assert fire_id("delay-requests", 3, 42, 0, 1_700_000_000_000) == "delay-requests/3/42/0/1700000000000"


def test_a_named_schedule_is_called_by_its_id() -> None:
    assert schedule_id("delay-requests", 3, 42, "order-7") == "order-7"
    assert (
        named_fire_id("delay-requests", 2, 1, 1_700_000_000_000, "order-7")
        == "delay-requests/r2/1/1700000000000/order-7"
    )


def test_an_id_that_looks_like_coordinates_has_other_fire_ids() -> None:
    assert fire_id("t", 1, 2, 3, 4) != named_fire_id("t", 1, 3, 4, "t/1/2")
    assert named_fire_id("t", 6, 3, 4, "5") != named_fire_id("t", 6, 3, 4, "5/4")


def _called(fire: Anonymous | Named) -> str:
    *_, last = fire
    return named_fire_id(*fire) if isinstance(last, str) else fire_id(*fire)


@given(anonymous | named, anonymous | named)
def test_two_fires_have_the_same_name_only_when_they_are_the_same(
    one: Anonymous | Named, other: Anonymous | Named
) -> None:
    assert (_called(one) == _called(other)) == (one == other)


@given(anonymous)
def test_the_fire_id_of_a_request_without_an_id_can_be_taken_apart(fire: Anonymous) -> None:
    topic, partition, offset, index, due_ms = fire
    assert fire_id(*fire).split("/") == [topic, str(partition), str(offset), str(index), str(due_ms)]


@given(named)
def test_a_named_fire_id_can_be_taken_apart_whatever_the_id_holds(fire: Named) -> None:
    topic, revision, index, due_ms, id = fire
    assert named_fire_id(*fire).split("/", 4) == [topic, f"r{revision}", str(index), str(due_ms), id]
