"""Fetched batches that wait, and how they are cut."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st

from delaystream.adapters.kafka.record_batches import LegacyRecord
from delaystream.core.rejection import Code, Rejection
from delaystream.engine.lifecycle.inbox import pieces
from delaystream.engine.ports import SourceBatch


@given(
    st.lists(st.integers(0, 100), unique=True, max_size=20).map(sorted),
    st.integers(1, 8),
    st.integers(0, 5),
)
def test_pieces_follow_on_from_each_other_and_are_the_whole_batch(
    offsets: list[int], most: int, behind: int
) -> None:
    """Compaction leaves gaps; positions go on over them, and over what is behind the last record."""
    start, stop = (offsets[0], offsets[-1] + 1 + behind) if offsets else (7, 8)
    records = [LegacyRecord(offset, 1, None, None) for offset in offsets]
    unreadable = {offset: Rejection(Code.INTERNAL_ERROR, "x") for offset in offsets[::3]}
    cut = [*pieces(SourceBatch("requests", records, start, stop, 1_000, unreadable), most)]
    assert [record for piece in cut for record in piece.records] == records
    assert (cut[0].start, cut[-1].stop) == (start, stop)
    assert all(one.stop == other.start for one, other in pairwise(cut))
    assert all(0 < len(piece.records) <= most for piece in cut) or not offsets
    for piece in cut:
        assert all(piece.start <= record.offset < piece.stop for record in piece.records)
        assert {record.offset for record in piece.records if record.offset in piece.unreadable} == {
            record.offset for record in piece.records if record.offset in unreadable
        }
