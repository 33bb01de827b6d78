"""NATS JetStream's message schedules: `Nats-Schedule` and its companions.

Sources: ADR-51 (https://github.com/nats-io/nats-architecture-and-design, revision 7) and, for gaps in it,
`server/scheduler.go`, `server/cron.go` and `server/stream.go` of https://github.com/nats-io/nats-server
(August 2026).

In NATS a schedule's name is the subject that holds it; here it is the record's key. A record without a key
has no name. A one-time schedule then cannot be addressed; a recurring one has its coordinates as its name.

A schedule with missed fires, however many and however old, fires once and then goes on (`catch-up: latest`
with unlimited `grace`). Its own `Nats-TTL` ends it.

What differs, and is meant to:

- Kafka has no per-message time to live: `Nats-Schedule-TTL` is delivered as `Nats-TTL`, and nothing expires.
- `Nats-Schedule-Source` (sampling of another subject) and `Nats-Schedule-Rollup` are refused.
- `Nats-Schedule-Next: purge` only ends a schedule. With a value to publish, it is refused.
- `@every` counts from the first fire; NATS counts from each fire, rounded to the second.
"""

import re
from collections.abc import Mapping
from decimal import Decimal
from typing import ClassVar, Final

from delaystream.core.durations import LONGEST_MS
from delaystream.core.instants import InstantError, format_instant, parse_instant
from delaystream.core.request import Header
from delaystream.dialects.cron_fields import (
    DAY,
    HOUR,
    MINUTE,
    NAMED_MONTH,
    NAMED_WEEKDAY,
    SECOND,
    Grammar,
    rewritten,
)
from delaystream.dialects.translation import (
    TO_FILL,
    UNLIMITED,
    Dialect,
    Fill,
    Record,
    Row,
    Spoken,
    Translated,
    control,
    coordinates_id,
    invalid,
    names_ours,
    unsupported,
    utf8,
)

_SCHEDULE: Final = "Nats-Schedule"
_TARGET: Final = "Nats-Schedule-Target"
_SOURCE: Final = "Nats-Schedule-Source"
_SCHEDULE_TTL: Final = "Nats-Schedule-TTL"
_TIME_ZONE: Final = "Nats-Schedule-Time-Zone"
_SCHEDULE_ROLLUP: Final = "Nats-Schedule-Rollup"
_NEXT: Final = "Nats-Schedule-Next"
_SCHEDULER: Final = "Nats-Scheduler"
_TTL: Final = "Nats-TTL"
_ROLLUP: Final = "Nats-Rollup"
_MESSAGE_ID: Final = "Nats-Msg-Id"
_NAMES: Final = frozenset(
    {_SCHEDULE, _TARGET, _SOURCE, _SCHEDULE_TTL, _TIME_ZONE, _SCHEDULE_ROLLUP, _NEXT, _SCHEDULER, _TTL}
)
_TAKEN_OUT: Final = ("Nats-Schedule", "Nats-Expected-")
_PURGE: Final = b"purge"

_PREDEFINED: Final = {
    "@yearly": "0 0 0 1 1 *",
    "@annually": "0 0 0 1 1 *",
    "@monthly": "0 0 0 1 * *",
    "@weekly": "0 0 0 * * 0",
    "@daily": "0 0 0 * * *",
    "@midnight": "0 0 0 * * *",
    "@hourly": "0 0 * * * *",
}
_GRAMMAR: Final = Grammar((SECOND, MINUTE, HOUR, DAY, NAMED_MONTH, NAMED_WEEKDAY), open_steps=True)

# Go's time.ParseDuration, without its sign.
_GO_DURATION: Final = re.compile(r"(?:(?:\d{1,15}\.?\d{0,9}|\.\d{1,9})(?:ns|us|µs|μs|ms|s|m|h))+", re.ASCII)
_GO_PART: Final = re.compile(r"(\d*\.?\d*)(ns|us|µs|μs|ms|s|m|h)")
_UNITS_MS: Final = {
    "ns": Decimal("0.000001"),
    "us": Decimal("0.001"),
    "µs": Decimal("0.001"),
    "μs": Decimal("0.001"),
    "ms": Decimal(1),
    "s": Decimal(1000),
    "m": Decimal(60_000),
    "h": Decimal(3_600_000),
}
_SECOND_MS: Final = 1000
_DURATION: Final = "a duration as Go writes it, such as 90s or 1h30m, of 1s or more"
_EXPECTED: Final = "@at and a time in RFC 3339, @every and a duration, 6 cron fields, or @hourly and the like"


