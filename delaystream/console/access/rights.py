"""Whether a caller may do something on a request topic."""

from __future__ import annotations

from delaystream.console.access.caller import Caller, Role
from delaystream.console.access.refused import Refused, forbidden


def permit(caller: Caller, role: Role, topic: str | None) -> None:
    """Refuse a caller that may not change something of a topic that it sees. Raises Refused.

    None is what belongs to no topic: that takes the role on all of them.
    """
    if not caller.may(role, topic):
        raise too_low(caller, role, topic or "*")


def too_low(caller: Caller, role: Role, where: str) -> Refused:
    """403: a caller needs a higher role on a topic."""
    return forbidden("role-too-low", f"{caller.name} may not do this: it needs the role {role} on {where}.")
