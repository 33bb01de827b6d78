"""Reading what was written elsewhere: an answer that has a position, or none yet."""

from __future__ import annotations

from http import HTTPStatus
from typing import Annotated

from fastapi import Header

from delaystream.console.api.asking import Asked
from delaystream.console.api.problems import ProblemError, invalid
from delaystream.console.writing.positions import PositionError, parse_position


async def reached(
    console: Asked,
    if_position: Annotated[
        str | None,
        Header(description="The `Position` of a write that the answer must include; 425 if it does not yet."),
    ] = None,
) -> None:
    """Refuse to answer from copies that are not as far as the caller knows. Raises ProblemError."""
    if if_position is None:
        return
    try:
        position = parse_position(if_position)
    except PositionError as error:
        raise invalid("invalid-position", str(error)) from None
    if not console.has_passed(position):
        raise ProblemError(
            HTTPStatus.TOO_EARLY,
            "position-not-reached",
            f"This console is not as far as {if_position[:60]} yet; ask again in a moment.",
        )