class Nats(Dialect):
    """Reads `Nats-Schedule`."""

    name = "nats"
    system = "NATS JetStream message schedules (ADR-51)"
    table = (
        Row("the record's key", "`id`", "the subject that holds the schedule; UTF-8"),
        Row(f"{_SCHEDULE}: @at …", "`at`", "RFC 3339; in the past: at once"),
        Row(f"{_SCHEDULE}: @every …", "`every` and `start`", "Go's durations, 1s or more"),
        Row(
            f"{_SCHEDULE}: 6 fields",
            "`cron`",
            "seconds first; also `@yearly`, `@monthly`, `@weekly`, `@daily`, `@hourly`. "
            "`dst-gap: skip`, `dst-overlap: both`, as NATS",
        ),
        Row(_TARGET, "`destination`"),
        Row(_TIME_ZONE, "`timezone`", "with cron only; `Local` is refused"),
        Row(_SCHEDULE_TTL, "(delivered as `Nats-TTL`)", "checked; nothing expires in Kafka"),
        Row(_TTL, "`end`", "the schedule's own life; of `@at`: `on-late: drop` and `grace`"),
        Row(f"{_NEXT}: purge", "`action: cancel`", f"of the schedule in `{_SCHEDULER}`; null value only"),
        Row(_SOURCE, "refused", "`dialect-unsupported`"),
        Row(_SCHEDULE_ROLLUP, "refused", "`dialect-unsupported`"),
    )
    outgoing = (
        Row(_SCHEDULER, "the request's key, or its coordinates"),
        Row(_NEXT, "`purge`, or the next scheduled time in UTC"),
        Row(_TTL, f"the value of `{_SCHEDULE_TTL}`", "when given"),
        Row("`Nats-Schedule…`, `Nats-Expected-…`, `Nats-Msg-Id`, `Nats-Rollup`", "taken out", "as NATS does"),
    )

    fills: ClassVar[Mapping[str, Fill]] = {
        _NEXT: lambda _, next_ms: _PURGE if next_ms is None else format_instant(next_ms).encode()
    }

    def _translated(self, record: Record) -> Translated | None:
        return _translate(record)


def _translate(record: Record) -> Translated | None:
    spoken = Spoken(record.headers, _NAMES)
    if _SCHEDULE not in spoken:
        return _purge(record, spoken) if _NEXT in spoken else None
    pattern = spoken.required(_SCHEDULE, _EXPECTED)
    for name in (_SOURCE, _SCHEDULE_ROLLUP):
        if name in spoken:
            raise unsupported(f"{name} is given", "the record's own value is delivered, and nothing removed")
    subject = utf8("the record's key", record.key) if record.key else ""
    target = spoken.required(_TARGET, "the topic to deliver to")
    outgoing = [(_SCHEDULER, (subject or coordinates_id(record.source)).encode())]
    if (ttl := spoken.text(_SCHEDULE_TTL)) is not None:
        _time_to_live_ms(_SCHEDULE_TTL, ttl)
        outgoing.append((_TTL, ttl.encode()))
    headers = [control("destination", target)]
    if pattern.startswith("@at "):
        _no_time_zone(spoken)
        headers += _at(record, pattern, spoken)
        outgoing.append((_NEXT, _PURGE))
        if subject:
            headers.append(control("id", subject))
    else:
        headers += _recurring(record, pattern, spoken)
        headers.append(control("id", subject or coordinates_id(record.source)))
        outgoing.append((_NEXT, TO_FILL))
    return Translated(record.key, [*headers, *_delivered(spoken), *outgoing])


def _delivered(spoken: Spoken) -> list[Header]:
    return [
        header
        for header in spoken.rest
        if not header[0].startswith(_TAKEN_OUT) and header[0] not in {_MESSAGE_ID, _ROLLUP}
    ]


