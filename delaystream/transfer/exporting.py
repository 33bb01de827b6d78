"""Writes an export.

An ordinary export is a copy: each partition as it was when it was read, while the workers go on. A final
export is the first half of a move, and closes the application first. It takes over the partitions from their
workers, one after the other, and marks each one's state as exported. Only then does it read, so the file has
everything that the application will ever have. A second run gives the same transfer and the same lines.
"""

import hashlib
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import ExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final
from uuid import uuid4

import msgspec
from confluent_kafka import Message

from delaystream import __version__
from delaystream.client.kafka.deliveries import Delivery
from delaystream.codec.envelope import FORMAT, Meta, TransferState, encode
from delaystream.codec.keys import META
from delaystream.codec.requests.names import PREFIX
from delaystream.config import Settings
from delaystream.core.instants import format_instant
from delaystream.topics import connect, topic_ids
from delaystream.transfer import lines
from delaystream.transfer.kafka import Application, Owner, Scratch, TransferError, topic_id
from delaystream.transfer.reading import PartitionReading, UnknownState
from delaystream.transfer.sources import SourceReader

_SELECTORS: Final = (f"{PREFIX}match-", f"{PREFIX}coordinates")
_ACTION: Final = f"{PREFIX}action"

UNREAD_COUNTED: Final = 10_000
"""The count of unread requests stops at this number."""


class Export(msgspec.Struct, frozen=True):
    """The result of an export."""

    transfer: str
    anonymous: int
    schedules: int
    commands: int
    unread: dict[str, int]
    """Number of unread requests, by topic; up to `UNREAD_COUNTED` for each partition."""


class _Digesting:
    """Writes lines and keeps their digest."""

    def __init__(self, out: BinaryIO) -> None:
        self._out = out
        self._digest = hashlib.sha256()

    def write(self, line: lines.Line) -> None:
        text = lines.encoded(line)
        self._digest.update(text)
        self._out.write(text)

    @property
    def digest(self) -> str:
        return f"sha256:{self._digest.hexdigest()}"


async def export(
    application: Application,
    out: BinaryIO,
    *,
    final: bool = False,
    remembered: bool = False,
    progress: Callable[[str], None] = lambda _: None,
) -> Export:
    """Write everything pending to `out`; with `remembered` also ids that are over but not forgotten.

    A final export always has these ids. Raises TransferError, LogUnavailable, Misconfigured,
    UnavailableError.
    """
    settings, client, partitions = application
    with ExitStack() as stack:
        scratch = stack.enter_context(
            closing(
                Scratch(
                    settings, client, Path(stack.enter_context(TemporaryDirectory(prefix="delaystream-")))
                )
            )
        )
        transfer = await _close(application, scratch, progress) if final else ""
        now_ms = time.time_ns() // 1_000_000
        digesting = _Digesting(out)
        digesting.write(
            lines.Header(
                format=lines.FORMAT,
                app_id=settings.app_id,
                changelog_topic=settings.changelog_topic,
                changelog_topic_id=await topic_id(settings, client),
                partitions=partitions,
                exported_at_ms=now_ms,
                exported_at=format_instant(now_ms),
                version=__version__,
                transfer=transfer,
                final=final,
            )
        )
        sources = stack.enter_context(SourceReader(client.confluent()))
        ids = topic_ids(connect(client.confluent()), [*settings.request_topics, settings.commands_topic])
        writing = _Writing(settings, digesting, sources, ids, final=final)
        try:
            for partition in range(partitions):
                progress(f"partition {partition} of {partitions}")
                store = await scratch.copy(partition, settled=final)
                try:
                    writing.partition(PartitionReading(partition, store), remembered=remembered or final)
                finally:
                    store.close()
                    scratch.forget(partition)
            writing.in_flight()
        except TransferError as error:
            if not final:
                raise
            raise TransferError(
                f"{error} The application is closed: `delaystream export --reopen` lets its workers go on."
            ) from None
        out.write(lines.encoded(writing.end()))
        return writing.outcome(transfer)


