"""Dead letters are looked at, repaired, sent again, discarded and taken up again."""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping, Sequence
from contextlib import aclosing, asynccontextmanager
from hashlib import blake2b
from http import HTTPStatus
from typing import Annotated, Any, Final, NamedTuple, TypeVar

import msgspec
from fastapi import APIRouter, Body, Depends, Path, Request, Response
from msgspec import UNSET
from msgspec.structs import replace
from pydantic import Field

from delaystream.client.requests.outcomes import RejectedError
from delaystream.client.requests.records import RequestRecord
from delaystream.console.access import attempts
from delaystream.console.access.caller import Role
from delaystream.console.access.refused import forbidden
from delaystream.console.access.rights import permit
from delaystream.console.api.asking import Asked
from delaystream.console.api.changing.answers import Responses, refusal, told
from delaystream.console.api.changing.bodies import Noted, header_pairs, key_of, value_of
from delaystream.console.api.changing.conditions import Conditioned, Conditions
from delaystream.console.api.changing.guard import guard
from delaystream.console.api.models import (
    DifferenceBody,
    HeaderBytes,
    LetterCheck,
    LetterDetail,
    LetterRun,
    LetterRuns,
    LetterSample,
    LettersDone,
    LettersLook,
)
from delaystream.console.api.problems import ProblemError, invalid, unknown
from delaystream.console.api.reading.happening import acts_of, standing_of
from delaystream.console.api.reading.schedules import time_ms
from delaystream.console.api.rendering import (
    act_body,
    header_texts,
    letter_body,
    payload_of,
)
from delaystream.console.letters.acts import Act, Run, Standing
from delaystream.console.letters.advice import advice
from delaystream.console.letters.latest import Kind, Letter, LetterFilter
from delaystream.console.letters.originals import Original
from delaystream.console.letters.redriving import Conflict
from delaystream.console.letters.repair import AS_IT_IS, Repair, RepairError, differences, unsendable
from delaystream.console.letters.runs import (
    LEAST_RATE,
    MOST,
    MOST_RATE,
    RATE,
    Progressed,
    Runs,
    Sample,
    Wanted,
)
from delaystream.console.service import Console
from delaystream.console.writing.asking import Asked as Asking
from delaystream.console.writing.outcomes import UnknownTopic
from delaystream.core.request import IfExists
from delaystream.engine.failures import LogUnavailable, Misconfigured

router = APIRouter(tags=["dead letters"], dependencies=[Depends(guard)])
asking = APIRouter(tags=["dead letters"])

_PLACE: Final = re.compile(r"([0-9]{1,9})\.([0-9]{1,18})", re.ASCII)
_LOOKED: Final = frozenset({Standing.OPEN, Standing.FAILED})
_SHOWN_BYTES: Final = 4_096
_LOOKS: Final[Responses] = {
    200: {"description": "How it stands now: `last_act` has the outcome, also a refusal by the worker."},
    202: {"model": LetterDetail, "description": "It is under way: `Location` has the outcome."},
}
_RUN: Final[Responses] = {202: {"description": "It has begun; `Location` tells how far it is."}}

T = TypeVar("T")

Pair = Annotated[list[str | HeaderBytes | None], Field(min_length=2, max_length=2)]


class RepairBody(Noted):
    """What is to be another than in the letter; empty: it is sent as it is."""

    set: list[Pair] | None = Field(
        None, description="Headers, as pairs of a name and a value: each replaces all headers of its name."
    )
    remove: list[str] | None = Field(None, description="Names of headers to leave out.")
    if_exists: IfExists | None = Field(
        None, description="If its id is in use: `keep` (default), `replace` or `reject`.", strict=False
    )

    def repair(self) -> Repair:
        """As a value. Raises ProblemError."""
        return Repair(
            set=header_pairs("set", self.set or []),
            remove=self.remove or [],
            if_exists=self.if_exists,
        )


