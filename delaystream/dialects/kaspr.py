"""Kaspr's scheduler: `x-scheduler-*`.

Sources: Kaspr's user guide (https://kaspr.dev/docs/user-guide/scheduler) and, for gaps in it,
`kaspr/scheduler/manager.py`, `ticker.py` and `utils.py` of https://github.com/vmirz/kaspr (June 2026).

What differs, and is meant to:

- In Kaspr a second `ADD` with the same request id does not stop the first message; here it replaces the
  first. One-time and cron schedules share their ids here; in Kaspr each kind has its own.
- Kaspr counts in whole seconds, and delivers messages that are due within the present second; here nothing is
  early.
- A time without an offset is UTC, as the user guide says (Kaspr's code takes the host's zone).
- Kaspr delivers the header `x-scheduler-cron-missed-fire-policy` with the message; here it is removed.
"""

from collections.abc import Mapping
from typing import ClassVar, Final

from delaystream.core.instants import InstantError, parse_instant
from delaystream.core.rejection import shown
from delaystream.dialects.cron_fields import listed_steps
from delaystream.dialects.translation import (
    TO_FILL,
    UNLIMITED,
    Dialect,
    Fill,
    Record,
    Row,
    Spoken,
    Translated,
    control,
    invalid,
    missing,
    unsupported,
)

_ACTION: Final = "x-scheduler-action"
_DELIVER_AT: Final = "x-scheduler-deliver-at"
_DELIVER_TO: Final = "x-scheduler-deliver-to"
_REQUEST_ID: Final = "x-scheduler-request-id"
_CRON: Final = "x-scheduler-cron-expr"
_MISSED: Final = "x-scheduler-cron-missed-fire-policy"
_FIRE_TIMESTAMP: Final = "x-scheduler-cron-fire-timestamp"
_NAMES: Final = frozenset({_ACTION, _DELIVER_AT, _DELIVER_TO, _REQUEST_ID, _CRON, _MISSED})

_CONTROL_ACTIONS: Final = {
    "CANCEL": "cancel",
    "CRON_CANCEL": "cancel",
    "CRON_PAUSE": "pause",
    "CRON_RESUME": "resume",
}
_CATCH_UP: Final = {"replay": "all", "skip": "none"}
_ACTIONS: Final = "ADD, REPLACE, CANCEL, CRON_ADD, CRON_CANCEL, CRON_PAUSE or CRON_RESUME"
_OFFSET_AT: Final = len("2030-01-31")


class Kaspr(Dialect):
    """Reads `x-scheduler-*`."""

    name = "kaspr"
    system = "Kaspr"
    table = (
        Row(
            _ACTION,
            "`action`",
            "`ADD` (default), `REPLACE`, `CRON_ADD`: `schedule`; `CANCEL`, `CRON_CANCEL`: `cancel`; "
            "`CRON_PAUSE`: `pause`; `CRON_RESUME`: `resume`",
        ),
        Row(_DELIVER_AT, "`at`", "ISO 8601; UTC where no offset is given; in the past: at once"),
        Row(_DELIVER_TO, "`destination`"),
        Row(_REQUEST_ID, "`id`", "required by all actions but `ADD`"),
        Row(_CRON, "`cron`", "5 fields, or 6 with the seconds last, which are moved to the front; in UTC"),
        Row(
            _MISSED,
            "`catch-up`",
            "`replay` (Kaspr's default): `all`; `skip`: `none`. `grace` is without end, as in Kaspr; "
            "`max_catch_up` bounds it",
        ),
    )
    outgoing = (Row(_FIRE_TIMESTAMP, "the scheduled time of a cron fire, in seconds", "on cron fires only"),)
    fills: ClassVar[Mapping[str, Fill]] = {
        _FIRE_TIMESTAMP: lambda scheduled_ms, _: b"%d" % (scheduled_ms // 1000)
    }

    def _translated(self, record: Record) -> Translated | None:
        return _translate(record)


def _translate(record: Record) -> Translated | None:
    spoken = Spoken(record.headers, _NAMES)
    if not spoken:
        return None
    action = spoken.text(_ACTION) or "ADD"
    id = spoken.text(_REQUEST_ID)
    if action != "ADD" and not id:
        raise missing(_REQUEST_ID, f"the id that {action} is about")
    headers = [control("id", id)] if id else []
    if action in _CONTROL_ACTIONS:
        headers.append(control("action", _CONTROL_ACTIONS[action]))
    elif action in {"ADD", "REPLACE"}:
        headers.append(control("destination", spoken.required(_DELIVER_TO, "the topic to deliver to")))
        headers.append(control("at", _instant(spoken.required(_DELIVER_AT, "a time in ISO 8601"))))
    elif action == "CRON_ADD":
        headers.append(control("destination", spoken.required(_DELIVER_TO, "the topic to deliver to")))
        headers.append(control("cron", _cron(spoken.required(_CRON, "a cron expression"))))
        policy = spoken.text(_MISSED) or "replay"
        if policy not in _CATCH_UP:
            raise invalid(_MISSED, policy, "replay or skip")
        headers += [control("catch-up", _CATCH_UP[policy]), control("grace", UNLIMITED)]
        return Translated(record.key, [*headers, *spoken.rest, (_FIRE_TIMESTAMP, TO_FILL)])
    else:
        raise invalid(_ACTION, action, _ACTIONS)
    return Translated(record.key, [*headers, *spoken.rest])


def _instant(text: str) -> str:
    """Our `at`. Kaspr reads all forms of `datetime.fromisoformat`, such as a date alone, or with a space."""
    time = text if len(text) > _OFFSET_AT else f"{text}T00:00:00"
    if "Z" not in time and "z" not in time and not any(sign in time[_OFFSET_AT:] for sign in "+-"):
        time += "Z"
    try:
        return str(parse_instant(time))
    except InstantError as error:
        raise invalid(_DELIVER_AT, text, f"a time such as '2030-01-31T09:00:00Z': it {error}") from None


def _cron(expression: str) -> str:
    fields = expression.split()
    if len(fields) == 7:
        raise unsupported(f"{_CRON} is {shown(expression)}, with a year", "delaystream-end ends a schedule")
    if len(fields) == 6:
        fields = [fields[5], *fields[:5]]
    return listed_steps(" ".join(fields))
