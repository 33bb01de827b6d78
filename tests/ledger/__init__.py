"""The ledger: what was asked for against what came out. Pure, for the simulation and for real brokers alike.

    report = audit(asked, deliveries, dead_letters=..., receipts=...)
    assert report.ok, report

A request that was accepted is delivered once for each of its due times, or is among the dead letters as
``quarantined`` in its place; never twice, never before it is due, byte for byte, and in order where order is
promised. A request that is refused is among the dead letters once, and nowhere else. A request that names an
id is what its receipt says: what was replaced or cancelled was not (wholly) delivered, and all else was.

What the lifecycle events tell of an id is held against all that came out for it, where a request says so:
`tests.ledger.chronicle`.

Requests are told apart by their coordinates (`topic/partition/offset`), which every delivery carries; fires
by their position in the request's list, which the fire id carries.
"""

from tests.ledger.audit import audit
from tests.ledger.records import Asked, Beat, Delivered, Report

__all__ = ["Asked", "Beat", "Delivered", "Report", "audit"]
