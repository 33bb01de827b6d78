"""What to try when something went wrong, by its code. Pure."""

from __future__ import annotations

from typing import Final

_TRY: Final = {
    "unknown": "Search for it: it may be known by its key, by a tag, or by the coordinates of its request.",
    "ambiguous-id": "Choose the request topic that you mean.",
    "invalid-cursor": "Begin at the first page: filters or order are others than those of the link.",
    "history-unavailable": "Reload in a few seconds. What is pending can be asked meanwhile.",
    "form-not-taken": "Go back, reload the page, and send the form again: what you wrote is still in it.",
    "role-too-low": "Ask somebody who has that role on this request topic. What you see stays as it is.",
    "read-only": "This console writes nothing (console_writes). A producer can send the same.",
    "version-changed": "Below it is as it is now. If you still want it, send it again.",
    "too-late": "Nothing of it is pending any more. If it should fire again, create it again.",
    "already-exists": "Choose another id, or edit the schedule that has it.",
    "cancelled-earlier": "Send it again: that is newer than the cancel.",
    "deploy-superseded": "A newer deployment has declared it. Change it there.",
    "quota-exceeded": "Cancel schedules that are not needed, or have the quota raised.",
    "too-many-triggers": "So many are to be sent already. Wait until they are, then try again.",
    "too-many-holds": "Release a hold that is not needed any more, then try again.",
    "too-many-rates": "Take a rate away that is not needed any more, then try again.",
    "too-many-commands": "Others are still at work. Try again in a moment.",
    "too-many-cancels": "So many cancels of unknown ids are remembered. Try again later.",
    "internal-error": "Try again in a moment: nothing was changed. If it stays, the worker's log says why.",
    "kafka-unavailable": "Nothing was sent. Try again when Kafka answers.",
    "busy": "Nothing was sent. Try again in a moment.",
    "idempotency-key-reused": "This form was sent before, with something else in it. Open it anew.",
    "nothing-selected": "Go back and select some, or choose all that match.",
    "already-redriven": "Below it is as it is now. Sending it once more is a second request.",
    "redrive-under-way": "Wait until a worker has decided on what was sent, then look again.",
    "discarded": "Take it up again first, if it is wanted after all.",
    "not-redrivable": "Look into it at its source, then discard it.",
    "not-here": "Open the page on the console that runs it: its log names the run.",
    "nothing-applicable": "Go back and choose schedules that are pending or paused.",
    "too-many-matches": "Go back and narrow the filter, or do it in parts.",
    "too-many-operations": "Wait until one has ended, or stop one on the page Operations.",
    "expired": "Go back to the list and ask again: it may match something else by now.",
    "undo-over": "What was cancelled has to be created again: its events are on its page.",
    "not-complete": "Try again in a moment.",
    "nothing-to-change": "Change a field first: a note alone changes nothing.",
}
_TRY_ELSE: Final = "Correct what is said above, and try again."


def advice(code: str) -> str:
    """A sentence or two for whoever got this code."""
    return _TRY.get(code, _TRY_ELSE)
