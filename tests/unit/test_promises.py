"""What one thread waits for and another tells, also where the waiting is interrupted."""

from __future__ import annotations

import platform
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType
from typing import Any

import pytest

from delaystream.client.kafka import promises
from delaystream.client.kafka.promises import Promise

#: Python 3.12 takes notice of a frame's `f_trace_opcodes` with the next call of `sys.settrace` alone.
_TRACED_ANEW = platform.python_version_tuple()[:2] == ("3", "12")


def test_what_was_told_is_there_at_once_and_again() -> None:
    promise: Promise[int] = Promise()
    assert not promise.done()
    promise.tell(7)
    assert promise.done()
    assert [promise.result(0), promise.result()] == [7, 7]


def test_what_failed_raises_for_everybody() -> None:
    promise: Promise[int] = Promise()
    promise.fail(KeyError("no"))
    for _ in range(2):
        with pytest.raises(KeyError):
            promise.result()


def test_what_does_not_come_is_waited_for_so_long() -> None:
    promise: Promise[int] = Promise()
    for timeout_s in (0, -1, 0.001):
        with pytest.raises(TimeoutError):
            promise.result(timeout_s)
    promise.tell(1)
    assert promise.result(0) == 1


def test_all_who_wait_are_told() -> None:
    promise: Promise[int] = Promise()
    found: list[int] = []
    threads = [threading.Thread(target=lambda: found.append(promise.result(60))) for _ in range(8)]
    for thread in threads:
        thread.start()
    promise.tell(3)
    for thread in threads:
        thread.join(60)
    assert found == [3] * 8


def test_a_signal_that_does_not_end_the_wait_is_seen_all_the_same() -> None:
    """As one that comes between the last look for signals and the wait: here another thread is given it."""
    promise: Promise[int] = Promise()
    seen = threading.Event()
    late: list[bool] = []

    def interrupt() -> None:
        while not promise._waiters:
            time.sleep(0.001)
        time.sleep(0.05)
        signal.pthread_kill(threading.get_ident(), signal.SIGINT)
        late.append(not seen.wait(20))
        promise.tell(7)

    assert threading.current_thread() is threading.main_thread()
    thread = threading.Thread(target=interrupt)
    thread.start()
    with pytest.raises(KeyboardInterrupt):
        promise.result()
    seen.set()
    thread.join(60)
    assert late == [False]


def test_whoever_is_interrupted_at_any_instruction_hinders_nobody() -> None:
    """Neither who tells nor who asks again: every instruction of the waiting is one at which Ctrl-C comes."""
    for instruction in range(1, 200):
        promise: Promise[int] = Promise()
        if not interrupted_at(instruction, lambda promise=promise: promise.result(0.001)):  # type: ignore[misc]
            break
        telling = threading.Thread(target=promise.tell, args=(7,), daemon=True)
        telling.start()
        telling.join(60)
        assert not telling.is_alive(), f"stuck after instruction {instruction}"
        assert promise.result(60) == 7
    assert instruction > 20


def interrupted_at(instruction: int, work: Callable[[], object]) -> bool:
    """Whether there was such an instruction of `promises.py`; KeyboardInterrupt was raised at it."""
    left = instruction

    def trace(frame: FrameType, event: str, _argument: object) -> Any:
        nonlocal left
        if frame.f_code.co_filename != promises.__file__:
            return None
        if _TRACED_ANEW and not frame.f_trace_opcodes:
            frame.f_trace_opcodes = True
            sys.settrace(trace)
        # Python 3.13 takes notice of it when a line begins.
        frame.f_trace_opcodes = True
        if event == "opcode":
            left -= 1
            if not left:
                raise KeyboardInterrupt
        return trace

    before = sys.gettrace()
    sys.settrace(trace)
    try:
        work()
    except KeyboardInterrupt:
        return True
    except TimeoutError:
        return False
    finally:
        sys.settrace(before)
    return False