class Redriven(RepairBody):
    """A letter that is to be sent again."""

    destination: str | None = Field(None, description="The destination, in place of the letter's.")
    value: str | None = Field(None, description="Text in place of its value. null: a tombstone.")
    value_json: Any = Field(None, description="Any JSON, likewise.")
    value_base64: str | None = None
    key: str | None = Field(None, description="In place of its key. null: without one.")
    key_base64: str | None = None
    again: bool = Field(
        False,
        description="Also if it was sent again and accepted before, or discarded; otherwise 409.",
    )

    def repair(self) -> Repair:
        """As a value. Raises ProblemError."""
        keyed = self.model_fields_set & {"key", "key_base64"}
        return replace(
            super().repair(),
            destination=self.destination,
            value=value_of(self),
            key=key_of(self.key, self.key_base64, "key") if keyed else UNSET,
        )


class Chosen(Noted):
    """Which letters are meant: a list, or a filter of those that are kept and open. All that is given."""

    places: list[str] | None = Field(None, description="Their names.", max_length=MOST)
    code: str | None = None
    request_topic: list[str] | None = None
    destination: str | None = None
    id: str | None = None
    at_from: str | None = Field(None, description="Not before.")
    at_to: str | None = Field(None, description="Before.")


class RedrivenTogether(Chosen, RepairBody):
    """Letters that are to be sent again, all with the same repair."""

    new_destination: str | None = Field(None, description="The destination of all of them.")
    dry_run: bool = Field(False, description="Only say what would be sent: how many, and some of them.")
    rate: float = Field(RATE, ge=LEAST_RATE, le=MOST_RATE, description="Letters a second.")

    def repair(self) -> Repair:
        """As a value. Raises ProblemError."""
        return replace(super().repair(), destination=self.new_destination)

    @property
    def fingerprint(self) -> str:
        """The same for the same request. A filter is taken as it is given: what matches it changes."""
        places = None if self.places is None else sorted(self.places)
        topics = None if self.request_topic is None else sorted(self.request_topic)
        times = (self.at_from, self.at_to)
        about = (places, self.code, topics, self.destination, self.id, times)
        asked = (about, self.repair().fingerprint, self.rate)
        return blake2b(msgspec.msgpack.encode(asked), digest_size=16).hexdigest()


class Discarded(Noted):
    """Why it is discarded, or taken up again."""


class OpenedLetter(NamedTuple):
    """A letter that the caller sees, and what acts on it."""

    runs: Runs
    original: Original


async def _open(
    console: Asked, place: Annotated[str, Path(description="`partition.offset`, as lists have it.")]
) -> OpenedLetter:
    """Raises ProblemError."""
    runs = runs_of(console)
    found = _PLACE.fullmatch(place)
    original = None
    if found is not None:
        original = await kafka(runs.redriving.originals.one(int(found[1]), int(found[2])))
    if original is None or not console.caller.sees(original.letter.request_topic):
        raise unknown(f"No dead letter {place[:60]!r} is known.")
    return OpenedLetter(runs, original)


Opened = Annotated[OpenedLetter, Depends(_open)]


@asking.get("/dead-letters/runs")
async def list_runs(console: Asked) -> LetterRuns:
    """The latest of those that were sent again together, the latest first."""
    latest = await runs_of(console).latest()
    return LetterRuns(items=[run_body(run, counts) for run, counts in latest if _sees_run(console, run)])


@asking.get("/dead-letters/runs/{run}")
async def get_run(console: Asked, run: str) -> LetterRun:
    """Letters that were sent again together, and how far that is."""
    found = await seen_run(console, run)
    return run_body(found.run, found.counts)


@router.post("/dead-letters/runs/{run}/stop")
async def stop_run(console: Asked, run: str, _: Annotated[Noted | None, Body()] = None) -> LetterRun:
    """Send nothing more of a run; what was sent stands."""
    runs = runs_of(console)
    found = await seen_run(console, run)
    for topic in found.run.request_topics:
        if not console.caller.may(Role.ADMIN, topic or None):
            raise forbidden(
                "role-too-low", f"{console.caller.name} may not stop this: it needs the role admin."
            )
    if not runs.stop(run) and found.run.stage == "running":
        raise ProblemError(HTTPStatus.CONFLICT, "not-here", "Another console runs it: ask that one.")
    again = await seen_run(console, run)
    return run_body(again.run, again.counts)


