"""From what is asked of a client to a record that was checked."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING

import msgspec
from msgspec.structs import replace

from delaystream.client.requests.checking import RECEIPTS_TOPIC, REQUEST_TOPIC, Checker, wall_ms
from delaystream.client.requests.outcomes import Accepted, Receipt, RejectedError
from delaystream.client.requests.payloads import Serializer
from delaystream.client.requests.records import Place, RequestRecord, Sent
from delaystream.codec.requests.names import PREFIX

if TYPE_CHECKING:
    from delaystream.config import Settings

_REPLY_TO = f"{PREFIX}reply-to"


class CheckedRequest(msgspec.Struct, frozen=True, gc=False):
    """A request that a worker would take, as far as that can be known here."""

    record: RequestRecord
    reply_to: str | None
    """Where its receipt is waited for."""
    checker: Checker

    def accepted(self, sent: Sent, receipt: Receipt | None = None) -> Accepted:
        """Its outcome once it stands on its topic. Raises RejectedError for a receipt that refuses
        it."""
        if receipt is not None and receipt.outcome == "rejected":
            raise RejectedError(receipt.code or "", receipt.detail or "", receipt)
        return Accepted(sent, self.record.id, receipt, partial(self.checker.due_at, self.record))


class Composer:
    """Checks the requests of one topic, and has their receipts asked for."""

    def __init__(
        self,
        topic: str | None,
        reply_to: str | None,
        settings: Settings | None = None,
        serializer: Serializer | None = None,
        now_ms: Callable[[], int] = wall_ms,
    ) -> None:
        if settings is not None:
            topic = topic or settings.request_topics[0]
            reply_to = reply_to or settings.receipts_topic
        topic = topic or REQUEST_TOPIC
        self.place = Place(topic, serializer=serializer)
        self._reply_to = reply_to or RECEIPTS_TOPIC
        self.checker = Checker.of(topic, settings, now_ms)

    def composed(self, record: RequestRecord, *, waits: bool) -> CheckedRequest:
        """The record, checked. With `waits` its receipt is asked for, unless it does so itself.

        Raises RejectedError where a worker would refuse it, ValueError where no receipt could come.
        """
        reply_to = None
        if waits and (reply_to := _reply_to_of(record)) is None:
            reply_to = self._reply_to
            record = replace(record, headers=[*record.headers, (_REPLY_TO, reply_to.encode())])
        request = self.checker.check(record)
        if request.no_receipt is not None:
            raise ValueError(f"There would be no receipt: {request.no_receipt}")
        return CheckedRequest(record, reply_to, self.checker)


def _reply_to_of(record: RequestRecord) -> str | None:
    for name, value in record.headers:
        if name == _REPLY_TO and value is not None:
            return value.decode("utf-8", "replace")
    return None
