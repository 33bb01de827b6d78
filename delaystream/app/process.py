"""A process that runs until it is told to stop: signals, the last tasks, and the exit code."""

from __future__ import annotations

import asyncio
import gc
import os
import signal
from typing import Final

import structlog
from aiokafka.errors import KafkaError

from delaystream.adapters.kafka.errors import reason
from delaystream.adapters.membership.faust_host import FaustCrashed
from delaystream.adapters.operate.http import HttpError
from delaystream.config import ConfigurationError
from delaystream.engine.failures import (
    MISSING_ACL,
    LogUnavailable,
    Misconfigured,
    StoreFailed,
    TooManyInternalErrors,
    TransactionFailed,
    WriteRefused,
)
from delaystream.exit_codes import ExitCode

logger = structlog.get_logger(__name__)

#: Longest wait, at the very end, for cancelled tasks.
_CANCEL_S: Final = 2.0


def signals() -> asyncio.Event:
    """An event that SIGTERM and SIGINT set. A second signal ends the process at once."""
    stop = asyncio.Event()

    def on_signal(number: signal.Signals) -> None:
        if stop.is_set():
            logger.warning("a second signal: ended without waiting", signal=number.name)
            os._exit(128 + number)
        logger.info("stopping", signal=number.name)
        stop.set()

    loop = asyncio.get_running_loop()
    for number in (signal.SIGTERM, signal.SIGINT):
        loop.add_signal_handler(number, on_signal, number)
    return stop


def settle(*thresholds: int) -> None:
    """Begin to work: what is there by now stays, so that the collector of cycles need not go through it.

    `thresholds` are those of `gc.set_threshold`.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*thresholds)


async def first(work: asyncio.Task[object], stop: asyncio.Event) -> bool:
    """Wait for the end of the work or for the stop; returns whether the work ended."""
    stopping = asyncio.create_task(stop.wait())
    await asyncio.wait([work, stopping], return_when=asyncio.FIRST_COMPLETED)
    stopping.cancel()
    return work.done()


async def cancel_rest() -> None:
    """Cancel the remaining tasks and wait briefly: Faust's services may ignore a cancel."""
    rest = [task for task in asyncio.all_tasks() if task is not asyncio.current_task()]
    for task in rest:
        task.cancel()
    if rest:
        await asyncio.wait(rest, timeout=_CANCEL_S)


def explain(failure: BaseException) -> ExitCode:
    """Log why the process ends. The code that it returns tells a script whether a restart may help."""
    cause = failure.__cause__ if isinstance(failure, FaustCrashed) and failure.__cause__ else failure
    codes: list[tuple[type[BaseException] | tuple[type[BaseException], ...], ExitCode]] = [
        ((Misconfigured, ConfigurationError, HttpError), ExitCode.CONFIGURATION),
        (StoreFailed, ExitCode.NO_STORAGE),
        ((LogUnavailable, TransactionFailed, WriteRefused, KafkaError), ExitCode.UNAVAILABLE),
        (TooManyInternalErrors, ExitCode.CRASH),
    ]
    for kinds, code in codes:
        if isinstance(cause, kinds):
            if MISSING_ACL in str(cause):
                # Somebody took a right away; whatever failed first, only a person can give it back.
                code = ExitCode.CONFIGURATION  # noqa: PLW2901
            logger.error("the process ends", reason=_told(cause), exit_code=int(code))
            return code
    logger.critical("the process ends: unexpected error", exit_code=int(ExitCode.CRASH), exc_info=failure)
    return ExitCode.CRASH


def _told(cause: BaseException) -> str:
    return reason(cause) if isinstance(cause, KafkaError) else str(cause)
