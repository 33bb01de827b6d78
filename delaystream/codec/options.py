"""The control headers that most requests leave out."""

from typing import Final, TypedDict

import msgspec
from msgspec.structs import replace

from delaystream.codec import values
from delaystream.codec.names import PREFIX
from delaystream.codec.timing import SCHEDULES, not_applicable, two_schedules
from delaystream.codec.values import RefusedError
from delaystream.core.destinations import DestinationFilter
from delaystream.core.rejection import Code, shown
from delaystream.core.request import ON_LATE_FIRE, CatchUp, IfExists


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


NO_OPTIONS: Final = Options()
MATCHES: Final = frozenset({"match-tags", "match-destination", "match-id-prefix"})
"""What a bulk command has in place of an id."""


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
    actor: str


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
                values.text(name, content)
                given["destination_key"] = content
            case "tags":
                given["tags"] = values.tags(name, content)
    return replace(
        Options(**given),
        name=_text(control, "name"),
        description=_text(control, "description"),
        actor=_text(control, "actor"),
    )


def _check_applicable(control: dict[str, bytes], *, recurring: bool) -> None:
    if recurring and "on-late" in control:
        raise not_applicable("on-late", "a recurring schedule; expected catch-up there")
    if not recurring and "catch-up" in control:
        raise not_applicable("catch-up", "a one-time schedule; expected on-late there")
    for kind in sorted(control.keys() & MATCHES):
        raise not_applicable(kind, "a schedule; expected it on cancel, pause and resume without id")


def _text(control: dict[str, bytes], kind: str) -> str | None:
    content = control.get(kind)
    return None if content is None else values.text(PREFIX + kind, content)


def id_required(what: str) -> RefusedError:
    """`what` needs an id, and there is none."""
    return RefusedError(
        Code.ID_REQUIRED, f"{what}, but {PREFIX}id is missing; expected the id of the schedule."
    )
