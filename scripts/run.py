"""Runs `make run`: `run.py VENV [OPTION...]`, with the options of `delaystream dev`.

The environment gets only the packages of a worker and a console; packages that `make test` adds stay.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path

from environment import ROOT, SetupError, prepare, refused

LOCK = ROOT / "requirements" / "console.txt"


def main(arguments: list[str]) -> int:
    """Prepare the environment, then become `delaystream dev`; returns only when that cannot be."""
    venv, *options = arguments
    try:
        python = prepare(Path(venv), Path(sys.executable), [LOCK], compiled=False)
    except SetupError as failure:
        return refused(failure)
    except KeyboardInterrupt:
        return 130
    return os.execv(python, [str(python), "-m", "delaystream", "dev", *options])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
