"""Receipts, descriptions and events as lines for people, without terminal control characters."""

from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import TYPE_CHECKING, Any, Final

import msgspec

from delaystream.cli.rendering import clock_time, delivery_line, instants
from delaystream.cli.wording import in_options
from delaystream.core.durations import format_duration
from delaystream.printable import printable

if TYPE_CHECKING:
    from delaystream.client import Delivery, Receipt

#: Fields that every receipt has, or that the line shows in another form.
_RECEIPT_FRAME: Final = frozenset(
    {
        "outcome", "schedule_id", "source", "request_topic", "decided_at_ms", "id", "fires", "code", "detail",
        "schedule",
    }
)  # fmt: skip
#: The same fields of an event.
_EVENT_FRAME: Final = frozenset(
    {"schema_version", "type", "at_ms", "request_topic", "schedule_id", "id", "definition"}
)
_LISTED: Final = frozenset({"definition", "history", "upcoming_at_ms", "payload"})
#: Times whose names do not end in `_at_ms`.
_TIMES: Final = frozenset({"until_ms", "since_ms", "from_ms", "to_ms"})
_LATEST_MS: Final = 253_402_300_799_999
_INDENT: Final = 20
#: width of the longest kind in a history, `triggered`
_KIND: Final = 9


def receipt_line(receipt: "Receipt", about: str | None = None, command: str = "schedule") -> str:
    """One line: the outcome, the schedule, the reason of a refusal, the next fires, and all other fields.

    `about` takes the schedule's place if the command is about no schedule. `command` is the requested action:
    a refusal names its options.
    """
    detail = None if receipt.detail is None else in_options(receipt.detail, command)
    parts = [receipt.outcome, about or receipt.schedule_id, *filter(None, (receipt.code, detail))]
    if due_ms := _due_times(receipt.body.get("fires")):
        parts.append(f"due {instants(due_ms)}")
    parts += _fields(receipt.body, _RECEIPT_FRAME)
    return printable("  ".join(parts))


def description(receipt: "Receipt") -> list[str]:
    """A schedule and its state, one line for each field; one line for any other receipt."""
    told = receipt.body.get("schedule")
    if not isinstance(told, Mapping):
        return [receipt_line(receipt)]
    lines = [f"{receipt.outcome}  {receipt.schedule_id}"]
    standing = {name: value for name, value in receipt.body.items() if name not in _RECEIPT_FRAME}
    said = {*_LISTED, "next_at_ms"}
    for part in (standing, told.get("definition"), told):
        if isinstance(part, Mapping):
            lines += [_row(name, value) for name, value in part.items() if name not in said]
            said |= part.keys()
    lines += _rows("upcoming", [_shown("_at_ms", time) for time in _listed(told.get("upcoming_at_ms"))])
    lines += _rows("history", [_past(entry) for entry in _listed(told.get("history"))])
    if isinstance(payload := told.get("payload"), Mapping):
        lines += [_row(name, value) for name, value in payload.items()]
    return [printable(line) for line in lines if line]


def record_line(record: "Delivery", events_topic: str) -> str:
    """One line for any record: the content of an event or a receipt, otherwise the delivery."""
    from delaystream.client import Receipt
    from delaystream.codec.outgoing import RECEIPT

    line = event_line(record) if record.topic == events_topic else None
    if any(name == RECEIPT for name, _ in record.headers) and record.value is not None:
        with suppress(ValueError):
            line = f"{clock_time(record.timestamp_ms)}  {receipt_line(Receipt.parse(record.value))}"
    return delivery_line(record) if line is None else line


def schedule_of(record: "Delivery") -> str | None:
    """The id that an event or a receipt is about; None for any other record."""
    told = _told(record)
    of = told.get("id") or told.get("schedule_id")
    return of if isinstance(of, str) else None


def event_line(record: "Delivery") -> str | None:
    """One line: when, what happened, to which schedule, and other fields; None if it is no event."""
    told = _told(record)
    kind, at_ms = told.get("type"), told.get("at_ms")
    if not isinstance(kind, str) or not isinstance(at_ms, int):
        return None
    of = told.get("schedule_id")
    parts = [clock_time(at_ms), f"{kind:<11}", *([] if of is None else [str(of)])]
    return printable("  ".join([*parts, *_fields(told, _EVENT_FRAME)]))


def _told(record: "Delivery") -> dict[str, Any]:
    """The JSON object that a record's value is; empty for any other value."""
    try:
        return msgspec.json.decode(record.value or b"", type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return {}


def _due_times(fires: object) -> list[int]:
    """The due times of the fires in a receipt, which anybody may have written."""
    found = [fire.get("due_at_ms") for fire in _listed(fires) if isinstance(fire, dict)]
    return [due_ms for due_ms in found if isinstance(due_ms, int)]


def _fields(told: object, left_out: frozenset[str] = frozenset()) -> list[str]:
    """Each field, with its name."""
    if not isinstance(told, Mapping):
        return [str(told)]
    named = ((_label(name), _shown(name, value)) for name, value in told.items() if name not in left_out)
    return [f"{name} {text}".rstrip() for name, text in named if text is not None]


def _past(entry: object) -> str:
    """An entry of a history: first the outcome of its due times, then its other fields."""
    kind = entry.get("kind") if isinstance(entry, Mapping) else None
    if not isinstance(kind, str):
        # The form of an older worker.
        return "  ".join(_fields(entry))
    return "  ".join([f"{kind:<{_KIND}}", *_fields(entry, frozenset({"kind"}))])


def _row(name: str, value: object) -> str:
    text = _shown(name, value)
    return "" if text is None or text == "" else f"  {_label(name):<{_INDENT}}{text}"


def _rows(label: str, texts: list[str | None]) -> Iterator[str]:
    for place, text in enumerate(texts):
        yield f"  {label if not place else '':<{_INDENT}}{text}"


def _listed(value: object) -> list[Any]:
    return value if isinstance(value, list) else []


def _label(name: str) -> str:
    return name.removesuffix("_ms").replace("_", "-")


def _shown(name: str, value: object) -> str | None:
    """The value for people; empty for true, None for false."""
    if value is None or value is False:
        return None
    if isinstance(value, list):
        return ", ".join(filter(None, (_shown(name, item) for item in value)))
    if isinstance(value, Mapping):
        return ", ".join(_fields(value))
    if value is True:
        return ""
    if isinstance(value, float):
        return f"{value:g}"
    return _number(name, value) if isinstance(value, int) else str(value)


def _number(name: str, value: int) -> str:
    """The number by its name: milliseconds since the epoch, a duration in milliseconds, or a count."""
    if (name.endswith("_at_ms") or name in _TIMES) and 0 <= value <= _LATEST_MS:
        return instants([value])
    return format_duration(value) if name.endswith("_ms") and value >= 0 else str(value)
