"""Contracts with a library: what holds with the one that is installed, and with no other."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable, Coroutine
from contextvars import ContextVar
from typing import Any

import pytest

#: Raises where it does not hold.
Contract = Callable[[], None]
#: Makes another library of the one that is installed.
Doctor = Callable[[pytest.MonkeyPatch], None]


#: How long something may take to happen: long on a busy machine, short where it is expected not to.
patience_s: ContextVar[float] = ContextVar("patience_s", default=30.0)
_SHORT_S = 2.0


class Contracts(list[Contract]):
    """Those of one library. One that is a coroutine runs on a loop of its own, and not for ever."""

    def __call__(self, holds: Callable[[], Coroutine[Any, Any, None] | None]) -> Contract:
        """Note one, as a decorator."""

        def run() -> None:
            found = holds()
            if found is not None:
                asyncio.run(asyncio.wait_for(found, patience_s.get()))

        run.__name__ = holds.__name__
        self.append(run)
        return run


def is_broken(holds: Contract) -> bool:
    """Whether a contract does not hold."""
    patience = patience_s.set(_SHORT_S)
    try:
        holds()
    # Whatever the doctored library leads to; a missing exception is told by pytest in one of its own.
    except (Exception, asyncio.CancelledError, pytest.fail.Exception):  # noqa: BLE001
        return True
    finally:
        patience_s.reset(patience)
    return False


def renamed(patch: pytest.MonkeyPatch, cls: type[object], name: str) -> None:
    """The library calls it something else: we do not find it, and what we set has no effect."""
    stuck(patch, cls, name)
    find = cls.__getattribute__

    def getting(self: object, asked_for: str) -> Any:
        if asked_for == name and _asked_by_us():
            raise AttributeError(name)
        return find(self, asked_for)

    patch.setattr(cls, "__getattribute__", getting)


def stuck(patch: pytest.MonkeyPatch, cls: type[object], name: str) -> None:
    """What we set has no effect: the library does not look there."""
    keep = cls.__setattr__

    def setting(self: object, asked_for: str, value: Any) -> None:
        if asked_for != name or not _asked_by_us():
            keep(self, asked_for, value)

    patch.setattr(cls, "__setattr__", setting)


def _asked_by_us() -> bool:
    # Behind this function and the one that stands in for the library's.
    return str(sys._getframe(2).f_globals.get("__name__", "")).startswith("delaystream.")
