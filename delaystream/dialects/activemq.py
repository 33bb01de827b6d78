"""ActiveMQ Classic's delayed and scheduled messages: `AMQ_SCHEDULED_*`, as Kafka headers.

Sources: https://activemq.apache.org/components/classic/documentation/delay-and-schedule-message-delivery, and
`SchedulerBroker.java`, `JobSchedulerImpl.java` and `CronParser.java` of https://github.com/apache/activemq.
Numbers may be text, or the 4 or 8 bytes that Camel's Kafka component makes from a Java Integer or Long
(`DefaultKafkaHeaderSerializer`, https://github.com/apache/camel).

In ActiveMQ every job has an id. Its deliveries carry the id, and a request with the id removes the job. Here
the id is the request's coordinates, `topic/partition/offset`, which a producer learns from Kafka's
acknowledgement. The headers have no destination: it is the request topic's default one, or
`delaystream-destination`.

What differs, and is meant to:

- Repeats count from the first fire; ActiveMQ counts each from the actual time of the one before.
- A cron expression is in UTC, or in the zone of `delaystream-timezone`; ActiveMQ takes the broker's zone.
- A cron expression together with delay, period or repeat (a burst at every fire) is refused.
"""

from typing import Final

from delaystream.core.rejection import shown
from delaystream.core.request import Header
from delaystream.dialects.cron_fields import DAY, HOUR, MINUTE, MONTH, WEEKDAY, Grammar, rewritten
from delaystream.dialects.translation import (
    Dialect,
    Record,
    Row,
    Spoken,
    Translated,
    control,
    coordinates_id,
    invalid,
    missing,
    names_ours,
    unsupported,
    whole_number,
)

_DELAY: Final = "AMQ_SCHEDULED_DELAY"
_PERIOD: Final = "AMQ_SCHEDULED_PERIOD"
_REPEAT: Final = "AMQ_SCHEDULED_REPEAT"
_CRON: Final = "AMQ_SCHEDULED_CRON"
_JOB_ID: Final = "scheduledJobId"
_ACTION: Final = "AMQ_SCHEDULER_ACTION"
_NAMES: Final = frozenset({_DELAY, _PERIOD, _REPEAT, _CRON, _JOB_ID, _ACTION})

_FOREVER: Final = -1
_MAX_REPEAT: Final = 1000
_GRAMMAR: Final = Grammar((MINUTE, HOUR, DAY, MONTH, WEEKDAY), multiples=True)


class ActiveMq(Dialect):
    """Reads `AMQ_SCHEDULED_*`."""

    name = "activemq"
    system = "ActiveMQ Classic"
    table = (
        Row(_DELAY, "`delay`", "milliseconds; with a period: when the first one comes"),
        Row(_PERIOD, "`every`", "milliseconds; without a delay also when the first one comes"),
        Row(_REPEAT, "`max-fires`", "one more than it says, at most 1000; -1: no end; needs a period"),
        Row(_CRON, "`cron`", "5 fields, numbers only; steps are multiples, as ActiveMQ reads them"),
        Row(_JOB_ID, "`delay: 0`", "set by the sender: the message is not scheduled, but sent at once"),
        Row(_ACTION, "`action`", "`REMOVE` with `scheduledJobId`: `cancel`; others are refused"),
        Row("(none)", "`id`", "the request's `topic/partition/offset`"),
    )
    outgoing = (Row(_JOB_ID, "the schedule's id"),)

    def _translated(self, record: Record) -> Translated | None:
        return _translate(record)


def _translate(record: Record) -> Translated | None:
    spoken = Spoken(record.headers, _NAMES)
    if not spoken:
        return None
    if (action := spoken.text(_ACTION)) is not None:
        if action != "REMOVE":
            raise unsupported(f"{_ACTION} is {shown(action)}", "REMOVE with scheduledJobId is read")
        removed = control("id", spoken.required(_JOB_ID, "the id of the job to remove"))
        ours = [header for header in spoken.rest if names_ours([header])]
        return Translated(record.key, [removed, control("action", "cancel"), *ours])
    if (job := spoken.content(_JOB_ID)) is not None:
        return Translated(record.key, [control("delay", "0"), *spoken.rest, (_JOB_ID, job)])
    id = coordinates_id(record.source)
    job_id = (_JOB_ID, id.encode())
    return Translated(record.key, [control("id", id), *_timing(record, spoken), *spoken.rest, job_id])


def _timing(record: Record, spoken: Spoken) -> list[Header]:
    delay_ms = _number(spoken, _DELAY)
    period_ms = _number(spoken, _PERIOD)
    repeat = _number(spoken, _REPEAT, _FOREVER)
    cron = spoken.text(_CRON)
    if cron:
        if delay_ms or period_ms or repeat:
            raise unsupported(f"{_CRON} is given together with a delay, a period or a repeat", "use one")
        return [control("cron", rewritten(_CRON, cron, _GRAMMAR))]
    if repeat > _MAX_REPEAT:
        raise invalid(_REPEAT, str(repeat), f"at most {_MAX_REPEAT}, as ActiveMQ has it")
    if repeat and not period_ms:
        raise missing(_PERIOD, f"the milliseconds between the repeats that {_REPEAT} asks for")
    first_ms = delay_ms or period_ms
    if not repeat:
        return [control("delay", f"{first_ms}ms")]
    headers = [control("every", f"{period_ms}ms"), control("start", str(record.timestamp_ms + first_ms))]
    if repeat != _FOREVER:
        headers.append(control("max-fires", str(repeat + 1)))
    return headers


def _number(spoken: Spoken, name: str, least: int = 0) -> int:
    """A number, from text or from the bytes of a Java Integer or Long; 0 when it is not given."""
    content = spoken.content(name)
    if content is None:
        return 0
    expected = f"a whole number, {least} or more"
    if len(content) not in {4, 8} or (content.isascii() and b"\0" not in content):
        return whole_number(name, spoken.text(name) or "", least, expected)
    number = int.from_bytes(content, "big", signed=True)
    if number < least:
        raise invalid(name, str(number), expected)
    return number
