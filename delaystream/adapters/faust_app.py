"""The Faust app of a worker: its engine for membership, rebalances and the agent; nothing of its tables.

What Faust would create or start on its own and delaystream does not use is left out here, in one place: its
web server, its producer, its leader topic, its data directory, and the waits for tables.
"""

from __future__ import annotations

from typing import Any

import faust
from faust.app.base import BootStrategy
from faust.serializers.schemas import Schema
from faust.tables.manager import TableManager
from faust.types import AppT, EventT, Message

from delaystream.adapters.batch_fetcher import ReaderSettings
from delaystream.adapters.faust_transport import SCHEME, MembershipListener
from delaystream.adapters.sticky_assignor import StickyAssignor

_NEVER_S = 86_400.0
#: Batches between Faust's fetcher and the agent, which takes them at once.
_AGENT_QUEUE = 16


class NoTables(TableManager):
    """Faust's table manager without its wait of one second for tables that nobody defines."""

    mundane_level = "debug"

    async def on_start(self) -> None:
        """Begin at once."""
        await self._update_channels()
        await self.recovery.start()


class Boot(BootStrategy):
    """Starts what consuming needs: transactions have producers of their own."""

    enable_kafka_producer = False
    enable_web = False
    #: Faust's monitor samples itself every second; what matters is in our own metrics.
    enable_sensors = False


class BatchSchema(Schema[Any, Any]):
    """Hands a message's value on as it is: it is a batch, not bytes."""

    def compile(self, app: AppT, **_: Any) -> Any:
        """Make the function that turns a message into an event."""

        async def decode(message: Message, *, propagate: bool = False) -> EventT[Any]:
            return app.create_event(None, message.value, None, message)

        return decode


class DelayApp(faust.App):
    """A Faust app that reads whole batches; see :mod:`delaystream.adapters.faust_transport`."""

    BootStrategy = Boot
    #: at which Faust's services say that they start and stop
    mundane_level = "debug"

    def __init__(
        self, reader: ReaderSettings, strategy: StickyAssignor, membership_listener: MembershipListener
    ) -> None:
        self.reader = reader
        self.assignment_strategy = strategy
        self.membership_listener = membership_listener
        super().__init__(
            reader.group_id,
            # The addresses are in the reader's settings, with everything else that a connection needs.
            broker=f"{SCHEME}://",
            # Offsets are committed in our transactions; Faust would look every three seconds.
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
            TableManager=NoTables,
        )

    def _create_directories(self) -> None:
        """Create none: there are no tables, and state is where DELAYSTREAM_DATA_DIR says."""

    async def _producer_flush(self, logger: Any) -> None:
        """Flush nothing: Faust's producer is never started."""


__all__ = ["BatchSchema", "DelayApp"]
