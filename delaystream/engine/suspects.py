"""Requests and entries on which deciding failed, and the next attempt with each.

Deciding on one record may fail as nobody expected; its partition must not. The step is rolled back, and

1. the culprit is decided on again alone, in a step of its own, after everything that comes before it;
2. if that fails too it is given up: among the dead letters as `internal-error`, its schedule goes on;
3. if even that fails, its bytes alone are put among the dead letters, and nothing of it is read.

This is knowledge about the program, not state: it outlives a failed transaction and the recovery after it,
and is gone with the process.
"""

from __future__ import annotations

from collections import deque
from enum import IntEnum
from typing import Final

from delaystream.core.rejection import Code, Rejection
from delaystream.engine.failures import Culprit, TooManyInternalErrors

_MINUTE_MS: Final = 60_000
#: of the failure's own words, as many characters are told in a dead letter
_TOLD_CHARACTERS: Final = 200


class Stage(IntEnum):
    """The next attempt with a culprit."""

    ALONE = 1
    GIVEN_UP = 2
    AS_BYTES = 3


class InternalErrors:
    """How many culprits were given up within the last minute, all partitions of a worker together.

    Times are the event loop's, ms.
    """

    def __init__(self, most_a_minute: int = 5) -> None:
        self._most = most_a_minute
        self._at_ms: deque[float] = deque()

    def count(self, loop_ms: float) -> None:
        """One more is given up. Raises TooManyInternalErrors where that is one too many."""
        while self._at_ms and loop_ms - self._at_ms[0] >= _MINUTE_MS:
            self._at_ms.popleft()
        if len(self._at_ms) >= self._most:
            raise TooManyInternalErrors(
                f"more than {self._most} requests and fires could not be decided on within a minute: the "
                "worker ends before it puts more of them among the dead letters. Its log has each failure"
            )
        self._at_ms.append(loop_ms)


class Suspects:
    """The culprits of one partition that are not decided on yet."""

    def __init__(self, errors: InternalErrors) -> None:
        self._errors = errors
        self._stages: dict[Culprit, Stage] = {}
        self._failures: dict[Culprit, str] = {}
        #: the entry that is to be decided on alone in the next step: all before it is out of its wheel
        self.cornered: bytes | None = None

    def __bool__(self) -> bool:
        return bool(self._stages)

    def __contains__(self, culprit: Culprit) -> bool:
        return culprit in self._stages

    def failed(self, culprit: Culprit, failure: BaseException, loop_ms: float) -> None:
        """It failed once more. Raises TooManyInternalErrors, and the failure itself after the last stage."""
        before = self._stages.get(culprit)
        if before is Stage.AS_BYTES:
            raise failure
        if before is Stage.ALONE:
            self._errors.count(loop_ms)
        self._stages[culprit] = Stage.ALONE if before is None else Stage(before + 1)
        # The first failure is the fault; later ones may be of how it was given up.
        told = f"{type(failure).__name__}: {failure}"[:_TOLD_CHARACTERS]
        self._failures.setdefault(culprit, told.encode("utf-8", "backslashreplace").decode())

    def stage(self, culprit: Culprit) -> Stage | None:
        """The next attempt with it; None: it is no suspect."""
        return self._stages.get(culprit)

    def rejection(self, culprit: Culprit) -> Rejection:
        """Why it is given up."""
        return Rejection(
            Code.INTERNAL_ERROR,
            f"the worker failed on it twice, which is a fault of delaystream: {self._failures[culprit]!r}; "
            "the log has the whole error",
        )

    def clear(self, culprits: list[Culprit]) -> None:
        """They were decided on, one way or the other, and that is committed."""
        for culprit in culprits:
            self._stages.pop(culprit, None)
            self._failures.pop(culprit, None)
