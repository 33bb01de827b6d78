"""The control headers that most requests leave out."""

from collections.abc import Sequence
from typing import Final, TypedDict

import msgspec

from delaystream.codec import values
from delaystream.codec.names import PREFIX, RESERVED
from delaystream.codec.values import RefusedError
from delaystream.core.destinations import DestinationFilter
from delaystream.core.rejection import Code, shown
from delaystream.core.request import ON_LATE_FIRE, IfExists

_SCHEDULES: Final = ("delay", "at", "every", "cron")


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


NO_OPTIONS: Final = Options()


class _Given(TypedDict, total=False):
    if_exists: IfExists
    on_late: str
    grace_ms: int
    destination_partition: int
    destination_key: bytes
    name: str
    description: str
    tags: tuple[str, ...]


def read_options(control: dict[str, bytes], id: str | None, destinations: DestinationFilter) -> Options:
    """The options among the control headers; raises `RefusedError`, for reserved headers too."""
    if len(schedules := [kind for kind in _SCHEDULES if kind in control]) > 1:
        raise two_schedules(schedules)
    given: _Given = {}
    for kind, content in control.items():
        name = PREFIX + kind
        if kind in RESERVED:
            raise not_supported(f"{name} is given", "a one-time schedule by delay or at")
        match kind:
            case "if-exists":
                if id is None:
                    raise id_required(f"{name} is {shown(content)}")
                given["if_exists"] = values.choice(name, content, IfExists, Code.INVALID_IF_EXISTS)
            case "on-late":
                given["on_late"] = values.on_late(name, content, destinations)
            case "grace":
                given["grace_ms"] = values.duration(name, content, Code.INVALID_GRACE)
            case "destination-partition":
                given["destination_partition"] = values.partition_number(name, content)
            case "destination-key":
                values.text(name, content)
                given["destination_key"] = content
            case "name":
                given["name"] = values.text(name, content)
            case "description":
                given["description"] = values.text(name, content)
            case "tags":
                given["tags"] = values.tags(name, content)
    return Options(**given)


def id_required(what: str) -> RefusedError:
    """`what` needs an id, and there is none."""
    return RefusedError(
        Code.ID_REQUIRED, f"{what}, but {PREFIX}id is missing; expected the id of the schedule."
    )


def not_supported(what: str, expected: str) -> RefusedError:
    """`what` is reserved for a later version."""
    return RefusedError(
        Code.NOT_SUPPORTED, f"{what}, which this version does not carry out; expected {expected}."
    )


def two_schedules(kinds: Sequence[str]) -> RefusedError:
    """More than one header says when."""
    names = " and ".join(PREFIX + kind for kind in kinds)
    return RefusedError(Code.DELAY_AND_AT, f"{names} are given together; expected one of them.")
