"""Time zones as pieces of constant offset from UTC.

The rules come from the package tzdata and not from the operating system, so workers of the same version
agree.
"""

import calendar
import re
import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from difflib import get_close_matches
from functools import lru_cache
from importlib import resources
from importlib.resources.abc import Traversable
from typing import Final, NamedTuple
from zoneinfo import ZoneInfo

FIRST_S: Final = -62_072_956_800
"""0003-01-01T00:00:00Z: earlier instants are not used."""
END_S: Final = 253_370_764_800
"""9999-01-01T00:00:00Z: instants from here on are not used. So local times of all offsets stay within
Python's years 1 to 9999."""

_EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_EPOCH_DAY: Final = _EPOCH.toordinal()
_DAY_S: Final = 86_400
_PROBE_S: Final = 2 * _DAY_S
"""No zone changes its offset twice within this time. The closest two changes in the database are a week
apart, and a test checks all of them."""
_TZIF_HEADER: Final = struct.Struct(">4s c 15x 6I")
"""Magic, version, and the numbers of UT/local and standard/wall indicators, leap seconds, transitions,
types and characters (RFC 8536, section 3.1)."""


_LONGEST_NAME: Final = 64
_NOT_COUNTED: Final = re.compile(r"(?![+-][0-9])[\W_]")
_NUMBERS: Final = re.compile(r"[+-]?[0-9]+")
_OFFSET: Final = re.compile(
    r"(?:UTC|GMT|Z)?\s*(?P<sign>[+-])(?P<hours>[0-9]{1,2})(?::?(?P<minutes>[0-5][0-9]))?", re.IGNORECASE
)
_FIXED: Final = re.compile(r"Etc/GMT(?P<sign>[+-])(?P<hours>[1-9][0-9]?)")


class UnknownZoneError(ValueError):
    """The zone database has no zone of that name."""


class Piece(NamedTuple):
    """A span of time in which a zone's offset is constant. Seconds: instants since the epoch, and offsets.

    Pieces also end with each year of UTC; then the offset is the same `before` and `after`.
    """

    start_s: int
    end_s: int
    """The first instant of the next piece."""
    before_s: int
    """The offset of the piece before."""
    offset_s: int
    """Local time minus UTC."""
    after_s: int
    """The offset of the piece after."""


@lru_cache(maxsize=1)
def zone_names() -> frozenset[str]:
    """All names of the IANA time zone database, links such as `US/Eastern` included."""
    return frozenset((resources.files("tzdata") / "zones").read_text("ascii").split())


@lru_cache(maxsize=1024)  # a mistake is often made again
def zone_advice(name: str) -> str:
    """The advice for `name`, which is no zone: the end of a sentence."""
    if (offset := _OFFSET.fullmatch(name.strip())) is not None:
        return _advice_on_offset(offset)
    near = nearest_zone(name)
    if near is None:
        return "expected one such as 'Europe/Berlin' or 'UTC'"
    if (fixed := _FIXED.fullmatch(near)) is not None:
        return f"did you mean '{near}'? It {_meant(int(fixed['hours']), ahead=fixed['sign'] == '-')}"
    return f"did you mean '{near}'?"


def _advice_on_offset(offset: re.Match[str]) -> str:
    """The advice for an offset from UTC in place of a zone: `UTC+8`, `GMT-3`, `+02:00`."""
    hours, ahead = int(offset["hours"]), offset["sign"] == "+"
    advice = "an offset is no zone; write the name of one, as 'Europe/Berlin' is"
    if int(offset["minutes"] or 0):
        return advice
    if hours == 0:
        return f"{advice}, or 'UTC'"
    fixed = f"Etc/GMT{'-' if ahead else '+'}{hours}"
    return f"{advice}, or '{fixed}': it {_meant(hours, ahead=ahead)}" if fixed in zone_names() else advice


def _meant(hours: int, *, ahead: bool) -> str:
    """The meaning of a zone like `Etc/GMT+8`."""
    side = "ahead of" if ahead else "behind"
    return f"is {hours} hour{'s' * (hours != 1)} {side} UTC, as Etc has the signs the other way round"


@lru_cache(maxsize=1024)
def nearest_zone(name: str) -> str | None:
    """The name that was probably meant; None if none is similar. People also leave out the continent."""
    written = _letters(name)
    for key in (written, _letters(name.rpartition("/")[2])):
        if key in _names_by_letters():
            return _names_by_letters()[key]
    # A comparison with all names takes milliseconds, and anybody may send a name. So only names with the same
    # first letter are compared.
    candidates = [known for known in _names_by_letters() if known[:1] == written[:1]]
    # Another number or another sign is another zone, and not a typing error.
    candidates = [known for known in candidates if _NUMBERS.findall(known) == _NUMBERS.findall(written)]
    near = get_close_matches(written[:_LONGEST_NAME], candidates, n=1, cutoff=0.75)
    return _names_by_letters()[near[0]] if near else None


@lru_cache(maxsize=1)
def _names_by_letters() -> dict[str, str]:
    """All names by their letters, with and without the continent."""
    names: dict[str, str] = {}
    for known in sorted(zone_names()):
        names[_letters(known)] = known
    for known in sorted(zone_names()):
        names.setdefault(_letters(known.rpartition("/")[2]), known)
    return names


def _letters(name: str) -> str:
    """A name's letters, digits, and the sign of a number; a hyphen between words is dropped."""
    return _NOT_COUNTED.sub("", name.lower())


@lru_cache(maxsize=1024)
def zone(name: str) -> ZoneInfo:
    """The zone of that name. Raises UnknownZoneError."""
    with _rules(name).open("rb") as rules:
        return ZoneInfo.from_file(rules, key=name)


