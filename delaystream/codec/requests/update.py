"""The changes of an update, except those of its times."""

from functools import partial
from typing import Final

from delaystream.codec.requests import values
from delaystream.codec.requests.given import given, given_or_cleared
from delaystream.codec.requests.names import PREFIX
from delaystream.codec.requests.options import check_lateness
from delaystream.codec.requests.terms import OF_A_SET
from delaystream.codec.requests.timing import RECURRING, SCHEDULES, TIMING
from delaystream.codec.requests.values import RefusedError
from delaystream.core.destinations import DestinationFilter
from delaystream.core.rejection import Code
from delaystream.core.request import CatchUp, Update

CHANGES: Final = frozenset({
    "destination", "destination-partition", "destination-key", "on-late", "grace", "catch-up", "name",
    "description", "tags", "payload",
})  # fmt: skip
"""The headers that an update takes beside those of its times."""
_SAYS: Final = CHANGES | TIMING | OF_A_SET


def read_update(control: dict[str, bytes], value: bytes | None, destinations: DestinationFilter) -> Update:
    """The changes among the control headers of an update; raises `RefusedError`."""
    if any(kind in control for kind in SCHEDULES):
        check_lateness(control, recurring=any(kind in control for kind in RECURRING))
    tags = given_or_cleared(control, "tags", values.tags)
    replaces_payload = _replaces_payload(control, value)
    if control.keys().isdisjoint(_SAYS):
        raise RefusedError(
            Code.NOTHING_TO_CHANGE,
            "The update has nothing to change; expected a header that says when, or one of "
            f"{', '.join(PREFIX + kind for kind in sorted(CHANGES))}.",
        )
    return Update(
        replaces_payload=replaces_payload,
        destination=given(
            control,
            "destination",
            partial(values.topic, invalid=Code.INVALID_DESTINATION, destinations=destinations),
        ),
        destination_partition=given(control, "destination-partition", values.partition_number),
        destination_key=given(control, "destination-key", values.utf_8),
        on_late=given_or_cleared(control, "on-late", partial(values.on_late, destinations=destinations)),
        grace_ms=given_or_cleared(control, "grace", partial(values.duration, invalid=Code.INVALID_GRACE)),
        catch_up=given(
            control, "catch-up", partial(values.choice, choices=CatchUp, invalid=Code.INVALID_CATCH_UP)
        ),
        name=given_or_cleared(control, "name", values.text),
        description=given_or_cleared(control, "description", values.text),
        tags=() if tags is None else tags,
    )


def _replaces_payload(control: dict[str, bytes], value: bytes | None) -> bool:
    """Whether the schedule is to deliver the request's own key, value and headers from now on."""
    content = control.get("payload")
    if content is None and value:
        # A value that is sent is meant to be delivered: it is not left out in silence.
        raise RefusedError(
            Code.INVALID_PAYLOAD,
            f"The update has a value of {len(value)} bytes and no {PREFIX}payload; expected 'replace', to "
            "deliver this value from now on, or 'keep', to deliver the old one.",
        )
    return values.word(PREFIX + "payload", content, ("keep", "replace"), Code.INVALID_PAYLOAD) == "replace"
