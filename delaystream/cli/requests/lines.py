"""Many requests, one JSON object a line (`send --lines`): each line becomes a request, or a sentence.

A line has the fields of the console's `POST /v1/schedules`: the header contract with `_` for `-`. What it
does not say comes from the options of the command.
"""

from __future__ import annotations

import re
import sys
from base64 import b64decode
from collections.abc import Iterator, Mapping
from pathlib import Path
from queue import Empty, Queue
from threading import Thread
from typing import Any, BinaryIO, Final, NamedTuple

import msgspec
import typer
from msgspec import UNSET, UnsetType
from msgspec.structs import replace

from delaystream.client.requests.records import RequestRecord, schedule_request

#: Longest line, bytes: the largest record that Kafka takes by default fits, in base64.
LONGEST_BYTES: Final = 16 * 1024 * 1024
#: Lines that are read ahead, while those before them are on their way.
_AHEAD: Final = 100
_LOOK_S: Final = 0.05
_PIECE: Final = 64 * 1024

_Text = str | None
_Whole = int | str | None
_Some = str | list[str] | None
_Times = str | int | list[str | int] | None


class Base64(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Bytes that are no text."""

    base64: str


class LineError(Exception):
    """Why a line is no request, as a sentence."""


class Line(msgspec.Struct, frozen=True):
    """A line by its number, from 1 on; the text is without its end."""

    number: int
    text: bytes


class RequestLine(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The fields of a line. None is as if it were not given, but for `value`."""

    destination: _Text = None
    delay: _Some = None
    at: _Times = None
    every: _Text = None
    cron: _Text = None
    timezone: _Text = None
    dst_gap: _Text = None
    dst_overlap: _Text = None
    start: _Whole = None
    end: _Whole = None
    max_fires: _Whole = None
    jitter: _Text = None
    catch_up: _Text = None
    on_late: _Text = None
    grace: _Text = None
    destination_partition: _Whole = None
    destination_key: _Text = None
    id: _Text = None
    if_exists: _Text = None
    status: _Text = None
    name: _Text = None
    description: _Text = None
    tags: _Some = None
    declared_by: _Text = None
    deploy: _Whole = None
    note: _Text = None
    actor: _Text = None
    if_version: _Whole = None
    request_id: _Text = None
    partition: int | None = None
    """Of the request topic."""
    key: _Text = None
    key_base64: _Text = None
    value: str | UnsetType | None = UNSET
    value_json: Any = UNSET
    value_base64: _Text = None
    headers: list[tuple[str, str | Base64 | None]] | None = None


_NOT_OPTIONS: Final = frozenset(
    {
        "destination", "key", "key_base64", "value", "value_json", "value_base64", "headers", "partition",
    }
)  # fmt: skip


class Shared(NamedTuple):
    """What the options of the command say of every line."""

    topic: str
    destination: str | None
    key: bytes | None
    headers: list[tuple[str, bytes]]
    partition: int | None
    options: Mapping[str, Any]


class Parsed(NamedTuple):
    """A line as a request."""

    request: RequestRecord
    destination: str | None


def parsed(read: Line, shared: Shared) -> Parsed:
    """The request of a line. Raises LineError."""
    if len(read.text) > LONGEST_BYTES:
        raise LineError(f"it is longer than {LONGEST_BYTES} bytes")
    try:
        line = msgspec.json.decode(read.text, type=RequestLine)
        options = {**shared.options, **_options(line)}
        destination = line.destination or shared.destination
        key = _bytes("key", line.key, line.key_base64)
        request = schedule_request(
            shared.topic,
            destination,
            _value(line),
            key=shared.key if key is None else key,
            headers=[*shared.headers, *_headers(line)],
            **options,
        )
    except msgspec.ValidationError as error:
        raise LineError(_in_words(str(error))) from None
    except msgspec.DecodeError as error:
        raise LineError(f"it is not JSON: {error}") from None
    except UnicodeDecodeError:
        raise LineError("it is not UTF-8") from None
    except RecursionError:
        raise LineError("it is nested too deeply") from None
    except (ValueError, TypeError) as error:
        raise LineError(str(error)) from None
    partition = shared.partition if line.partition is None else line.partition
    if partition is not None and partition < 0:
        raise LineError(f"partition is {partition}; expected 0 or more")
    return Parsed(replace(request, partition=partition), destination)


def _options(line: RequestLine) -> dict[str, Any]:
    said = {name: value for name, value in msgspec.structs.asdict(line).items() if name not in _NOT_OPTIONS}
    return {name: _written(value) for name, value in said.items() if value is not None}


def _written(value: Any) -> Any:
    """Lists and numbers as headers have them."""
    return ",".join(map(str, value)) if isinstance(value, list) else str(value)


def _value(line: RequestLine) -> bytes | None:
    given = [
        name
        for name, is_given in (
            ("value", line.value is not UNSET),
            ("value_json", line.value_json is not UNSET),
            ("value_base64", line.value_base64 is not None),
        )
        if is_given
    ]
    if len(given) != 1:
        said = f"{' and '.join(given)} are" if given else "none of value, value_json and value_base64 is"
        raise LineError(f"{said} given; expected one of them, and value null for a tombstone")
    if line.value_json is not UNSET:
        return msgspec.json.encode(line.value_json)
    if line.value_base64 is not None:
        return _bytes("value", None, line.value_base64)
    return line.value.encode() if isinstance(line.value, str) else None


def _bytes(name: str, text: str | None, base64: str | None) -> bytes | None:
    if text is not None and base64 is not None:
        raise LineError(f"{name} and {name}_base64 are given; expected one of them")
    if base64 is None:
        return None if text is None else text.encode()
    try:
        return b64decode(base64, validate=True)
    except ValueError:
        raise LineError(f"{name}_base64 is no base64") from None


def _headers(line: RequestLine) -> Iterator[tuple[str, bytes | None]]:
    for name, value in line.headers or ():
        if isinstance(value, Base64):
            yield name, _bytes("headers", None, value.base64)
        else:
            yield name, None if value is None else value.encode()


def _in_words(error: str) -> str:
    """msgspec's sentence, with the field's own name."""
    said = error.replace("Object contains unknown field", "there is no field").replace("`", "")
    for name, word in _TYPES.items():
        said = re.sub(rf"\b{name}\b", word, said)
    said = said.replace(" | ", " or ")
    what, _, where = said.partition(" - at $.")
    return f"{where}: {what[0].lower()}{what[1:]}" if where else what[0].lower() + what[1:]


#: msgspec's names of JSON's types.
_TYPES: Final = {"str": "text", "int": "a whole number", "array": "a list", "bool": "true or false"}


def read(file: Path | None) -> Iterator[Line | None]:
    """The lines of a file, or of standard input, that are not blank; None while none has come for a moment.

    A line that is longer than `LONGEST_BYTES` comes cut, one byte too long. Raises `typer.BadParameter`.
    """
    if file is None or str(file) == "-":
        if sys.stdin is None or sys.stdin.isatty():
            raise typer.BadParameter("--lines reads standard input, or --file: neither has any lines")
        stream: BinaryIO = sys.stdin.buffer
    else:
        try:
            stream = file.open("rb")
        except OSError as error:
            raise typer.BadParameter(f"--file {file} cannot be read: {error.strerror}") from None
    lines: Queue[Line | Exception | None] = Queue(_AHEAD)
    Thread(target=_fill, args=(stream, lines), daemon=True, name="delaystream reads lines").start()
    while True:
        try:
            line = lines.get(timeout=_LOOK_S)
        except Empty:
            yield None
            continue
        if line is None:
            return
        if isinstance(line, Exception):
            raise typer.BadParameter(f"the lines cannot be read: {line}")
        yield line


def _fill(stream: BinaryIO, lines: Queue[Line | Exception | None]) -> None:
    """In a thread of its own: results are told while the next line is waited for."""
    number = 0
    try:
        while text := stream.readline(LONGEST_BYTES + 1):
            number += 1
            if len(text) > LONGEST_BYTES:
                while rest := stream.readline(_PIECE):
                    if rest.endswith(b"\n"):
                        break
            if text.strip():
                lines.put(Line(number, text.rstrip(b"\r\n")))
        lines.put(None)
    except OSError as error:
        lines.put(error)