@asking.get("/dead-letters/{place}")
async def get_dead_letter(console: Asked, opened: Opened, payload: bool = False) -> LetterDetail:
    """One dead letter as it stands on its topic, and what was done about it."""
    topic = opened.original.letter.request_topic
    if payload and not console.caller.reads_payload(topic):
        detail = f"{console.caller.name} may not see payloads: ask without payload=true."
        raise ProblemError(HTTPStatus.FORBIDDEN, "payload-not-allowed", detail)
    return await detail_of(console, opened, payload=payload)


@router.post("/dead-letters/{place}/check")
async def check_dead_letter(
    console: Asked, on: Conditioned, opened: Opened, body: Annotated[Redriven | None, Body()] = None
) -> LetterCheck:
    """What a redrive with this repair would send, held to the header contract; nothing is sent."""
    attempts.asks()
    said = body or Redriven()
    asked = asked_for(console, on, opened.original.letter, said.note)
    return checked(console, opened, said.repair(), asked)


@router.post("/dead-letters/{place}/redrive", responses=_LOOKS)
async def redrive_dead_letter(
    console: Asked,
    request: Request,
    response: Response,
    on: Conditioned,
    opened: Opened,
    body: Annotated[Redriven | None, Body()] = None,
) -> LetterDetail:
    """Send a letter again, repaired or as it is: once, however often it is asked for."""
    said = body or Redriven()
    asked = asked_for(console, on, opened.original.letter, said.note)
    act = await acted(opened.runs.redriving.redrive(opened.original, said.repair(), asked, again=said.again))
    if act.standing is Standing.SENDING:
        response.status_code = HTTPStatus.ACCEPTED
        response.headers["Location"] = f"/v1/dead-letters/{opened.original.letter.name}"
    return await detail_of(console, opened)


@router.post("/dead-letters/{place}/discard")
async def discard_dead_letter(
    console: Asked, on: Conditioned, opened: Opened, body: Annotated[Discarded | None, Body()] = None
) -> LetterDetail:
    """Set a letter aside: lists leave it out. It stays on its topic."""
    return await _set_aside(console, on, opened, body, opened.runs.redriving.discard)


@router.post("/dead-letters/{place}/reopen")
async def reopen_dead_letter(
    console: Asked, on: Conditioned, opened: Opened, body: Annotated[Discarded | None, Body()] = None
) -> LetterDetail:
    """Take back that a letter was discarded."""
    return await _set_aside(console, on, opened, body, opened.runs.redriving.reopen)


@router.post("/dead-letters/redrive", responses=_RUN)
async def redrive_dead_letters(
    console: Asked, response: Response, on: Conditioned, body: Annotated[RedrivenTogether, Body()]
) -> LettersLook | LetterRun:
    """Send several letters again, at a bounded rate; or, with `dry_run`, say which that would be."""
    runs = runs_of(console)
    letters = await chosen(console, body)
    asked = _asked_together(console, on, letters, body.note)

    def asked_of(letter: Letter) -> Asking:
        if (why := unsendable(letter)) is not None:
            raise RepairError("not-redrivable", why)
        topic = _goes_to(console, letter)
        if topic not in asked:
            raise RepairError("unknown-request-topic", f"{(topic or '')[:60]!r} is not a request topic.")
        return asked[topic]

    wanted = Wanted(
        letters=letters,
        repair=body.repair(),
        asked_of=asked_of,
        caller=console.caller,
        fingerprint=body.fingerprint,
        rate=body.rate,
    )
    if body.dry_run:
        attempts.asks()
        look = await kafka(runs.look(wanted))
        return LettersLook(
            total=look.total,
            refused=look.refused,
            samples=[sample_body(console, one) for one in look.samples],
            at_to=console.clock.now_ms(),
        )
    name = replace(on.by(body.note), request_topic="dead letters").made_up_id
    if (known := await told(runs.known(name, wanted.fingerprint))) is not None:
        # Of those of a filter none may be open any more.
        return await _begun(console, response, known.run)
    if not letters or not asked:
        raise unknown("No dead letter matches that is open, and that you may send again.")
    if not on.writing.allowed:
        raise ProblemError(HTTPStatus.FORBIDDEN, "read-only", "This console writes nothing.")
    first = next(iter(asked.values()))
    # No letter's own: two runs may have the same letter.
    asked |= {topic: replace(one, key=None, wait_s=_FOLLOWED_S) for topic, one in asked.items()}
    run = await told(runs.begin(name, wanted, first))
    return await _begun(console, response, run.run)


