"""Everything that a worker writes to its own topics for one request fits them, whatever the settings.

The rows are made by what really makes them, and measured as Kafka does.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import pytest
from msgspec.structs import replace

from delaystream.codec.command import attach
from delaystream.codec.envelope import (
    ACTOR_CHARACTERS,
    INLINE_BYTES,
    KEY_BYTES,
    Before,
    Bulk,
    Fire,
    Hold,
    Past,
    Schedule,
    Status,
    Triggered,
    encode,
    envelope_of,
)
from delaystream.codec.keys import before_key, bulk_key, hold_key, payload_key, schedule_key, wheel_key
from delaystream.codec.outgoing import (
    Answer,
    Delivery,
    Outcome,
    ScheduleStatus,
    dead_letter_headers,
    delivery_headers,
    receipt,
)
from delaystream.codec.requests.headers import RequestParser
from delaystream.config.settings import LARGEST_RECEIPT_BYTES, Settings
from delaystream.core.destinations import DestinationFilter
from delaystream.core.identity import named_fire_id, trigger_index
from delaystream.core.instants import LATEST_MS
from delaystream.core.record import Record
from delaystream.core.recurrence import NO_TIMING, Recurrence, Timing
from delaystream.core.rejection import Code, Rejection
from delaystream.core.request import Action, Coordinates, Header, Match, Request
from tests.unit.record_batches import batch

REQUESTS = "r" * 249
DESTINATION = "d" * 249
ORIGIN = "o" * 32
SOURCE = Coordinates(REQUESTS, (1 << 31) - 1, (1 << 47) - 2, ORIGIN)
REVISION = (1 << 63) - 1
NOW_MS = LATEST_MS - 1

Row = tuple[bytes | None, bytes | None, list[Header]]


class Case(NamedTuple):
    """Settings, and whether ids are of characters that JSON has six bytes for."""

    settings: Settings
    control_characters: bool = False


def settings_with(**values: int) -> Settings:
    # What a batch may decompress to is another bound, which says so itself.
    return Settings(request_topics=(REQUESTS,), batch_max_decompressed_bytes=1 << 30, **values)


CASES = {
    "defaults": Case(settings_with()),
    "control characters": Case(settings_with(), True),
    "tiny values": Case(settings_with(max_value_bytes=1), True),
    "long lists": Case(settings_with(max_list=10_000), True),
    "long lists of tiny values": Case(settings_with(max_list=10_000, max_value_bytes=1), True),
    "large headers": Case(settings_with(max_header_bytes=1 << 20, max_value_bytes=1)),
    "many headers": Case(settings_with(max_headers=10_000)),
    "many headers of tiny values": Case(settings_with(max_headers=10_000, max_value_bytes=1)),
    "few header bytes": Case(settings_with(max_header_bytes=2_048, max_value_bytes=1), True),
    "long ids": Case(settings_with(max_id_bytes=4_096), True),
    "long memory": Case(settings_with(history_length=1_000, max_triggers=10_000, max_value_bytes=1)),
    "everything": Case(
        settings_with(
            max_list=10_000,
            max_headers=10_000,
            max_header_bytes=1 << 20,
            max_id_bytes=4_096,
            max_key_bytes=48 * 1024,
            max_cron_characters=4_096,
            history_length=1_000,
            max_triggers=10_000,
        )
    ),
}


def named(case: Case) -> str:
    """The longest id."""
    size = min(case.settings.max_id_bytes, case.settings.max_header_bytes // 2)
    return ("\x01" if case.control_characters else "i") * size


def listed(case: Case, id: str) -> tuple[int, ...]:
    """The latest due times, as many as may be."""
    return (LATEST_MS,) * min(case.settings.max_list, (case.settings.max_header_bytes - len(id)) // 3)


def foreign(settings: Settings, beside: list[Header]) -> list[Header]:
    """Headers that use up what there is beside those of a request: as many, and as large, as may be."""
    left = settings.max_header_bytes - sum(len(name) + len(value or b"") for name, value in beside)
    number = settings.max_headers - len(beside)
    # A length of 64 and more takes two bytes.
    names = ["n" * min(64, left // number)] * number
    left -= sum(map(len, names))
    values = [bytes(min(64, left // number))] * number
    left -= sum(map(len, values))
    headers: list[Header] = [*zip(names, values, strict=True), ("rest", bytes(max(0, left - 4)))]
    return headers[-number:]


def request(case: Case) -> tuple[Request, list[Header]]:
    """A request as large as any that is accepted, parsed as every one is; and its headers."""
    settings = case.settings
    id = named(case)
    number = min(settings.max_list, (settings.max_header_bytes - len(id) - 400) // 3)
    control: list[Header] = [
        ("delaystream-id", id.encode()),
        ("delaystream-destination", DESTINATION.encode()),
        ("delaystream-delay", b",".join([b"1h"] * number)),
    ]
    headers = [*foreign(settings, control), *control]
    parser = RequestParser(DestinationFilter(["*"], []), settings.limits())
    read = parser.parse(
        Record(
            Coordinates(REQUESTS, SOURCE.partition, SOURCE.offset),
            NOW_MS - 3_600_000,
            bytes(settings.max_key_bytes),
            bytes(settings.max_value_bytes),
            headers,
        ),
        NOW_MS - 3_600_000,
    )
    assert isinstance(read, Request), read
    assert len(read.due_ms) == number
    return read, headers


def commands(case: Case) -> Iterator[Row]:
    accepted, headers = request(case)
    accepted = replace(accepted, source=SOURCE)
    yield accepted.key, accepted.value, attach(headers, accepted)
    cron = "*" * case.settings.max_cron_characters
    recurrence = Recurrence(cron, 0, "z" * 64, "shift", "second", NOW_MS, LATEST_MS, 1 << 40, 1 << 40)
    recurring = replace(accepted, due_ms=(), recurrence=recurrence)
    yield accepted.key, accepted.value, attach(headers, recurring)
    timing = Timing(1 << 40, cron, "z" * 64, "shift", "second", NOW_MS, LATEST_MS, 1 << 40, 1 << 40)
    yield accepted.key, accepted.value, attach(headers, replace(recurring, timing=timing))
    yield accepted.key, accepted.value, attach(headers, replace(accepted, timing=NO_TIMING))


def payloads(case: Case) -> Iterator[Row]:
    """With nearly all headers as they are delivered."""
    accepted, _ = request(case)
    delivered = replace(accepted, headers=foreign(case.settings, []), on_late=DESTINATION)
    yield payload_key(REQUESTS, named(case)), encode(envelope_of(delivered)), []
    yield wheel_key(1, LATEST_MS, 1, 1, 1), encode(envelope_of(delivered)), []


def schedules(case: Case) -> Iterator[Row]:
    """With everything at once, which no schedule has; tags are all of the headers."""
    settings, id = case.settings, named(case)
    key = wheel_key(1, LATEST_MS, 1, 1, 1)
    number = len(listed(case, id))
    index = trigger_index(SOURCE.partition, SOURCE.offset, ORIGIN)
    schedule = Schedule(
        Status.QUARANTINED,
        REVISION,
        REQUESTS,
        SOURCE.partition,
        SOURCE.offset,
        LATEST_MS,
        DESTINATION,
        [key] * number,
        1 << 40,
        named_fire_id(SOURCE.place, REVISION, index, LATEST_MS, id),
        key,
        tags=["t" * 32] * ((settings.max_header_bytes - len(id)) // 33),
        triggers=[Triggered(key, REVISION, SOURCE.partition, ORIGIN, ORIGIN)] * settings.max_triggers,
        history=[Fire(LATEST_MS, LATEST_MS, REVISION, index, ORIGIN, Past.SKIPPED, LATEST_MS, 1 << 40)]
        * settings.history_length,
        created_ms=LATEST_MS,
        created_by="\U0001f600" * ACTOR_CHARACTERS,
        updated_ms=LATEST_MS,
        updated_by="\U0001f600" * ACTOR_CHARACTERS,
        key=bytes(KEY_BYTES),
        last_fired_ms=LATEST_MS,
        payload=bytes(INLINE_BYTES),
        origin=ORIGIN,
        revision_origin=ORIGIN,
    )
    yield schedule_key(REQUESTS, id), encode(schedule), []
    held = [(LATEST_MS, index) for index in range(number)]
    yield schedule_key(REQUESTS, id), encode(replace(schedule, pending=[], held=held)), []


def bulks(case: Case) -> Iterator[Row]:
    settings = case.settings
    match = Match(("t" * 32,) * (settings.max_header_bytes // 33), DESTINATION)
    cursor = schedule_key(REQUESTS, named(case))
    bulk = Bulk(
        REQUESTS,
        SOURCE.partition,
        SOURCE.offset,
        LATEST_MS,
        Action.CANCEL,
        match,
        cursor,
        wheel_key(0, LATEST_MS, 1, SOURCE.offset, 0),
        1 << 48,
        1 << 48,
        DESTINATION,
        origin=ORIGIN,
    )
    place = SOURCE.place, SOURCE.partition, SOURCE.offset
    yield bulk_key(*place), encode(bulk), []
    name = "/".join(map(str, place))
    until_key = wheel_key(0, LATEST_MS, 1, SOURCE.offset, 2)
    hold = Hold(
        REQUESTS, *place[1:], LATEST_MS, match, name, LATEST_MS, "a" * 256, "n" * 1024, ORIGIN, until_key
    )
    yield hold_key(*place), encode(hold), []
    before = Before(bulk_key(*place), hold_key(*place), hold)
    yield before_key(bulk_key(*place), hold_key(*place)), encode(before), []


def dead_letters(case: Case) -> Iterator[Row]:
    accepted, headers = request(case)
    detail = "\U0001f600" * 500
    yield (
        accepted.key,
        accepted.value,
        dead_letter_headers(headers, SOURCE, LATEST_MS, Rejection(Code.INTERNAL_ERROR, detail)),
    )


def deliveries(case: Case) -> Iterator[Row]:
    """Those must leave the worker's producer; destinations have bounds of their own."""
    accepted, _ = request(case)
    id = named(case)
    fire = named_fire_id(
        SOURCE.place, REVISION, trigger_index(SOURCE.partition, SOURCE.offset, ORIGIN), LATEST_MS, id
    )
    fired: Header = ("delaystream-fired-at", b"%d" % LATEST_MS)
    source = f"{SOURCE.place}/{SOURCE.partition}/{SOURCE.offset}"
    own = foreign(case.settings, [])
    yield (
        accepted.key,
        accepted.value,
        delivery_headers(own, Delivery(id, fire, LATEST_MS, source, 1 << 40, 9, LATEST_MS, LATEST_MS), fired),
    )


