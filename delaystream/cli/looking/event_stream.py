"""A console's stream of events (server-sent events), read to where it is, or for as long as it is wanted."""

from __future__ import annotations

import http.client
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import IO, Any, Final

import orjson

from delaystream.cli.looking.console_client import (
    ConsoleAt,
    ConsoleRefusedError,
    ConsoleUnavailableError,
    opened,
)

_PATH: Final = "/v1/events"
#: A console says something at least each 15 s.
_SILENCE_S: Final = 40.0
_AGAIN_S: Final = 2.0
#: Longest line that is read, bytes.
_MOST: Final = 16 * 1024 * 1024


@dataclass(frozen=True)
class Seen:
    """Something of a stream; ``event`` is None where only the place moved."""

    place: str
    event: dict[str, Any] | None
    #: nothing has happened behind it yet
    ends: bool = False


def past(at: ConsoleAt, wanted: Mapping[str, object], after: str | None, last: int) -> Iterator[Seen]:
    """What happened from a place on up to now; without one, in so many of the last offsets of each partition.

    Raises ConsoleUnavailableError, also where not everything was told, and ConsoleRefusedError.
    """
    parameters = {**wanted, "after": after, "last": None if after else last, "until": "now"}
    with opened(at, _PATH, parameters, timeout_s=_SILENCE_S) as answer:
        for seen in _seen(at.url, answer):
            yield seen
            if seen.ends:
                return
    raise ConsoleUnavailableError(f"The stream of {at.url} ended before its last event.")


def live(at: ConsoleAt, wanted: Mapping[str, object], after: str | None) -> Iterator[Seen | str]:
    """What happens from a place on, without an end; a sentence, where the stream is begun anew.

    Raises ConsoleUnavailableError and ConsoleRefusedError before the first answer only.
    """
    begun = False
    while True:
        try:
            with opened(at, _PATH, {**wanted, "after": after}, timeout_s=_SILENCE_S) as answer:
                begun = True
                for seen in _seen(at.url, answer):
                    after = seen.place
                    yield seen
            told = "The stream has ended."
        except (ConsoleUnavailableError, ConsoleRefusedError) as problem:
            if not begun:
                raise
            told = str(problem)
        yield f"{told} Trying again."
        time.sleep(_AGAIN_S)


def _seen(url: str, answer: IO[bytes]) -> Iterator[Seen]:
    """Each block of a stream. Raises ConsoleUnavailableError where it breaks off."""
    place, content, ends = "", b"", False
    try:
        while line := answer.readline(_MOST):
            name, _, value = line.rstrip(b"\r\n").partition(b": ")
            if name == b"id":
                place = value.decode("ascii", "replace")
            elif name == b"data":
                content = value
            elif line.startswith(b": end"):
                ends = True
            elif not line.strip():
                event = orjson.loads(content) if content else None
                yield Seen(place, event if isinstance(event, dict) else None, ends)
                content, ends = b"", False
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise ConsoleUnavailableError(f"The stream of {url} broke off: {type(error).__name__}.") from None
