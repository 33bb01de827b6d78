"""TCP ports of the loopback interface."""

import random
import socket
from collections.abc import Collection

from delaystream.dev.configuration import LOOPBACK
from delaystream.dev.errors import PortInUseError

FREE_PORTS = range(20_000, 29_000)
"""Range of the search for a free port: below the ports that systems give to outgoing connections (from 32768
on Linux).

Otherwise a stopped broker could lose its port to a client. A client that keeps connecting to the dead
broker's port gets, sooner or later, this port as its own, and is then connected to itself.
"""

_ATTEMPTS = 100


def is_free(port: int) -> bool:
    """Tell whether a server can listen on `port` of the loopback interface now."""
    with socket.socket() as probe:
        # As in Java: closing connections of an earlier server do not count.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
            probe.listen()
        # OverflowError: no port at all, such as 65536.
        except (OSError, OverflowError):
            return False
    return True


def choose_port(asked: int = 0, *, taken: Collection[int] = ()) -> int:
    """Return `asked`, or for 0 a free port that is not in `taken`. Raises `PortInUseError`."""
    if asked:
        if is_free(asked):
            return asked
        raise PortInUseError(f"Port {asked} of {LOOPBACK} is in use (or not permitted); choose another one.")
    for port in random.sample(FREE_PORTS, _ATTEMPTS):
        if port not in taken and is_free(port):
            return port
    raise PortInUseError(f"No free port found in {FREE_PORTS.start}-{FREE_PORTS.stop - 1} of {LOOPBACK}.")


def accepts(port: int) -> bool:
    """Tell whether something accepts connections on `port` of the loopback interface."""
    with socket.socket() as probe:
        probe.settimeout(1)
        return probe.connect_ex((LOOPBACK, port)) == 0
