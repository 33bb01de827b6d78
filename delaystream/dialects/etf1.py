"""etf1's kafka-message-scheduler: `scheduler-epoch`, `scheduler-target-topic`, `scheduler-target-key`.

Source: the README, `schedule/kafka/schedule.go`, `store/kafka/store.go` and `runner/kafka/handler.go` of
https://github.com/etf1/kafka-message-scheduler (November 2025).

In etf1 the record's key is the schedule's id, and a record with that key and a null value deletes the
schedule. On topics with this dialect it does so here, too. In delaystream's own headers a null value is a
tombstone that is delivered. The delivered key is `scheduler-target-key`, or null without it.

What differs, and is meant to:

- A time in the past is delivered at once; etf1 drops it outside of `SCHEDULE_GRACE_INTERVAL`.
- Nothing is written back to the request topic. There is no history topic: a delivery is an event.
"""

from typing import Final

from delaystream.dialects.translation import (
    Dialect,
    Record,
    Row,
    Spoken,
    Translated,
    control,
    missing,
    names_ours,
    seconds_as_instant,
    utf8,
)

_EPOCH: Final = "scheduler-epoch"
_TARGET_TOPIC: Final = "scheduler-target-topic"
_TARGET_KEY: Final = "scheduler-target-key"
_TIMESTAMP: Final = "scheduler-timestamp"
_KEY: Final = "scheduler-key"
_TOPIC: Final = "scheduler-topic"
_NAMES: Final = frozenset({_EPOCH, _TARGET_TOPIC, _TARGET_KEY})
_OUTGOING: Final = frozenset({_TIMESTAMP, _KEY, _TOPIC})


class Etf1(Dialect):
    """Reads `scheduler-*`."""

    name = "etf1"
    system = "etf1 kafka-message-scheduler"
    table = (
        Row("the record's key", "`id`", "required; UTF-8"),
        Row("a null value", "`action: cancel`", "of the schedule that the key names"),
        Row(_EPOCH, "`at`", "seconds since 1970; in the past: at once"),
        Row(_TARGET_TOPIC, "`destination`"),
        Row(_TARGET_KEY, "the delivered key", "any bytes; null when the header is not there"),
    )
    outgoing = (
        Row(_TIMESTAMP, "the request's timestamp, in seconds"),
        Row(_KEY, "the request's key"),
        Row(_TOPIC, "the request topic"),
        Row("`scheduler-epoch`, `scheduler-target-…`", "delivered as they came", "as etf1 does"),
    )

    def _translated(self, record: Record) -> Translated | None:
        return _translate(record)


def _translate(record: Record) -> Translated | None:
    spoken = Spoken(record.headers, _NAMES)
    if not spoken and (record.has_value or names_ours(record.headers)):
        return None
    if not record.key or not record.key.strip():
        raise missing("the record's key", "the schedule's id")
    id = utf8("the record's key", record.key)
    if not record.has_value:
        ours = [header for header in spoken.rest if names_ours([header])]
        return Translated(record.key, [control("id", id), control("action", "cancel"), *ours])
    epoch = spoken.required(_EPOCH, "whole seconds since 1970")
    headers = [
        control("id", id),
        control("at", seconds_as_instant(_EPOCH, epoch)),
        control("destination", spoken.required(_TARGET_TOPIC, "the topic to deliver to")),
        # If a delivery is sent as a request, headers that the earlier delivery added do not count.
        *(header for header in record.headers if header[0] not in _OUTGOING),
        (_TIMESTAMP, b"%d" % (record.timestamp_ms // 1000)),
        (_KEY, record.key),
        (_TOPIC, record.source.topic.encode()),
    ]
    return Translated(spoken.content(_TARGET_KEY), headers)
