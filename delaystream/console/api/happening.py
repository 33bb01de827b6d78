"""What happens: events as they come, and dead letters."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Mapping
from http import HTTPStatus
from typing import Annotated

import msgspec
from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from delaystream.codec.event import EventType
from delaystream.console.api import cursors
from delaystream.console.api.models import LetterList, LetterReading
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.api.reading import LIMIT, PLACE, Asked, Limit, Text, place_of, time_ms
from delaystream.console.api.rendering import letter_body
from delaystream.console.history.database import DatabaseError
from delaystream.console.history.queries import Told
from delaystream.console.history.tail import STREAMS, Places, Tail, TooManyStreams
from delaystream.console.letters import LetterFilter

_SILENCE_S = 15.0
_EVENT_ID = re.compile(r"[0-9]{1,9}\.[0-9]{1,18}(-[0-9]{1,9}\.[0-9]{1,18}){0,999}", re.ASCII)

router = APIRouter()


@router.get("/dead-letters")
async def list_dead_letters(
    console: Asked,
    code: str | None = None,
    request_topic: Annotated[list[str] | None, Query()] = None,
    destination: Text = None,
    id: str | None = None,
    at_from: str | None = None,
    at_to: str | None = None,
    limit: Limit = LIMIT,
    cursor: str | None = None,
) -> LetterList:
    """Dead letters, the latest first: the last 10,000 are kept here, all of them are on their topic."""
    wanted = LetterFilter(
        None if request_topic is None else frozenset(request_topic),
        code,
        destination,
        id,
        time_ms("at_from", at_from),
        time_ms("at_to", at_to),
    )
    topics = None if request_topic is None else sorted(request_topic)
    asked = ("letters", topics, msgspec.structs.replace(wanted, tenants=None))
    page = console.letters.page(wanted, limit, place_of(cursor, asked))
    return LetterList(
        items=[letter_body(letter) for letter in page.items],
        next_cursor=cursors.cursor(None if page.next is None else PLACE.pack(*page.next), asked),
        counts=console.letters.counts(wanted.tenants),
        reading=[
            LetterReading(
                partition=status.partition,
                position=status.position,
                end=status.end,
                kept_from=status.kept_from,
                skipped=status.skipped,
                problem=status.problem,
            )
            for status in console.letters.statuses
        ],
    )


class Watched(msgspec.Struct, frozen=True):
    """Which events are meant; None: any."""

    types: frozenset[EventType] | None
    request_topics: frozenset[str] | None
    destination: str | None
    id: str | None
    correlation_id: str | None = None

    def fits(self, told: Told) -> bool:
        """Whether an event is meant."""
        event = told.event
        destination = event.destination or (event.definition.destination if event.definition else None)
        return (
            (self.types is None or event.type in self.types)
            and (self.request_topics is None or event.request_topic in self.request_topics)
            and (self.destination is None or destination == self.destination)
            and self.id in (None, event.id, event.schedule_id)
            and self.correlation_id in (None, event.correlation_id, event.request_id)
        )


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `id` resumes the stream, `event` is the type, `data` the "
            "event as JSON (docs/events.md). A comment each 15 s keeps the connection.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def stream_events(
    console: Asked,
    type: Annotated[list[EventType] | None, Query()] = None,
    request_topic: Annotated[list[str] | None, Query()] = None,
    destination: Text = None,
    id: str | None = None,
    correlation_id: Text = None,
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[
        str | None, Query(description="As the header Last-Event-ID, for who cannot set one.")
    ] = None,
) -> StreamingResponse:
    """Events as they happen, or from one on that was seen last, as far as the history goes."""
    watched = Watched(
        None if type is None else frozenset(type),
        None if request_topic is None else frozenset(request_topic),
        destination,
        id,
        correlation_id,
    )
    places = _places(last_event_id if last_event_id is not None else after, console.tail.now())
    if console.tail.streams >= STREAMS:
        detail = f"{STREAMS} streams are open, and no more may be."
        raise ProblemError(HTTPStatus.TOO_MANY_REQUESTS, "too-many-streams", detail)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        _stream(console.tail, watched, places), media_type="text/event-stream", headers=headers
    )


async def _stream(tail: Tail, watched: Watched, places: Places) -> AsyncIterator[bytes]:
    try:
        with tail.counted():
            yield b"retry: 2000\nid: %b\n\n" % _event_id(places)
            async for some, behind in tail.follow(places, _SILENCE_S):
                told = b""
                for one in some:
                    places[one.partition] = max(places.get(one.partition, 0), one.offset + 1)
                    if watched.fits(one):
                        told += b"id: %b\nevent: %b\ndata: %b\n\n" % (
                            _event_id(places),
                            one.event.type.value.encode(),
                            msgspec.json.encode(one.event),
                        )
                if not told or places != behind:
                    # What is not meant, or no event, moves the place, too: it is not looked at again.
                    places = behind
                    told += b"id: %b\n:\n\n" % _event_id(places)
                yield told
    except DatabaseError:
        # Whoever reads it comes again, from where it stood.
        return
    except TooManyStreams:
        return


def _event_id(places: Mapping[int, int]) -> bytes:
    return "-".join(f"{partition}.{offset}" for partition, offset in sorted(places.items())).encode()


def _places(text: str | None, now: Places) -> Places:
    """Where a stream begins. Raises ProblemError for what is no event id."""
    if not text:
        return now
    if _EVENT_ID.fullmatch(text) is None:
        raise invalid("invalid-event-id", "Last-Event-ID is none of this stream's ids.")
    told: Places = {}
    for part in text.split("-"):
        partition, _, offset = part.partition(".")
        told[int(partition)] = int(offset)
    # A place that lies ahead is of another topic, or of a history that was made anew.
    return {partition: min(told.get(partition, end), end) for partition, end in now.items()}
