"""What is asked of a console, by room and kind: paths."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from urllib.parse import quote, urlencode

from tests.benchmarks.console import vocabulary

_HOUR_MS = 3_600_000
_MINUTE_MS = 60_000


@dataclass(frozen=True)
class Named:
    """What there is to ask for."""

    #: what names of destinations begin with
    destinations: str
    #: how many schedules have an id
    count: int
    #: when the first of all is due; the others are within a day
    due_ms: int
    #: coordinates of requests without an id
    coordinates: Sequence[str] = ()


def questions(named: Named) -> dict[str, dict[str, list[str]]]:
    """Paths by room and kind: `get`, `list`, `stats`, `where`."""
    numbers = range(0, named.count, max(1, named.count // 500))
    return {
        "get": {"get": [f"/v1/schedules/{quote(vocabulary.id_of(one))}" for one in numbers]},
        "stats": {"stats": ["/v1/stats"]},
        "list": _lists(named),
        "where": _searches(named),
    }


def _some(named: Named) -> range:
    return range(0, named.count, max(1, named.count // 97))


def _lists(named: Named) -> dict[str, list[str]]:
    some = _some(named)
    hours = [named.due_ms + hour * _HOUR_MS for hour in range(20)]
    to = [vocabulary.destination(named.destinations, one) for one in range(vocabulary.DESTINATIONS)]
    customers = [{"key": vocabulary.customer(one).decode()} for one in some]
    return {
        "next": _of("schedules", [{}]),
        "last": _of("schedules", [{"sort": "last"}]),
        "created": _of("schedules", [{"sort": "created"}]),
        "id": _of("schedules", [{"sort": "id"}]),
        "destination": _of("schedules", [{"destination": one} for one in to]),
        "any status": _of("schedules", [{"status": ["pending", "paused", "fired", "cancelled"]}]),
        "nothing paused": _of("schedules", [{"status": "paused"}]),
        "key": _of("schedules", customers),
        "tag": _of("schedules", [{"tag": vocabulary.team(one)} for one in some]),
        "correlation": _of("schedules", [{"correlation_id": vocabulary.order(one).decode()} for one in some]),
        "word": _of("schedules", [{"q": vocabulary.WORD}]),
        "two words": _of("schedules", [{"q": f"daily {vocabulary.region(one)}"} for one in some]),
        "no such word": _of("schedules", [{"q": "nothing"}]),
        "tag and destination": _of(
            "schedules", [{"tag": vocabulary.team(one), "destination": to[one % len(to)]} for one in some]
        ),
        # No destination has both.
        "tag, not there": _of(
            "schedules",
            [{"tag": vocabulary.team(one), "destination": to[(one + 1) % len(to)]} for one in some],
        ),
        "id prefix": _of("schedules", [{"id_prefix": vocabulary.id_of(one)[:8]} for one in some]),
        "short prefix": _of("schedules", [{"id_prefix": "job/0"}]),
        "due": _of("schedules", [_span(hour, _HOUR_MS, "next") for hour in hours]),
        "due, destination": _of(
            "schedules",
            [{**_span(hour, _HOUR_MS, "next"), "destination": to[hour % len(to)]} for hour in hours],
        ),
        "pending": _of("pending", [{}]),
        "pending: destination": _of("pending", [{"destination": one} for one in to]),
        "pending: key": _of("pending", customers),
        "pending: hot key": _of("pending", [{"key": vocabulary.BATCH.decode()}]),
        "pending: hot tag": _of("pending", [{"tag": vocabulary.INVOICE}]),
        "pending: team": _of("pending", [{"tag": vocabulary.team(one)} for one in some]),
        "pending: due": _of("pending", [_span(hour, _MINUTE_MS, "due") for hour in hours]),
    }


def _searches(named: Named) -> dict[str, list[str]]:
    some = _some(named)
    words = {
        "id": [vocabulary.id_of(one) for one in some],
        "coordinates": named.coordinates,
        "key": [vocabulary.customer(one).decode() for one in some],
        "correlation id": [vocabulary.order(one).decode() for one in some],
        "team": [vocabulary.team(one) for one in some],
        "hot key": [vocabulary.BATCH.decode()],
        "hot tag": [vocabulary.INVOICE],
        "nothing": ["nobody-has-this"],
    }
    return {
        kind: [f"/v1/where?{urlencode({'q': word})}" for word in of_kind]
        for kind, of_kind in words.items()
        if of_kind
    }


def _of(room: str, filters: Sequence[Mapping[str, object]]) -> list[str]:
    return [f"/v1/{room}?{urlencode(one, doseq=True)}" for one in filters]


def _span(from_ms: int, long_ms: int, name: str) -> dict[str, str]:
    return {f"{name}_from": _instant(from_ms), f"{name}_to": _instant(from_ms + long_ms)}


def _instant(at_ms: int) -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime(at_ms / 1000))
