"""The ledger: what was asked for against what came out. Pure, for the simulation and for real brokers alike.

    report = audit(asked, deliveries, events=..., dead_letters=..., receipts=...)
    assert report.ok, report

A request is accepted or refused, once. One that is refused has one dead letter and one event with the same
code, one that it may have, and nothing else comes of it. Each fire of one that is accepted ends in exactly
one way:

========================= =================================================================================
end                       what proves it
========================= =================================================================================
delivered                 one record on its destination: not before it is due, not where it was to be
                          dropped or moved; of a recurring schedule, within its grace, and the latest due
moved, then as others     one event `moved`, and it was late; the record is on the topic for late ones
expired                   one event `expired`, no record, and it was late
missed                    inside one event, and the whole run was late
skipped                   inside one event, and a later scheduled time was due, which stands for the run
given up                  one dead letter and one event `quarantined`, and it was impossible
cancelled                 without an id: one event, and a command that is about it
cut short                 a command about its id was carried out before: cancelled, replaced, rescheduled
========================= =================================================================================

*Late* and *due* are by the clock of the worker that decides; that it told its time truly is known from the
broker's, to which the decision lies between the commit before it and its own append. *Impossible* is what the
destination's bounds, and the troubles that it had, make so.

Nothing that a pause holds back goes out before a resume: `tests.ledger.selections`. What passed meanwhile
goes by the resume's word on what is late, for that once.

What a request says beside what it asks for is heeded: a repeated one changes nothing and is answered as
before; one for another version, or of a lower deploy, is refused, and no other is; a version changes with
every command that changes anything, and with nothing else: `tests.ledger.terms`. A pause that ends by itself
ends when it is to. A description is that of a state which the id had at its turn:
`tests.ledger.descriptions`. What is told of destinations, parked ones and rates, is so:
`tests.ledger.destinations`.

Nothing else may have come out: no record, event, letter or receipt without a cause, none twice. What they say
of each other, and of the request, is right in every field.

Requests without an id are told apart by their coordinates (`topic/partition/offset`), their fires by the
position in the list: `tests.ledger.anonymous`. Requests that name an id are judged together, event by event,
against what the id must be by then: `tests.ledger.chronicle`.
"""

from tests.ledger.audit import audit
from tests.ledger.records import Asked, Beat, Circumstances, Delivered, Once, Report, Selector, sent_again

__all__ = ["Asked", "Beat", "Circumstances", "Delivered", "Once", "Report", "Selector", "audit", "sent_again"]
