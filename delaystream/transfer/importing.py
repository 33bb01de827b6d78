"""Reads an export into an application that has no state yet.

1. The file is read from beginning to end and checked: every line, the counts, the digest.
2. Every partition of the application is taken over from its worker. It must be empty, or hold a part of this
   very file. Its state is marked as being imported, and no worker fires from it.
3. The rows are written. The same file always gives the same rows, in every run.
4. Each partition's last transaction writes the commands that were on their way to it, and marks the partition
   as complete. The import never writes to a complete partition again.

So an import that died can be run again, and a superfluous run changes nothing.
"""

import time
from collections.abc import Callable, Mapping
from contextlib import AsyncExitStack, closing
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import BinaryIO, Final, NamedTuple, TypeAlias

import msgspec

from delaystream.codec.command import Report
from delaystream.codec.envelope import TransferState
from delaystream.core.partitioning import owner_partition
from delaystream.core.record import Record
from delaystream.core.rejection import Rejection
from delaystream.core.request import Coordinates, Request
from delaystream.engine.ports import Change, Row
from delaystream.transfer import lines
from delaystream.transfer.checking import Checked, checked, numbered
from delaystream.transfer.kafka import Application, Owner, Scratch, TransferError
from delaystream.transfer.origins import Origins
from delaystream.transfer.reading import PartitionReading
from delaystream.transfer.rows import PartitionRows, home, homes, meta_row

ROWS: Final = 2000
"""Rows of one transaction, unless its bytes are reached first."""
ParseCommand: TypeAlias = Callable[[Record, int], Request | Report | Rejection]
"""`delaystream.engine.policy.tenants.Tenants.parse_command`."""
_TRANSACTION_BYTES: Final = 8 * 1024 * 1024


class Import(msgspec.Struct, frozen=True):
    """The result of an import."""

    transfer: str
    anonymous: int
    schedules: int
    commands: int
    already: bool
    """Everything was there already, and nothing was written."""


class Requests(NamedTuple):
    """How an application reads its requests."""

    topic_ids: Mapping[str, str]
    """Of its request topics and its commands topic."""
    parse_command: ParseCommand
    """Parses records of the commands topic."""


class Allowed(msgspec.Struct, frozen=True):
    """The risks that the user of the import accepts."""

    copy: bool = False
    """An export that is not final: everything that has fired since then fires again."""
    unread: bool = False
    """Unread requests on topics that this application does not read."""


async def import_(
    application: Application,
    requests: Requests,
    file: BinaryIO,
    *,
    allowed: Allowed = Allowed(),  # noqa: B008  # frozen
    rows: int = ROWS,
    progress: Callable[[str], None] = lambda _: None,
) -> Import:
    """Read a seekable file into an application, which reads its `requests` like this.

    Raises TransferError, LogUnavailable, Misconfigured, TransactionFailed.
    """
    read = checked(file)
    if not read.header.final and not allowed.copy:
        raise TransferError(
            "The file is no final export: its application may have fired since, and may go on firing. Export "
            "with --final to move. To restore a copy, add --from-copy: everything that fired since the "
            "export then fires again, with the same fire id if the request topics are the same ones."
        )
    _check_sources(file, requests.topic_ids, allowed)
    writing = _Writing(application, read, requests, rows, progress)
    async with AsyncExitStack() as stack:
        await writing.take_over(stack)
        if not writing.open:
            return Import(read.name, read.end.anonymous, read.end.schedules, read.end.commands, already=True)
        await writing.write(file)
        await writing.finish()
    return Import(read.name, read.end.anonymous, read.end.schedules, read.end.commands, already=False)


def _check_sources(file: BinaryIO, topic_ids: Mapping[str, str], allowed: Allowed) -> None:
    lost: dict[str, int] = {}
    for _, line, _ in numbered(file):
        if isinstance(line, lines.Position) and line.unread and topic_ids.get(line.topic) != line.topic_id:
            lost[line.topic] = lost.get(line.topic, 0) + line.unread
    if lost and not allowed.unread:
        told = ", ".join(f"{count} on {topic}" for topic, count in lost.items())
        raise TransferError(
            f"Requests that were unread at the time of the export would stay unread: {told}, which this "
            "application does not read. Let the workers read them before the export, or add the topic to "
            "request_topics; --leave-unread goes on without them."
        )


