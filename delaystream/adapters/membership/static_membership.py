"""Static membership (KIP-345): who holds an instance id, and how a worker reacts when it loses its own.

A member that joins with an instance id takes the id from its previous holder. So a worker comes back after a
restart. But two workers that have the same id by mistake would take it from each other for ever: the loser is
told that its member id is unknown, as after a session timeout, and joins again. So a worker checks first, and
does not join while somebody else holds the id.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, NamedTuple

import structlog
from prometheus_client.core import CounterMetricFamily, Metric
from prometheus_client.registry import Collector

from delaystream.adapters.internals.aiokafka import FindCoordinatorRequest
from delaystream.adapters.kafka.connections import CONNECTION_ERRORS, KafkaConnections
from delaystream.adapters.kafka.errors import reason, told
from delaystream.adapters.kafka.protocol import DescribeGroup
from delaystream.engine.failures import LogUnavailable, Misconfigured

logger = structlog.get_logger(__name__)

_OK: Final = 0
_GROUP: Final = 0
_LOOK_TIMEOUT_S: Final = 10.0
_RETRY_S: Final = 0.1
_WATCH_S: Final = 1.0
#: a member is gone within this time after its session timed out
_MARGIN_MS: Final = 5_000
_FILE: Final = "fenced.json"


class Holder(NamedTuple):
    """The member of a group that has an instance id."""

    member_id: str
    client_id: str
    #: the address, as the broker sees it
    host: str


class InstanceFenced(Misconfigured):
    """Another worker has this one's instance id."""

    def __init__(self, instance_id: str, holder: Holder) -> None:
        super().__init__(
            f"another worker has the instance id {instance_id}: {holder.client_id} on host {holder.host}. "
            "Each worker needs one of its own (DELAYSTREAM_INSTANCE_ID). This one does not take it back; if "
            "the other one is its replacement, all is well"
        )
        self.instance_id = instance_id
        self.holder = holder


async def holder_of(settings: Mapping[str, Any], group: str, instance_id: str) -> Holder | None:
    """The member that has an instance id in a group; None: nobody has it.

    ``settings`` are connection settings by aiokafka's names. Raises LogUnavailable when nobody answers.
    """
    for instance, holder in await members_of(settings, group):
        if instance == instance_id:
            return holder
    return None


async def members_of(settings: Mapping[str, Any], group: str) -> list[tuple[str | None, Holder]]:
    """The members of a group, each with its instance id.

    ``settings`` are connection settings by aiokafka's names. Raises LogUnavailable when nobody answers.
    """
    connections = KafkaConnections(settings)
    failure = "no answer"
    try:
        async with asyncio.timeout(_LOOK_TIMEOUT_S):
            while True:
                try:
                    found = await connections.ask_any(FindCoordinatorRequest(group, _GROUP))
                    code = found.error_code
                    if code == _OK:
                        request = DescribeGroup(group)
                        answer = await connections.request(found.coordinator_id, "coordination", request)
                        code, *_, members, _ = answer.groups[0]
                        if code == _OK:
                            return [
                                (instance, Holder(member_id, client_id, host.removeprefix("/")))
                                for member_id, instance, client_id, host, *_ in members
                            ]
                    failure = told(code)
                except CONNECTION_ERRORS as error:
                    failure = reason(error)
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        raise LogUnavailable(f"the members of the group {group} are not known: {failure}") from None
    finally:
        await connections.close()


class Fencings(Collector):
    """How often a worker lost its instance id to another, remembered in its data directory.

    A supervisor may start the worker again whatever its exit code is, as Kubernetes does. It must not take
    the id back then, or the two workers would end each other in turn.
    """

    def __init__(self, directory: Path) -> None:
        self._file = directory / _FILE
        #: the id that was lost and not regained
        self._lost: str | None = None
        self.count = 0
        try:
            stored = json.loads(self._file.read_bytes())
            self._lost, self.count = stored["lost"], int(stored["count"])
        except FileNotFoundError:
            pass
        except (OSError, ValueError, KeyError, TypeError) as error:
            logger.warning("the record of lost instance ids cannot be read", error=f"{self._file}: {error!r}")

    def fenced(self, instance_id: str) -> None:
        """Record that another worker has the id."""
        self._remember(instance_id, self.count + 1)

    async def wait_for(
        self, settings: Mapping[str, Any], group: str, instance_id: str, session_timeout_ms: int
    ) -> None:
        """Return once this worker may take the id: at once, unless it was lost before.

        A lost id is waited for until a vanished holder would have timed out. Raises InstanceFenced if
        somebody still has it, or LogUnavailable.
        """
        if self._lost != instance_id:
            return
        deadline = asyncio.get_running_loop().time() + (session_timeout_ms + _MARGIN_MS) / 1000
        told = False
        while (holder := await holder_of(settings, group, instance_id)) is not None:
            if not told:
                told = True
                logger.warning(
                    "waiting for the instance id that another worker took",
                    reason=str(InstanceFenced(instance_id, holder)),
                )
            if asyncio.get_running_loop().time() >= deadline:
                raise InstanceFenced(instance_id, holder)
            await asyncio.sleep(_WATCH_S)
        self._remember(None, self.count)

    def _remember(self, lost: str | None, count: int) -> None:
        self._lost, self.count = lost, count
        try:
            self._file.write_text(json.dumps({"lost": lost, "count": count}))
        except OSError as error:
            logger.warning("the loss of the instance id cannot be recorded", error=f"{self._file}: {error!r}")

    def collect(self) -> Iterator[Metric]:
        """One counter."""
        yield CounterMetricFamily(
            "delaystream_instance_fenced",
            "How often this worker found another with its instance_id, restarts included.",
            value=self.count,
        )
