"""Whom a request is by, where proxies stand in between: their word counts for those that are named alone."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network
from typing import Final

_Address = IPv4Address | IPv6Address
NOBODY: Final = "unknown"


class Proxies:
    """The proxies whose `X-Forwarded-For` is believed; none of them unless they are named."""

    def __init__(self, named: Iterable[str] = ()) -> None:
        """``named`` has addresses and networks, such as 10.0.0.0/8. Raises ValueError, with a sentence."""
        self._networks = tuple(_network(one) for one in named)

    def address(self, peer: str | None, forwarded: Sequence[str]) -> str:
        """Where a request comes from: the peer, or whoever stands before the proxies that are believed.

        ``forwarded`` has the values of `X-Forwarded-For`, in their order. Each proxy puts behind them whom it
        was asked by, so they are read from the end, as far as believed proxies have written them. What is
        further ahead is anybody's word.
        """
        known = _parsed(peer or "")
        if known is None:
            return peer or NOBODY
        told = [one for value in forwarded for one in value.split(",")] if self._networks else []
        while told and self._believes(known):
            before = _parsed(told.pop())
            if before is None:
                break
            known = before
        return str(known)

    def _believes(self, address: _Address) -> bool:
        return any(address in network for network in self._networks)


def _network(named: str) -> IPv4Network | IPv6Network:
    try:
        return ip_network(named)
    except ValueError:
        raise ValueError(
            f"{named!r} is no address and no network: expected such as 10.0.0.7 or 10.0.0.0/8"
        ) from None


def _parsed(text: str) -> _Address | None:
    """An address, with a port or without; None for what is none. One of IPv4 in IPv6 is one of IPv4."""
    text = text.strip()
    if text.startswith("["):
        text = text[1:].partition("]")[0]
    elif text.count(":") == 1:
        text = text.partition(":")[0]
    try:
        found = ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return found if mapped is None else mapped
