"""Notice that a reply does not come."""

from __future__ import annotations

from datetime import timedelta

from delaystream.client import Client

PATIENCE = timedelta(minutes=30)


def payment_requested(client: Client, order: str) -> None:
    """After half an hour without a reply the order is on `payment-timeouts`."""
    client.schedule("payment-timeouts", {"order": order}, key=order, id=f"payment-{order}", delay=PATIENCE)


def payment_came(client: Client, order: str, *, wait: timedelta) -> bool:
    """Whether the payment was in time: who cancels learns whether the timeout came first."""
    return client.cancel(f"payment-{order}", wait=wait).outcome == "cancelled"