class _Writing:
    def __init__(
        self,
        settings: Settings,
        out: _Digesting,
        sources: SourceReader,
        topic_ids: Mapping[str, str],
        *,
        final: bool,
    ) -> None:
        self._settings = settings
        #: of those request topics and commands topic that exist
        self._topic_ids = topic_ids
        self._final = final
        self._out = out
        self._sources = sources
        self._anonymous = 0
        self._schedules = 0
        self._commands = 0
        self._holds = 0
        self._unread: dict[str, int] = {}
        self._command_positions: list[lines.Position] = []

    def partition(self, reading: PartitionReading, *, remembered: bool) -> None:
        try:
            if self._final:
                reading.check()
            for rate in reading.rates():
                self._out.write(rate)
            for holding in reading.holds():
                self._out.write(holding)
                self._holds += 1
            for ended in reading.ended():
                self._out.write(ended)
            for anonymous in reading.anonymous():
                self._out.write(anonymous)
                self._anonymous += 1
            for named in reading.named(remembered=remembered):
                self._out.write(named)
                self._schedules += 1
        except UnknownState as error:
            raise TransferError(str(error)) from None
        positions = {position.topic: position for position in reading.positions()}
        for topic, id in self._topic_ids.items():
            if topic not in positions:
                # Nothing was applied from it yet, so all its records are unread.
                low, _ = self._sources.bounds(topic, reading.partition)
                positions[topic] = lines.Position(reading.partition, topic, low, id)
        commands = positions.pop(self._settings.commands_topic, None)
        if commands is not None:
            self._command_positions.append(commands)
        for position in positions.values():
            self._position(position)

    def _position(self, position: lines.Position) -> None:
        topic = position.topic
        # The topic was deleted, and perhaps created again: it has no record that this position could mean.
        if self._topic_ids.get(topic) == position.topic_id:
            unread = self._sources.count(topic, position.partition, position.next_offset, UNREAD_COUNTED)
            self._unread[topic] = self._unread.get(topic, 0) + unread
            position = msgspec.structs.replace(position, unread=unread)
        self._out.write(position)

    def in_flight(self) -> None:
        """Commands that their owners have not applied. They come last: any partition may write some."""
        for position in self._command_positions:
            found, end = self._sources.records(position.topic, position.partition, position.next_offset)
            for line in _commands(position.partition, found):
                if self._final and _for_all(line):
                    raise TransferError(
                        "A command for all partitions, or for one request by its coordinates, stands at "
                        f"{self._settings.commands_topic}/{position.partition}/{line.offset}, and is not "
                        "executed yet: let the workers execute it, then export again."
                    )
                self._out.write(line)
                self._commands += 1
            self._out.write(msgspec.structs.replace(position, next_offset=max(end, position.next_offset)))

    def end(self) -> lines.End:
        return lines.End(self._anonymous, self._schedules, self._commands, self._out.digest, self._holds)

    def outcome(self, transfer: str) -> Export:
        unread = {topic: count for topic, count in self._unread.items() if count}
        return Export(transfer, self._anonymous, self._schedules, self._commands, unread)


def _for_all(line: lines.InFlight) -> bool:
    """Whether a command is for many schedules, or for a destination."""
    return any(
        name.lower().startswith(_SELECTORS) or (name.lower() == _ACTION and value == b"rate")
        for name, value in line.headers
    )


def _commands(partition: int, found: Iterator[Message]) -> Iterator[lines.InFlight]:
    for message in found:
        record = Delivery.of_message(message)
        yield lines.InFlight(
            partition, record.offset, record.timestamp_ms, record.key, record.value, list(record.headers)
        )


async def _close(application: Application, scratch: Scratch, progress: Callable[[str], None]) -> str:
    """Mark every partition's state as exported; returns the name of the transfer."""
    partitions = application.partitions
    # Find a state that cannot be exported before any partition is closed.
    metas = await _metas(scratch, partitions, check=True)
    begun = {
        meta.transfer for meta in metas if meta is not None and meta.transfer_state == TransferState.EXPORTED
    }
    if len(begun) > 1:
        raise TransferError(f"Partitions were exported by different transfers: {', '.join(sorted(begun))}.")
    transfer = begun.pop() if begun else str(uuid4())
    for partition, meta in enumerate(metas):
        if meta is not None and meta.transfer_state == TransferState.IMPORTING:
            raise TransferError(
                f"Partition {partition} waits for the rest of transfer {meta.transfer}: end its import."
            )
        progress(f"closing partition {partition} of {partitions}")
        await _write_meta(application, partition, meta, transfer, TransferState.EXPORTED)
    return transfer


async def reopen(application: Application) -> str | None:
    """Take a final export back: workers may fire here again. Returns the transfer; None if there was none.

    Only for an export that was imported nowhere, which this code cannot check. Raises as `export` does.
    """
    settings, client, partitions = application
    with (
        TemporaryDirectory(prefix="delaystream-") as directory,
        closing(Scratch(settings, client, Path(directory))) as scratch,
    ):
        metas = await _metas(scratch, partitions)
    transfer = None
    for partition, meta in enumerate(metas):
        if meta is not None and meta.transfer_state == TransferState.EXPORTED:
            transfer = meta.transfer
            await _write_meta(application, partition, meta, "", "")
    return transfer


async def _metas(scratch: Scratch, partitions: int, *, check: bool = False) -> Sequence[Meta | None]:
    metas = []
    for partition in range(partitions):
        store = await scratch.copy(partition, settled=False)
        try:
            reading = PartitionReading(partition, store)
            if check:
                reading.check()
            metas.append(reading.meta)
        except UnknownState as error:
            raise TransferError(str(error)) from None
        finally:
            store.close()
            scratch.forget(partition)
    return metas


async def _write_meta(
    application: Application, partition: int, meta: Meta | None, transfer: str, state: str
) -> None:
    settings, client, partitions = application
    made_for = meta or Meta(partitions, FORMAT, app_id=settings.app_id)
    if made_for.app_id not in {"", settings.app_id}:
        raise TransferError(
            f"{settings.changelog_topic} belongs to the application {made_for.app_id}, and this is "
            f"{settings.app_id}."
        )
    changed = msgspec.structs.replace(
        made_for, app_id=settings.app_id, transfer=transfer, transfer_state=str(state)
    )
    async with Owner(settings, client, partition) as owner:
        await owner.write([(META, encode(changed))])
