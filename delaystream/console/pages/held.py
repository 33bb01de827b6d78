"""What a hold keeps back, in a few words. Pure."""

from __future__ import annotations

from delaystream.codec.envelope import Hold


def matched(hold: Hold) -> str:
    """What a hold keeps back, in a few words."""
    match = hold.match
    key = None if match.key is None else match.key.decode("utf-8", "backslashreplace")
    parts = [
        f"the key {key}" if key is not None else "",
        f"the destination {match.destination}" if match.destination is not None else "",
        f"the tags {', '.join(match.tags)}" if match.tags else "",
        f"ids that begin with {match.id_prefix}" if match.id_prefix is not None else "",
    ]
    # A hold matches something: where nothing is left of it, it is a key that is not to be seen.
    return " and ".join(filter(None, parts)) or "a key"
