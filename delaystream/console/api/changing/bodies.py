"""Bodies of requests, in the words of the header contract with `_` for `-`: what is read can be sent back."""

from __future__ import annotations

import json
from base64 import b64decode
from collections.abc import Sequence
from typing import Annotated, Any, Final

import msgspec
from msgspec import UNSET, UnsetType
from pydantic import BaseModel, ConfigDict, Field

from delaystream.client.requests.options import CLEAR
from delaystream.codec.requests.names import ATTEMPT, DROPPED, FOREIGN, kind_of
from delaystream.codec.requests.values import RefusedError
from delaystream.console.api.models import HeaderBytes, Json
from delaystream.console.api.problems import invalid

_VALUES: Final = ("value", "value_json", "value_base64")
_TIMES: Final = ("delay", "at", "every", "cron")
_NOT_OPTIONS: Final = frozenset({*_VALUES, "key", "key_base64", "headers", "note", "id"})
_CLEARED: Final = frozenset(
    {"end", "max_fires", "jitter", "timezone", "name", "description", "tags", "grace", "on_late"}
)


class Body(BaseModel):
    """What is sent. Nothing is guessed: a field that is not known is refused, and so is another type."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Noted(Body):
    """A command that says why."""

    note: str | None = Field(None, description="Why, for people: at most 1024 bytes.")


class Changed(Noted):
    """What a schedule is. Every field is the header of its name, and refused as it would be there."""

    destination: str | None = None
    delay: str | list[str] | None = None
    at: str | int | list[str | int] | None = None
    every: str | None = None
    cron: str | None = None
    timezone: str | None = None
    dst_gap: str | None = None
    dst_overlap: str | None = None
    start: str | int | None = None
    end: str | int | None = None
    max_fires: int | str | None = None
    jitter: str | None = None
    catch_up: str | None = None
    on_late: str | None = None
    grace: str | None = None
    destination_partition: int | str | None = None
    destination_key: str | None = None
    name: str | None = None
    description: str | None = None
    tags: list[str] | None = None
    key: str | None = None
    key_base64: str | None = None
    value: str | None = Field(None, description="Text. null: a tombstone.")
    value_json: Any = Field(None, description="Any JSON; null is the JSON text `null`.")
    value_base64: str | None = None
    headers: list[Annotated[list[str | HeaderBytes | None], Field(min_length=2, max_length=2)]] | None = (
        Field(None, description="Pairs of a name and a value, delivered as they are; null is Kafka's null.")
    )
    declared_by: str | None = None
    deploy: int | str | None = None


class Replaced(Changed):
    """A schedule: a destination, a time (`delay`, `at`, `every`, `cron`), and one of the three values.

    null is as if it were not given, but for `value`.
    """

    status: str | None = Field(None, description="`pending` or `paused`.")


class Created(Replaced):
    """A schedule that is new."""

    id: str | None = Field(None, description="The console generates one if none is given.")
    if_exists: str | None = Field(None, description="`reject` (default), `keep` or `replace`.")


class Delivered(msgspec.Struct, frozen=True):
    """Key, value and headers of a body, as bytes."""

    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes | None]]


def delivered(body: Changed) -> Delivered:
    """What a body has delivered. Raises ProblemError."""
    value = value_of(body)
    if isinstance(value, UnsetType):
        raise invalid(
            "invalid-payload",
            "None of value, value_json and value_base64 is given; expected one of them, and value null "
            "for a tombstone.",
        )
    return Delivered(_bytes(body, "key"), value, _headers(body))


def _told(body: BaseModel, name: str) -> bool:
    """Whether a value is said there: of JSON, null is one, too."""
    return name == "value_json" or getattr(body, name) is not None


def _value(body: BaseModel, name: str) -> bytes | None:
    content = getattr(body, name)
    if name == "value_json":
        try:
            text = json.dumps(content, ensure_ascii=False, allow_nan=False, separators=(",", ":"))
        except ValueError:
            raise invalid("invalid-payload", "value_json holds a number that JSON does not have.") from None
        return _utf8("value_json", text)
    if name == "value_base64":
        return _base64("value_base64", content or "")
    return None if content is None else _utf8("value", content)


def _bytes(body: Changed, name: str) -> bytes | None:
    return key_of(getattr(body, name), getattr(body, f"{name}_base64"), name)


def key_of(text: str | None, encoded: str | None, name: str) -> bytes | None:
    """The bytes that one of two fields says; None where neither is given. Raises ProblemError."""
    if text is not None and encoded is not None:
        raise invalid("invalid-key", f"{name} and {name}_base64 are given; expected one of them.")
    if encoded is not None:
        return _base64(f"{name}_base64", encoded)
    return None if text is None else _utf8(name, text)


def _headers(body: Changed) -> list[tuple[str, bytes | None]]:
    found = header_pairs("headers", body.headers or [])
    for name, _ in found:
        _refuse_control(name)
    return found


def header_pairs(field: str, pairs: Sequence[Sequence[Any]]) -> list[tuple[str, bytes | None]]:
    """Headers as bytes. Raises ProblemError."""
    found: list[tuple[str, bytes | None]] = []
    for name, content in pairs:
        if not isinstance(name, str):
            raise invalid(
                "invalid-headers", f"{field}: a name is not text; expected pairs of a name and a value."
            )
        _utf8(f"{field}: a name", name)
        if isinstance(content, HeaderBytes):
            found.append((name, _base64(f"{field}: {name[:60]!r}", content.base64)))
        else:
            found.append((name, None if content is None else _utf8(f"{field}: {name[:60]!r}", content)))
    return found


def value_of(body: BaseModel) -> bytes | UnsetType | None:
    """What one of the fields `value`, `value_json` and `value_base64` says; UNSET: none is given.

    Raises ProblemError.
    """
    given = [name for name in _VALUES if name in body.model_fields_set and _told(body, name)]
    if len(given) > 1:
        raise invalid("invalid-payload", f"{' and '.join(given)} are given; expected one of them.")
    if not given:
        return None if "value" in body.model_fields_set else UNSET
    return _value(body, given[0])


def _refuse_control(name: str) -> None:
    """A header that is obeyed, not delivered, has a field: it would say who asks, or ask for something else.

    What a delivery carries may come back with it.
    """
    try:
        kind = kind_of(name)
    except RefusedError as refused:
        raise invalid(refused.code.value, f"headers: {refused.detail}") from None
    if kind not in (FOREIGN, DROPPED, ATTEMPT):
        raise invalid(
            "not-applicable",
            f"headers: {name[:60]!r} is a control header; expected the field of its name.",
        )


def _utf8(name: str, text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        raise invalid("not-utf8", f"{name} holds half of a surrogate pair; expected Unicode text.") from None


def _base64(name: str, text: str) -> bytes:
    try:
        return b64decode(text, validate=True)
    except ValueError:
        raise invalid("invalid-payload", f"{name} is not base64 (RFC 4648).") from None


def schedule_options(body: Replaced) -> Json:
    """What a body defines, as options of the client; null is as if it were not given."""
    options: Json = {
        name: _option(name, value)
        for name in type(body).model_fields
        if name not in _NOT_OPTIONS and (value := getattr(body, name)) is not None
    }
    return options


def changes(body: Changed) -> Json:
    """A merge patch (RFC 7396) as changes of the client: null takes away. Raises ProblemError."""
    given = body.model_fields_set - {"note"}
    options: Json = {}
    for name in sorted(given - _NOT_OPTIONS):
        value = getattr(body, name)
        if value is not None:
            if value == "none" and name in _CLEARED:
                raise invalid(
                    "not-applicable",
                    f"{name} is 'none', which means nothing there; expected null for that, or PUT for "
                    "the word.",
                )
            options[name] = _option(name, value)
        elif name in _CLEARED:
            options[name] = CLEAR
        elif name not in _TIMES or not any(getattr(body, other) is not None for other in _TIMES):
            raise invalid(
                "not-applicable",
                f"{name} is null, which it cannot be; expected a value, or PUT for another schedule.",
            )
    if given & {*_VALUES}:
        what = delivered(body)
        options |= {"value": what.value, "key": what.key, "headers": what.headers}
    elif given & {"key", "key_base64", "headers"}:
        raise invalid(
            "invalid-payload",
            "key and headers belong to a new value; expected the value, too.",
        )
    return options


def _option(name: str, value: Any) -> Any:
    if name in {"delay", "at"}:
        return ",".join(map(str, value)) if isinstance(value, list) else str(value)
    if name in {"start", "end", "until"}:
        return str(value)
    return value


class Paused(Noted):
    """A pause."""

    until: str | int | None = Field(
        None, description="When it ends by itself; null: it stays until a resume."
    )


class Resumed(Noted):
    """A resume, and what it says of fires that were missed."""

    catch_up: str | None = None
    on_late: str | None = None
    grace: str | None = None


class Rescheduled(Noted):
    """Other times; what is not given stays, and null takes away."""

    delay: str | list[str] | None = None
    at: str | int | list[str | int] | None = None
    every: str | None = None
    cron: str | None = None
    timezone: str | None = None
    dst_gap: str | None = None
    dst_overlap: str | None = None
    start: str | int | None = None
    end: str | int | None = None
    max_fires: int | str | None = None
    jitter: str | None = None


class Toggled(Noted):
    """Whether a schedule fires."""

    enabled: bool


def command_options(body: Noted) -> Json:
    """What a command says beside its note, as options of the client; null is as if it were not given."""
    return {
        name: _option(name, value)
        for name in type(body).model_fields
        if name != "note" and (value := getattr(body, name)) is not None
    }


def reschedule_options(body: Rescheduled) -> Json:
    """Other times, as options of the client. Raises ProblemError."""
    options: Json = {}
    for name in sorted(body.model_fields_set - {"note"}):
        value = getattr(body, name)
        if value is not None:
            options[name] = _option(name, value)
        elif name in _CLEARED:
            options[name] = CLEAR
    return options
