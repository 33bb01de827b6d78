"""Threads that Ctrl-C spoils neither while they begin nor while they work.

Ctrl-C is raised in the main thread alone, at any instruction. `threading.Thread.start()` waits there by a
condition that is written in Python: interrupted between two instructions of it, its lock stays held, and the
new thread never begins. So one instruction begins a thread here, and that one starts the other. What must not
be cut in two, such as making a client of confluent-kafka, is done in such a thread while the caller waits.
"""

from __future__ import annotations

from _thread import start_new_thread
from collections.abc import Callable
from threading import Thread
from typing import Any, TypeVar

from delaystream.client.kafka.promises import Promise

T = TypeVar("T")


def apart(call: Callable[[], T], name: str) -> T:
    """Call a function in a thread of its own, and wait; after an interrupt the thread ends by itself.

    Its result is dropped then. Raises what the call raises.
    """
    answer: Promise[T] = Promise()

    def work() -> None:
        try:
            value = call()
        except Exception as error:  # noqa: BLE001 - raised where it was asked for
            answer.fail(error)
        else:
            answer.tell(value)

    _start(work, name, answer)
    return answer.result()


def begun(run: Callable[[], None], name: str) -> Promise[None]:
    """A daemon thread that runs from now on; the promise is told when it has ended."""
    ended: Promise[None] = Promise()

    def work() -> None:
        try:
            run()
        finally:
            ended.tell(None)

    _start(work, name, ended)
    return ended


def _start(work: Callable[[], None], name: str, promise: Promise[Any]) -> None:
    def start() -> None:
        try:
            Thread(target=work, name=name, daemon=True).start()
        except RuntimeError as error:  # there are as many threads as may be
            promise.fail(error)

    start_new_thread(start, ())
