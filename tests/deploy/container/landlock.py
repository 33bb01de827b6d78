"""Run a command that may write below the named directories only: `landlock.py DIRECTORY... -- COMMAND...`.

What a container's read-only root does, by Linux' Landlock (kernel documentation, userspace-api/landlock): it
needs neither an engine nor rights, and holds for root too. Exits 125 where the kernel has no Landlock.
"""

from __future__ import annotations

import ctypes
import os
import sys
from collections.abc import Sequence

_CREATE_RULESET, _ADD_RULE, _RESTRICT_SELF = 444, 445, 446
_PATH_BENEATH = 1
_NO_NEW_PRIVS = 38
# The first ABI: WRITE_FILE, REMOVE_DIR, REMOVE_FILE, MAKE_CHAR, _DIR, _REG, _SOCK, _FIFO, _BLOCK, _SYM.
# The third has TRUNCATE too.
_WRITES_V1 = (1 << 1) | sum(1 << bit for bit in range(4, 13))
_WRITES_V3 = _WRITES_V1 | (1 << 14)
_NO_LANDLOCK = 125


class _Ruleset(ctypes.Structure):
    _fields_ = (("handled_access_fs", ctypes.c_uint64),)


class _PathBeneath(ctypes.Structure):
    _pack_ = 1
    _layout_ = "ms"
    _fields_ = (("allowed_access", ctypes.c_uint64), ("parent_fd", ctypes.c_int32))


def restrict_writes(directories: Sequence[str]) -> bool:
    """For this process and all that it starts; False where the kernel cannot do that."""
    libc = ctypes.CDLL(None, use_errno=True)
    version = libc.syscall(_CREATE_RULESET, None, 0, 1)
    if version < 1:
        return False
    writes = _WRITES_V3 if version >= 3 else _WRITES_V1
    wanted = _Ruleset(writes)
    ruleset = libc.syscall(_CREATE_RULESET, ctypes.byref(wanted), ctypes.sizeof(wanted), 0)
    for directory in directories:
        place = os.open(directory, os.O_PATH | os.O_CLOEXEC)
        # Of a file (a device) only what concerns files may be asked for.
        allowed = writes if os.path.isdir(directory) else writes & ((1 << 1) | (1 << 14))
        rule = _PathBeneath(allowed, place)
        if libc.syscall(_ADD_RULE, ruleset, _PATH_BENEATH, ctypes.byref(rule), 0) != 0:
            raise OSError(ctypes.get_errno(), f"landlock_add_rule for {directory}")
    if libc.prctl(_NO_NEW_PRIVS, 1, 0, 0, 0) != 0 or libc.syscall(_RESTRICT_SELF, ruleset, 0) != 0:
        raise OSError(ctypes.get_errno(), "landlock_restrict_self")
    return True


def main(arguments: Sequence[str]) -> int:
    """Restrict, then become the command."""
    place = arguments.index("--")
    if not restrict_writes(arguments[:place]):
        print("landlock.py: this kernel has no Landlock (Linux 5.13)", file=sys.stderr)
        return _NO_LANDLOCK
    return os.execvp(arguments[place + 1], list(arguments[place + 1 :]))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
