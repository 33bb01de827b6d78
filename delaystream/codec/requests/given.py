"""Headers that change what is there already: not given, cleared or a value."""

from collections.abc import Callable
from typing import Final, TypeVar

from msgspec import UNSET, UnsetType

from delaystream.codec.requests.names import PREFIX

Value = TypeVar("Value")

CLEARED: Final = b"none"
"""The value of a header by which a command removes a field of a schedule."""


def given(control: dict[str, bytes], kind: str, read: Callable[[str, bytes], Value]) -> Value | UnsetType:
    """What `read` makes of a header's name and bytes; UNSET when the header is not given."""
    content = control.get(kind)
    return UNSET if content is None else read(PREFIX + kind, content)


def given_or_cleared(
    control: dict[str, bytes], kind: str, read: Callable[[str, bytes], Value]
) -> Value | UnsetType | None:
    """As `given`, and None for `none`."""
    return None if control.get(kind) == CLEARED else given(control, kind, read)
