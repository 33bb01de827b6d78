"""The command `delaystream`. Each command imports its modules when it runs, so that `--help` is quick."""

import sys
from collections.abc import Sequence


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line, by default the process's own; returns the exit code (see `exit_codes`)."""
    try:
        from delaystream.cli.application import run
    except KeyboardInterrupt:
        from delaystream.cli.output import complain

        complain("interrupted: nothing was sent")
        return 130
    return run(sys.argv[1:] if arguments is None else arguments)
