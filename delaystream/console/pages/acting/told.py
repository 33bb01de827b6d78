"""What came of a request, as sentences: for the page that a form leads to. Pure."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from markupsafe import Markup

from delaystream.console.api.models import RequestBody
from delaystream.console.pages.rendering import moment, said

SHOWN_MS: Final = 15 * 60_000
"""So long the outcome of a request is shown to whoever has its address; it is no news after that."""

_NOTHING: Final = "Nothing was changed"
_DONE: Final = {
    "paused": "Paused.",
    "resumed": "Resumed. No fire is due at once.",
    "triggered": "Sent now.",
    "scheduled": "Created.",
    "replaced": "Replaced.",
    "updated": "Changed.",
    "rescheduled": "It has another time.",
    "cancelled": "Cancelled: nothing of it fires any more.",
    "unchanged": f"{_NOTHING}: it was so already.",
    "kept": f"{_NOTHING}: the id is in use, and what was there was kept.",
}
"""What came of a request about one thing."""
_SEVERAL: Final = {
    ("no-match", "pause"): "The hold stands. Nothing matched it yet.",
    ("no-match", "resume"): "The hold is over. Nothing was kept back by it any more.",
    ("no-match", "cancel"): f"{_NOTHING}: nothing matched.",
    ("rate-set", "rate"): "The rate is set on every partition.",
}
_COUNTED: Final = {"paused": "Held", "resumed": "Released", "cancelled": "Cancelled"}
"""What came of a request about several, where that is counted."""


@dataclass(frozen=True)
class Notice:
    """What is said above a page."""

    #: of the style sheet: `good`, `warning` or `bad`
    tone: str
    text: str | Markup
    #: what to do about it; empty: nothing
    advice: str | Markup = ""
    #: name of the request, while it is under way: the page asks for it again
    waits_for: str | None = None


def notice(request: RequestBody) -> Notice:
    """The sentence for a request's outcome, or for how far it is."""
    if request.stage == "failed":
        why = request.detail or "Kafka did not take it."
        return Notice("bad", said("Not sent: {}", why), f"{_NOTHING}. Send it again in a moment.")
    if request.stage != "decided":
        return Notice(
            "warning",
            "Sent; no worker has decided on it yet.",
            "This page asks again by itself. If it takes longer than a minute, look whether every partition "
            "has a worker. The request stands on its topic and is carried out when one is back: do not send "
            "it again.",
            waits_for=request.request_id,
        )
    if (why_not := _why_not(request)) is not None:
        return Notice("bad", why_not, f"{_NOTHING}.")
    text = _several(request) if request.about is None else _one(request)
    if request.repeated:
        text = Markup("{} It had been carried out before: nothing was done twice.").format(text)
    if not request.shown:
        return Notice("good", text, "This page shows it in a moment.", waits_for=request.request_id)
    return Notice("good", text)


def _why_not(request: RequestBody) -> Markup | None:
    """Why nothing was changed; None where that is not so."""
    if request.outcome == "rejected":
        return said("Refused: {} ({})", request.detail or "", request.code or "")
    if request.outcome == "unknown":
        return said("Nothing is known of {}.", request.about or "")
    if request.outcome == "too-late":
        return said("{} is over: nothing of it was pending any more.", request.about or "")
    return None


def _one(request: RequestBody) -> str | Markup:
    first = request.fires[0] if request.fires else None
    if request.outcome == "resumed" and request.fires_at_once:
        return f"Resumed. {_fires(request.fires_at_once)} due at once."
    if request.outcome == "triggered" and first is not None:
        return said("Sent now, as fire {}.", first.fire_id)
    done = _DONE.get(request.outcome or "") or said("Carried out: {}.", request.outcome or "")
    if first is None:
        return done
    return Markup("{} The next fire is due at {}.").format(done, moment(first.due_at))


def _several(request: RequestBody) -> str | Markup:
    outcome = request.outcome or ""
    if outcome not in _COUNTED:
        return _SEVERAL.get((outcome, request.action)) or said("Carried out: {}.", outcome)
    counted = _number(request.count, "schedule")
    if outcome == "resumed":
        # What has no id is counted as it comes due: nothing of it is written anew by the end of a hold.
        return f"Released: {counted}. {_fires(request.fires_at_once or 0)} due at once."
    return f"{_COUNTED[outcome]}: {counted}, and {_number(request.anonymous, 'event')} without an id."


def _number(count: int | None, what: str) -> str:
    return f"{count or 0} {what}" if count == 1 else f"{count or 0} {what}s"


def _fires(count: int) -> str:
    return f"{count} fire is" if count == 1 else f"{count} fires are"
