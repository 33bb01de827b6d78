"""Remind once, unless it was done meanwhile."""

from __future__ import annotations

from datetime import timedelta

from delaystream.client import Client


def invoice_sent(client: Client, invoice: str, customer: str) -> None:
    """Remind the customer after two weeks."""
    client.schedule(
        "reminders", {"invoice": invoice}, key=customer, id=f"invoice-{invoice}", delay=timedelta(weeks=2)
    )


def invoice_paid(client: Client, invoice: str) -> None:
    """Nobody is reminded of it any more; where it has gone out already, nothing happens."""
    client.cancel(f"invoice-{invoice}")
