"""Values, keys and headers in Python's types, as bytes."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterable, Mapping
from typing import Any, Final, TypeAlias

import msgspec
import orjson

from delaystream.core.request import Header

CORRELATION_ID: Final = "correlation_id"
"""The header with what a record belongs to, as FastStream has it: a tag of an event's request, too."""

Serializer: TypeAlias = Callable[[Any], bytes | None]
"""Bytes of a value; None is a tombstone."""
Key: TypeAlias = bytes | str | None
HeaderValue: TypeAlias = bytes | str | None
Headers: TypeAlias = Mapping[str, HeaderValue] | Iterable[tuple[str, HeaderValue]]
"""Headers that are delivered: a list of pairs where a name repeats."""


def payload(value: Any, serializer: Serializer | None = None) -> bytes | None:
    """A record's value.

    Bytes are what they are, text is UTF-8, None is a tombstone; a pydantic or msgspec model, a dataclass, a
    dict and whatever else orjson takes is JSON. `serializer` takes the place of all that but bytes and None.
    Raises ValueError for text that is not Unicode, TypeError for what cannot be written.
    """
    if value is None or type(value) is bytes:
        return value
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    if serializer is not None:
        return serializer(value)
    if isinstance(value, str):
        return utf8("value", value)
    return _json(value)


def _json(value: Any) -> bytes:
    if isinstance(value, msgspec.Struct):
        return msgspec.json.encode(value)
    if (dump := getattr(type(value), "model_dump_json", None)) is not None:
        return utf8("value", dump(value))
    try:
        return orjson.dumps(value, _nested)
    except orjson.JSONEncodeError as error:
        if "surrogates" in str(error):
            raise ValueError(f"A text in the value holds a lone surrogate: {error}.") from None
        raise TypeError(
            f"A value of the type {type(value).__qualname__} cannot be written as JSON: {error}. Give bytes, "
            f"or a "
            "serializer."
        ) from None


def _nested(value: Any) -> Any:
    """Encodes types that orjson does not know, inside those that it knows."""
    if isinstance(value, msgspec.Struct):
        return msgspec.to_builtins(value)
    if (dump := getattr(type(value), "model_dump", None)) is not None:
        return dump(value, mode="json")
    if isinstance(value, set | frozenset):
        return sorted(value)
    if dataclasses.is_dataclass(value):  # one with a field that orjson leaves to us
        return {one.name: getattr(value, one.name) for one in dataclasses.fields(value)}
    raise TypeError(f"it holds a {type(value).__qualname__}")


def record_key(key: Key) -> bytes | None:
    """A record's key: text is UTF-8. Raises TypeError for what is neither bytes nor text."""
    return None if key is None else written("key", key)


def record_headers(headers: Headers) -> list[Header]:
    """Headers in order. Raises ValueError for a text that is not Unicode, TypeError for what is no text."""
    pairs = headers.items() if isinstance(headers, Mapping) else headers
    found: list[Header] = []
    for name, value in pairs:
        if not isinstance(name, str):
            raise TypeError(f"the name of a header is text, not {type(name).__qualname__}")
        utf8("the name of a header", name)
        found.append((name, None if value is None else written(f"the header {name}", value)))
    return found


def written(what: str, value: Any) -> bytes:
    """Bytes as they are, text as UTF-8.

    Raises TypeError for all else: of a number Python's `bytes` would make that many zeros.
    """
    if type(value) is bytes:
        return value
    if isinstance(value, str):
        return utf8(what, value)
    if isinstance(value, bytes | bytearray | memoryview):
        return bytes(value)
    raise TypeError(f"{what} takes bytes or text, not {type(value).__qualname__}")


def utf8(what: str, text: str) -> bytes:
    """A text's bytes. Raises ValueError with a sentence where it holds half of a pair (a lone surrogate)."""
    try:
        return text.encode()
    except UnicodeEncodeError as error:
        raise ValueError(
            f"{what} is not Unicode: {text[error.start]!a} at character {error.start} is a lone surrogate, "
            f"which "
            "UTF-8 cannot hold."
        ) from None
