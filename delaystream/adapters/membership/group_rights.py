"""Checks whether this client may join the workers' group, before it tries.

aiokafka would wait without end, and not say why.
"""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from typing import Any, Final

from delaystream.adapters.internals.aiokafka import FindCoordinatorRequest, HeartbeatRequest
from delaystream.adapters.kafka.connections import CONNECTION_ERRORS, KafkaConnections
from delaystream.adapters.kafka.errors import GROUP_AUTHORIZATION_FAILED, reason, told
from delaystream.engine.failures import LogUnavailable

_OK: Final = 0
_GROUP: Final = 0
_TIMEOUT_S: Final = 30.0
_RETRY_S: Final = 0.1


async def may_join(settings: Mapping[str, Any], group: str) -> bool:
    """Ask with the heartbeat of a member that does not exist: the error tells whether the ACL is missing.

    ``settings`` are connection settings by aiokafka's names. Raises LogUnavailable when nobody answers.
    """
    connections = KafkaConnections(settings)
    failure = "no answer"
    try:
        async with asyncio.timeout(_TIMEOUT_S):
            while True:
                try:
                    found = await connections.ask_any(FindCoordinatorRequest(group, _GROUP))
                    if found.error_code == _OK:
                        request = HeartbeatRequest(group, -1, "")
                        answer = await connections.request(found.coordinator_id, "coordination", request)
                        return bool(answer.error_code != GROUP_AUTHORIZATION_FAILED)
                    if found.error_code == GROUP_AUTHORIZATION_FAILED:
                        return False
                    failure = told(found.error_code)
                except CONNECTION_ERRORS as error:
                    failure = reason(error)
                await asyncio.sleep(_RETRY_S)
    except TimeoutError:
        raise LogUnavailable(f"the coordinator of the group {group} does not answer: {failure}") from None
    finally:
        await connections.close()