async def _begun(console: Console, response: Response, run: str) -> LetterRun:
    """How far a run is. Raises ProblemError."""
    found = await seen_run(console, run)
    response.status_code = HTTPStatus.ACCEPTED
    response.headers["Location"] = f"/v1/dead-letters/runs/{run}"
    return run_body(found.run, found.counts)


@router.post("/dead-letters/discard")
async def discard_dead_letters(
    console: Asked, on: Conditioned, body: Annotated[Chosen, Body()]
) -> LettersDone:
    """Set several letters aside."""
    letters = await chosen(console, body)
    if not letters:
        return LettersDone(count=0)
    for topic in {letter.request_topic for letter in letters}:
        permit(console.caller, Role.ADMIN, topic)
    asked = on.by(body.note)
    return LettersDone(count=await runs_of(console).redriving.discard(letters, asked))


_FOLLOWED_S: Final = 600.0


def runs_of(console: Console) -> Runs:
    """What is done about letters. Raises ProblemError where nothing is."""
    if console.runs is None:
        raise ProblemError(
            HTTPStatus.FORBIDDEN, "read-only", "This console cannot send dead letters again or discard them."
        )
    return console.runs


def target(console: Console, letter: Letter) -> str | None:
    """The request topic that a letter goes back to; None: its caller has to say it."""
    topics = () if console.writing is None else console.writing.topics
    return letter.request_topic if letter.request_topic in topics else None


def asked_for(console: Console, on: Conditions, letter: Letter, note: str | None) -> Asking:
    """Who asks for a redrive. Raises ProblemError, Refused."""
    attempts.about(letter.request_topic, f"dead letter {letter.name}", note)
    if (why := unsendable(letter)) is not None:
        raise ProblemError(HTTPStatus.CONFLICT, "not-redrivable", why)
    if letter.kind is not Kind.DELIVERY:
        # Its own, and no other: that is another's.
        return on.of_topic(note, letter.request_topic)
    return on.of_topic(note, target(console, letter))


def may_send(console: Console, letter: Letter) -> bool:
    """Whether the caller may send a letter again, and it can be."""
    if console.writing is None or not console.writing.allowed or unsendable(letter) is not None:
        return False
    topic = target(console, letter)
    topics = topics_to_choose(console, letter) if topic is None else [topic]
    return any(console.caller.may(Role.OPERATOR, one) for one in topics)


def topics_to_choose(console: Console, letter: Letter) -> list[str]:
    """The request topics that a letter may go to, where it does not say it itself."""
    if console.writing is None or letter.kind is not Kind.DELIVERY or target(console, letter) is not None:
        return []
    return [topic for topic in console.writing.topics if console.caller.sees(topic)]


async def detail_of(console: Console, opened: OpenedLetter, *, payload: bool = False) -> LetterDetail:
    """One letter, as the caller sees it."""
    original, redriving = opened.original, opened.runs.redriving
    letter = original.letter
    acts = await redriving.done(letter)
    seen = console.letters.shown(letter)
    body = letter_body(seen, acts[-1] if acts else None)
    return LetterDetail(
        **dict(body),
        advice=advice(letter),
        acts=[act_body(act) for act in acts],
        payload=payload_of(original.key, original.value, original.headers) if payload else None,
        as_it_is=_as_it_is(console, opened),
    )


