"""Karafka's scheduled messages (Karafka Pro): `schedule_*`.

Sources: https://karafka.io/docs/Pro-Scheduled-Messages, and `lib/karafka/pro/scheduled_messages` of
https://github.com/karafka/karafka, `proxy.rb`, `dispatcher.rb`, `consumer.rb` and `contracts/message.rb`
(August 2026; envelope version 1.0.0).

The record's key is the schedule's id; `schedule_target_key` is the key to deliver with. A record of the type
`cancel` or `tombstone` ends the schedule with its key.

What differs, and is meant to:

- Nothing is written back to the request topic.
- `schedule_target_partition_key` is refused, because its partition depends on the partitioner of the Karafka
  process. `schedule_target_partition` is unambiguous.
"""

import re
from typing import Final

from delaystream.dialects.translation import (
    Dialect,
    Record,
    Row,
    Spoken,
    Translated,
    control,
    invalid,
    missing,
    names_ours,
    seconds_as_instant,
    unsupported,
    utf8,
)

_VERSION: Final = "schedule_schema_version"
_TYPE: Final = "schedule_source_type"
_EPOCH: Final = "schedule_target_epoch"
_TOPIC: Final = "schedule_target_topic"
_PARTITION: Final = "schedule_target_partition"
_KEY: Final = "schedule_target_key"
_PARTITION_KEY: Final = "schedule_target_partition_key"
_NAMES: Final = frozenset({_VERSION, _TYPE, _EPOCH, _TOPIC, _PARTITION, _KEY, _PARTITION_KEY})

_SOURCE_TOPIC: Final = "schedule_source_topic"
_SOURCE_PARTITION: Final = "schedule_source_partition"
_SOURCE_OFFSET: Final = "schedule_source_offset"
_SOURCE_KEY: Final = "schedule_source_key"
_OUTGOING: Final = frozenset({_SOURCE_TOPIC, _SOURCE_PARTITION, _SOURCE_OFFSET, _SOURCE_KEY})

_NEWEST: Final = (1, 0, 0)
_SEMANTIC_VERSION: Final = re.compile(r"\d{1,6}(?:\.\d{1,6}){0,2}", re.ASCII)


class Karafka(Dialect):
    """Reads `schedule_*`."""

    name = "karafka"
    system = "Karafka scheduled messages"
    table = (
        Row("the record's key", "`id`", "required; UTF-8"),
        Row(_VERSION, "(checked)", "at most 1.0.0"),
        Row(_TYPE, "`action`", "`schedule`; `cancel` and `tombstone`: `cancel`"),
        Row(_EPOCH, "`at`", "seconds since 1970; in the past: at once"),
        Row(_TOPIC, "`destination`"),
        Row(_PARTITION, "`destination-partition`"),
        Row(_KEY, "the delivered key", "null when the header is not there"),
        Row(_PARTITION_KEY, "refused", "`dialect-unsupported`"),
    )
    outgoing = (
        Row(_SOURCE_TOPIC, "the request topic"),
        Row(_SOURCE_PARTITION, "the request's partition"),
        Row(_SOURCE_OFFSET, "the request's offset"),
        Row(_SOURCE_KEY, "the request's key"),
        Row("`schedule_schema_version`, `schedule_target_…`", "delivered as they came", "as Karafka does"),
    )

    def _translated(self, record: Record) -> Translated | None:
        return _translate(record)


def _translate(record: Record) -> Translated | None:
    spoken = Spoken(record.headers, _NAMES)
    if not spoken:
        return None
    _check_version(spoken.required(_VERSION, "1.0.0"))
    if not record.key:
        raise missing("the record's key", "the schedule's id")
    id = control("id", utf8("the record's key", record.key))
    kind = spoken.required(_TYPE, "schedule or cancel")
    if kind in {"cancel", "tombstone"}:
        ours = [header for header in spoken.rest if names_ours([header])]
        return Translated(record.key, [id, control("action", "cancel"), *ours])
    if kind != "schedule":
        raise invalid(_TYPE, kind, "schedule or cancel")
    if _PARTITION_KEY in spoken:
        raise unsupported(f"{_PARTITION_KEY} is given", f"{_PARTITION} names the partition itself")
    headers = [
        id,
        control("at", seconds_as_instant(_EPOCH, spoken.required(_EPOCH, "whole seconds since 1970"))),
        control("destination", spoken.required(_TOPIC, "the topic to deliver to")),
    ]
    if (partition := spoken.text(_PARTITION)) is not None:
        headers.append(control("destination-partition", partition))
    headers += (header for header in record.headers if header[0] not in _OUTGOING)
    headers += [
        (_SOURCE_TOPIC, record.source.topic.encode()),
        (_SOURCE_PARTITION, b"%d" % record.source.partition),
        (_SOURCE_OFFSET, b"%d" % record.source.offset),
        (_SOURCE_KEY, record.key),
    ]
    return Translated(spoken.content(_KEY), headers)


def _check_version(text: str) -> None:
    if _SEMANTIC_VERSION.fullmatch(text) is None:
        raise invalid(_VERSION, text, "a version such as 1.0.0")
    if tuple(map(int, text.split("."))) > _NEWEST:
        raise unsupported(f"{_VERSION} is {text!r}, a newer envelope", "1.0.0 is read")
