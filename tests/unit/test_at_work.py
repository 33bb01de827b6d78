"""Of the commands at work, those are found that may be about something, in their order; few others are."""

from __future__ import annotations

from functools import partial
from random import Random

import pytest
from msgspec.structs import replace

from delaystream.codec.envelope import Bulk, Schedule, Status
from delaystream.core.order import Moment
from delaystream.core.request import Action, Match
from delaystream.engine.accept.at_work import AtWork

TENANT = "orders"
_ACTIONS = (Action.CANCEL, Action.PAUSE, Action.RESUME)


def bulk(number: int, match: Match, action: Action = Action.CANCEL, tenant: str = TENANT) -> Bulk:
    holds = [f"hold-{number % 3}"] if action is Action.RESUME else []
    return Bulk(tenant, 0, number, 0, action, match, b"", b"", number, holds=holds)


def schedule(destination: str, tags: list[str], held_by: str = "") -> Schedule:
    return Schedule(Status.PENDING, 1, TENANT, 0, 0, 0, destination, tags=tags, held_by=held_by)


def drawn(random: Random) -> Match:
    return Match(
        tags=tuple(tag for tag in "ab" if random.random() < 0.3),
        destination=random.choice((None, "out", "o*", "other", "[o]ut", "*")),
        id_prefix=random.choice((None, None, "x", "x-", "y")),
        key=random.choice((None, None, b"k", b"")),
        anonymous=True,
    )


def _same(key: bytes | None) -> bytes | None:
    return key


@pytest.mark.parametrize("seed", range(60))
def test_whatever_may_be_about_something_is_found(seed: int) -> None:
    """As if all of them were looked at; also when some have ended, and some have got on."""
    random = Random(f"{seed}")
    at_work = AtWork()
    for number in range(1, 40):
        tenant = random.choice((TENANT, TENANT, "mails"))
        at_work[b"%d" % number] = bulk(number, drawn(random), random.choice(_ACTIONS), tenant)
    for number in random.sample(range(1, 40), 12):
        at_work.end(b"%d" % number)
    for key in random.sample([*at_work], 5):
        at_work[key] = replace(at_work[key], cursor=b"on")
    assert at_work.changing == {key: at for key, at in at_work.items() if at.holds}
    assert [*at_work.changing] == [key for key in at_work if key in at_work.changing]
    for tenant in (TENANT, "mails"):
        places = {at.place for at in at_work.values() if at.tenant == tenant}
        assert {(0, n, "") for n in range(1, 40) if at_work.has(tenant, (0, n, ""))} == places
    for _ in range(30):
        tags = [tag for tag in "abc" if random.random() < 0.5]
        destination, key = random.choice(("out", "other", "o")), random.choice((None, b"k", b"", b"l"))
        id, held_by = random.choice(("x", "x-1", "z")), random.choice(("", "hold-1"))
        found = at_work.about_schedule(id, schedule(destination, tags, held_by), partial(_same, key))
        expected = {
            of
            for of, at in at_work.items()
            if at.tenant == TENANT
            and (
                (held_by and held_by in at.holds)
                or (
                    at.match.fits_topic(destination)
                    and at.match.fits_tags(tags)
                    and at.match.key in (None, key)
                    and id.startswith(at.match.id_prefix or "")
                )
            )
        }
        assert expected <= {*found}
        assert found == sorted(found, key=lambda of: at_work[of].number)
        entries = at_work.about_entry(Moment((TENANT, 0, ""), 1, 0), destination, tags, key)
        assert {
            of
            for of, at in at_work.items()
            if at.tenant == TENANT
            and at.sweeps_wheels
            and at.match.fits_topic(destination)
            and at.match.fits_tags(tags)
            and at.match.key in (None, key)
        } <= {*entries}
        assert all(at_work[of].sweeps_wheels for of in entries)


@pytest.mark.parametrize(
    "match",
    [
        Match(tags=("z",), anonymous=True),
        Match(key=b"z", anonymous=True),
        Match(destination="z", anonymous=True),
        Match(destination="z*", anonymous=True),
        Match(id_prefix="z"),
    ],
    ids=str,
)
def test_what_cannot_be_about_something_is_not_looked_at(match: Match) -> None:
    at_work = AtWork()
    for number in range(1, 1_000):
        at_work[b"%d" % number] = bulk(number, match)
    assert at_work.about_schedule("x", schedule("out", ["a"]), lambda: b"k") == []
    assert at_work.about_entry(Moment((TENANT, 0, ""), 1, 0), "out", ["a"], b"k") == []


def test_what_has_ended_is_not_found_any_more() -> None:
    """Nor is there anything left of it."""
    at_work = AtWork()
    for number, action in enumerate(_ACTIONS):
        at_work[b"%d" % number] = bulk(number, Match(destination="o*", anonymous=True), action)
    assert len(at_work.about_schedule("x", schedule("out", [], "hold-2"), lambda: None)) == 3
    for key in [*at_work]:
        at_work.end(key)
    assert at_work.about_schedule("x", schedule("out", [], "hold-2"), lambda: None) == []
    assert not at_work
