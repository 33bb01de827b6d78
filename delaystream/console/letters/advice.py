"""What to do about a letter, in a sentence: the letter's own sentence says what is wrong. Pure."""

from __future__ import annotations

from typing import Final

from delaystream.console.letters.latest import Kind, Letter
from delaystream.console.letters.repair import unsendable
from delaystream.core.rejection import Code

_FIRST: Final = {
    Code.DESTINATION_DENIED: "Have the topic allowed by the workers, or send it to another destination.",
    Code.DESTINATION_PARTITION_OUT_OF_RANGE: "Give the destination more partitions, or remove "
    "delaystream-destination-partition.",
    Code.QUOTA_EXCEEDED: "Wait until fewer of its request topic are pending, then send it again as it is.",
    Code.TOO_MANY_TRIGGERS: "Send it again as it is, once the earlier ones are carried out.",
    Code.TOO_MANY_RATES: "Send it again as it is, once other rates are taken back.",
    Code.TOO_MANY_HOLDS: "Send it again as it is, once other holds are released.",
    Code.TOO_MANY_COMMANDS: "Send it again as it is, once the earlier commands are carried out.",
    Code.TOO_MANY_CANCELS: "Send it again as it is, once the earlier cancels are forgotten.",
    Code.ALREADY_EXISTS: "Discard it, or send it with if-exists replace to have it take that place.",
    Code.VERSION_CHANGED: "Look at the schedule as it is now; then discard it, or remove "
    "delaystream-if-version.",
    Code.DEPLOY_SUPERSEDED: "Discard it: a later deployment has decided.",
    Code.CANCELLED_EARLIER: "Send it again if it is wanted after all: it is newer than the cancel then.",
    Code.INTERNAL_ERROR: "It is a fault of delaystream: send it again with a release that has the fix.",
    Code.UNKNOWN_HEADER: "Remove the header, or set the one that was meant.",
    Code.DUPLICATE_HEADER: "Set the header once: that takes the place of both.",
    Code.AT_NOT_MILLISECONDS: "Set delaystream-at in RFC 3339 or in milliseconds.",
    Code.VALUE_TOO_LARGE: "Put the value elsewhere and send a reference to it, or have the bound raised.",
}


def advice(letter: Letter) -> str:
    """What would be right, or what to do first."""
    if (why := unsendable(letter)) is not None:
        return f"{why} Look into it at its source, then discard it."
    if letter.left_out:
        return "Its bytes are not in it: have its producer send it again, or give it a value and headers."
    if letter.kind is Kind.FIRE:
        where = letter.destination or "its destination"
        return (
            f"See that {where} takes the record, then send it again: it is delivered at once, by the workers."
        )
    if letter.kind is Kind.DELIVERY:
        where = letter.destination or "its topic"
        return (
            "Mend what the consumer failed on, then send it again: it is delivered to "
            f"{where} at once, with its attempts counted anew."
        )
    if letter.code in _FIRST:
        return _FIRST[Code(letter.code)]
    return "Its sentence says what was expected: set the header to that, or have its producer mended."
