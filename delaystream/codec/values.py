"""Values of control headers -> their types: one function for each kind of value.

Each takes the header's name for the sentence, and the bytes; each raises `RefusedError` with a code and that
sentence, which `RequestParser` turns into a `Rejection`.
"""

from collections.abc import Callable
from enum import StrEnum
from typing import Final, TypeVar

from delaystream.core import durations, instants
from delaystream.core.destinations import DestinationFilter, is_topic_name
from delaystream.core.durations import DurationError, format_duration, parse_duration
from delaystream.core.instants import InstantError, NotMillisecondsError, parse_instant
from delaystream.core.limits import Limits
from delaystream.core.rejection import Code, shown
from delaystream.core.request import ON_LATE_DROP, ON_LATE_FIRE

_MAX_PARTITION: Final = 2**31 - 1
_TOPIC_NAME: Final = "a topic name (1 to 249 of a-z, A-Z, 0-9, '.', '_', '-'; not '.' or '..')"

Choice = TypeVar("Choice", bound=StrEnum)
Word = TypeVar("Word", bound=str)


class RefusedError(Exception):
    """One request is refused; stays inside the codec."""

    def __init__(self, code: Code, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


def text(name: str, value: bytes) -> str:
    """UTF-8, as it is."""
    try:
        return value.decode()
    except UnicodeDecodeError:
        raise RefusedError(
            Code.NOT_UTF8, f"{name} is {shown(value)}: not UTF-8; expected UTF-8 text."
        ) from None


def topic(name: str, value: bytes, invalid: Code, destinations: DestinationFilter) -> str:
    """The name of a topic that `destinations` permits; the code is `invalid` when it is no topic name."""
    return permitted_topic(name, text(name, value), invalid, destinations)


def permitted_topic(name: str, topic: str, invalid: Code, destinations: DestinationFilter) -> str:
    """`topic`, when `destinations` permits it."""
    reason = destinations.refusal(topic)
    if reason is None:
        return topic
    if not is_topic_name(topic):
        raise RefusedError(invalid, f"{name} is {shown(topic)}: not a topic name; expected {_TOPIC_NAME}.")
    raise RefusedError(
        Code.DESTINATION_DENIED,
        f"{name} is {shown(topic)}, which {reason}; expected a topic that the worker's allow-list permits.",
    )


def reply_to(name: str, value: bytes, destinations: DestinationFilter) -> tuple[str | None, str | None]:
    """The topic for a receipt; or None, and why no receipt may be written there. Malformed: refused.

    A receipt is never in the way of what it tells of, so that a topic which is not permitted is no reason to
    refuse the request.
    """
    topic = text(name, value)
    if not is_topic_name(topic):
        raise RefusedError(
            Code.INVALID_REPLY_TO, f"{name} is {shown(topic)}: not a topic name; expected {_TOPIC_NAME}."
        )
    reason = destinations.receipt_refusal(topic)
    return (topic, None) if reason is None else (None, f"{shown(topic)} {reason}")


def on_late(name: str, value: bytes, destinations: DestinationFilter) -> str:
    """`fire`, `drop`, or a permitted topic."""
    choice = text(name, value)
    if choice in {ON_LATE_FIRE, ON_LATE_DROP}:
        return choice
    if not is_topic_name(choice):
        raise RefusedError(
            Code.INVALID_ON_LATE, f"{name} is {shown(choice)}; expected 'fire', 'drop' or {_TOPIC_NAME}."
        )
    return permitted_topic(name, choice, Code.INVALID_ON_LATE, destinations)


def choice(name: str, value: bytes, choices: type[Choice], invalid: Code) -> Choice:
    """One of an enumeration's words, in lower case."""
    word = text(name, value)
    try:
        return choices(word)
    except ValueError:
        words = ", ".join(f"'{known}'" for known in choices)
        raise RefusedError(invalid, f"{name} is {shown(word)}; expected one of {words}.") from None


def schedule_name(name: str, value: bytes, limits: Limits) -> str:
    """The `id` of a schedule: any characters, 1 to `max_id_bytes` bytes."""
    if not value:
        raise RefusedError(
            Code.INVALID_ID, f"{name} is empty; expected 1 to {limits.max_id_bytes} bytes of UTF-8."
        )
    if len(value) > limits.max_id_bytes:
        raise RefusedError(
            Code.ID_TOO_LONG,
            f"{name} is {shown(value)}, {len(value)} bytes long; expected at most {limits.max_id_bytes}.",
        )
    return text(name, value)


def partition_number(name: str, value: bytes) -> int:
    """A partition, from 0 to 2147483647."""
    # bytes.isdigit knows ASCII digits only; the length keeps int() from meeting thousands of them.
    if value.isdigit() and len(value) <= 10 and (number := int(value)) <= _MAX_PARTITION:
        return number
    raise RefusedError(
        Code.INVALID_DESTINATION_PARTITION,
        f"{name} is {shown(value)}; expected a whole number from 0 to {_MAX_PARTITION}.",
    )


def duration(name: str, value: bytes, invalid: Code) -> int:
    """One duration, in milliseconds."""
    return _duration(name, text(name, value), invalid)


def delays(name: str, value: bytes, limits: Limits) -> tuple[int, ...]:
    """A comma list of durations in milliseconds, none over `max_delay_ms`; order and repeats are kept."""

    def delay(item: str) -> int:
        delay_ms = _duration(name, item, Code.INVALID_DELAY)
        if delay_ms > limits.max_delay_ms:
            raise RefusedError(Code.DELAY_TOO_LONG, _too_far(name, item, limits))
        return delay_ms

    return _list(name, value, limits, delay)


def due_times(name: str, value: bytes, limits: Limits, now_ms: int) -> tuple[int, ...]:
    """A comma list of instants in milliseconds, none over `max_delay_ms` ahead; past ones are as good."""
    if len(value) == 13 and value.isdigit():
        # Epoch milliseconds of the years 2001 to 2286: what most producers send.
        instant_ms = int(value)
        if instant_ms - now_ms <= limits.max_delay_ms and instant_ms >= 10**12:
            return (instant_ms,)

    def instant(item: str) -> int:
        try:
            instant_ms = parse_instant(item)
        except InstantError as error:
            code = Code.AT_NOT_MILLISECONDS if isinstance(error, NotMillisecondsError) else Code.INVALID_AT
            raise RefusedError(
                code, f"{name}: {shown(item)} {error}; expected {instants.EXPECTED}."
            ) from None
        if instant_ms > now_ms + limits.max_delay_ms:
            raise RefusedError(Code.DELAY_TOO_LONG, _too_far(name, item, limits))
        return instant_ms

    return _list(name, value, limits, instant)


def instant(name: str, value: bytes, invalid: Code, latest_ms: int | None) -> int:
    """One point in time, in milliseconds, not after `latest_ms`."""
    written = text(name, value)
    try:
        instant_ms = parse_instant(written)
    except InstantError as error:
        raise RefusedError(
            invalid, f"{name}: {shown(written)} {error}; expected {instants.EXPECTED}."
        ) from None
    if latest_ms is not None and instant_ms > latest_ms:
        raise RefusedError(
            invalid,
            f"{name}: {shown(written)} is further ahead than the worker accepts; "
            f"expected at most {instants.format_instant(min(latest_ms, instants.LATEST_MS))}.",
        )
    return instant_ms


def word(name: str, value: bytes | None, words: tuple[Word, ...], invalid: Code) -> Word:
    """One of some words, in lower case; the first of them is the default."""
    if value is None:
        return words[0]
    written = text(name, value)
    for known in words:
        if known == written:
            return known
    listed = ", ".join(f"'{known}'" for known in words)
    raise RefusedError(invalid, f"{name} is {shown(written)}; expected one of {listed}.")


def tags(name: str, value: bytes) -> tuple[str, ...]:
    """A comma list of words; spaces around them and empty ones do not count."""
    return tuple(tag.strip() for tag in text(name, value).split(",") if tag.strip())


def _duration(name: str, written: str, invalid: Code) -> int:
    try:
        return parse_duration(written)
    except DurationError as error:
        raise RefusedError(
            invalid, f"{name}: {shown(written)} {error}; expected {durations.EXPECTED}."
        ) from None


def _list(name: str, value: bytes, limits: Limits, parse: Callable[[str], int]) -> tuple[int, ...]:
    items = text(name, value).split(",")
    if len(items) > limits.max_list:
        raise RefusedError(
            Code.LIST_TOO_LONG, f"{name} lists {len(items)} times; expected at most {limits.max_list}."
        )
    return tuple(parse(item) for item in items)


def _too_far(name: str, written: str, limits: Limits) -> str:
    return (
        f"{name}: {shown(written)} is further ahead than the worker accepts; "
        f"expected at most {format_duration(limits.max_delay_ms)} from now."
    )
