"""The headers that delaystream writes: on deliveries, dead letters and receipts.

| header (prefix `delaystream-`) | on | value |
|---|---|---|
| `schedule-id` | deliveries | the request's id, or its coordinates `topic/partition/offset` |
| `fire-id` | deliveries | the same on every retry; `delaystream.core.identity` has its grammar |
| `due-at`, `fired-at` | deliveries | epoch milliseconds |
| `source` | deliveries | `topic/partition/offset` of the request |
| `fire-count` | deliveries | how often this schedule has fired, this one included |
| `skipped` | deliveries | with `catch-up: latest`: for how many earlier scheduled times this one stands |
| `last-fired-at` | deliveries | with an id: when it fired before this |
| `next-at` | deliveries | recurring: its next scheduled time |
| `error`, `error-detail` | dead letters | a stable code, and one sentence |
| `error-topic`, `error-partition`, `error-offset` | dead letters | where the refused record stood |
| `error-timestamp` | dead letters | the refused record's timestamp, epoch milliseconds; -1 for none |
| `receipt` | receipts | the outcome, as in the JSON value |

All are dropped when a record that carries them is sent as a request, so deliveries and dead letters can be.
"""

from collections.abc import Mapping, Sequence
from enum import StrEnum
from typing import Final

import msgspec
import orjson

from delaystream.core.rejection import Rejection
from delaystream.core.request import Coordinates, Header

SCHEDULE_ID: Final = "delaystream-schedule-id"
FIRE_ID: Final = "delaystream-fire-id"
DUE_AT: Final = "delaystream-due-at"
FIRED_AT: Final = "delaystream-fired-at"
SOURCE: Final = "delaystream-source"
FIRE_COUNT: Final = "delaystream-fire-count"
SKIPPED: Final = "delaystream-skipped"
LAST_FIRED_AT: Final = "delaystream-last-fired-at"
NEXT_AT: Final = "delaystream-next-at"
ERROR: Final = "delaystream-error"
ERROR_DETAIL: Final = "delaystream-error-detail"
ERROR_TOPIC: Final = "delaystream-error-topic"
ERROR_PARTITION: Final = "delaystream-error-partition"
ERROR_OFFSET: Final = "delaystream-error-offset"
ERROR_TIMESTAMP: Final = "delaystream-error-timestamp"
RECEIPT: Final = "delaystream-receipt"

OUTGOING_HEADERS: Final = frozenset({
    SCHEDULE_ID, FIRE_ID, DUE_AT, FIRED_AT, SOURCE, FIRE_COUNT, SKIPPED, LAST_FIRED_AT, NEXT_AT,
    ERROR, ERROR_DETAIL, ERROR_TOPIC, ERROR_PARTITION, ERROR_OFFSET, ERROR_TIMESTAMP, RECEIPT,
})  # fmt: skip
"""Lower-case; none is a name that a request may use."""


_FIRST: Final = (FIRE_COUNT, b"1")
NOTHING_COUNTED: Final[Mapping[str, int]] = {}


class Outcome(StrEnum):
    """The outcome of a request, for its receipt."""

    SCHEDULED = "scheduled"
    """Stored, or delivered at once."""
    REPLACED = "replaced"
    """Scheduled in the place of the pending schedule of the same id."""
    KEPT = "kept"
    """Not scheduled: `if-exists: keep`, and the id names a pending schedule."""
    CANCELLED = "cancelled"
    PAUSED = "paused"
    RESUMED = "resumed"
    RESCHEDULED = "rescheduled"
    DESCRIBED = "described"
    """The receipt tells of the schedule; nothing has changed."""
    TRIGGERED = "triggered"
    """A fire is on its way, beside those of the schedule."""
    UPDATED = "updated"
    """The given fields have changed, and no others."""
    UNCHANGED = "unchanged"
    """The schedule is what was asked for already: the same definition, paused, or running."""
    TOO_LATE = "too-late"
    """A command found that the schedule was over."""
    UNKNOWN = "unknown"
    """A command found no such id; a cancel is remembered for a while, in case it overtook its schedule."""
    RATE_SET = "rate-set"
    """A command's rate for a destination is in force on every partition."""
    NO_MATCH = "no-match"
    """A bulk command found nothing that it is about."""
    REJECTED = "rejected"


class Delivery(msgspec.Struct, frozen=True, gc=False):
    """One delivery of a named schedule: what its headers tell, but for when it is written."""

    schedule_id: str
    fire_id: str
    due_ms: int
    """Of a recurring schedule, the scheduled time."""
    source: str
    """The request's `topic/partition/offset`."""
    fire_count: int
    """How often the schedule has fired, this delivery included."""
    skipped: int = 0
    """Earlier scheduled times that it stands for."""
    last_fired_ms: int = -1
    """When the schedule fired before; -1 for the first fire."""
    next_ms: int | None = None
    """The scheduled time after it; None where there is none."""


