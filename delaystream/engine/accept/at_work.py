"""The commands that are at work on a partition, and which of them may concern a given fire or request.

Many may be at work at once, and every fire has to be told which of them are about it. So each command is
filed under one of its conditions, the most selective that it has. Only those are looked at that are filed
under what a schedule, or an entry without an id, has of that kind. Which globs fit a destination is worked
out once, as long as the same commands are at work.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from typing import Final

from delaystream.codec.envelope import Bulk, Schedule
from delaystream.core.order import Moment
from delaystream.core.request import Action

#: with any of these in it, a destination is no name
_OF_GLOBS: Final = frozenset("*?[]")

_Place = tuple[object, ...]


class AtWork(dict[bytes, Bulk]):
    """Those whose sweeps have not ended, in their order, by their keys.

    The match of a command, and the holds that it has ended, stay the same as long as it is at work.
    """

    def __init__(self) -> None:
        super().__init__()
        #: those that have begun or ended holds, in their order, by their keys
        self.changing: dict[bytes, Bulk] = {}
        #: by tenant, where they stood
        self._places: set[tuple[str, tuple[int, int, str]]] = set()
        self._filed: dict[_Place, list[bytes]] = {}
        #: by tenant: how many are filed under a key, and under a prefix of each length
        self._by_key: Counter[str] = Counter()
        self._by_length: dict[str, Counter[int]] = {}
        #: by tenant and destination: those with no condition but a glob that fits it
        self._fitting: dict[tuple[str, str], list[bytes]] = {}

    def __setitem__(self, key: bytes, bulk: Bulk) -> None:
        if key not in self:
            for place in _places(bulk):
                self._filed.setdefault(place, []).append(key)
            self._count(bulk, 1)
            self._places.add((bulk.tenant, bulk.place))
        if bulk.holds:
            self.changing[key] = bulk
        super().__setitem__(key, bulk)

    def end(self, key: bytes) -> Bulk:
        """Take one out whose sweep has ended."""
        bulk = super().pop(key)
        for place in _places(bulk):
            filed = self._filed[place]
            filed.remove(key)
            if not filed:
                del self._filed[place]
        self._count(bulk, -1)
        self._places.discard((bulk.tenant, bulk.place))
        self.changing.pop(key, None)
        return bulk

    def has(self, tenant: str, place: tuple[int, int, str]) -> bool:
        """Whether one that stood there is at work."""
        return (tenant, place) in self._places

    def _count(self, bulk: Bulk, number: int) -> None:
        kind, _, *what = _place(bulk)
        self._fitting.clear()
        if kind == "key":
            self._by_key[bulk.tenant] += number
        elif kind == "prefix":
            lengths = self._by_length.setdefault(bulk.tenant, Counter())
            lengths[len(str(what[0]))] += number

    def about_schedule(self, id: str, schedule: Schedule, key: Callable[[], bytes | None]) -> list[bytes]:
        """Those that may be about a schedule, in their order; `key` reads the key that it delivers with."""
        tenant = schedule.topic
        places = _common(tenant, schedule.destination, schedule.tags)
        if schedule.held_by:
            places.append(("hold", tenant, schedule.held_by))
        if lengths := self._by_length.get(tenant):
            places += [("prefix", tenant, id[:length]) for length, number in lengths.items() if number]
        if self._by_key[tenant]:
            places.append(("key", tenant, key()))
        return self._found(places, self._fits(tenant, schedule.destination))

    def about_entry(self, moment: Moment, topic: str, tags: Iterable[str], key: bytes | None) -> list[bytes]:
        """Those whose sweeps go through the wheels that may be about an entry without an id, in order."""
        (tenant, partition, origin), offset = moment.source, moment.offset
        places = [
            *_common(tenant, topic, tags),
            ("key", tenant, key),
            ("subject", tenant, partition, offset, origin),
        ]
        found = self._found(places, self._fits(tenant, topic))
        return [of for of in found if self[of].sweeps_wheels]

    def _fits(self, tenant: str, topic: str) -> list[bytes]:
        found = self._fitting.get((tenant, topic))
        if found is None:
            filed = self._filed.get(("glob", tenant), ())
            found = [key for key in filed if self[key].match.fits_topic(topic)]
            self._fitting[tenant, topic] = found
        return found

    def _found(self, places: Iterable[_Place], fitting: Iterable[bytes]) -> list[bytes]:
        found = {key for place in places if (filed := self._filed.get(place)) for key in filed}
        found.update(fitting)
        return sorted(found, key=lambda key: self[key].number) if len(found) > 1 else [*found]


def _common(tenant: str, topic: str, tags: Iterable[str]) -> list[_Place]:
    return [("topic", tenant, topic), *(("tag", tenant, tag) for tag in tags)]


def _places(bulk: Bulk) -> Iterator[_Place]:
    yield _place(bulk)
    if bulk.action is Action.RESUME:
        # A command that ends a hold is about all that the hold keeps back, whether or not it matches.
        for name in bulk.holds:
            yield "hold", bulk.tenant, name


def _place(bulk: Bulk) -> _Place:
    match, tenant = bulk.match, bulk.tenant
    if bulk.subject is not None:
        return "subject", tenant, *bulk.subject
    if match.tags:
        return "tag", tenant, match.tags[0]
    if match.key is not None:
        return "key", tenant, match.key
    if match.id_prefix:
        return "prefix", tenant, match.id_prefix
    if match.destination is not None and _OF_GLOBS.isdisjoint(match.destination):
        return "topic", tenant, match.destination
    return "glob", tenant
