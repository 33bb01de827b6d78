"""The Faust app of a worker: membership, rebalances and the agent, without tables.

Faust would create or start more parts than delaystream uses. This module leaves them out, in one place: the
web server, the producer, the leader topic, the data directory, and the waits for tables.
"""

from __future__ import annotations

from typing import Any

import faust
from faust.types import AppT, EventT, Message

from delaystream.adapters.internals import faust as faust_internals
from delaystream.adapters.membership.batch_fetcher import ReaderSettings
from delaystream.adapters.membership.faust_transport import SCHEME, MembershipListener
from delaystream.adapters.membership.sticky_assignor import StickyAssignor

_NEVER_S = 86_400.0
#: Most batches between Faust's fetcher and the agent, which takes them at once.
_AGENT_QUEUE = 16


class BatchSchema(faust.Schema[Any, Any]):
    """Passes a message's value on unchanged: it is a batch, not bytes."""

    def compile(self, app: AppT, **_: Any) -> Any:
        """Make the function that turns a message into an event."""

        async def decode(message: Message, *, propagate: bool = False) -> EventT[Any]:
            return app.create_event(None, message.value, None, message)

        return decode


class DelayApp(faust_internals.App):
    """A Faust app that reads whole batches; see :mod:`delaystream.adapters.membership.faust_transport`."""

    def __init__(
        self, reader: ReaderSettings, strategy: StickyAssignor, membership_listener: MembershipListener
    ) -> None:
        self.reader = reader
        self.assignment_strategy = strategy
        self.membership_listener = membership_listener
        super().__init__(
            reader.group_id,
            # The reader's settings have the addresses, and everything else that a connection needs.
            broker=f"{SCHEME}://",
            # Our transactions commit the offsets. Faust would check every three seconds.
            broker_commit_interval=_NEVER_S,
            broker_session_timeout=reader.session_timeout_ms / 1000,
            broker_request_timeout=max(reader.request_timeout_ms, reader.session_timeout_ms) / 1000,
            consumer_auto_offset_reset="earliest",
            processing_guarantee="at_least_once",
            stream_wait_empty=False,
            stream_recovery_delay=0.0,
            stream_buffer_maxsize=_AGENT_QUEUE,
            topic_allow_declare=False,
            topic_disable_leader=True,
            web_enabled=False,
            store="memory://",
            TableManager=faust_internals.Tables,
        )


__all__ = ["BatchSchema", "DelayApp"]