def delivery_headers(headers: Sequence[Header], delivery: Delivery, fired_at: Header) -> list[Header]:
    """The foreign headers of the request as they are, then those of a delivery. A new list.

    `fired_at` is the whole header, made once for all fires of a transaction.
    """
    written = [
        *headers,
        (SCHEDULE_ID, delivery.schedule_id.encode()),
        (FIRE_ID, delivery.fire_id.encode()),
        (DUE_AT, b"%d" % delivery.due_ms),
        fired_at,
        (SOURCE, delivery.source.encode()),
        (FIRE_COUNT, b"%d" % delivery.fire_count),
    ]
    if delivery.skipped:
        written.append((SKIPPED, b"%d" % delivery.skipped))
    if delivery.last_fired_ms >= 0:
        written.append((LAST_FIRED_AT, b"%d" % delivery.last_fired_ms))
    if delivery.next_ms is not None:
        written.append((NEXT_AT, b"%d" % delivery.next_ms))
    return written


def anonymous_delivery_headers(
    headers: list[Header], coordinates: bytes, index: int, due_ms: int, fired_at: Header
) -> list[Header]:
    """`delivery_headers` for an anonymous schedule, cheaper; `headers` is extended and returned.

    `coordinates` are the request's `topic/partition/offset`; `fired_at` is the whole header, made once for
    all fires of a transaction.
    """
    due_at = b"%d" % due_ms
    headers += (
        (SCHEDULE_ID, coordinates),
        (FIRE_ID, b"%b/%d/%b" % (coordinates, index, due_at)),
        (DUE_AT, due_at),
        fired_at,
        (SOURCE, coordinates),
        _FIRST if index == 0 else (FIRE_COUNT, b"%d" % (index + 1)),
    )
    return headers


def dead_letter_headers(
    original_headers: Sequence[Header], source: Coordinates, timestamp_ms: int, rejection: Rejection
) -> list[Header]:
    """The refused record's headers untouched, then the reason and where and when it was. A new list.

    A record refused twice carries two sets: the last one is the latest.
    """
    return [
        *original_headers,
        (ERROR, rejection.code.encode()),
        (ERROR_DETAIL, rejection.detail.encode("utf-8", "backslashreplace")),
        (ERROR_TOPIC, source.topic.encode()),
        (ERROR_PARTITION, b"%d" % source.partition),
        (ERROR_OFFSET, b"%d" % source.offset),
        (ERROR_TIMESTAMP, b"%d" % timestamp_ms),
    ]


class ScheduleStatus(msgspec.Struct, frozen=True, gc=False):
    """Where a schedule stands, as a receipt tells it."""

    status: str
    version: int | None = None
    """None for a request without an id."""
    until_ms: int | None = None
    """When its pause ends by itself."""


class Answer(msgspec.Struct, frozen=True, gc=False):
    """The content of a receipt; None and empty for fields that it does not have."""

    outcome: Outcome
    fires: Sequence[tuple[int, str]] = ()
    """Due time and fire id of each that is scheduled."""
    refusal: Rejection | None = None
    """With `rejected`: why."""
    schedule: ScheduleStatus | None = None
    """Where the schedule stands now."""
    won: str | None = None
    """With `too-late`: the last fire before the command."""
    repeated: bool = False
    """A request with this request-id was carried out before, and how is told again."""
    at_once: int | None = None
    """With `resumed`: how many fires are due now."""
    described: dict[str, object] | None = None
    """With `described`: the schedule."""
    counted: Mapping[str, int] = NOTHING_COUNTED
    """The counts of a bulk command, or of a command about a request without an id."""
    about: str | None = None
    """The request without an id that the command is about, `topic/partition/offset`."""


def receipt(
    source: Coordinates, id: str | None, answer: Answer, decided_ms: int
) -> tuple[bytes, bytes, list[Header]]:
    """Key, value and headers of the record that tells what became of the request at `source`.

    The key is the schedule's id in UTF-8. The value is a JSON object with, always, `outcome`, `schedule_id`,
    `source`, `request_topic` and `decided_at_ms`; `id` when the request has one; `fires`, a list of
    `due_at_ms` and `fire_id`, when something is scheduled; `code` and `detail` with `rejected`; `status`,
    where the schedule stands now, with all else about an id; `fire_id` with `too-late`; what was counted,
    for a bulk command and one about a request without an id, which then is the `schedule_id`.
    """
    named = answer.about or (source.text if id is None else id)
    body: dict[str, object] = {
        "outcome": answer.outcome.value,
        "schedule_id": named,
        "request_topic": source.topic,
        "source": source.text,
        "decided_at_ms": decided_ms,
    }
    if id is not None:
        body["id"] = id
    if answer.fires:
        body["fires"] = [{"due_at_ms": due_ms, "fire_id": fire} for due_ms, fire in answer.fires]
    if answer.refusal is not None:
        body["code"] = answer.refusal.code.value
        body["detail"] = answer.refusal.detail
    if answer.schedule is not None:
        body["status"] = answer.schedule.status
        if answer.schedule.version is not None:
            body["version"] = answer.schedule.version
        if answer.schedule.until_ms is not None:
            body["until_ms"] = answer.schedule.until_ms
    if answer.repeated:
        body["repeated"] = True
    if answer.at_once is not None:
        body["fires_at_once"] = answer.at_once
    if answer.described is not None:
        body["schedule"] = answer.described
    if answer.won is not None:
        body["fire_id"] = answer.won
    body.update(answer.counted)
    return (
        named.encode(),
        orjson.dumps(body),
        [(RECEIPT, answer.outcome.value.encode()), ("content-type", b"application/json")],
    )
