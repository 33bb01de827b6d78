"""Keys of wheel entries: made, taken apart, and moved."""

from hypothesis import given
from hypothesis import strategies as st

from delaystream.codec import keys

words = st.integers(0, 2**32 - 1)
times = st.integers(0, 2**63 - 1)
entries = st.tuples(words, times, words, times, st.integers(0, 2**16 - 1))


@given(entries)
def test_a_wheel_key_is_taken_apart_as_it_was_made(entry: tuple[int, int, int, int, int]) -> None:
    """As a whole, and part by part."""
    key = keys.wheel_key(*entry)
    assert keys.split_wheel_key(key) == entry
    parts = (keys.wheel_of, keys.due_of, keys.source_of, keys.offset_of, keys.index_of)
    assert tuple(part(key) for part in parts) == entry


@given(entries, words, times)
def test_an_entry_that_moves_stays_the_same_one(
    entry: tuple[int, int, int, int, int], wheel: int, due_ms: int
) -> None:
    """Only its wheel, or its due time, is another one."""
    key = keys.wheel_key(*entry)
    assert keys.split_wheel_key(keys.in_wheel(key, wheel)) == (wheel, *entry[1:])
    assert keys.split_wheel_key(keys.due_at(key, due_ms)) == (entry[0], due_ms, *entry[2:])
