"""What happens: events as they come, and dead letters."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import contextmanager
from typing import Annotated, Literal

import msgspec
from fastapi import APIRouter, Header, Query
from fastapi.responses import StreamingResponse

from delaystream.codec.event import Event, EventType
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.limits import TooManyOfOneCaller
from delaystream.console.access.refused import too_many
from delaystream.console.api.asking import Asked, Cursored, Entered
from delaystream.console.api.cursors import Cursors
from delaystream.console.api.models import LetterList, LetterReading
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.api.reading.schedules import LIMIT, PLACE, Limit, Text, place_of, time_ms
from delaystream.console.api.rendering import letter_body, streamed
from delaystream.console.history.database import DatabaseError
from delaystream.console.history.queries import Told
from delaystream.console.history.tail import STREAMS, Places, TooManyStreams, reached
from delaystream.console.letters.acts import UNSETTLED, Act, Key, Standing, key_of
from delaystream.console.letters.latest import Letter, LetterFilter
from delaystream.console.service import Console

_SILENCE_S = 15.0
_FULL_S = 5.0
_EVENTS = "events"
_EVENT_ID = re.compile(r"[0-9]{1,9}\.[0-9]{1,18}(-[0-9]{1,9}\.[0-9]{1,18}){0,999}", re.ASCII)

router = APIRouter()


@router.get("/dead-letters")
async def list_dead_letters(
    console: Asked,
    cursors: Cursored,
    code: str | None = None,
    request_topic: Annotated[list[str] | None, Query()] = None,
    destination: Text = None,
    id: str | None = None,
    at_from: str | None = None,
    at_to: str | None = None,
    standing: Annotated[
        list[Standing | Literal["all"]] | None,
        Query(description="How they stand; those of `open`, `sending` and `failed` need an action."),
    ] = None,
    limit: Limit = LIMIT,
    cursor: str | None = None,
) -> LetterList:
    """Dead letters, the latest first: the last 10,000 are kept here, all of them are on their topic.

    What was sent again or discarded is left out, unless `standing` asks for it.
    """
    wanted = LetterFilter(
        None if request_topic is None else frozenset(request_topic),
        code,
        destination,
        id,
        time_ms("at_from", at_from),
        time_ms("at_to", at_to),
    )
    topics = None if request_topic is None else sorted(request_topic)
    stands = frozenset(standing or UNSETTLED)
    asked = ("letters", topics, sorted(stands), msgspec.structs.replace(wanted, tenants=None))
    acts = await acts_of(console)

    def also(letter: Letter) -> bool:
        return "all" in stands or standing_of(letter, acts) in stands

    page = console.letters.page(wanted, limit, place_of(cursors, cursor, asked), also)
    return LetterList(
        items=[letter_body(letter, acts.get(key_of(letter))) for letter in page.items],
        next_cursor=cursors.cursor(None if page.next is None else PLACE.pack(*page.next), asked),
        counts=console.letters.counts(wanted.tenants, also),
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


async def acts_of(console: Console) -> Mapping[Key, Act]:
    """The last that was done about each letter that is kept. Raises DatabaseError."""
    if console.runs is None:
        return {}
    return await console.runs.redriving.last(console.letters.kept_from)


def standing_of(letter: Letter, acts: Mapping[Key, Act]) -> Standing:
    """How a letter stands."""
    act = acts.get(key_of(letter))
    return Standing.OPEN if act is None else act.standing


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
        return (
            (self.id is None or self.id in (event.schedule_id, event.id))
            and (self.types is None or event.type in self.types)
            and (self.request_topics is None or event.request_topic in self.request_topics)
            and (self.destination is None or self.destination == _destination(event))
            and self.correlation_id in (None, event.correlation_id, event.request_id)
        )


def _destination(event: Event) -> str | None:
    return event.destination or (event.definition.destination if event.definition else None)


@router.get(
    "/events",
    response_class=StreamingResponse,
    responses={
        200: {
            "description": "Server-sent events: `id` resumes the stream, `event` is the type, `data` the "
            "event as JSON (docs/events.md), with `actor_verified` where it has an actor. A comment each "
            "15 s keeps the connection.",
            "content": {"text/event-stream": {"schema": {"type": "string"}}},
        }
    },
)
async def stream_events(
    console: Asked,
    cursors: Cursored,
    entrance: Entered,
    type: Annotated[list[EventType] | None, Query()] = None,
    request_topic: Annotated[list[str] | None, Query()] = None,
    destination: Text = None,
    id: str | None = None,
    correlation_id: Text = None,
    last_event_id: Annotated[str | None, Header()] = None,
    after: Annotated[
        str | None, Query(description="As the header Last-Event-ID, for clients that cannot set headers.")
    ] = None,
    last: Annotated[
        int | None,
        Query(ge=1, le=1_000, description="Without a place, begin this many offsets back in each partition."),
    ] = None,
    until: Annotated[
        Literal["now"] | None,
        Query(description="End where the history ends now; the comment `: end` says that this was reached."),
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
    told = last_event_id if last_event_id is not None else after
    now = console.tail.now()
    places = _places(_opened(cursors, told), now)
    if not told and last is not None:
        places = {partition: max(0, offset - last) for partition, offset in now.items()}
    if console.tail.streams >= STREAMS:
        detail = f"{STREAMS} streams are open, and no more may be."
        raise too_many("too-many-streams", detail, _FULL_S)
    stream = Stream(console, entrance, cursors)
    if not entrance.limits.may_stream(console.caller.name):
        entrance.refused["too-many-streams"] += 1
        most = entrance.limits.bounds.streams
        detail = f"{console.caller.name} has {most} streams open, and no more may be."
        raise too_many("too-many-streams", detail, _FULL_S)
    headers = {"Cache-Control": "no-store", "X-Accel-Buffering": "no"}
    return StreamingResponse(
        _stream(stream, watched, places, None if until is None else now),
        media_type="text/event-stream",
        headers=headers,
    )


class Stream:
    """What one caller's stream needs."""

    def __init__(self, console: Console, entrance: Entrance, cursors: Cursors) -> None:
        self.tail = console.tail
        self.caller = console.caller
        self._entrance = entrance
        self._cursors = cursors

    @contextmanager
    def counted(self) -> Iterator[None]:
        """While it is open. Raises TooManyStreams and TooManyOfOneCaller."""
        with self.tail.counted(), self._entrance.limits.stream(self.caller.name):
            yield

    async def stands(self) -> bool:
        """Whether its caller still has the rights that it began with."""
        return await self._entrance.stands(self.caller)

    def event_id(self, places: Places) -> bytes:
        """Where it stands; sealed for whoever sees only some, because it tells how much others have."""
        plain = _event_id(places)
        if self.caller.sees_everything:
            return plain
        return (self._cursors.cursor(plain, _EVENTS) or "").encode()


