"""Sender and reply topic of a refused request, as far as they can be read."""

from collections.abc import Sequence
from contextlib import suppress
from typing import Final

from delaystream.codec.requests import values
from delaystream.codec.requests.names import PREFIX
from delaystream.codec.requests.terms import note_of
from delaystream.codec.requests.values import RefusedError
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.request import Header

_LONGEST_NAME: Final = 64


def sender(
    headers: Sequence[Header], limits: Limits, destinations: DestinationFilter
) -> tuple[str | None, str | None, str | None, str | None, str | None]:
    """The id of a refused request, the topic for its receipt, why there will be none although one was asked
    for, its actor and its note; None where missing, invalid or given twice."""
    found: dict[str, list[bytes | None]] = {PREFIX + kind: [] for kind in ("id", "reply-to", "actor", "note")}
    for name, content in headers:
        if len(name) <= _LONGEST_NAME and (lower := name.lower()) in found:
            found[lower].append(content)
    id = reply_to = no_receipt = actor = note = None
    match found[PREFIX + "id"]:
        case [bytes(content)]:
            with suppress(RefusedError):
                id = values.schedule_name(PREFIX + "id", content, limits)
    match found[PREFIX + "reply-to"]:
        case [bytes(content)]:
            with suppress(RefusedError):
                reply_to, no_receipt = values.reply_to(PREFIX + "reply-to", content, destinations)
    match found[PREFIX + "actor"]:
        case [bytes(content)]:
            with suppress(RefusedError):
                actor = values.text(PREFIX + "actor", content)
    match found[PREFIX + "note"]:
        case [bytes(content)]:
            with suppress(RefusedError):
                note = note_of({"note": content})
    return id, reply_to, no_receipt, actor, note
