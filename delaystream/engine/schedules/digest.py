"""Whether a request repeats the schedule that is there: a digest of its whole definition.

A description has the start and the grace in force, whether or not the request gave them. A request that gives
just these is the same definition, so a description can be sent again.
"""

from __future__ import annotations

from hashlib import blake2b
from typing import Final

import msgspec
from msgspec.structs import replace

from delaystream.codec.envelope import Schedule
from delaystream.core.request import Request

TRACING: Final = frozenset({
    "traceparent", "tracestate", "baggage", "b3", "x-b3-traceid", "x-b3-spanid", "x-b3-parentspanid",
    "x-b3-sampled", "x-b3-flags", "uber-trace-id", "x-datadog-trace-id", "x-datadog-parent-id",
    "x-datadog-sampling-priority", "x-datadog-tags", "x-amzn-trace-id", "sentry-trace",
})  # fmt: skip
"""Names of headers, in lower case, that are new with every send: they say nothing of what is sent."""

_BYTES: Final = 16
_encode = msgspec.msgpack.Encoder().encode


def digest_of(request: Request) -> bytes:
    """The digest of what a request defines, 16 bytes; empty where it means another time with every send.

    It knows neither the actor nor the note; a start that is not given is none.
    """
    if request.relative:
        return b""
    recurrence = request.recurrence
    if recurrence is not None and recurrence.start_ms == request.timestamp_ms:
        recurrence = replace(recurrence, start_ms=-1)
    headers = request.headers
    for name, _ in headers:
        if name.lower() in TRACING:
            headers = [header for header in headers if header[0].lower() not in TRACING]
            break
    told = (
        request.destination,
        request.due_ms,
        recurrence,
        request.catch_up,
        request.grace_ms,
        request.on_late,
        request.destination_partition,
        request.has_destination_key,
        request.destination_key,
        request.name,
        request.description,
        request.tags,
        request.key,
        request.value,
    )
    try:
        encoded = _encode((told, headers))
    except UnicodeEncodeError:
        # The name of a header that is not UTF-8.
        names = [(name.encode("utf-8", "surrogatepass"), value) for name, value in headers]
        encoded = _encode((told, names))
    return blake2b(encoded, digest_size=_BYTES).digest()


def says_again(request: Request, digest: bytes, old: Schedule) -> bool:
    """Whether a request with this digest defines what is there already."""
    if not digest or not old.digest:
        return False
    if digest == old.digest:
        return True
    recurrence, before = request.recurrence, old.recurrence
    if recurrence is None or before is None:
        return False
    left_out = [request]
    if recurrence.start_ms == before.start_ms:
        implied = replace(recurrence, start_ms=request.timestamp_ms)
        left_out.append(replace(request, recurrence=implied))
    if request.grace_ms == old.grace_ms:
        left_out += [replace(one, grace_ms=None) for one in left_out]
    return any(digest_of(one) == old.digest for one in left_out[1:])
