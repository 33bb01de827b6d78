"""Records about requests: receipts to whoever asked for one, and dead letters."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

from msgspec.structs import replace

from delaystream.codec.command import Command, Report, detach
from delaystream.codec.outgoing import Answer, Outcome, dead_letter_headers, receipt
from delaystream.core.record import Record
from delaystream.core.rejection import Rejection, shown
from delaystream.core.request import Coordinates, Header, Request
from delaystream.engine.failures import LogUnavailable
from delaystream.engine.output.events import Events
from delaystream.engine.policy.context import Context
from delaystream.engine.state.step import RECEIPT, Step, row_bytes

#: of a header's name and value, at most as many bytes as a record of these settings can have
_LENGTHS_BYTES: Final = 8


class Letters:
    """Writes receipts and dead letters into steps."""

    def __init__(self, context: Context, events: Events) -> None:
        self._settings = context.settings
        self._events = events
        self._destinations = context.destinations
        self._health = context.health

    def receipt(self, step: Step, request: Request, answer: Answer) -> str | None:
        """Write the receipt of a request, if it asked for one.

        Why there is no receipt although it asked; None where there is one, or nobody asked.
        """
        if request.reply_to is None:
            return self.unanswered(step, request.no_receipt)
        row = receipt(request.source, request.id, answer, step.now_ms)
        return self._reply(step, request.reply_to, row)

    def summary(
        self, step: Step, source: Coordinates, reply_to: str | None, no_receipt: str | None, answer: Answer
    ) -> str | None:
        """Write the receipt of a bulk command with its counts, if it asked for one.

        Why there is no receipt, as `receipt` says it.
        """
        if reply_to is None:
            return self.unanswered(step, no_receipt)
        return self._reply(step, reply_to, receipt(source, None, answer, step.now_ms))

    def _reply(self, step: Step, topic: str, row: tuple[bytes, bytes, list[Header]]) -> str | None:
        # A receipt never holds anything up: where it cannot be delivered, there is none.
        partitions = self._destinations.partitions(topic)
        if not partitions:
            problem = self._destinations.problem(topic) or "it cannot be written to"
            return self.unanswered(step, f"{shown(topic)}: {problem}")
        if not self._health.takes_receipts(topic, step.loop_ms):
            trouble = self._health.get(topic)
            problem = "it refused a receipt" if trouble is None else trouble.reason
            return self.unanswered(step, f"{shown(topic)}: {problem}")
        key, value, headers = row
        size_bytes = row_bytes(key, value, headers)
        if size_bytes > self._settings.own_record_max_bytes:
            return self.unanswered(step, f"{shown(topic)}: the receipt would have {size_bytes} bytes")
        step.writes_to(topic, partitions).write(key, value, headers, step.now_ms, origin=RECEIPT)
        return None

    @staticmethod
    def unanswered(step: Step, why: str | None) -> str | None:
        """Note that there is no receipt although one was asked for, if so."""
        if why is not None:
            step.unanswered += 1
            step.unanswered_why = why
        return why

    def refuse(
        self,
        step: Step,
        record: Record,
        request: Request | Report | Rejection,
        rejection: Rejection,
    ) -> None:
        """Put a refused record among the dead letters, its bytes untouched, and tell whoever asked."""
        produced = record
        if record.source.topic == self._settings.commands_topic:
            produced = _as_produced(record, request)
        headers = [(_printable(name), value) for name, value in produced.headers]
        self.dead_letter(step, replace(produced, headers=headers), rejection)
        if type(request) is Request:
            # Decided after parsing: the request itself knows who asks, and why it gets no receipt.
            rejection = replace(
                rejection, no_receipt=request.no_receipt, actor=request.actor, note=request.terms.note
            )
        if rejection.reply_to is None:
            no_receipt = self.unanswered(step, rejection.no_receipt)
        else:
            no_receipt = self._reply(
                step,
                rejection.reply_to,
                receipt(
                    produced.source, rejection.id, Answer(Outcome.REJECTED, refusal=rejection), step.now_ms
                ),
            )
        self._events.refused(step, produced.source, rejection, produced.headers, no_receipt)

    def dead_letter(
        self,
        step: Step,
        record: Record,
        rejection: Rejection,
        whose: Sequence[Header] = (),
    ) -> None:
        """Write a record as a dead letter; the caller tells of it.

        A letter that would be too large has only the headers in ``whose``, which name the fire, and says how
        many bytes are left out.
        """
        topic = self._settings.dead_letters_topic
        partitions = self._destinations.partitions(topic)
        if not partitions:
            problem = self._destinations.problem(topic) or "unknown"
            raise LogUnavailable(f"{topic}: {problem}; without it a refused request would be lost")
        source, timestamp_ms, key, value = record.source, record.timestamp_ms, record.key, record.value
        letter = dead_letter_headers([*record.headers, *whose], source, timestamp_ms, rejection)
        size_bytes = row_bytes(key, value, letter) + _unseen_bytes(letter)
        most_bytes = min(self._settings.own_record_max_bytes, self._health.letter_max_bytes(step.loop_ms))
        if size_bytes > most_bytes:
            told = f"{rejection.detail} [{size_bytes} bytes are left out: the topic takes {most_bytes}]"
            key = value = None
            letter = dead_letter_headers(whose, source, timestamp_ms, replace(rejection, detail=told))
            if row_bytes(None, None, letter) + _unseen_bytes(letter) > most_bytes:
                # Not even that: the least that tells which record it is, and why.
                letter = dead_letter_headers((), source, timestamp_ms, rejection)
            step.warnings.append(
                f"the dead letter of {source.topic}/{source.partition}/{source.offset} is without its "
                f"{size_bytes} bytes: {topic} takes {most_bytes}"
            )
        step.writes_to(topic, partitions).write(
            key, value, letter, step.now_ms, source.partition % partitions
        )
        step.rejected[source.topic, rejection.code.value] += rejection.records


def _unseen_bytes(headers: Sequence[Header]) -> int:
    """Bytes of headers that no check has bounded before a record is refused: lengths and wide names."""
    wide = sum([len(name.encode("utf-8", "surrogatepass")) - len(name) for name, _ in headers])
    return wide + _LENGTHS_BYTES * len(headers)


def _as_produced(record: Record, request: Request | Report | Rejection) -> Record:
    """A refused record of the commands topic as it was produced, before any re-routing.

    A forged record, which only looks re-routed, keeps every header.
    """
    command, own = detach(record.headers)
    if type(request) is Request:
        return replace(record, source=request.source, timestamp_ms=request.timestamp_ms, headers=own)
    if command is None:
        return record
    timestamp_ms = command.timestamp_ms if type(command) is Command else record.timestamp_ms
    return replace(record, source=command.source, timestamp_ms=timestamp_ms, headers=own)


def _printable(name: str) -> str:
    # Names that are not UTF-8 cannot be produced by any client; their bytes are shown as \xNN.
    if name.isascii():
        return name
    return name.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
