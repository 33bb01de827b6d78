"""The header contract as files: `python -m scripts.contract` gives them their one form and publishes them.

`delaystream/contract/headers.json` and `vectors.json` are written by hand. Their JSON Schemas follow from the
types here, and `docs/contract/` has a copy of all four. `docs/contract.md` says how to use them. The tests
`tests/unit/test_contract*.py` compare them with the code.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Annotated, Any, Final, Literal, TypeVar

import msgspec
from msgspec import UNSET, Meta, UnsetType

from delaystream.core.rejection import DESCRIPTIONS

ROOT: Final = Path(__file__).resolve().parent.parent
PACKAGE: Final = ROOT / "delaystream" / "contract"
DOCS: Final = ROOT / "docs" / "contract"
#: of the lines of vectors.json that say what is asked
_INDENT: Final = 2

Decoded = TypeVar("Decoded")
About = Annotated[str, Meta(description="What it is, for people.")]
Code = Annotated[str, Meta(description="One of `codes`.")]
TypeName = Annotated[str, Meta(description="One of `types`.")]
HeaderNames = Annotated[tuple[str, ...], Meta(description="Names of headers, without the prefix.")]


class _Part(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Of a file: what is not known is a mistake."""


class Limit(_Part, frozen=True, kw_only=True):
    """A bound that a worker's setting of the same name may change."""

    about: About
    value: Annotated[int, Meta(description="The default.")]
    unit: str


class Type(_Part, frozen=True, kw_only=True):
    """What a value may be. Bounds are inclusive; one with `_limit` is the bound of that name in `limits`."""

    about: About
    utf8: Annotated[bool, Meta(description="Whether other bytes are refused with `not_utf8_code`.")] = True
    trimmed: Annotated[bool, Meta(description="Whether what `trimmed` matches may stand around it.")] = False
    pattern: (
        Annotated[str, Meta(description="Matches the whole of every value; RE2's and ECMAScript's syntax.")]
        | UnsetType
    ) = UNSET
    exact: (
        Annotated[bool, Meta(description="Whether all that the pattern matches is a value.")] | UnsetType
    ) = UNSET
    but: Annotated[tuple[str, ...], Meta(description="What matches and is none.")] | UnsetType = UNSET
    rules: Annotated[tuple[str, ...], Meta(description="What holds beside the pattern.")] | UnsetType = UNSET
    values: Annotated[tuple[str, ...], Meta(description="Words, in this case.")] | UnsetType = UNSET
    base: (
        Annotated[str, Meta(description="The type that it narrows, or that it takes beside its words.")]
        | UnsetType
    ) = UNSET
    items: Annotated[str, Meta(description="Of a comma list: the type of its items.")] | UnsetType = UNSET
    or_items: Annotated[str, Meta(description="What they may be as well.")] | UnsetType = UNSET
    unit: str | UnsetType = UNSET
    least: int | UnsetType = UNSET
    most: int | UnsetType = UNSET
    most_limit: str | UnsetType = UNSET
    least_bytes: int | UnsetType = UNSET
    most_bytes: int | UnsetType = UNSET
    most_bytes_limit: str | UnsetType = UNSET
    least_characters: int | UnsetType = UNSET
    most_characters: int | UnsetType = UNSET
    least_items: int | UnsetType = UNSET
    most_items: int | UnsetType = UNSET
    most_items_limit: str | UnsetType = UNSET


class Needs(_Part, frozen=True, kw_only=True):
    """At least one of these headers has to be there."""

    any_of: HeaderNames
    code: Code
    beside: Annotated[HeaderNames, Meta(description="Only where one of these is there.")] | UnsetType = UNSET


class Excludes(_Part, frozen=True, kw_only=True):
    """None of these headers may be there."""

    names: HeaderNames
    code: Code


class Beside(_Part, frozen=True, kw_only=True):
    """What a header needs and excludes on one action."""

    needs: tuple[Needs, ...] = ()
    excludes: tuple[Excludes, ...] = ()


class ControlHeader(_Part, frozen=True, kw_only=True):
    """What a request may say."""

    about: About
    type: TypeName
    code: Annotated[str | None, Meta(description="Of a value that is none of its type; null: each is one.")]
    example: str
    default: Annotated[str | None, Meta(description="A value that means the same as no header; null: none.")]
    default_setting: (
        Annotated[str, Meta(description="The worker's setting that has another default.")] | UnsetType
    ) = UNSET
    on: Annotated[
        dict[str, Beside],
        Meta(description="The actions that take it. On any other it is refused with `not_taken_code`."),
    ]
    ignored_on: Annotated[
        tuple[str, ...], Meta(description="The actions on which it may stand, and no value is looked at.")
    ]
    cleared_on: Annotated[
        tuple[str, ...], Meta(description="The actions on which `cleared_by` is its value for: no longer.")
    ]


class RequestAction(_Part, frozen=True, kw_only=True):
    """What can be asked for."""

    about: About
    needs: tuple[Needs, ...]
    outcomes: Annotated[tuple[str, ...], Meta(description="Of its receipt.")]
    examples: Annotated[
        tuple[dict[str, str], ...], Meta(description="Headers beside `action`: of each kind the shortest.")
    ]


