"""Dead letters of a topic that anybody may write to: what cannot be read stops nothing."""

from __future__ import annotations

import asyncio

import pytest

from delaystream.adapters.kafka.changelog import topic_records
from delaystream.adapters.kafka.record_batches import Decompressor
from delaystream.console.access.caller import ITSELF
from delaystream.console.letters.latest import DeadLetters, LetterFilter, Letters
from delaystream.engine.ports import LogBounds, TopicBatch
from delaystream.testing import VirtualTimeLoop
from tests.unit.record_batches import batch, bomb, legacy, marker, raw_batch, record

MOST_BYTES = 1_000_000
ABORT = record(0, b"\0\0\0\0", b"")
#: Of three offsets each, but for the last.
UNREADABLE = {
    "records that are none": raw_batch(1, b"\xff" * 40, 3),
    "an unknown compression": raw_batch(1, b"", 3, codec_number=7),
    "too large": bomb(1, 3, "gzip", 3),
    "cut": raw_batch(1, record(0, b"k", b"v")[:-3], 3),
}


def read(content: bytes, position: int = 0, aborted: tuple[tuple[int, int], ...] = ()) -> TopicBatch:
    return topic_records(position, content, aborted, 100, Decompressor(MOST_BYTES))


def letter(number: int) -> tuple[bytes, bytes, list[tuple[str, bytes | None]]]:
    return b"k", b"%d" % number, [("delaystream-error", b"invalid-delay")]


@pytest.mark.parametrize("name", UNREADABLE)
def test_a_batch_that_cannot_be_read_is_passed_over_and_counted(name: str) -> None:
    """What stands before and behind it is read."""
    content = batch(0, [letter(0)]) + UNREADABLE[name] + batch(4, [letter(4), letter(5)])
    found = read(content)
    assert [one.offset for one in found.records] == [0, 4, 5]
    assert (found.next_position, found.skipped) == (6, 3)
    # From within it: what is left of it.
    found = read(content[len(batch(0, [letter(0)])) :], 2)
    assert ([one.offset for one in found.records], found.skipped) == ([4, 5], 2)


def test_of_a_batch_that_breaks_off_the_records_before_that_are_read() -> None:
    payload = record(0, b"k", b"0") + record(1, b"k", b"1") + b"\xff" * 9
    found = read(raw_batch(0, payload, 5) + batch(5, [letter(5)]))
    assert [one.offset for one in found.records] == [0, 1, 5]
    assert (found.next_position, found.skipped) == (6, 3)


def test_a_header_name_that_is_no_text_hides_no_letter() -> None:
    found = read(batch(0, [letter(0), (b"k", b"1", [("\udcff", b"x")]), letter(2)]))
    assert [one.offset for one in found.records] == [0, 1, 2]
    assert found.records[1].headers == [("\udcff", b"x")]
    assert found.skipped == 0


def test_records_of_an_old_format_are_letters_and_aborted_ones_are_not() -> None:
    aborted = batch(1, [letter(1)], transactional=True, producer_id=7)
    content = legacy(1, 0, b"0") + aborted + marker(2, ABORT) + batch(3, [letter(3)])
    found = read(content, aborted=((7, 1),))
    assert [(one.offset, one.value) for one in found.records] == [(0, b"0"), (3, b"3")]
    assert found.skipped == 0


def test_the_list_says_how_many_are_left_out(caplog: pytest.LogCaptureFixture) -> None:
    content = batch(0, [letter(0)]) + UNREADABLE["cut"] + batch(4, [letter(4)])

    class Log:
        async def bounds(self) -> LogBounds:
            return LogBounds(0, 5, 5)

        async def read_records(self, position: int) -> TopicBatch:
            if position < 5:
                return topic_records(position, content, (), 5, Decompressor(MOST_BYTES))
            await asyncio.sleep(1)
            return TopicBatch([], position, 5)

        async def close(self) -> None:
            pass

    async def opened(_: int) -> Log:
        return Log()

    async def story() -> DeadLetters:
        letters = DeadLetters(1, opened, lambda: 1_000)
        running = asyncio.create_task(letters.run())
        await asyncio.sleep(5)
        running.cancel()
        return letters

    with VirtualTimeLoop() as loop:
        letters = loop.run_until_complete(story())
    (status,) = letters.statuses
    assert (status.position, status.skipped, status.problem) == (5, 3, None)
    assert [one.offset for one in Letters(letters, ITSELF).page(LetterFilter(), 10).items] == [4, 0]
    assert "3 offsets from 0 on are in a batch that cannot be read" in caplog.text
