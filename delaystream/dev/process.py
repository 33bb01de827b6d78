"""A child process that ends with this process, however this process ends."""

import os
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

_GUARD = "read -r _; kill -KILL 0"
"""Wait for the end of standard input, then kill the own process group, which is the guarded process and this
shell."""


class GuardedProcess:
    """A child in a process group of its own, which a guard kills as soon as this Python process is gone.

    The guard is a shell that reads from a pipe whose other end only this process holds. The kernel closes
    that end when this process dies, by SIGKILL too; the guard reads end-of-file and kills the group.
    Considered instead: `prctl(PR_SET_PDEATHSIG)` exists on Linux only. It acts when the *thread* that started
    the child ends, and would kill a broker that a worker thread started. `atexit` does not run after SIGKILL.

    The guard leads the group and lives as long as its child, so no stranger can get the group's number in the
    meantime. The group also keeps a terminal's Ctrl-C away from the child: the parent decides the order in
    which processes stop. A child from a plain `fork` (not `subprocess`) of this process also holds the pipe.
    The guard then waits for that child, too.
    """

    def __init__(self, command: Sequence[str | Path], *, output: Path, inherited: Sequence[int] = ()) -> None:
        """Start `command`; it appends its outputs to the file `output` and inherits the given descriptors."""
        reading, self._lifeline = os.pipe()
        try:
            self._guard = subprocess.Popen(
                ["/bin/sh", "-c", _GUARD],
                stdin=reading,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
                process_group=0,
                pass_fds=inherited,
            )
        except OSError:
            os.close(self._lifeline)
            raise
        finally:
            os.close(reading)
        try:
            with output.open("ab") as file:
                self._child = subprocess.Popen(
                    command,
                    stdin=subprocess.DEVNULL,
                    stdout=file,
                    stderr=subprocess.STDOUT,
                    process_group=self._guard.pid,
                    pass_fds=inherited,
                )
        except OSError:
            self._release()
            raise

    @property
    def pid(self) -> int:
        """The child's process id."""
        return self._child.pid

    @property
    def guard_pid(self) -> int:
        """The guard's process id, which is the number of the process group."""
        return self._guard.pid

    def poll(self) -> int | None:
        """Return the child's exit status; None while it runs."""
        return self._child.poll()

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to the child, if it still runs."""
        self._child.send_signal(number)

    def stop(self, timeout_ms: int) -> int:
        """Ask the child to end, kill it after `timeout_ms`, and return its exit status."""
        self._child.send_signal(signal.SIGCONT)
        self._child.terminate()
        try:
            self._child.wait(timeout_ms / 1000)
        except subprocess.TimeoutExpired:
            return self.kill()
        self._release()
        return self._child.returncode

    def kill(self) -> int:
        """Kill the child at once and return its exit status."""
        self._child.kill()
        self._child.wait()
        self._release()
        return self._child.returncode

    def _release(self) -> None:
        if self._guard.returncode is None:
            os.close(self._lifeline)
            self._guard.wait()