def _as_it_is(console: Console, opened: OpenedLetter) -> LetterCheck | None:
    if console.writing is None:
        return None
    letter = opened.original.letter
    if letter.kind is Kind.DELIVERY:
        topic = target(console, letter) or next(iter(console.writing.topics))
    else:
        topic = letter.request_topic or ""
    return checked(console, opened, AS_IT_IS, Asking(console.caller.who, topic))


def checked(console: Console, opened: OpenedLetter, repair: Repair, asked: Asking) -> LetterCheck:
    """What a repair makes of a letter, or why nothing."""
    original = opened.original
    try:
        record = opened.runs.redriving.record(original, repair, asked)
    except (RejectedError, RepairError) as refused:
        return _refused(asked.request_topic, refused.code, refused.detail)
    except (ValueError, TypeError, UnknownTopic) as error:
        return _refused(asked.request_topic, "invalid-parameter", str(error))
    return _sendable(console, original, record)


def sample_body(console: Console, sample: Sample) -> LetterSample:
    """One letter of a look."""
    letter = sample.original.letter
    topic = target(console, letter) or letter.request_topic
    check = (
        _refused(topic, sample.code or "", sample.detail or "")
        if sample.record is None
        else _sendable(console, sample.original, sample.record)
    )
    return LetterSample(letter=letter_body(console.letters.shown(letter), None), check=check)


def _refused(topic: str | None, code: str, detail: str) -> LetterCheck:
    return LetterCheck(
        sendable=False,
        code=code,
        detail=detail if detail.endswith(".") else f"{detail}.",
        request_topic=topic,
        id=None,
        headers=[],
        differences=[],
        due_at=[],
    )


def _sendable(console: Console, original: Original, record: RequestRecord) -> LetterCheck:
    letter, caller = original.letter, console.caller
    payload, key = caller.reads_payload(letter.request_topic), caller.reads_key(letter.request_topic)
    shown = [
        one
        for one in differences(original, record)
        if payload or (key and one.name == "key" and not one.is_header) or _is_ours(one.name, one.is_header)
    ]
    headers = [pair for pair in record.headers if payload or _is_ours(pair[0], True)]
    assert console.writing is not None
    due = console.writing.checked(record).checker.due_at(record, console.clock.now_ms())
    return LetterCheck(
        sendable=True,
        code=None,
        detail=None,
        request_topic=record.topic,
        id=record.id,
        headers=header_texts(headers),
        differences=[
            DifferenceBody(
                name=header_texts([(one.name, None)])[0][0],
                header=one.is_header,
                before=[_text(content) for content in one.before],
                after=[_text(content) for content in one.after],
            )
            for one in shown
        ],
        due_at=[round(at.timestamp() * 1000) for at in due],
    )


def _is_ours(name: str, is_header: bool) -> bool:
    return is_header and name.lower().startswith("delaystream-")


def _text(content: bytes | None) -> str | None:
    if content is None:
        return None
    shown = content[:_SHOWN_BYTES].decode("utf-8", "backslashreplace")
    return shown if len(content) <= _SHOWN_BYTES else f"{shown}… ({len(content)} bytes)"


def run_body(run: Run, counts: Mapping[Standing, int]) -> LetterRun:
    """A run, and how far it is."""
    return LetterRun(
        run=run.run,
        stage=run.stage,
        actor=run.actor,
        note=run.note,
        asked_at=run.asked_ms,
        total=run.total,
        standing={standing.value: count for standing, count in counts.items()},
        refused=dict(run.refused),
    )


async def seen_run(console: Console, run: str) -> Progressed:
    """A run that the caller sees. Raises ProblemError."""
    found = await runs_of(console).find(run)
    if found is None or not _sees_run(console, found.run):
        raise unknown(f"No run {run[:60]!r} of dead letters is known.")
    return found


def _sees_run(console: Console, run: Run) -> bool:
    return all(console.caller.sees(topic or None) for topic in run.request_topics)