def _purge(record: Record, spoken: Spoken) -> Translated:
    if (next_fire := spoken.content(_NEXT)) != _PURGE:
        raise invalid(_NEXT, next_fire or b"", "purge: the rest is the server's to set")
    subject = spoken.required(_SCHEDULER, "the subject of the schedule to end")
    if record.has_value:
        raise unsupported(
            f"{_NEXT} is 'purge' on a record with a value",
            "send a null value to end the schedule, and the value in a record of its own",
        )
    ours = [header for header in spoken.rest if names_ours([header])]
    return Translated(record.key, [control("id", subject), control("action", "cancel"), *ours])


def _at(record: Record, pattern: str, spoken: Spoken) -> list[Header]:
    time = pattern.removeprefix("@at ")
    try:
        at_ms = parse_instant(time)
    except InstantError as error:
        raise invalid(_SCHEDULE, pattern, f"a time such as '2030-01-31T09:00:00Z': it {error}") from None
    if time.isdigit():
        raise invalid(_SCHEDULE, pattern, "a time in RFC 3339, such as '@at 2030-01-31T09:00:00Z'")
    headers = [control("at", str(at_ms))]
    if (life_ms := _life_ms(spoken)) is not None:
        grace_ms = record.timestamp_ms + life_ms - at_ms
        if grace_ms < 0:
            raise invalid(_TTL, spoken.text(_TTL) or "", "a time to live that reaches the scheduled time")
        headers += [control("on-late", "drop"), control("grace", f"{min(grace_ms, LONGEST_MS)}ms")]
    return headers


def _recurring(record: Record, pattern: str, spoken: Spoken) -> list[Header]:
    headers = [control("catch-up", "latest"), control("grace", UNLIMITED)]
    if (life_ms := _life_ms(spoken)) is not None:
        headers.append(control("end", str(record.timestamp_ms + life_ms)))
    if pattern.startswith("@every "):
        _no_time_zone(spoken)
        every_ms = _go_duration_ms(_SCHEDULE, pattern, pattern.removeprefix("@every "))
        # As NATS rounds it: half up, to the second.
        second_ms = (record.timestamp_ms + _SECOND_MS // 2) // _SECOND_MS * _SECOND_MS
        return [*headers, control("every", f"{every_ms}ms"), control("start", str(second_ms + every_ms))]
    if pattern.startswith("@") and pattern not in _PREDEFINED:
        raise invalid(_SCHEDULE, pattern, _EXPECTED)
    cron = rewritten(_SCHEDULE, _PREDEFINED.get(pattern, pattern), _GRAMMAR)
    headers += [control("cron", cron), control("dst-gap", "skip"), control("dst-overlap", "both")]
    if (zone := spoken.text(_TIME_ZONE)) is not None:
        if not zone:
            raise invalid(_TIME_ZONE, zone, "an IANA name such as Europe/Amsterdam, or no header for UTC")
        if zone == "Local":
            raise unsupported(f"{_TIME_ZONE} is 'Local'", "an IANA name is the same on every machine")
        headers.append(control("timezone", zone))
    return headers


def _no_time_zone(spoken: Spoken) -> None:
    if (zone := spoken.text(_TIME_ZONE)) is not None:
        raise invalid(_TIME_ZONE, zone, "a time zone with cron schedules only")


def _life_ms(spoken: Spoken) -> int | None:
    """The life of the schedule; None: for ever. More than a century counts as for ever."""
    text = spoken.text(_TTL)
    life_ms = None if text is None else _time_to_live_ms(_TTL, text)
    return None if life_ms is None or life_ms > LONGEST_MS else life_ms


def _time_to_live_ms(name: str, text: str) -> int | None:
    """Milliseconds of a TTL; None if it never ends. Whole seconds need no unit; 0 is no TTL."""
    if text.lower() == "never":
        return None
    if text.isascii() and text.isdigit() and len(text) <= 12:
        return int(text) * _SECOND_MS or None
    return _go_duration_ms(name, text, text)


def _go_duration_ms(name: str, shown: str, text: str) -> int:
    if _GO_DURATION.fullmatch(text) is None:
        raise invalid(name, shown, _DURATION)
    total = Decimal(0)
    for number, unit in _GO_PART.findall(text):
        total += Decimal(number) * _UNITS_MS[unit]
    if total < _SECOND_MS:
        raise invalid(name, shown, _DURATION)
    if total != int(total):
        raise invalid(name, shown, "a whole number of milliseconds")
    return int(total)
