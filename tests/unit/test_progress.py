"""What the log says of a recovery that takes its time."""

from __future__ import annotations

from delaystream.engine.lifecycle.recovery import Progress


def test_a_recovery_tells_its_rate_and_the_time_left_every_two_seconds() -> None:
    progress = Progress(0.0)
    assert progress.advance(1_000, 10_000, 110_000, 10) is None
    assert progress.advance(100_000, 60_000, 110_000, 2_000) == (
        "recovering: 100,000 records, at offset 60,000 of 110,000, 50,000/s, 2 s left"
    )
    assert progress.advance(110_000, 65_000, 110_000, 3_000) is None
    assert progress.advance(120_000, 70_000, 110_000, 4_000) is not None


def test_a_short_recovery_says_nothing_on_its_way() -> None:
    progress = Progress(0.0)
    assert progress.advance(500, 500, 500, 900) is None
    assert (progress.applied, progress.seconds(900)) == (500, 0.9)
