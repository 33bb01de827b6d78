"""The control headers that most requests leave out."""

from typing import Final, TypedDict, get_args

import msgspec
from msgspec.structs import replace

from delaystream.codec.requests import values
from delaystream.codec.requests.names import PREFIX
from delaystream.codec.requests.refusals import id_required, not_applicable, two_schedules
from delaystream.codec.requests.terms import read_terms
from delaystream.codec.requests.timing import SCHEDULES
from delaystream.core.destinations import DestinationFilter
from delaystream.core.rejection import Code, shown
from delaystream.core.request import NO_TERMS, ON_LATE_FIRE, CatchUp, IfExists, Terms, WantedStatus


class Options(msgspec.Struct, frozen=True, gc=False):
    """Their values, as in `delaystream.core.request.Request`."""

    if_exists: IfExists = IfExists.REPLACE
    on_late: str = ON_LATE_FIRE
    grace_ms: int | None = None
    destination_partition: int | None = None
    destination_key: bytes | None = None
    name: str | None = None
    description: str | None = None
    tags: tuple[str, ...] = ()
    catch_up: CatchUp = CatchUp.LATEST
    actor: str | None = None
    status: WantedStatus | None = None
    terms: Terms = NO_TERMS


NO_OPTIONS: Final = Options()
MATCHES: Final = frozenset({"match-tags", "match-destination", "match-id-prefix", "match-key"})
"""The headers of a bulk command in place of an id."""
REACHES: Final = frozenset({"match-new", "match-anonymous"})
"""Other headers that a match may have."""

_EXPECTED_ON: Final = {
    **dict.fromkeys(MATCHES | REACHES, "cancel, pause and resume without id"),
    "until": "pause",
    "coordinates": "cancel, reschedule, trigger and describe without id",
    "payload": "update",
    "rate": "rate",
}
"""Where the headers belong that a schedule does not take."""
_STATUSES: Final[tuple[WantedStatus, ...]] = get_args(WantedStatus)


class _Given(TypedDict, total=False):
    if_exists: IfExists
    on_late: str
    grace_ms: int
    destination_partition: int
    destination_key: bytes
    name: str
    description: str
    tags: tuple[str, ...]
    catch_up: CatchUp


def read_options(control: dict[str, bytes], id: str | None, destinations: DestinationFilter) -> Options:
    """The options among the control headers of a schedule; raises `RefusedError`."""
    if len(schedules := [kind for kind in SCHEDULES if kind in control]) > 1:
        raise two_schedules(schedules)
    recurring = "every" in control or "cron" in control
    if recurring and id is None:
        # Nothing could ever stop it.
        raise id_required(f"{PREFIX}{schedules[0]} is given")
    _check_applicable(control, recurring=recurring)
    given: _Given = {}
    for kind, content in control.items():
        name = PREFIX + kind
        match kind:
            case "if-exists":
                if id is None:
                    raise id_required(f"{name} is {shown(content)}")
                given["if_exists"] = values.choice(name, content, IfExists, Code.INVALID_IF_EXISTS)
            case "on-late":
                given["on_late"] = values.on_late(name, content, destinations)
            case "catch-up":
                given["catch_up"] = values.choice(name, content, CatchUp, Code.INVALID_CATCH_UP)
            case "grace":
                given["grace_ms"] = values.duration(name, content, Code.INVALID_GRACE)
            case "destination-partition":
                given["destination_partition"] = values.partition_number(name, content)
            case "destination-key":
                given["destination_key"] = values.utf_8(name, content)
            case "tags":
                given["tags"] = values.tags(name, content)
    return replace(
        Options(**given),
        name=_text(control, "name"),
        description=_text(control, "description"),
        actor=_text(control, "actor"),
        status=_status(control, id),
        terms=read_terms(control, id),
    )


def _check_applicable(control: dict[str, bytes], *, recurring: bool) -> None:
    check_lateness(control, recurring=recurring)
    for kind in sorted(control.keys() & _EXPECTED_ON.keys()):
        raise not_applicable(kind, f"a schedule; expected it on {_EXPECTED_ON[kind]}")


def check_lateness(control: dict[str, bytes], *, recurring: bool) -> None:
    """Refuse what a schedule of the other kind would do about late fires."""
    if recurring and "on-late" in control:
        raise not_applicable("on-late", "a recurring schedule; expected catch-up there")
    if not recurring and "catch-up" in control:
        raise not_applicable("catch-up", "a one-time schedule; expected on-late there")


def _status(control: dict[str, bytes], id: str | None) -> WantedStatus | None:
    content = control.get("status")
    if content is None:
        return None
    if id is None:
        raise id_required(f"{PREFIX}status is {shown(content)}")
    return values.word(PREFIX + "status", content, _STATUSES, Code.INVALID_STATUS)


def _text(control: dict[str, bytes], kind: str) -> str | None:
    content = control.get(kind)
    return None if content is None else values.text(PREFIX + kind, content)
