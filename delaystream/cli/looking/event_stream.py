"""A console's stream of events (server-sent events), read to where it is, or for as long as it is wanted."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

import orjson

from delaystream.cli.looking.console_client import ConsoleRefusedError, ConsoleUnavailableError, opened

_PATH: Final = "/v1/events"
#: A console says something at least each 15 s.
_SILENCE_S: Final = 40.0
_AGAIN_S: Final = 2.0
#: Longest line that is read, bytes.
_MOST: Final = 16 * 1024 * 1024

Places = dict[int, int]
"""By partition of the events' topic: the offset that comes next."""


@dataclass(frozen=True)
class Seen:
    """Something of a stream; ``event`` is None where only the place moved."""

    place: str
    event: dict[str, Any] | None


def places_of(place: str) -> Places:
    """What an id of the stream says. Raises ConsoleUnavailableError for what is none."""
    try:
        pairs = [part.split(".") for part in place.split("-")] if place else []
        return {int(partition): int(offset) for partition, offset in pairs}
    except ValueError:
        raise ConsoleUnavailableError(
            "What answers is no console: it names no place in its stream."
        ) from None


def place_of(places: Places) -> str:
    """The id of the stream for places."""
    return "-".join(f"{partition}.{offset}" for partition, offset in sorted(places.items()))


def end_of(url: str) -> str:
    """Where the stream ends now. Raises ConsoleUnavailableError and ConsoleRefusedError."""
    with opened(url, _PATH, {}, timeout_s=_SILENCE_S) as answer:
        for seen in _seen(url, answer):
            return seen.place
    raise ConsoleUnavailableError(f"The stream of {url} has no beginning.")


def until(url: str, wanted: Mapping[str, object], after: str, end: str) -> Iterator[Seen]:
    """What happened between two places. Raises ConsoleUnavailableError and ConsoleRefusedError."""
    ends = places_of(end)
    with opened(url, _PATH, {**wanted, "after": after}, timeout_s=_SILENCE_S) as answer:
        for seen in _seen(url, answer):
            if seen.event is not None:
                yield seen
            if _reached(seen.place, ends):
                return
    raise ConsoleUnavailableError(f"The stream of {url} has ended.")


def live(url: str, wanted: Mapping[str, object], after: str | None) -> Iterator[Seen | str]:
    """What happens from a place on, without an end; a sentence, where the stream is begun anew.

    Raises ConsoleUnavailableError and ConsoleRefusedError before the first answer only.
    """
    begun = False
    while True:
        try:
            with opened(url, _PATH, {**wanted, "after": after}, timeout_s=_SILENCE_S) as answer:
                begun = True
                for seen in _seen(url, answer):
                    after = seen.place
                    yield seen
            told = "The stream has ended."
        except (ConsoleUnavailableError, ConsoleRefusedError) as problem:
            if not begun:
                raise
            told = str(problem)
        yield f"{told} It is asked again."
        time.sleep(_AGAIN_S)


def _reached(place: str, ends: Places) -> bool:
    at = places_of(place)
    return all(at.get(partition, 0) >= offset for partition, offset in ends.items())


def _seen(url: str, answer: IO[bytes]) -> Iterator[Seen]:
    """Each block of a stream. Raises ConsoleUnavailableError where it breaks off."""
    place, content = "", b""
    try:
        while line := answer.readline(_MOST):
            name, _, value = line.rstrip(b"\r\n").partition(b": ")
            if name == b"id":
                place = value.decode("ascii", "replace")
            elif name == b"data":
                content = value
            elif not line.strip():
                event = orjson.loads(content) if content else None
                yield Seen(place, event if isinstance(event, dict) else None)
                content = b""
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConsoleUnavailableError(f"The stream of {url} broke off: {type(error).__name__}.") from None