def receipts(case: Case) -> Iterator[Row]:
    accepted, _ = request(case)
    id = named(case)
    times = accepted.due_ms
    fires = [
        (due_ms, named_fire_id(SOURCE.place, REVISION, index, due_ms, id))
        for index, due_ms in enumerate(times)
    ]
    told = Answer(Outcome.RESCHEDULED, fires, won=fires[0][1], schedule=ScheduleStatus("quarantined"))
    yield receipt(SOURCE, id, told, LATEST_MS)
    refused = Answer(Outcome.REJECTED, refusal=Rejection(Code.INTERNAL_ERROR, "\x01" * 1_000))
    yield receipt(SOURCE, id, refused, LATEST_MS)


#: Events are left out: they are cut to what their topic takes.
ROWS: dict[str, Callable[[Case], Iterator[Row]]] = {
    "commands": commands,
    "payloads": payloads,
    "schedules": schedules,
    "bulk commands": bulks,
    "dead letters": dead_letters,
    "deliveries": deliveries,
    "receipts": receipts,
}


@pytest.mark.parametrize("kind", sorted(ROWS))
@pytest.mark.parametrize("name", sorted(CASES))
def test_the_largest_row_of_each_kind_fits_the_topics(name: str, kind: str) -> None:
    """A row that does not stops its request partition, for ever."""
    case = CASES[name]
    largest = max(len(batch(0, [row])) for row in ROWS[kind](case))
    if kind == "receipts":
        largest = min(largest, LARGEST_RECEIPT_BYTES)  # there is no larger one: tests/unit/test_receipts.py
    assert largest <= case.settings.max_message_bytes


def test_the_defaults_are_what_they_were() -> None:
    """Topics that exist need not be altered."""
    assert Settings().max_message_bytes == 1024 * 1024 + 32 * 1024 + 64 * 1024
