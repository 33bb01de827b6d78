"""The progress of a download: for a person at a terminal, for a log, or for nobody."""

import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager

from rich.console import Console
from rich.progress import BarColumn, DownloadColumn, TextColumn, TimeRemainingColumn
from rich.progress import Progress as Bar

Advance = Callable[[int], None]
Progress = Callable[[str, int], AbstractContextManager[Advance]]
"""Called with the name of the download and its size in bytes. The context's value is called with the number
of each further bytes."""

_MEBIBYTE = 1024 * 1024


@contextmanager
def quiet(what: str, total_bytes: int) -> Iterator[Advance]:
    """Report nothing."""
    yield lambda more_bytes: None


@contextmanager
def on_stderr(what: str, total_bytes: int) -> Iterator[Advance]:
    """Draw a bar on a terminal; elsewhere write a line at the start, at each quarter and at the end."""
    console = Console(stderr=True)
    if console.is_terminal:
        columns = (
            TextColumn("Fetching {task.description}"),
            BarColumn(),
            DownloadColumn(),
            TimeRemainingColumn(),
        )
        with Bar(*columns, console=console, transient=True) as bar:
            task = bar.add_task(what, total=total_bytes)
            yield lambda more_bytes: bar.advance(task, more_bytes)
        return

    started = time.monotonic()
    done = told = 0
    _tell(f"Fetching {what}, {total_bytes / _MEBIBYTE:.0f} MiB (once; it is kept for the next time) ...")

    def advance(more_bytes: int) -> None:
        nonlocal done, told
        done += more_bytes
        quarter = min(3, done * 4 // total_bytes)
        if quarter > told:
            told = quarter
            _tell(f"  {quarter * 25}%")

    yield advance
    _tell(f"  done in {time.monotonic() - started:.0f} s")


def _tell(line: str) -> None:
    print(line, file=sys.stderr, flush=True)