class WrittenHeader(_Part, frozen=True, kw_only=True):
    """A header that delaystream writes."""

    about: About
    type: TypeName
    always: bool


class Written(_Part, frozen=True, kw_only=True):
    """By record; the names are whole. On a request they are dropped, but for those without the prefix."""

    deliveries: dict[str, WrittenHeader]
    dead_letters: dict[str, WrittenHeader]
    receipts: dict[str, WrittenHeader]


class Field(_Part, frozen=True, kw_only=True):
    """Of a receipt's value."""

    about: About
    type: Literal["string", "integer", "boolean", "array", "object"]


class Outcome(_Part, frozen=True, kw_only=True):
    """What became of a request."""

    about: About
    also: Annotated[tuple[str, ...], Meta(description="Fields that are there beside those of every receipt.")]
    sometimes: Annotated[tuple[str, ...], Meta(description="Fields that may be there.")]


class Receipt(_Part, frozen=True, kw_only=True):
    """The record on the `reply-to` topic."""

    key: str
    value: str
    always: Annotated[tuple[str, ...], Meta(description="Fields of every receipt.")]
    repeated: Annotated[
        tuple[str, ...],
        Meta(description="What a receipt with `repeated` may have beside those, and nothing else."),
    ]
    fields: dict[str, Field]
    outcomes: dict[str, Outcome]


class Rejection(_Part, frozen=True, kw_only=True):
    """Why a request is refused."""

    about: About
    found: Annotated[
        Literal["request", "state", "dialect", "bytes", "consumer"],
        Meta(
            description="By what: the request and the worker's settings (these have vectors); what the "
            "worker knows besides; a topic that takes another system's headers; the bytes on the log; "
            "a consumer, of a delivery."
        ),
    ]


class RequestField(_Part, frozen=True, kw_only=True):
    """Of a request as it is understood, in vectors."""

    about: About
    default: Annotated[Any, Meta(description="Where a vector does not say; `record`: what the record has.")]


class Contract(_Part, frozen=True, kw_only=True):
    """The header contract. A version adds; nothing is renamed, and nothing changes its meaning."""

    version: Annotated[str, Meta(pattern=r"^[0-9]+\.[0-9]+$")]
    about: About
    prefix: Annotated[str, Meta(description="Of control headers, in any case of its letters (ASCII).")]
    null_code: Annotated[str, Meta(description="Of a control header whose value is null.")]
    repeated_code: Annotated[str, Meta(description="Of a control header that is there twice.")]
    not_utf8_code: Annotated[str, Meta(description="Of a value that is not UTF-8, where its type says so.")]
    not_taken_code: Annotated[str, Meta(description="Of a header on an action that does not take it.")]
    unknown_code: Annotated[str, Meta(description="Of a name with the prefix that is not here.")]
    reserved_code: Annotated[str, Meta(description="Of a name in `reserved`.")]
    reserved: HeaderNames
    cleared_by: str
    trimmed: Annotated[str, Meta(description="A pattern: what may stand around values that are `trimmed`.")]
    limits: dict[str, Limit]
    types: dict[str, Type]
    headers: Annotated[dict[str, ControlHeader], Meta(description="By name, without the prefix.")]
    actions: dict[str, RequestAction]
    written: Written
    receipt: Receipt
    codes: dict[str, Rejection]
    request: dict[str, RequestField]


class Coded(_Part, frozen=True, kw_only=True):
    """Bytes that are no short text: either `base64` (RFC 4648), or a text that is repeated so many times."""

    base64: str | UnsetType = UNSET
    repeat: str | UnsetType = UNSET
    times: int | UnsetType = UNSET


Bytes = str | Coded | None
"""Text stands for its UTF-8, null for Kafka's null."""


class WorkerSettings(_Part, frozen=True, kw_only=True):
    """What a vector depends on of a worker's settings; limits that are not here have their defaults."""

    allow: tuple[str, ...] | UnsetType = UNSET
    denied: (
        Annotated[tuple[str, ...], Meta(description="Request topics and the project's own.")] | UnsetType
    ) = UNSET
    receipts_topic: str | UnsetType = UNSET
    default_destination: str | UnsetType | None = UNSET
    default_timezone: str | UnsetType | None = UNSET
    default_grace_ms: int | UnsetType | None = UNSET
    limits: dict[str, int] | UnsetType = UNSET


class Record(_Part, frozen=True, kw_only=True):
    """Of a vector's record; what it does not say is that of the file's `record`."""

    topic: str | UnsetType = UNSET
    partition: int | UnsetType = UNSET
    offset: int | UnsetType = UNSET
    timestamp_ms: Annotated[int, Meta(description="-1: none.")] | UnsetType = UNSET
    key: Bytes | UnsetType = UNSET
    value: Bytes | UnsetType = UNSET


