"""Writes as typed calls: for the interface over HTTP, and for the page.

A call returns once the request's outcome is known and this console shows it, or when the caller does not wait
any longer: the work goes on either way, and `find` tells of it. What is stored before sending lets an
idempotency key repeat an outcome, also where a console ended in between: the owner of the id knows the name.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Final, Protocol

from msgspec.structs import replace

from delaystream.client.kafka.async_sending import AsyncPending
from delaystream.client.requests.composing import CheckedRequest
from delaystream.client.requests.outcomes import (
    Accepted,
    ClientError,
    ReceiptTimeout,
    RejectedError,
)
from delaystream.client.requests.payloads import Headers
from delaystream.client.requests.records import (
    RequestRecord,
    command_request,
    schedule_request,
    update_request,
)
from delaystream.codec.requests.names import PREFIX
from delaystream.console.audit.acts import Act
from delaystream.console.history.database import DatabaseError
from delaystream.console.writing.asking import LONGEST_WAIT_S, About, Asked, about_text, fingerprint
from delaystream.console.writing.ledger import Ledger
from delaystream.console.writing.outcomes import RETRIED, Busy, KeyReused, Progress, ReadOnly, Stage
from delaystream.console.writing.positions import Position, position_text
from delaystream.console.writing.sending import Sender
from delaystream.core.partitioning import owner_partition
from delaystream.engine.failures import LogUnavailable, Misconfigured

if TYPE_CHECKING:
    from delaystream.core.request import Request
    from delaystream.dialects import Dialect
    from delaystream.engine.ports import Clock

logger = logging.getLogger(__name__)

UNDERWAY: Final = 1_000
"""Most requests that wait for their outcomes; one more is refused."""
_FORGET_EVERY_S: Final = 600.0
_REQUEST_ID: Final = "delaystream-request-id"

Options = Mapping[str, Any]
"""As the client's functions take them: `delaystream.client.requests.options`."""


class Copies(Protocol):
    """What a console shows, as far as writing has to know it."""

    partitions: int

    async def ends(self, partitions: Iterable[int]) -> Position:
        """The high watermark of each partition of the changelog. Raises LogUnavailable, Misconfigured."""

    async def passed(self, position: Position) -> None:
        """Wait until every copy has applied all that is before a position."""


class Delivered(Protocol):
    """The payload of a schedule."""

    @property
    def key(self) -> bytes | None:
        """Of the record."""

    @property
    def value(self) -> bytes | None:
        """None: a tombstone."""

    @property
    def headers(self) -> Headers:
        """Those that are delivered."""


