"""What one transaction holds."""

from __future__ import annotations

import gc
import weakref

from delaystream.engine.state.step import Bounds, Step


def test_a_step_is_freed_as_soon_as_nobody_refers_to_it() -> None:
    gc.disable()
    try:
        step = Step(0, 1, 0.0, Bounds(10, 10, 1 << 31))
        step.writes_to("orders", 4).write(b"key", b"value", (), 0)
        assert step.partitions == 1
        gone = weakref.ref(step)
        del step
        assert gone() is None
    finally:
        gc.enable()


def test_rows_without_a_key_are_spread_in_runs() -> None:
    step = Step(0, 1, 0.0, Bounds(1000, 1000, 1 << 31))
    topic_writes = step.writes_to("orders", 4)
    for _ in range(160):
        topic_writes.write(None, b"value", (), 0)
    assert sorted(len(rows) for rows in topic_writes.rows.values()) == [32, 32, 32, 64]
