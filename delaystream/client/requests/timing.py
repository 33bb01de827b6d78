"""Times and lengths of time in Python's types, as the header contract writes them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime, timedelta, tzinfo
from functools import lru_cache
from typing import TypeAlias
from zoneinfo import ZoneInfo

from delaystream.core.instants import EARLIEST_MS, LATEST_MS

Duration: TypeAlias = timedelta | str
"""A length of time; a text is in the contract's notation (`15m`, `PT15M`)."""
Instant: TypeAlias = datetime | str
"""A point in time; a text is in the contract's notation. A datetime without offset needs a time zone."""
Zone: TypeAlias = tzinfo | str
"""A time zone of the IANA database: a `ZoneInfo`, or its name."""

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MILLISECOND = timedelta(milliseconds=1)


def aware(time_ms: int) -> datetime:
    """Milliseconds since the epoch as a datetime in UTC; the nearest one that there is beyond its range."""
    try:
        return _EPOCH + time_ms * _MILLISECOND
    except OverflowError:
        return datetime.max.replace(tzinfo=UTC) if time_ms > 0 else datetime.min.replace(tzinfo=UTC)


def length(length_ms: int) -> timedelta:
    """Milliseconds as a timedelta."""
    return timedelta(milliseconds=length_ms)


def whole_ms(duration: timedelta) -> int:
    """Milliseconds of a length of time, of any there is; what is finer is rounded up."""
    milliseconds, rest = divmod(duration, _MILLISECOND)
    return milliseconds + bool(rest)


def epoch_ms(at: datetime) -> int:
    """Milliseconds since the epoch of a datetime with an offset; what is finer is rounded up, as in
    headers."""
    return whole_ms(at - _EPOCH)


def instant_ms(name: str, at: datetime) -> int:
    """Milliseconds since the epoch of a datetime with an offset, from 1971 on and to the year 9999 as
    requests have them. Raises ValueError, TypeError."""
    if not isinstance(at, datetime):
        raise TypeError(f"{name} takes a datetime, not {type(at).__qualname__}")
    if at.utcoffset() is None:
        raise ValueError(f"{name}={at!r} has no offset and no time zone: write datetime(..., tzinfo=UTC).")
    at_ms = epoch_ms(at)
    if not EARLIEST_MS <= at_ms <= LATEST_MS:
        raise ValueError(f"{name}={at!r} is out of range; expected a time from 1971 to 9999, in UTC.")
    return at_ms


def duration_text(duration: Duration) -> str:
    """As `delay` has it; what is finer than a millisecond is rounded up."""
    if isinstance(duration, str):
        return duration
    if not isinstance(duration, timedelta):
        raise TypeError(f"a length of time is a timedelta or text, not {type(duration).__qualname__}")
    return _timedelta_text(duration)


# Whoever sends many requests seldom has many lengths of time in them.
@lru_cache(maxsize=1024)
def _timedelta_text(duration: timedelta) -> str:
    milliseconds = whole_ms(duration)
    return f"{milliseconds}ms" if milliseconds else "0"


def durations_text(durations: Duration | Sequence[Duration]) -> str:
    """One length of time, or a list of them."""
    if type(durations) is timedelta:
        return _timedelta_text(durations)
    if isinstance(durations, timedelta | str) or not isinstance(durations, Iterable):
        return duration_text(durations)
    return ",".join(map(duration_text, durations))


def zone_name(zone: Zone) -> str:
    """The name in the IANA database. Raises ValueError for a zone that has none."""
    if isinstance(zone, str):
        return zone
    if zone is UTC:
        return "UTC"
    name = zone.key if isinstance(zone, ZoneInfo) else None
    if name is None:
        raise ValueError(
            f"The time zone {zone!r} has no name in the IANA database; give a ZoneInfo, or its name such as "
            "'Europe/Berlin'."
        )
    return name


def instants_text(name: str, times: Instant | Sequence[Instant], zone: Zone | None) -> str:
    """One point in time, or a list of them, as `at` has them.

    A datetime without offset is a local time of `zone`, and is sent as one: what it means is worked out when
    it is read, by `dst_gap` and `dst_overlap`. Raises ValueError where there is no zone.
    """
    if isinstance(times, datetime | str) or not isinstance(times, Iterable):
        return _local_text(name, times, zone)
    return ",".join(_local_text(name, at, zone) for at in times)


def _local_text(name: str, at: Instant, zone: Zone | None) -> str:
    if isinstance(at, str):
        return at
    if _is_aware(name, at):
        return str(epoch_ms(at))
    if zone is None:
        raise _naive(name, at)
    if at.fold:
        raise ValueError(
            f"{name}={at!r} has fold=1 and no offset: say dst_overlap='second', or give it its time zone."
        )
    try:
        return _rounded_up(at).isoformat(timespec="milliseconds")
    except OverflowError:
        raise ValueError(
            f"{name}={at!r} is the last millisecond that is possible; expected an earlier time."
        ) from None


def instant_text(name: str, at: Instant, zone: Zone | None = None) -> str:
    """One point in time where the contract has no local ones: a datetime without offset is worked out here.

    Raises ValueError where it has neither offset nor zone, and where the zone is not known.
    """
    if isinstance(at, str):
        return at
    if not _is_aware(name, at):
        if zone is None:
            raise _naive(name, at)
        at = at.replace(tzinfo=_zone(zone))
    return str(epoch_ms(at))


def _is_aware(name: str, at: datetime) -> bool:
    if not isinstance(at, datetime):
        raise TypeError(f"{name} takes a datetime or text, not {type(at).__qualname__}")
    return at.utcoffset() is not None


def _zone(zone: Zone) -> tzinfo:
    if isinstance(zone, tzinfo):
        return zone
    try:
        return ZoneInfo(zone)
    except (KeyError, ValueError, OSError):
        raise ValueError(f"timezone={zone!r} is not a name of the IANA time zone database.") from None


def _rounded_up(at: datetime) -> datetime:
    rest = at.microsecond % 1000
    return at + timedelta(microseconds=1000 - rest) if rest else at


def _naive(name: str, at: datetime) -> ValueError:
    return ValueError(
        f"{name}={at!r} is a local time without a time zone: give timezone, as in timezone='Europe/Berlin', "
        "or a "
        f"datetime "
        "with an offset, as in datetime.now(UTC)."
    )
