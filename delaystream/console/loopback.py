"""Where a console may listen that asks nobody who they are: on this machine alone."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from delaystream.config import ConfigurationError

_NAME: Final = "localhost"
_ADDRESS: Final = "127.0.0.1"


def loopback_address(host: str) -> str:
    """The address to listen on. Raises ConfigurationError for any that others may reach.

    Names are not looked up: what they mean may change between this look and the next. `localhost` is
    127.0.0.1 (RFC 6761).
    """
    if host == _NAME:
        return _ADDRESS
    try:
        if ip_address(host).is_loopback:
            return host
    except ValueError:
        pass
    raise ConfigurationError(
        [
            f"console_http_host is {host!r}: the console asks nobody who they are, so it listens on loopback "
            f"alone, for example on {_ADDRESS}."
        ]
    )


def url_of(address: str, port: int) -> str:
    """How to reach what listens there."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
