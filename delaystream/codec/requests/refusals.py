"""Refusals that several kinds of requests have in common."""

from collections.abc import Sequence

from delaystream.codec.requests.names import PREFIX
from delaystream.codec.requests.values import RefusedError
from delaystream.core.rejection import Code


def two_schedules(kinds: Sequence[str]) -> RefusedError:
    """More than one header says when."""
    names = " and ".join(PREFIX + kind for kind in kinds)
    return RefusedError(Code.DELAY_AND_AT, f"{names} are given together; expected one of them.")


def no_schedule(kinds: Sequence[str] = ("delay", "at", "every", "cron")) -> RefusedError:
    """None of the headers is given that would say when."""
    *names, last = [PREFIX + kind for kind in kinds]
    return RefusedError(
        Code.NO_SCHEDULE, f"None of {', '.join(names)} and {last} is given; expected one of them."
    )


def not_applicable(kind: str, what: str) -> RefusedError:
    """A header that means nothing where it stands."""
    return RefusedError(Code.NOT_APPLICABLE, f"{PREFIX}{kind} is given with {what}.")


def id_required(what: str) -> RefusedError:
    """`what` needs an id, and there is none."""
    return RefusedError(
        Code.ID_REQUIRED, f"{what}, but {PREFIX}id is missing; expected the id of the schedule."
    )
