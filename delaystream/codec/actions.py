"""Requests that are no schedules: what their action takes, and which schedules it is about."""

from typing import Final

from delaystream.codec import values
from delaystream.codec.names import PREFIX
from delaystream.codec.options import MATCHES, id_required
from delaystream.codec.timing import TIMING, not_applicable
from delaystream.codec.values import RefusedError
from delaystream.core.rejection import Code, shown
from delaystream.core.request import Action, Match

_BULK: Final = (Action.CANCEL, Action.PAUSE, Action.RESUME)
_ANY: Final = frozenset({"id", "action", "reply-to", "actor"})


def read_match(control: dict[str, bytes], action: Action, id: str | None) -> Match | None:
    """Which schedules a command is about; None when its id says so. Raises `RefusedError`.

    A cancel may carry anything: it often is the schedule's request with another action. The younger actions
    refuse what they would not look at.
    """
    written = f"the action '{action}'"
    matches = sorted(control.keys() & MATCHES)
    if matches and (id is not None or action not in _BULK):
        expected = "expected it on cancel, pause and resume without id"
        raise not_applicable(matches[0], f"an id; {expected}" if id is not None else f"{written}; {expected}")
    if action is not Action.CANCEL:
        taken = _ANY | MATCHES | TIMING if action is Action.RESCHEDULE else _ANY | MATCHES
        for kind in sorted(control.keys() - taken):
            raise not_applicable(kind, f"{written}, which does not look at it; expected it without")
    if id is not None:
        return None
    if not matches:
        bulk = "" if action not in _BULK else " (or match-tags, match-destination or match-id-prefix)"
        raise id_required(f"{PREFIX}action is '{action}'{bulk}")
    return Match(_tags(control), _destination(control), _id_prefix(control))


def _tags(control: dict[str, bytes]) -> tuple[str, ...]:
    content = control.get("match-tags")
    if content is None:
        return ()
    tags = values.tags(PREFIX + "match-tags", content)
    if not tags:
        raise RefusedError(
            Code.INVALID_MATCH, f"{PREFIX}match-tags is {shown(content)}; expected tags, comma-separated."
        )
    return tags


def _destination(control: dict[str, bytes]) -> str | None:
    content = control.get("match-destination")
    if content is None:
        return None
    if not content:
        raise RefusedError(
            Code.INVALID_MATCH, f"{PREFIX}match-destination is empty; expected a topic name or a glob."
        )
    return values.text(PREFIX + "match-destination", content)


def _id_prefix(control: dict[str, bytes]) -> str | None:
    content = control.get("match-id-prefix")
    if content is None:
        return None
    if not content:
        raise RefusedError(
            Code.INVALID_MATCH,
            f"{PREFIX}match-id-prefix is empty; expected the beginning of ids, or "
            f"{PREFIX}match-destination '*' for every schedule.",
        )
    return values.text(PREFIX + "match-id-prefix", content)
