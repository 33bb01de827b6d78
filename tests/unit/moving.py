"""A move from one partition's or more engines in memory to others: the export's and import's own code."""

from __future__ import annotations

import io
from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.engine.policy.tenants import Tenant, Tenants
from delaystream.engine.ports import Change, Marker, Row, TopicPartition
from delaystream.testing.store import MemoryStateStores, MemoryStore
from delaystream.transfer import lines
from delaystream.transfer.checking import checked
from delaystream.transfer.exporting import _Digesting
from delaystream.transfer.exporting import _Writing as Exporting
from delaystream.transfer.importing import Requests
from delaystream.transfer.importing import _Writing as Importing
from delaystream.transfer.kafka import Application
from delaystream.transfer.reading import PartitionReading
from tests.unit.engine import OWN, REQUESTS, Engine

COMMANDS, CHANGELOG = "delay-commands", "delay-wheel-changelog"


class _Unread:
    """Nothing is, in place of a reader of what stands behind a position."""

    def bounds(self, topic: str, partition: int) -> tuple[int, int]:
        return 0, 0

    def count(self, topic: str, partition: int, start: int, most: int) -> int:
        return 0


class _Owner:
    """A partition of the new application, in place of the one that fences workers."""

    def __init__(self, log: Any, partition: int) -> None:
        self._log = log
        self._partition = partition

    async def write(
        self, changes: Sequence[Change], commands: dict[int, Sequence[Row]] | None = None, **_: Any
    ) -> None:
        for key, value in changes:
            self._log.append(TopicPartition(CHANGELOG, self._partition), (key, value, (), 1))
        for partition, rows in (commands or {}).items():
            for row in rows:
                self._log.append(TopicPartition(COMMANDS, partition), row)


def topic_ids(engine: Engine) -> dict[str, str]:
    return {topic: engine.log.topics[topic].topic_id for topic in (REQUESTS, COMMANDS)}


def _copy(engine: Engine, partition: int) -> MemoryStore:
    """A partition's changelog, and nothing of what a local store holds besides."""
    rows: dict[bytes, bytes | None] = {}
    for record in engine.log.read(TopicPartition(CHANGELOG, partition), 0)[0]:
        rows[record.key or b""] = record.value
    store = MemoryStateStores().open(partition)
    store.write(list(rows.items()), [], Marker("id", 1, 0, b""))
    return store


def exported(old: Engine, *, in_flight: Sequence[lines.InFlight] = ()) -> io.BytesIO:
    """What a final export of a stopped engine holds."""
    settings: Any = SimpleNamespace(commands_topic=COMMANDS)
    sources: Any = _Unread()
    file = io.BytesIO()
    digesting = _Digesting(file)
    partitions = old.settings.partitions
    digesting.write(
        lines.Header(
            lines.FORMAT, "old", CHANGELOG, "old-changelog", partitions, 1, "", "0", "a-transfer", final=True
        )
    )
    writing = Exporting(settings, digesting, sources, topic_ids(old), final=True)
    for partition in range(partitions):
        writing.partition(PartitionReading(partition, _copy(old, partition)), remembered=True)
    for line in in_flight:
        digesting.write(line)
        writing._commands += 1
    file.write(lines.encoded(writing.end()))
    return file


async def imported(file: io.BytesIO, new: Engine, tenants: Tenants | None = None) -> None:
    """Put it into an engine that has not started yet."""
    read = checked(file)
    settings: Any = SimpleNamespace(app_id=new.settings.app_id, commands_topic=COMMANDS)
    parser = RequestParser(DestinationFilter(["*"], [REQUESTS, *OWN]), Limits())
    parse_command = (tenants or Tenants(Tenant(parser))).parse_command
    client: Any = None
    partitions = new.settings.partitions
    writing = Importing(
        Application(settings, client, partitions),
        read,
        Requests(topic_ids(new), parse_command),
        1000,
        lambda _: None,
    )
    owners: dict[int, Any] = {partition: _Owner(new.log, partition) for partition in range(partitions)}
    writing._owners = owners
    await writing.write(file)
    await writing.finish()


async def moved(old: Engine, new: Engine) -> None:
    """Stop the one, and start the other where it stood."""
    await old.stop()
    await imported(exported(old), new)
    new.start()
