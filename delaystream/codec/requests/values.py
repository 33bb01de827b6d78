"""Values of control headers -> their types: one function for each kind of value.

Each takes the header's name for the sentence, and the bytes; each raises `RefusedError` with a code and that
sentence, which `RequestParser` turns into a `Rejection`.
"""

from collections.abc import Callable, Sequence
from enum import StrEnum
from typing import Final, TypeVar

from delaystream.codec.command import is_origin
from delaystream.core import durations, instants
from delaystream.core.destinations import DestinationFilter, is_topic_name
from delaystream.core.durations import DurationError, format_duration, parse_duration
from delaystream.core.identity import split_schedule_id
from delaystream.core.instants import (
    InstantError,
    NoOffsetError,
    NotMillisecondsError,
    parse_instant,
    parse_local,
)
from delaystream.core.limits import Limits
from delaystream.core.recurrence import LocalClock
from delaystream.core.rejection import Code, shown
from delaystream.core.request import ON_LATE_DROP, ON_LATE_FIRE, Coordinates

_MAX_PARTITION: Final = 2**31 - 1
MAX_ATTEMPT: Final = 2**31 - 1
"""No record is tried more often."""
MOST_TAGS: Final = 100
"""Of one request, and of one selector."""
#: of what Kafka and the state have 64 bits for, with a sign
_MAX_NUMBER: Final = 2**63 - 1
_DAY_MS: Final = 24 * 60 * 60 * 1000
#: Two days before the year 9999: local times are worked out up to it.
_LAST_LOCAL_MS: Final = 253_370_764_800_000 - 2 * _DAY_MS
_TOPIC_NAME: Final = "a topic name (1 to 249 of a-z, A-Z, 0-9, '.', '_', '-'; not '.' or '..')"

Choice = TypeVar("Choice", bound=StrEnum)
Word = TypeVar("Word", bound=str)
Item = TypeVar("Item")


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


def utf_8(name: str, value: bytes) -> bytes:
    """The bytes themselves, of UTF-8."""
    text(name, value)
    return value


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


def attempt(name: str, value: bytes) -> bytes:
    """The bytes themselves, of a number from 1 to 2147483647."""
    if value.isdigit() and len(value) <= 10 and 1 <= int(value) <= MAX_ATTEMPT:
        return value
    raise RefusedError(
        Code.INVALID_ATTEMPT, f"{name} is {shown(value)}; expected a whole number from 1 to {MAX_ATTEMPT}."
    )


def whole_number(name: str, value: bytes, invalid: Code) -> int:
    """From 0 to 2^63-1."""
    if value.isdigit() and len(value) <= 19 and (number := int(value)) <= _MAX_NUMBER:
        return number
    raise RefusedError(invalid, f"{name} is {shown(value)}; expected a whole number from 0 to {_MAX_NUMBER}.")


def short_text(name: str, value: bytes, least: int, most: int, invalid: Code) -> str:
    """UTF-8 of `least` to `most` bytes."""
    if not least <= len(value) <= most:
        raise RefusedError(
            invalid,
            f"{name} is {shown(value)}, {len(value)} bytes long; expected {least} to {most} bytes of UTF-8.",
        )
    return text(name, value)


def coordinates(name: str, value: bytes, topic: str) -> Coordinates:
    """`topic/partition/offset` of a record of `topic`, the request topic that they came in by."""
    written = text(name, value)
    found, partition, offset, origin = split_schedule_id(written) or ("", 0, 0, "")
    if (
        is_topic_name(found)
        and (not origin or is_origin(origin))
        and partition <= _MAX_PARTITION
        and offset <= _MAX_NUMBER
    ):
        if found == topic:
            return Coordinates(found, partition, offset, origin)
        raise RefusedError(
            Code.INVALID_COORDINATES,
            f"{name} is {shown(written)}, of another request topic; expected coordinates in {topic}, the "
            "command's own topic.",
        )
    raise RefusedError(
        Code.INVALID_COORDINATES,
        f"{name} is {shown(written)}; expected topic/partition/offset of a request, such as '{topic}/3/17'.",
    )


def duration(name: str, value: bytes, invalid: Code) -> int:
    """One duration, in milliseconds: at most `durations.LONGEST_MS`."""
    written = text(name, value)
    duration_ms = _duration(name, written, invalid)
    if duration_ms > durations.LONGEST_MS:
        raise RefusedError(
            invalid,
            f"{name}: {shown(written)} is too long; "
            f"expected at most {format_duration(durations.LONGEST_MS)}, a century.",
        )
    return duration_ms


