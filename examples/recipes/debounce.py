"""Do something once it has been quiet for a while."""

from __future__ import annotations

from datetime import timedelta

from delaystream.client import Client

QUIET = timedelta(seconds=30)


def document_changed(client: Client, document: str) -> None:
    """Have the document indexed half a minute after its last change: each request replaces the one before."""
    client.schedule("index", {"document": document}, key=document, id=f"index-{document}", delay=QUIET)
