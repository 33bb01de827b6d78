"""Zones as pieces of constant offset: complete, and what the zone database says."""

import random
import zoneinfo
from datetime import UTC, datetime, timedelta
from importlib import resources
from io import BytesIO
from itertools import pairwise
from typing import Any
from zoneinfo import ZoneInfo, _common

import pytest

from delaystream.core.recurrence import Recurrence, next_after, zones
from delaystream.core.recurrence.zones import (
    END_S,
    FIRST_S,
    Piece,
    UnknownZoneError,
    nearest_zone,
    piece_at,
    zone,
    zone_names,
)

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


def new_year(year: int) -> int:
    return int((datetime(year, 1, 1, tzinfo=UTC) - EPOCH) / timedelta(seconds=1))


def pieces_of(name: str, year: int) -> list[Piece]:
    found, at_s = [], new_year(year)
    while at_s < new_year(year + 1):
        found.append(piece_at(name, at_s))
        at_s = found[-1].end_s
    return found


def test_pieces_follow_one_another_and_agree_on_their_offsets() -> None:
    """Over the years too: no instant is without a piece, and each knows its neighbours."""
    found = [piece for year in range(2009, 2014) for piece in pieces_of("Pacific/Apia", year)]
    for earlier, later in pairwise(found):
        assert earlier.end_s == later.start_s
        assert earlier.after_s == later.offset_s
        assert later.before_s == earlier.offset_s


def _file(name: str) -> bytes:
    return (resources.files("tzdata") / "zoneinfo").joinpath(*name.split("/")).read_bytes()


#: One name of each zone: nearly half of all names are links.
DISTINCT = sorted({_file(name): name for name in sorted(zone_names())}.values())


def _changes_of_the_database(name: str) -> set[int]:
    """The instants at which the file of a zone changes the offset, read by the library's own Python code."""
    indexes, instants, offsets, _, _, _ = _common.load_data(BytesIO(_file(name)))
    changes = set()
    # What was in force before the first change: the first type of the file.
    before = offsets[0]
    for instant, index in zip(instants, indexes, strict=True):
        if offsets[index] != before:
            changes.add(instant)
        before = offsets[index]
    return changes


@pytest.mark.parametrize("continent", sorted({name.partition("/")[0] for name in DISTINCT}))
def test_every_change_of_every_zone_is_found(continent: str) -> None:
    """Looking every other day misses none: no two changes of one zone are that near."""
    for name in [name for name in DISTINCT if name.partition("/")[0] == continent]:
        changes = {at for at in _changes_of_the_database(name) if new_year(1840) <= at < new_year(2045)}
        for earlier, later in pairwise(sorted(changes)):
            assert later - earlier > zones._PROBE_S, name
        years = {(EPOCH + timedelta(seconds=at)).year for at in changes}
        found = {
            piece.start_s
            for year in years
            for piece in pieces_of(name, year)
            if piece.before_s != piece.offset_s
        }
        assert found >= changes, name
        # Behind the last one in the file its rule for all further years holds.
        assert all(at > max(changes) for at in found - changes), name


def test_the_rules_are_those_of_the_package() -> None:
    """Not of the operating system, whose release differs from worker to worker."""
    zoneinfo.reset_tzpath(())
    try:
        for name in ("America/New_York", "Pacific/Apia", "Africa/Casablanca", "US/Eastern", "UTC"):
            assert zone(name).key == name
            of_the_package = ZoneInfo.no_cache(name)
            for year in (1900, 1985, 2026, 2100):
                at = datetime(year, 7, 1, tzinfo=UTC)
                assert at.astimezone(zone(name)).utcoffset() == at.astimezone(of_the_package).utcoffset()
    finally:
        zoneinfo.reset_tzpath()


def test_the_first_and_the_last_instant_have_a_piece() -> None:
    """Whatever their offset: local times stay within the years that Python knows."""
    for name in ("Pacific/Kiritimati", "Pacific/Pago_Pago", "UTC"):
        for at_s in (FIRST_S, END_S - 1):
            piece = piece_at(name, at_s)
            assert piece.start_s <= at_s < piece.end_s


@pytest.mark.parametrize("name", ["Mars/Olympus", "", "../tzdata/zones", "europe/berlin"])
def test_a_zone_that_is_not_there_is_an_error_of_its_own(name: str) -> None:
    """As one that a newer release's database had."""
    with pytest.raises(UnknownZoneError):
        next_after(Recurrence("0 9 * * *", 0, name), 0)


@pytest.mark.parametrize(
    ("written", "meant"),
    [
        ("europe/berlin", "Europe/Berlin"),
        ("Europe/Berln", "Europe/Berlin"),
        ("Berlin", "Europe/Berlin"),
        ("New York", "America/New_York"),
        ("America/NewYork", "America/New_York"),
        ("utc", "UTC"),
        ("etc/gmt+8", "Etc/GMT+8"),
        ("Etc/gmt-8", "Etc/GMT-8"),
        ("gmt+8", "Etc/GMT+8"),
        ("Etc/GMT8", None),
        ("Etc/GMT+15", None),
        ("UTC 8", None),
        ("america/port au prince", "America/Port-au-Prince"),
        ("Nowhere/Qqqqq", None),
        ("../../etc/passwd", None),
        ("", None),
    ],
)
def test_a_mistyped_zone_is_recognised(written: str, meant: str | None) -> None:
    assert nearest_zone(written) == meant


def test_no_advice_names_a_zone_of_another_number_or_sign() -> None:
    """Whichever of its letters are of the wrong case, and even without its continent."""
    for name in sorted(zone_names()):
        for written in (name.lower(), name.upper(), name.swapcase(), name.rpartition("/")[2].lower()):
            meant = nearest_zone(written)
            assert meant is not None
            if "Etc/" in {name[:4], meant[:4]}:
                signs = [letter for letter in meant if letter in "+-0123456789"]
                assert signs == [letter for letter in name if letter in "+-0123456789"], written


@pytest.mark.parametrize("part", range(8))
def test_a_year_has_the_pieces_that_looking_at_every_second_day_finds(part: int) -> None:
    """What the file lists and the rule for later years are a shortcut; the zone itself decides."""
    dice = random.Random(part)
    for name in sorted(zones.zone_names())[part::8]:
        rules, last = zones.zone(name), zones._last_listed(name)
        years = {dice.randrange(1850, 2045), dice.randrange(2045, 9999), last, last + 1, last + 2}
        for year in years - {1, 2}:
            start_s, end_s = zones._new_year(year), zones._new_year(year + 1)
            found = zones._changes(rules, start_s - 1, end_s - 1)
            assert zones._pieces(name, year) == zones._cut(rules, start_s, end_s, found), (name, year)


def test_many_years_of_many_zones_cost_few_looks_at_their_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """Anybody may ask for them, a hundred in one request; looking at every second day would be 180 a year."""
    for memo in (zones._pieces, zones._pieces_by_rule):
        memo.cache_clear()
    offset, looks = zones._offset, 0

    def counted(*of: Any) -> int:
        nonlocal looks
        looks += 1
        return offset(*of)

    monkeypatch.setattr(zones, "_offset", counted)
    names = ("America/New_York", "Europe/Berlin", "Australia/Lord_Howe", "Africa/Casablanca")
    years = range(1850, 2450)
    for name in names:
        for year in years:
            zones.piece_at(name, zones._new_year(year))
    assert looks < 20 * len(names) * len(years)