async def _set_aside(
    console: Console,
    on: Conditions,
    opened: OpenedLetter,
    body: Discarded | None,
    work: Callable[[Sequence[Letter], Asking], Awaitable[int]],
) -> LetterDetail:
    letter = opened.original.letter
    attempts.about(letter.request_topic, f"dead letter {letter.name}")
    permit(console.caller, Role.OPERATOR, letter.request_topic)
    await work([letter], on.by(None if body is None else body.note))
    return await detail_of(console, opened)


async def chosen(console: Console, body: Chosen) -> list[Letter]:
    """The letters that are meant, of those that the caller may act on together. Raises ProblemError."""
    caller = console.caller
    if body.places is not None:
        found = await _named(console, body.places)
    else:
        wanted = LetterFilter(
            None if body.request_topic is None else frozenset(body.request_topic),
            body.code,
            body.destination,
            body.id,
            time_ms("at_from", body.at_from),
            time_ms("at_to", body.at_to),
        )
        if wanted == LetterFilter():
            raise invalid(
                "invalid-match",
                "No letters are selected; expected places, code, request_topic, destination, "
                "id, at_from or at_to.",
            )
        for topic in body.request_topic or ():
            if caller.sees(topic):
                permit(console.caller, Role.ADMIN, topic)
        acts = await acts_of(console)
        found = list(console.letters.fitting(wanted, lambda letter: standing_of(letter, acts) in _LOOKED))
    return [letter for letter in found if caller.may(Role.ADMIN, letter.request_topic)]


async def _named(console: Console, places: Sequence[str]) -> list[Letter]:
    originals = runs_of(console).redriving.originals
    offsets: dict[int, list[int]] = {}
    for place in places:
        named = _PLACE.fullmatch(place)
        if named is None:
            raise invalid(
                "invalid-place", f"{place[:60]!r} is not a place of a letter; expected one such as '0.12'."
            )
        if int(named[1]) < originals.partitions:
            offsets.setdefault(int(named[1]), []).append(int(named[2]))
    found: list[Letter] = []
    for partition, some in offsets.items():
        async with _problems(), aclosing(originals.several(partition, some)) as there:
            async for original in there:
                if console.caller.sees(original.letter.request_topic):
                    permit(console.caller, Role.ADMIN, original.letter.request_topic)
                    found.append(original.letter)
    return found


def _asked_together(
    console: Console, on: Conditions, letters: Sequence[Letter], note: str | None
) -> dict[str | None, Asking]:
    """Who asks, for each request topic that letters go back to. Raises ProblemError, Refused."""
    sendable = [letter for letter in letters if unsendable(letter) is None]
    return {
        topic: on.of_topic(note, topic, Role.ADMIN)
        for topic in dict.fromkeys(_goes_to(console, letter) for letter in sendable)
        if topic is None or topic in on.writing.topics
    }


def _goes_to(console: Console, letter: Letter) -> str | None:
    return target(console, letter) if letter.kind is Kind.DELIVERY else letter.request_topic


async def acted(work: Awaitable[Act]) -> Act:
    """What a redrive came to. Raises ProblemError."""

    async def awaited() -> Act:
        return await work

    try:
        return await told(awaited())
    except Conflict as conflict:
        status = HTTPStatus.CONFLICT
        if conflict.code == "idempotency-key-reused":
            status = HTTPStatus.UNPROCESSABLE_ENTITY
        raise ProblemError(status, conflict.code, str(conflict)) from None
    except RepairError as error:
        if error.code == "not-redrivable":
            raise ProblemError(HTTPStatus.CONFLICT, error.code, error.detail) from None
        raise refusal(error.code, error.detail) from None


async def kafka(work: Awaitable[T]) -> T:
    """What is read from Kafka. Raises ProblemError where that cannot be read now."""
    async with _problems():
        return await work


@asynccontextmanager
async def _problems() -> AsyncIterator[None]:
    try:
        yield
    except (LogUnavailable, Misconfigured) as problem:
        raise ProblemError(
            HTTPStatus.SERVICE_UNAVAILABLE,
            "kafka-unavailable",
            f"The dead letters cannot be read: {problem}.",
        ) from None
