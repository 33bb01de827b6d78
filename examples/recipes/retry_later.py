"""A record that cannot be handled now: again later, later and later, and then a dead letter."""

from __future__ import annotations

from collections.abc import Callable

from delaystream.client import Delivery, RequestRecord, RetryPolicy, retry

POLICY = RetryPolicy.of(backoff="1m..1h*2", max_attempts=4)
"""After one, two and four minutes; the fourth attempt is the last."""


def charge_or_later(
    delivery: Delivery, charge: Callable[[bytes | None], None], produce: Callable[[RequestRecord], None]
) -> None:
    """Charge; where the bank does not answer, have the record delivered again, with its attempt counted.

    `produce` writes a record: in the transaction that marks the delivery as read, so that neither is lost nor
    doubled. `client.consumer(...)` does all of this with `delivery.retry(...)`.
    """
    try:
        charge(delivery.value)
    except ConnectionError as error:
        produce(retry(delivery, POLICY, error=error).record)