async def _stream(
    stream: Stream, watched: Watched, places: Places, until: Places | None
) -> AsyncIterator[bytes]:
    try:
        with stream.counted():
            yield b"retry: 2000\nid: %b\n\n" % stream.event_id(places)
            following = stream.tail.follow(places, _SILENCE_S, stream.caller, until, watched.fits)
            async for step in following:
                if not await stream.stands():
                    # It comes again, with the rights that it has now.
                    return
                told: list[bytes] = []
                for one in step.told:
                    places[one.partition] = max(places.get(one.partition, 0), one.offset + 1)
                    type = one.event.type.value.encode()
                    told.append(
                        b"id: %b\nevent: %b\ndata: %b\n\n" % (stream.event_id(places), type, streamed(one))
                    )
                places = step.places
                # What is not meant moves the place, too: it is not looked at again.
                yield b"".join(told) or b"id: %b\n:\n\n" % stream.event_id(places)
            if until is not None and reached(places, until):
                yield b"id: %b\n: end\n\n" % stream.event_id(places)
    except DatabaseError:
        # Whoever reads it comes again, from where it stood.
        return
    except (TooManyStreams, TooManyOfOneCaller):
        return


def _opened(cursors: Cursors, told: str | None) -> str | None:
    """An event id as it is read: one that was sealed for this caller, or what it has made up."""
    if not told or _EVENT_ID.fullmatch(told) is not None:
        return told
    try:
        return (cursors.place(told, _EVENTS) or b"").decode()
    except ProblemError:
        return told


def _event_id(places: Mapping[int, int]) -> bytes:
    return "-".join(f"{partition}.{offset}" for partition, offset in sorted(places.items())).encode()


def _places(text: str | None, now: Places) -> Places:
    """Where a stream begins. Raises ProblemError for what is no event id."""
    if not text:
        return now
    if _EVENT_ID.fullmatch(text) is None:
        raise invalid("invalid-event-id", "Last-Event-ID is not an id of this stream.")
    told: Places = {}
    for part in text.split("-"):
        partition, _, offset = part.partition(".")
        told[int(partition)] = int(offset)
    # A place that lies ahead is of another topic, or of a history that was made anew.
    return {partition: min(told.get(partition, end), end) for partition, end in now.items()}
