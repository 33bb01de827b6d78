"""The traffic of the tests with faults knows what it asked for, whatever its producer and the brokers did."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import Any

import pytest

from tests.integration.harness_kafka import Delivery
from tests.integration.harness_traffic import Onlooker, Traffic
from tests.ledger import Asked


def written(offset: int, number: int | None) -> Delivery:
    headers: list[tuple[str, bytes | None]] = [] if number is None else [("number", b"%d" % number)]
    return Delivery("requests", 0, offset, None, b"v", headers, 0, 0)


def after(acknowledged: dict[int, int | None], topic: list[int | None], sent: int = 3) -> Traffic:
    """Traffic that sent so many; ``acknowledged``: offsets by number, ``topic``: the numbers there."""
    records = [written(offset, number) for offset, number in enumerate(topic)]
    reader = SimpleNamespace(take=lambda count, _: records[:count])
    app: Any = SimpleNamespace(
        requests="requests",
        dead_letters="letters",
        destination=lambda name, *_: name,
        kafka=SimpleNamespace(bootstrap="127.0.0.1:1", end_offsets=lambda _: [len(records)]),
        reader=lambda *_: nullcontext(reader),
    )
    traffic = Traffic(app, rate=1, seed=1)
    for number in range(sent):
        asked = Asked("", None, b"v", [("number", b"%d" % number)], "out", (1_000 + number,))
        traffic._requests[str(number)] = asked
        if number in acknowledged:
            message: Any = SimpleNamespace(
                topic=lambda: "requests",
                partition=lambda: 0,
                offset=lambda number=number: acknowledged[number],
            )
            traffic._delivered(asked, None, message)
    traffic._compare()
    return traffic


def test_a_request_that_was_written_twice_is_two_requests() -> None:
    """By their coordinates; what is not of this traffic does not count."""
    traffic = after({0: 0, 1: 1, 2: 4}, [0, 1, None, 1, 2])
    assert (traffic.doubled, traffic.unconfirmed) == (1, 0)
    assert {(asked.source, asked.due_ms) for asked in traffic.asked} == {
        ("requests/0/0", (1_000,)),
        ("requests/0/1", (1_001,)),
        ("requests/0/3", (1_001,)),
        ("requests/0/4", (1_002,)),
    }


def test_a_request_that_was_given_up_counts_where_it_stands_on_the_topic() -> None:
    """And only there."""
    traffic = after({0: 0}, [0, 2])
    assert (traffic.doubled, traffic.unconfirmed) == (0, 1)
    assert {asked.source for asked in traffic.asked} == {"requests/0/0", "requests/0/1"}


@pytest.mark.parametrize("topic", [[0, 1], [0, 1, None], [0, 1, 0]])
def test_an_acknowledged_request_that_is_not_on_its_topic_is_kafkas_loss(topic: list[int | None]) -> None:
    """Truncated away, or overwritten by another record."""
    with pytest.raises(AssertionError, match=r"Kafka lost 1 acknowledged requests: \['requests/0/2'\]"):
        after({0: 0, 1: 1, 2: 2}, topic)


def test_what_was_shown_as_committed_must_stay() -> None:
    """The same record at the same place."""
    onlooker = Onlooker(SimpleNamespace(), [])  # type: ignore[arg-type]
    onlooker.seen = [written(0, 7), written(1, 8)]
    assert not onlooker.gone([written(0, 7), written(1, 8), written(2, 9)])
    assert len(onlooker.gone([written(0, 7)])) == 1
    assert len(onlooker.gone([written(0, 7), written(1, 9)])) == 1


def test_a_request_that_was_acknowledged_without_its_offset_is_where_it_stands() -> None:
    """A broker that knows a repeated batch says no more than that it does."""
    traffic = after({0: 0, 1: None}, [0, 1])
    assert {asked.source for asked in traffic.asked} == {"requests/0/0", "requests/0/1"}
    with pytest.raises(AssertionError, match="Kafka lost 1 acknowledged"):
        after({0: 0, 1: None}, [0])
