"""Where a console may listen: on this machine, or beyond it for callers that say who they are."""

from __future__ import annotations

from ipaddress import ip_address
from typing import Final

from delaystream.config import ConfigurationError

_NAME: Final = "localhost"
_ADDRESS: Final = "127.0.0.1"


def is_loopback(host: str) -> bool:
    """Whether only this machine reaches an address.

    Names are not looked up: what they mean may change between this look and the next. `localhost` is
    127.0.0.1 (RFC 6761).
    """
    if host == _NAME:
        return True
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return False


def listening_address(host: str, *, authenticates: bool) -> str:
    """The address to listen on. Raises ConfigurationError for any that others may reach unasked."""
    if is_loopback(host):
        return _ADDRESS if host == _NAME else host
    try:
        ip_address(host)
    except ValueError:
        raise ConfigurationError(
            [f"console_http_host is {host!r}: expected an address, such as {_ADDRESS} or 0.0.0.0."]
        ) from None
    if authenticates:
        return host
    raise ConfigurationError(
        [
            f"console_http_host is {host!r}, which other machines reach, and the console would not "
            "authenticate them: set console_tokens_file (DELAYSTREAM_CONSOLE_TOKENS_FILE) to a file of "
            "tokens, or "
            "console_oidc_issuer to a provider of identities, or listen on loopback, for example on "
            f"{_ADDRESS}."
        ]
    )


def url_of(address: str, port: int) -> str:
    """How to reach what listens there."""
    return f"http://[{address}]:{port}" if ":" in address else f"http://{address}:{port}"