def interval(name: str, value: bytes, invalid: Code) -> int:
    """One duration of any length; the sentence about a wrong one does not offer `0`."""
    return _duration(name, text(name, value), invalid, durations.EXPECTED_LONG)


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
            raise _no_time(name, item, error) from None
        if instant_ms > now_ms + limits.max_delay_ms:
            raise RefusedError(Code.DELAY_TOO_LONG, _too_far(name, item, limits))
        return instant_ms

    return _list(name, value, limits, instant)


def any_local(name: str, value: bytes) -> bool:
    """Whether any item of a comma list is a local time; what is no time at all is none."""
    for item in text(name, value).split(","):
        try:
            parse_instant(item)
        except NoOffsetError:
            return True
        except InstantError:
            continue
    return False


def local_due_times(
    name: str, value: bytes, clock: LocalClock, limits: Limits, now_ms: int
) -> tuple[int, ...] | None:
    """As `due_times`, where items may be local times of `clock`; None when none of them is.

    One that means two instants stands for both, one that means none is left out; something must be left.
    """
    latest_ms = now_ms + limits.max_delay_ms
    found: list[int] = []
    any_local = False
    for item in _items(name, value, limits):
        try:
            times_ms: tuple[int, ...] = (parse_instant(item),)
        except NoOffsetError:
            any_local = True
            times_ms = _local(name, item, clock, limits, latest_ms)
        except InstantError as error:
            raise _no_time(name, item, error) from None
        if times_ms and times_ms[-1] > latest_ms:
            raise RefusedError(Code.DELAY_TOO_LONG, _too_far(name, item, limits))
        found += times_ms
    if not any_local:
        return None
    if not found:
        raise RefusedError(
            Code.NEVER_FIRES,
            f"{name}: {shown(value)} does not exist in {clock.zone}, where clocks are put forward over it; "
            "expected a time that does, or delaystream-dst-gap 'shift'.",
        )
    return _not_too_many(name, found, limits)


def _local(name: str, item: str, clock: LocalClock, limits: Limits, latest_ms: int) -> tuple[int, ...]:
    try:
        local_ms = parse_local(item)
    except InstantError as error:
        raise _no_time(name, item, error) from None
    if local_ms > min(latest_ms + _DAY_MS, _LAST_LOCAL_MS):
        raise RefusedError(Code.DELAY_TOO_LONG, _too_far(name, item, limits))
    return clock.instants(local_ms)


def _no_time(name: str, item: str, error: InstantError) -> RefusedError:
    """An item of `at` is no point in time."""
    code = Code.AT_NOT_MILLISECONDS if isinstance(error, NotMillisecondsError) else Code.INVALID_AT
    zone = ", or delaystream-timezone beside it" if isinstance(error, NoOffsetError) else ""
    return RefusedError(code, f"{name}: {shown(item)} {error}; expected {instants.EXPECTED}{zone}.")


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


def flag(name: str, value: bytes | None, invalid: Code) -> bool:
    """`true` or `false`; not given, false."""
    return value is not None and word(name, value, ("true", "false"), invalid) == "true"


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


def tags(name: str, value: bytes, code: Code = Code.INVALID_TAGS) -> tuple[str, ...]:
    """A comma list of words, `MOST_TAGS` at most; spaces around them and empty ones do not count."""
    found = tuple(tag.strip() for tag in text(name, value).split(",") if tag.strip())
    if len(found) > MOST_TAGS:
        raise RefusedError(code, f"{name} has {len(found)} tags; expected at most {MOST_TAGS}.")
    return found


def _duration(name: str, written: str, invalid: Code, expected: str = durations.EXPECTED) -> int:
    try:
        return parse_duration(written)
    except DurationError as error:
        raise RefusedError(invalid, f"{name}: {shown(written)} {error}; expected {expected}.") from None


def _list(name: str, value: bytes, limits: Limits, parse: Callable[[str], int]) -> tuple[int, ...]:
    return tuple(parse(item) for item in _items(name, value, limits))


def _items(name: str, value: bytes, limits: Limits) -> Sequence[str]:
    return _not_too_many(name, text(name, value).split(","), limits)


def _not_too_many(name: str, items: Sequence[Item], limits: Limits) -> tuple[Item, ...]:
    if len(items) > limits.max_list:
        raise RefusedError(
            Code.LIST_TOO_LONG, f"{name} lists {len(items)} times; expected at most {limits.max_list}."
        )
    return tuple(items)


def _too_far(name: str, written: str, limits: Limits) -> str:
    return (
        f"{name}: {shown(written)} is further ahead than the worker accepts; "
        f"expected at most {format_duration(limits.max_delay_ms)} from now."
    )
