"""Names of schedules and fires."""

from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.identity import fire_id, schedule_id

numbers = st.integers(min_value=0, max_value=2**31)
topics = st.text(alphabet="abcr019._-", min_size=1, max_size=6)
fires = st.tuples(topics, numbers, numbers, numbers, numbers, st.none() | st.text(min_size=1), numbers)


def test_an_anonymous_schedule_is_called_by_its_coordinates() -> None:
    assert schedule_id("delay-requests", 3, 42) == "delay-requests/3/42"
    assert fire_id("delay-requests", 3, 42, 0, 1_700_000_000_000) == "delay-requests/3/42/0/1700000000000"


def test_a_named_schedule_is_called_by_its_id() -> None:
    assert schedule_id("delay-requests", 3, 42, "order-7") == "order-7"
    assert (
        fire_id("delay-requests", 3, 42, 1, 1_700_000_000_000, "order-7", 2)
        == "delay-requests/r2/1/1700000000000/order-7"
    )


def test_an_id_that_looks_like_coordinates_has_other_fire_ids() -> None:
    assert fire_id("t", 1, 2, 3, 4) != fire_id("t", 9, 9, 3, 4, "t/1/2", 1)
    assert fire_id("t", 1, 2, 3, 4, "5", 6) != fire_id("t", 1, 2, 3, 4, "5/4", 6)


def _what_distinguishes(fire: tuple[str, int, int, int, int, str | None, int]) -> tuple[object, ...]:
    topic, partition, offset, index, due_ms, id, revision = fire
    return (topic, partition, offset, index, due_ms) if id is None else (topic, id, revision, index, due_ms)


@given(fires, fires)
def test_two_fires_have_the_same_name_only_when_they_are_the_same(
    one: tuple[str, int, int, int, int, str | None, int],
    other: tuple[str, int, int, int, int, str | None, int],
) -> None:
    same = _what_distinguishes(one) == _what_distinguishes(other)
    assert (fire_id(*one) == fire_id(*other)) == same


@given(fires)
def test_a_fire_id_can_be_taken_apart_whatever_the_id_holds(
    fire: tuple[str, int, int, int, int, str | None, int],
) -> None:
    topic, partition, offset, index, due_ms, id, revision = fire
    name = fire_id(*fire)
    if id is None:
        assert name.split("/") == [topic, str(partition), str(offset), str(index), str(due_ms)]
    else:
        assert name.split("/", 4) == [topic, f"r{revision}", str(index), str(due_ms), id]