def _rules(name: str) -> Traversable:
    """A zone's file. Raises UnknownZoneError."""
    if name not in zone_names():
        raise UnknownZoneError(f"the zone database has no {name!r}")
    *folders, file = name.split("/")
    return (resources.files("tzdata") / "zoneinfo").joinpath(*folders, file)


@lru_cache(maxsize=1024)
def _transitions(name: str) -> tuple[int, ...]:
    """The instants that a zone's file lists, in order; after the last one a rule holds.

    The offset changes at no other instant before the last of them (RFC 8536, section 3.2).
    """
    rules = _rules(name).read_bytes()
    _, version, utc, standard, leaps, times, types, characters = _TZIF_HEADER.unpack_from(rules)
    assert version >= b"2", "the package's files have 64-bit times"
    first = times * 4 + times + types * 6 + characters + leaps * 8 + standard + utc
    at = _TZIF_HEADER.size + first
    *_, times, _, _ = _TZIF_HEADER.unpack_from(rules, at)
    return struct.unpack_from(f">{times}q", rules, at + _TZIF_HEADER.size)


@lru_cache(maxsize=1024)
def _last_listed(name: str) -> int:
    """The year of UTC of the last instant that a zone's file lists; the year 1 if it lists none."""
    listed = _transitions(name)
    return _year_of(min(max(listed[-1], FIRST_S), END_S - 1)) if listed else 1


def piece_at(zone_name: str, instant_s: int) -> Piece:
    """The piece that holds an instant from `FIRST_S` to before `END_S`."""
    year = _year_of(instant_s)
    for piece in _pieces(zone_name, year):
        if instant_s < piece.end_s:
            return piece
    raise AssertionError(f"the pieces of {year} end before the year does")


def _year_of(instant_s: int) -> int:
    return date.fromordinal(instant_s // _DAY_S + _EPOCH_DAY).year


@lru_cache(maxsize=8192)
def _pieces(zone_name: str, year: int) -> tuple[Piece, ...]:
    """The pieces of one year of UTC, in order and without gaps.

    Anybody may ask for any year of any zone. A year costs some microseconds, even without the cache.
    """
    rules, last = zone(zone_name), _last_listed(zone_name)
    start_s, end_s = _new_year(year), _new_year(year + 1)
    if year < last:
        listed = _transitions(zone_name)
        within = listed[bisect_right(listed, start_s - 1) : bisect_right(listed, end_s - 1)]
        return _cut(rules, start_s, end_s, ((at_s, _offset(rules, at_s)) for at_s in within))
    if year > last + 1:
        # Only the rule holds here. It knows months, weeks and days of the week.
        alike = _pieces_by_rule(zone_name, calendar.isleap(year), date(year, 1, 1).weekday())
        return tuple([Piece(start_s + begin, start_s + end, *offsets) for begin, end, *offsets in alike])
    return _cut(rules, start_s, end_s, _changes(rules, start_s - 1, end_s - 1))


@lru_cache(maxsize=8192)
def _pieces_by_rule(zone_name: str, leap: bool, weekday: int) -> tuple[Piece, ...]:
    """The pieces of a year under a zone's rule, by its kind of year; seconds since its beginning."""
    year = _last_listed(zone_name) + 2
    while calendar.isleap(year) is not leap or date(year, 1, 1).weekday() != weekday:
        year += 1
    rules, start_s, end_s = zone(zone_name), _new_year(year), _new_year(year + 1)
    pieces = _cut(rules, start_s, end_s, _changes(rules, start_s - 1, end_s - 1))
    return tuple([Piece(begin - start_s, end - start_s, *offsets) for begin, end, *offsets in pieces])


def _cut(rules: ZoneInfo, start_s: int, end_s: int, changes: Iterable[tuple[int, int]]) -> tuple[Piece, ...]:
    """Cut a span of time into pieces at ``changes``: instants with the offset from then on."""
    before_s = offset_s = _offset(rules, start_s - 1)
    begins_s = start_s
    pieces = []
    for change_s, after_s in changes:
        if after_s == offset_s:
            # Other entries change only the name of the time.
            continue
        if change_s > begins_s:
            pieces.append(Piece(begins_s, change_s, before_s, offset_s, after_s))
        begins_s, before_s, offset_s = change_s, offset_s, after_s
    pieces.append(Piece(begins_s, end_s, before_s, offset_s, _offset(rules, end_s)))
    return tuple(pieces)


def _changes(rules: ZoneInfo, from_s: int, to_s: int) -> Iterator[tuple[int, int]]:
    """The instants in (`from_s`, `to_s`] at which the offset changes, and the offset after each."""
    offset_s = _offset(rules, from_s)
    while from_s < to_s:
        probe_s = min(from_s + _PROBE_S, to_s)
        if (changed_s := _offset(rules, probe_s)) != offset_s:
            # The change is after `old_s` and not after `new_s`.
            old_s, new_s = from_s, probe_s
            while new_s - old_s > 1:
                middle_s = (old_s + new_s) // 2
                if _offset(rules, middle_s) == offset_s:
                    old_s = middle_s
                else:
                    new_s = middle_s
            yield new_s, changed_s
            offset_s = changed_s
        from_s = probe_s


def _offset(rules: ZoneInfo, instant_s: int) -> int:
    offset = (_EPOCH + timedelta(seconds=instant_s)).astimezone(rules).utcoffset()
    assert offset is not None
    return offset.days * _DAY_S + offset.seconds


def _new_year(year: int) -> int:
    return (date(year, 1, 1).toordinal() - _EPOCH_DAY) * _DAY_S
