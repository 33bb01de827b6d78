"""Exit codes of the command `delaystream`, which scripts and orchestrators may rely on.

0 to 2 follow the shell. Codes from 64 on are those of BSD's `sysexits.h` that fit.
"""

from enum import IntEnum


class ExitCode(IntEnum):
    """Why the process ended; `EXIT_CODES_HELP` is the text for people."""

    OK = 0
    """Done; for `worker`: stopped by SIGTERM or SIGINT, with every partition released cleanly."""
    CRASH = 1
    """An unexpected error; the log's last line says which. Restarting is right."""
    USAGE = 2
    """The command line is wrong."""
    REFUSED = 65
    """The command was refused: `cancel` came too late, `topics check` found a difference."""
    UNAVAILABLE = 69
    """Kafka did not answer in time, or refused the login. Restarting may help."""
    STALLED = 70
    """The progress watchdog ended a worker that owned partitions and did nothing. Restarting is right."""
    NO_STORAGE = 74
    """The data directory cannot be written: missing rights, full, or in use by another worker; or there is no
    room for a command's output."""
    TIMEOUT = 75
    """No answer came in the time given (`cancel`, `watch --count`)."""
    CONFIGURATION = 78
    """A setting, a topic or the state of the cluster needs a person. Restarting will not help."""
    INTERRUPTED = 130
    """Ctrl-C ended a command before it had sent or found anything; as shells have it."""


EXIT_CODES_HELP = """\
Exit codes: 0 done; 1 unexpected error; 2 wrong usage; 65 refused (cancel came too late, topics differ);
69 Kafka unavailable; 70 a stalled worker was ended; 74 data directory not writable; 75 no answer in time;
78 configuration: a setting or a topic needs a person, restarting will not help; 130 interrupted, nothing was
sent."""