class _Writing:
    """Rows and commands by partition, in transactions of a bounded size."""

    def __init__(
        self,
        application: Application,
        read: Checked,
        requests: Requests,
        rows: int,
        progress: Callable[[str], None],
    ) -> None:
        self._settings, self._client, self._partitions = application
        partitions = self._partitions
        self._read = read
        self._parse_command = requests.parse_command
        self._topic_ids = topic_ids = requests.topic_ids
        self._max_rows = rows
        self._progress = progress
        self._owners: dict[int, Owner] = {}
        self._origins = Origins(read, topic_ids)
        self._rows = {partition: PartitionRows(self._origins) for partition in range(partitions)}
        self._waiting: dict[int, list[Change]] = {partition: [] for partition in range(partitions)}
        self._bytes = dict.fromkeys(range(partitions), 0)
        self._commands: dict[int, list[Row]] = {}
        self._written = 0

    @property
    def open(self) -> bool:
        """Whether any partition is incomplete."""
        return bool(self._owners)

    async def take_over(self, stack: AsyncExitStack) -> None:
        """Fence each partition, check it, and mark it as being imported; only then is a row written."""
        directory = Path(stack.enter_context(TemporaryDirectory(prefix="delaystream-")))
        scratch = stack.enter_context(closing(Scratch(self._settings, self._client, directory)))
        # Check first without a fence: a worker may already run a complete partition, and is left alone.
        unfinished = [
            partition
            for partition in range(self._partitions)
            if await self._is_unfinished(scratch, partition, settled=False)
        ]
        for partition in unfinished:
            self._progress(f"taking over partition {partition} of {self._partitions}")
            owner = await stack.enter_async_context(Owner(self._settings, self._client, partition))
            await owner.fence()
            # The check and the mark happen under the same fence, so nobody can write in between.
            if await self._is_unfinished(scratch, partition, settled=True):
                await owner.write([self._meta(TransferState.IMPORTING)], attempts=1)
                self._owners[partition] = owner

    async def _is_unfinished(self, scratch: Scratch, partition: int, *, settled: bool) -> bool:
        store = await scratch.copy(partition, settled=settled)
        try:
            reading = PartitionReading(partition, store)
            meta, empty = reading.meta, reading.empty
        finally:
            store.close()
            scratch.forget(partition)
        where = f"Partition {partition} of {self._settings.changelog_topic}"
        if empty:
            return True
        if meta is None or not meta.transfer:
            raise TransferError(
                f"{where} has state already: an import needs a changelog topic that nothing was written to."
            )
        if meta.transfer != self._read.name:
            raise TransferError(
                f"{where} has state of another transfer ({meta.transfer}), and the file is {self._read.name}."
            )
        if meta.transfer_state == TransferState.EXPORTED:
            raise TransferError(
                f"{where} is the changelog that the file was exported from: an import needs another one."
            )
        if meta.partitions != self._partitions:
            raise TransferError(
                f"{where} was begun for {meta.partitions} partitions, and there are {self._partitions}."
            )
        return meta.transfer_state == TransferState.IMPORTING

    async def write(self, file: BinaryIO) -> None:
        """Write every row, in the file's order."""
        for number, line, _ in numbered(file):
            try:
                await self._line(line)
            except lines.LineError as error:
                raise TransferError(f"Line {number}: {error}.") from None
        for partition in self._owners:
            await self._flush(partition)

    async def _line(self, line: lines.Line) -> None:
        match line:
            case lines.Position():
                if self._topic_ids.get(line.topic) == line.topic_id:
                    partition = line.partition
                    await self._add(partition, self._rows[partition].position(line))
            case lines.Anonymous():
                partition = home(line, self._partitions)
                await self._add(partition, self._rows[partition].anonymous(line))
            case lines.Holding() | lines.EndedHold():
                for partition in homes(line, self._read.header.partitions, self._partitions):
                    await self._add(partition, self._rows[partition].hold(line))
            case lines.Named():
                line = self._origins.named(line)
                partition = home(line, self._partitions)
                await self._add(partition, self._rows[partition].named(line))
            case lines.Rate():
                for partition in range(self._partitions):
                    # Each of the old partitions has them all.
                    if partition % self._read.header.partitions == line.partition:
                        await self._add(partition, self._rows[partition].rate(line))
            case lines.InFlight():
                line = self._origins.in_flight(line)
                owner = self._owner(line)
                row = (line.key, line.value, line.headers, time.time_ns() // 1_000_000)
                self._commands.setdefault(owner, []).append(row)
            case _:
                pass

    def _owner(self, line: lines.InFlight) -> int:
        """The partition that carries a command out; one that cannot be read is refused wherever it lands."""
        source = Coordinates(self._settings.commands_topic, line.partition, line.offset)
        record = Record(source, line.timestamp_ms, line.key, line.value, line.headers)
        found = self._parse_command(record, line.timestamp_ms)
        if isinstance(found, Request) and found.id is not None:
            return owner_partition(found.id, self._partitions)
        if isinstance(found, Request) and found.subject is not None:
            return found.subject.partition % self._partitions
        return line.partition % self._partitions

    async def _add(self, partition: int, changes: list[Change]) -> None:
        if partition not in self._owners:
            return
        self._waiting[partition] += changes
        self._bytes[partition] += sum(len(key) + len(value or b"") for key, value in changes)
        if len(self._waiting[partition]) >= self._max_rows or self._bytes[partition] >= _TRANSACTION_BYTES:
            await self._flush(partition)

    async def _flush(self, partition: int) -> None:
        changes = self._waiting[partition]
        if changes:
            await self._owners[partition].write(changes)
            self._written += len(changes)
            self._progress(f"{self._written} rows written")
        self._waiting[partition] = []
        self._bytes[partition] = 0

    async def finish(self) -> None:
        """Write each partition's commands, and mark it as complete."""
        for partition, owner in self._owners.items():
            commands = self._commands.get(partition, [])
            # Commands must not be repeated, so with commands an unknown outcome is left to the next run.
            await owner.write([self._meta(TransferState.IMPORTED)], {partition: commands}, attempts=1)
            self._progress(f"partition {partition} is complete")

    def _meta(self, state: TransferState) -> Change:
        return meta_row(self._partitions, self._settings.app_id, self._read.name, state.value)
