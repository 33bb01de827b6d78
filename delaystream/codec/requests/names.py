"""Names of headers: which belong to the contract, and how each is treated."""

from difflib import get_close_matches
from functools import lru_cache
from typing import Final

from delaystream.codec.outgoing import OUTGOING_HEADERS
from delaystream.codec.requests.values import RefusedError
from delaystream.core.rejection import Code, shown

PREFIX: Final = "delaystream-"

SUPPORTED: Final = (
    "destination", "delay", "at", "every", "cron", "timezone", "start", "end", "max-fires", "jitter",
    "dst-gap", "dst-overlap", "catch-up", "grace", "on-late", "id", "action", "if-exists", "match-tags",
    "match-destination", "match-id-prefix", "match-key", "match-new", "match-anonymous",
    "destination-partition", "destination-key", "reply-to", "name", "description", "tags", "actor", "note",
    "until", "status", "coordinates", "if-version", "request-id", "declared-by", "deploy", "payload", "rate",
    "attempt",
)  # fmt: skip
"""The control headers, without the prefix."""

ATTEMPT: Final = "attempt"
"""The control header that is not taken out: it says which attempt at the same work a delivery is."""

RESERVED: Final = ("max-attempts", "backoff")
"""Names that are kept for control headers to come."""

FOREIGN: Final = ""
"""The kind of a header that passes through."""
DROPPED: Final = "-"
"""The kind of a header that delaystream wrote itself, and drops."""

KINDS: Final[dict[str, str]] = dict.fromkeys(OUTGOING_HEADERS, DROPPED) | {
    PREFIX + name: name for name in SUPPORTED
}
"""Of the known lower-case names; the kind of a control header is its name without the prefix."""

# Longer than any name of the contract; a name is compared with them no further than this.
_COMPARED_CHARACTERS: Final = 64


def kind_of(name: str) -> str:
    """The kind of any header; raises `RefusedError` for a name of ours that is not in the contract."""
    lower = name[:_COMPARED_CHARACTERS].lower()
    if not lower.startswith(PREFIX):
        return FOREIGN
    # Of the letters beyond ASCII, the Kelvin sign is a small k in lower case.
    kind = KINDS.get(lower) if name.isascii() else None
    if kind is None and lower[len(PREFIX) :] in RESERVED:
        raise RefusedError(
            Code.NOT_SUPPORTED,
            f"{shown(name)} is reserved for a later version; expected a request without it.",
        )
    if kind is None:
        raise RefusedError(Code.UNKNOWN_HEADER, f"{shown(name)} is not a known header; {_nearest(lower)}")
    return kind


@lru_cache(maxsize=256)
def _nearest(lower: str) -> str:
    """The advice for an unknown name, with its full stop; remembered, for a search by likeness is slow."""
    close = get_close_matches(lower.removeprefix(PREFIX), SUPPORTED, n=1)
    if close:
        return f"did you mean {PREFIX}{close[0]}?"
    return f"expected one of {PREFIX}{', -'.join(SUPPORTED)}."