class Refused(_Part, frozen=True, kw_only=True):
    """What is known of a refused request, for its receipt; null where it cannot be read."""

    id: str | None = None
    reply_to: str | None = None
    no_receipt: bool = False
    actor: str | None = None
    note: str | None = None


class RequestVector(_Part, frozen=True, kw_only=True):
    """A record of a request topic, and what it asks for or why it is refused."""

    name: str
    headers: tuple[tuple[str | Coded, Bytes], ...]
    record: Record | UnsetType = UNSET
    settings: Annotated[WorkerSettings, Meta(description="In place of the file's.")] | UnsetType = UNSET
    request: (
        Annotated[dict[str, Any], Meta(description="By the fields of the contract's `request`.")] | UnsetType
    ) = UNSET
    code: Code | UnsetType = UNSET
    refused: Refused | UnsetType = UNSET


class Parsed(_Part, frozen=True, kw_only=True):
    """A text, and its number; null where it is refused."""

    text: str
    value: int | float | None


class LocalTime(_Part, frozen=True, kw_only=True):
    """What a local time means in a zone."""

    text: str
    timezone: str
    dst_gap: Literal["shift", "skip"]
    dst_overlap: Literal["first", "second", "both"]
    at_ms: tuple[int, ...]


class CronTimes(_Part, frozen=True, kw_only=True):
    """The scheduled times of an expression after a time, in order."""

    cron: str
    timezone: str
    dst_gap: Literal["shift", "skip"]
    dst_overlap: Literal["first", "second", "both"]
    after_ms: int
    times_ms: tuple[int, ...]


class Owner(_Part, frozen=True, kw_only=True):
    """Which partition a key goes to: that of an id's owner, and that of a delivery."""

    key: Bytes
    murmur2: Annotated[int, Meta(description="Of the key, as a signed 32-bit number, as Java has it.")]
    partitions: Annotated[dict[str, int], Meta(description="By the number of partitions.")]


class FireId(_Part, frozen=True, kw_only=True):
    """A fire id, taken apart; null where it is none."""

    text: str
    parts: dict[str, str | int | None] | None


class Vectors(_Part, frozen=True, kw_only=True):
    """Inputs of the contract with what they mean."""

    version: Annotated[str, Meta(description="Of the contract.")]
    about: About
    now_ms: Annotated[int, Meta(description="When a worker reads the records.")]
    settings: WorkerSettings
    record: Record
    durations: tuple[Parsed, ...]
    instants: tuple[Parsed, ...]
    rates: tuple[Parsed, ...]
    local_times: tuple[LocalTime, ...]
    cron_times: tuple[CronTimes, ...]
    owners: tuple[Owner, ...]
    fire_ids: tuple[FireId, ...]
    requests: tuple[RequestVector, ...]


FILES: Final[dict[str, type[Contract | Vectors]]] = {"headers": Contract, "vectors": Vectors}


def read(name: str, kind: type[Decoded]) -> Decoded:
    """A file of the contract, checked against its type. Raises `msgspec.ValidationError`."""
    return msgspec.json.decode((PACKAGE / f"{name}.json").read_bytes(), type=kind)


def schema(name: str) -> dict[str, Any]:
    """The JSON Schema (2020-12) of a file."""
    kind = FILES[name]
    components: dict[str, Any]
    _, components = msgspec.json.schema_components([kind], ref_template="#/$defs/{name}")
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "$ref": f"#/$defs/{kind.__name__}",
        "$defs": components,
    }


def formed(name: str) -> str:
    """A file in its one form: what says the most stands on one line each."""
    written = json.loads((PACKAGE / f"{name}.json").read_text("utf-8"))
    for code, told in written.get("codes", {}).items():
        # The sentences are the code's own.
        told["about"] = DESCRIPTIONS.get(code, told["about"])
    return _formed(written, depth=3 if name == "headers" else 2, level=0) + "\n"


def _formed(value: Any, depth: int, level: int) -> str:
    inner = " " * _INDENT * (level + 1)
    if level >= depth or not isinstance(value, dict | list) or not value:
        return json.dumps(value)
    if isinstance(value, dict):
        lines = [
            f"{inner}{json.dumps(key)}: {_formed(item, depth, level + 1)}" for key, item in value.items()
        ]
    else:
        lines = [inner + _formed(item, depth, level + 1) for item in value]
    opening, closing = "{}" if isinstance(value, dict) else "[]"
    return opening + "\n" + ",\n".join(lines) + "\n" + " " * _INDENT * level + closing


def published() -> dict[Path, str]:
    """Every file of the contract: where it is, and its text."""
    texts: dict[Path, str] = {}
    for name in FILES:
        described = json.dumps(schema(name), indent=_INDENT) + "\n"
        for directory in (PACKAGE, DOCS):
            texts[directory / f"{name}.json"] = formed(name)
            texts[directory / f"{name}.schema.json"] = described
    return texts


def main() -> int:
    """Write all of them."""
    for name, kind in FILES.items():
        read(name, kind)
    DOCS.mkdir(exist_ok=True)
    for path, text in published().items():
        path.write_text(text, "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