class Writing:
    """Requests and commands of callers; for one event loop.

    What a worker has refused is told like every outcome. Before anything is sent, every call raises
    RejectedError where a worker would refuse it, ValueError and TypeError for what cannot be written,
    UnknownTopic, Busy, KeyReused, ReadOnly, and DatabaseError. UnavailableError where Kafka does not take it.
    """

    def __init__(
        self, sender: Sender, copies: Copies, ledger: Ledger, clock: Clock, *, allowed: bool = True
    ) -> None:
        self.allowed = allowed
        self._sender = sender
        self._copies = copies
        self._ledger = ledger
        self._clock = clock
        self._underway: dict[str, _Work] = {}

    @property
    def topics(self) -> tuple[str, ...]:
        """The request topics."""
        return self._sender.topics

    # -- calls -------------------------------------------------------------------------------------

    async def schedule(self, asked: Asked, id: str, delivered: Delivered, options: Options) -> Progress:
        """Create a schedule, or replace it: `options` are those of `schedule_request`."""
        return await self._asked(asked, "schedule", id, self.schedule_record(asked, id, delivered, options))

    def schedule_record(self, asked: Asked, id: str, delivered: Delivered, options: Options) -> RequestRecord:
        """The record of such a request. Raises ValueError, TypeError for what cannot be written."""
        said = {**options, **self._terms(asked), "id": id}
        return schedule_request(
            asked.request_topic,
            said.pop("destination", None),
            delivered.value,
            key=delivered.key,
            headers=delivered.headers,
            **said,
        )

    def checked(self, record: RequestRecord) -> CheckedRequest:
        """The record as it would be sent; nothing is sent."""
        return self._sender.checked(record)

    async def update(self, asked: Asked, id: str, changes: Options) -> Progress:
        """Change what is given: `changes` are those of `update_request`."""
        record = update_request(asked.request_topic, id, **changes, **self._terms(asked))
        return await self._asked(asked, "update", id, record)

    async def command(
        self, asked: Asked, action: str, about: About | None, options: Options | None = None
    ) -> Progress:
        """Cancel, pause, resume, trigger or reschedule one, or what `options` select; or set a rate."""
        record = self.command_record(asked, action, about, options)
        return await self._asked(asked, action, about, record)

    def command_record(
        self, asked: Asked, action: str, about: About | None, options: Options | None = None
    ) -> RequestRecord:
        """The record of such a command. Raises ValueError, TypeError for what cannot be written."""
        said = {**(options or {}), **self._terms(asked)}
        if isinstance(about, str):
            return command_request(asked.request_topic, action, about, said)
        if about is None:
            return command_request(asked.request_topic, action, None, said)
        said["coordinates"] = about
        record = command_request(asked.request_topic, action, None, said)
        # In order with the request itself.
        return replace(record, partition=about.partition)

    async def begin(self, record: RequestRecord, request_id: str) -> AsyncPending[Accepted]:
        """Send a record for somebody who keeps an account of their own; `result()` waits for its receipt.

        Of a record that names an id the owner remembers the name of the request.
        """
        self.check_allowed()
        if record.id is not None:
            record = _with_request_id(record, request_id)
        return await self._sender.send(self._sender.checked(record))

    def check_allowed(self) -> None:
        """Raises ReadOnly where nothing may be written."""
        if not self.allowed:
            raise ReadOnly("This console writes nothing: its setting console_writes is off.")

    async def request(self, asked: Asked, action: str, record: RequestRecord) -> Progress:
        """Send a request that is composed already: it says who asks, and why."""
        return await self._asked(asked, action, record.id, record)

    def read(self, record: RequestRecord) -> Request:
        """The parsed request of a record. Raises RejectedError, ValueError, UnknownTopic."""
        return self._sender.read(record)

    def dialects(self, topic: str) -> Sequence[Dialect]:
        """Other systems whose headers the requests of a topic may use."""
        return self._sender.dialects(topic)

    async def find(self, request_id: str) -> Progress | None:
        """How far a request is; None where nothing is known of it. Raises DatabaseError."""
        work = self._underway.get(request_id)
        if work is not None:
            return work.progress
        return await asyncio.to_thread(self._ledger.find, request_id)

    # -- the way of one request --------------------------------------------------------------------

    def _terms(self, asked: Asked) -> dict[str, Any]:
        terms = {"actor": asked.actor, "note": asked.note, "if_version": asked.if_version}
        return {name: value for name, value in terms.items() if value is not None}

    async def _asked(self, asked: Asked, action: str, about: About | None, record: RequestRecord) -> Progress:
        self.check_allowed()
        request_id = asked.request_id
        told = fingerprint(record)
        if isinstance(about, str) and not any(name.lower() == _REQUEST_ID for name, _ in record.headers):
            header = (_REQUEST_ID, request_id.encode())
            record = replace(record, headers=[*record.headers, header])
        request = self._sender.checked(record)
        work = self._underway.get(request_id)
        if work is None:
            if len(self._underway) >= UNDERWAY:
                raise Busy(f"{UNDERWAY} requests are under way; expected fewer. Nothing was sent.")
            progress = Progress(
                request_id=request_id,
                request_topic=asked.request_topic,
                action=action,
                about=about_text(about),
                asked_ms=self._clock.now_ms(),
            )
            # Without a step in between: nobody begins the same at the same time.
            act = Act(
                who=asked.who,
                action=action,
                request_topic=asked.request_topic,
                about=progress.about,
                note=asked.note,
                request_id=request_id,
            )
            work = self._underway[request_id] = _Work(progress, told, act)
            owner = about if isinstance(about, str) else None
            work.task = asyncio.create_task(
                self._carried_out(work, request, owner), name=f"write {request_id}"
            )
            work.task.add_done_callback(_ended)
        if work.fingerprint != told:
            raise _reused(asked)
        assert work.task is not None
        # The work goes on, whoever waits for it.
        await asyncio.wait([work.task], timeout=asked.wait_s)
        if work.task.done() and not work.task.cancelled():
            work.task.result()
        if work.other_fingerprint:
            raise _reused(asked)
        return work.progress

    async def _carried_out(self, work: _Work, request: CheckedRequest, owner: str | None) -> None:
        request_id = work.progress.request_id
        try:
            begun = await asyncio.to_thread(self._ledger.begin, work.progress, work.fingerprint, work.act)
            work.entry = begun.entry
            if begun.fingerprint != work.fingerprint:
                work.other_fingerprint = True
                return
            known = begun.progress
            if known.stage is Stage.DECIDED and known.code not in RETRIED:
                work.progress = known
                await self._shown(work, owner)
                return
            await self._sent(work, request)
            await self._shown(work, owner)
        finally:
            del self._underway[request_id]

    async def _sent(self, work: _Work, request: CheckedRequest) -> None:
        """Send it, and wait for its receipt."""
        try:
            pending = await self._sender.send(request)
            sent = await pending.sent()
            await self._tell(work, stage=Stage.SENT, source=sent.source.text, problem=None, receipt=None)
            accepted = await pending.result()
        except RejectedError as rejected:
            # It was checked before: only a receipt refuses it.
            body = None if rejected.receipt is None else rejected.receipt.body
            await self._tell(work, stage=Stage.DECIDED, receipt=body)
        except ReceiptTimeout as silence:
            await self._tell(work, problem=str(silence))
        except ClientError as failure:
            await self._tell(work, stage=Stage.FAILED, problem=str(failure))
            raise
        else:
            await self._tell(work, stage=Stage.DECIDED, receipt=_body(accepted))

    async def _shown(self, work: _Work, owner: str | None) -> None:
        """Wait until the copies have what the request's transaction wrote, where it wrote anything."""
        progress = work.progress
        if progress.stage is not Stage.DECIDED or progress.outcome == "rejected":
            return
        partitions = range(self._copies.partitions)
        if owner is not None:
            partitions = range((mine := owner_partition(owner, self._copies.partitions)), mine + 1)
        try:
            # By now everything that it wrote is in the log, be it that the last stable offset lags behind.
            position = await self._copies.ends(partitions)
        except (LogUnavailable, Misconfigured) as problem:
            logger.warning("a write cannot be waited for: %s", problem)
            return
        await self._tell(work, position=position_text(position))
        try:
            async with asyncio.timeout(LONGEST_WAIT_S):
                await self._copies.passed(position)
        except TimeoutError:
            # Nobody waits any longer, and others need the place. Whoever asks later is told by the position.
            return
        work.progress = replace(work.progress, shown=True)

    async def _tell(self, work: _Work, **differing: Any) -> None:
        work.progress = replace(work.progress, **differing)
        try:
            await asyncio.to_thread(self._ledger.tell, work.progress, work.entry)
        except DatabaseError as problem:
            # The outcome is known all the same; a repeated key asks the owner, who knows it, too.
            logger.warning("request %s: %s", work.progress.request_id, problem)

    # -- life --------------------------------------------------------------------------------------

    def forget(self, now_ms: int) -> int:
        """Forget what was asked for over a day ago; how many requests. It blocks. Raises DatabaseError."""
        return self._ledger.forget(now_ms)

    async def run(self) -> None:
        """Forget what is too old, until cancelled."""
        while True:
            try:
                await asyncio.to_thread(self.forget, self._clock.now_ms())
            except DatabaseError as problem:
                logger.warning("cannot delete old requests: %s", problem)
            await asyncio.sleep(_FORGET_EVERY_S)

    async def close(self) -> None:
        """Stop waiting, and close every connection."""
        tasks = [work.task for work in self._underway.values() if work.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self._sender.close()


class _Work:
    """A request under way."""

    def __init__(self, progress: Progress, fingerprint: str, act: Act) -> None:
        self.progress = progress
        self.fingerprint = fingerprint
        self.act = act
        self.entry = 0
        """Its number in the audit log, once it is there."""
        self.other_fingerprint = False
        """Whether the same name was used for something else before."""
        self.task: asyncio.Task[None] | None = None


def _ended(task: asyncio.Task[None]) -> None:
    """Whoever waits is told; where nobody does any more, the ledger has it."""
    if not task.cancelled() and (failure := task.exception()) is not None:
        logger.warning("%s failed: %s", task.get_name(), failure)


def _with_request_id(record: RequestRecord, request_id: str) -> RequestRecord:
    header = (f"{PREFIX}request-id", request_id.encode())
    return replace(record, headers=[*record.headers, header])


def _body(accepted: Accepted) -> Mapping[str, Any]:
    assert accepted.receipt is not None
    return accepted.receipt.body


def _reused(asked: Asked) -> KeyReused:
    key = asked.key or ""
    return KeyReused(
        f"Idempotency-Key {key[:60]!r} came with another request within the last day; expected a new one for "
        "another request, or the same request."
    )
