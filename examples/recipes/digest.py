"""One message for all that happens within an hour."""

from __future__ import annotations

from collections.abc import MutableMapping
from datetime import timedelta

from delaystream.client import Client

WINDOW = timedelta(hours=1)


def commented(client: Client, comments: MutableMapping[str, list[str]], author: str, comment: str) -> None:
    """Keep the comment where the service keeps its things; the first one opens the window."""
    comments.setdefault(author, []).append(comment)
    client.schedule("digests", None, key=author, id=f"digest-{author}", delay=WINDOW, if_exists="keep")


def digest(comments: MutableMapping[str, list[str]], author: str) -> list[str]:
    """What the message holds; called by whoever consumes `digests`."""
    return comments.pop(author, [])
