"""Fetched batches are read: each record becomes what its headers say, a request or a rejection."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TypeAlias

import msgspec

from delaystream.codec.command import Report
from delaystream.core.record import Record
from delaystream.core.rejection import Rejection
from delaystream.core.request import Coordinates, Request
from delaystream.engine.failures import Undecided, about_the_record
from delaystream.engine.pace import AT_ONCE
from delaystream.engine.policy.tenants import Tenants
from delaystream.engine.ports import SourceBatch, SourceRecord
from delaystream.engine.settings import EngineSettings
from delaystream.engine.suspects import Stage, Suspects

#: A record as its headers are read.
Said: TypeAlias = Request | Report | Rejection
#: A record with that.
Parsed: TypeAlias = tuple[Record, Said]


class ParsedBatch(msgspec.Struct):
    """A batch, with its records read: all of them, or the first ones where reading took too long."""

    batch: SourceBatch
    requests: list[Parsed]

    @property
    def topics_named(self) -> set[str]:
        """Every topic that deciding on the batch may write to."""
        topics: set[str] = set()
        for _, request in self.requests:
            if type(request) is Request:
                topics.add(request.destination)
            if request.reply_to is not None:
                topics.add(request.reply_to)
        topics.discard("")
        return topics


class Reader:
    """Reads the batches of one partition, each topic's by its tenant's policy."""

    def __init__(
        self, partition: int, settings: EngineSettings, tenants: Tenants, suspects: Suspects
    ) -> None:
        self._partition = partition
        self._commands_topic = settings.commands_topic
        self._tenants = tenants
        self._suspects = suspects

    def read(self, batch: SourceBatch, now_ms: int, turn_over: Callable[[], bool]) -> ParsedBatch:
        """Read the headers of every record, or of the first ones; what cannot be read is a rejection.

        Raises Undecided for a record on which that fails as nobody expected.
        """
        parse = self._parse(batch)
        if not self._suspects:
            with suppress(Exception):
                return ParsedBatch(batch, self._all(batch, now_ms, parse, turn_over))
        return ParsedBatch(batch, self._one_by_one(batch, now_ms, parse, turn_over))

    def _parse(self, batch: SourceBatch) -> Callable[[Record, int], Said]:
        """Reads the records of a batch."""
        if batch.topic == self._commands_topic:
            parse: Callable[[Record, int], Said] = self._tenants.parse_command
        else:
            parse = self._tenants.of(batch.topic).parse
        unreadable = batch.unreadable
        if not unreadable:
            return parse
        return lambda record, now_ms: unreadable.get(record.source.offset) or parse(record, now_ms)

    def _all(
        self,
        batch: SourceBatch,
        now_ms: int,
        parse: Callable[[Record, int], Said],
        turn_over: Callable[[], bool],
    ) -> list[Parsed]:
        fetched = batch.records
        requests: list[Parsed] = []
        for first in range(0, len(fetched), AT_ONCE):
            records = self._arrived(batch.topic, fetched[first : first + AT_ONCE])
            requests += [(record, parse(record, now_ms)) for record in records]
            if turn_over():
                break
        return requests

    def _one_by_one(
        self,
        batch: SourceBatch,
        now_ms: int,
        parse: Callable[[Record, int], Said],
        turn_over: Callable[[], bool],
    ) -> list[Parsed]:
        suspects = self._suspects
        requests: list[Parsed] = []
        for record in self._arrived(batch.topic, batch.records):
            if requests and turn_over():
                break
            culprit = (batch.topic, record.source.offset)
            stage = suspects.stage(culprit)
            try:
                said = suspects.rejection(culprit) if stage is Stage.AS_BYTES else parse(record, now_ms)
            except Exception as failure:
                if not about_the_record(failure):
                    raise
                if stage is not Stage.GIVEN_UP:
                    raise Undecided(culprit) from failure
                said = suspects.rejection(culprit)
            requests.append((record, said))
        return requests

    def _arrived(self, topic: str, fetched: Sequence[SourceRecord]) -> list[Record]:
        """The records with where they were read."""
        partition = self._partition
        return [
            Record(
                Coordinates(topic, partition, each.offset), each.timestamp, each.key, each.value, each.headers
            )
            for each in fetched
        ]
