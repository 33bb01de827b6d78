"""The names under which a console is asked.

A page of another site may have its own name resolve to 127.0.0.1 (DNS rebinding): the browser then takes the
console for a part of that site, and lets its scripts read. It tells the name in `Host`, though.
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import ip_address
from urllib.parse import urlsplit


class Hosts:
    """The names that a request may say it is for: of loopback, unless it says otherwise, and some more."""

    def __init__(self, names: Iterable[str] = (), *, loopback: bool = True) -> None:
        self._names = frozenset(name.lower().rstrip(".") for name in names)
        self._loopback = loopback

    def allows(self, host: str) -> bool:
        """Whether a `Host` (RFC 9110, section 7.2) is one of them, with any port."""
        name = _name(host)
        if name is None:
            return False
        if name in self._names:
            return True
        return self._loopback and (name == "localhost" or _is_loopback(name))

    def allows_origin(self, origin: str, host: str) -> bool:
        """Whether an `Origin` (RFC 6454) is one of them, or the console, which was asked as ``host``."""
        try:
            parts = urlsplit(origin)
        except ValueError:
            return False
        return parts.scheme in {"http", "https"} and (
            parts.netloc.lower() == host.lower() or (_name(parts.netloc) or "") in self._names
        )


def _name(host: str) -> str | None:
    """A host without its port, in small letters; None for what is none."""
    try:
        parts = urlsplit(f"//{host}")
        name = parts.hostname
        _ = parts.port
    except ValueError:
        return None
    return None if name is None or parts.netloc != host or "@" in host else name.rstrip(".")


def _is_loopback(name: str) -> bool:
    try:
        return ip_address(name).is_loopback
    except ValueError:
        return False
