"""A schedule as the request that asks for it: for curl, for the command line, in Python, as headers.

Whoever pastes one of them asks for the same schedule: same id, definition, key and value. Everything in them
that came from a record is quoted for the language it is in. Pure.
"""

from __future__ import annotations

import json
import shlex
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any, Final
from urllib.parse import quote, urlencode

from delaystream.codec.requests.names import PREFIX
from delaystream.console.api.models import DefinitionBody, HeaderBytes, Payload, ScheduleBody
from delaystream.console.api.rendering import text_or_base64
from delaystream.core.instants import format_instant

#: in place of a value that whoever copies may not see
_HIDDEN: Final = b"VALUE"


@dataclass(frozen=True)
class Snippet:
    """One way to ask for it."""

    name: str
    #: what it needs, or what it cannot say; None: nothing
    remark: str | None
    text: str


@dataclass(frozen=True)
class Target:
    """Where to."""

    bootstrap_servers: str
    #: of this console, without a slash at the end
    url: str
    #: whether this console takes requests
    writes: bool = False


def snippets(schedule: ScheduleBody, payload: Payload | None, target: Target) -> list[Snippet]:
    """All of them; without a payload, value and headers of the schedule's record are left to fill in."""
    remark = None if payload is not None else "Value and headers are not shown here: fill them in yourself."
    return drafted(Draft.of(schedule, payload), target, remark)


def drafted(told: Draft, target: Target, remark: str | None = None) -> list[Snippet]:
    """All of them, for what need not be a schedule yet."""
    return [
        Snippet("curl", remark, _written(told, target))
        if target.writes
        else Snippet("curl", "It reads the schedule: this console takes no requests.", _get(told, target)),
        Snippet("Command line", _in_arguments(told) or remark, _command_line(told, target)),
        Snippet("Python", remark, _python(told, target)),
        Snippet("Headers", remark, _headers(told)),
    ]


def _in_arguments(told: Draft) -> str | None:
    """What of it no argument of a command can say; None: all of it can be said."""
    texts = [told.id, *told.options.values(), *(text or "" for pair in told.headers for text in pair)]
    if any("\0" in text for text in texts) or b"\0" in (told.key or b""):
        return "It has NUL bytes, which no argument holds: they are left out here. Python has all of it."
    if any(content is None or "=" in name for name, content in told.headers):
        return "Headers without a value, or with = in their names, are left out here. Python has them."
    return None


def first_snippets(target: Target, request_topic: str) -> list[Snippet]:
    """How to ask for a first event."""
    kcat = [
        "echo 'call back' | kcat -P",
        f"-b {shlex.quote(target.bootstrap_servers)}",
        f"-t {shlex.quote(request_topic)} -k 42",
        "-H delaystream-id=first",
        "-H delaystream-destination=reminders",
        "-H delaystream-delay=1m",
    ]
    command = [
        "delaystream send 'call back' --key 42 --id first",
        "--to reminders --delay 1m",
        f"-b {shlex.quote(target.bootstrap_servers)}",
        f"--topic {shlex.quote(request_topic)}",
    ]
    python = f"""\
from delaystream.client import Client

with Client({target.bootstrap_servers!r}, request_topic={request_topic!r}) as client:
    client.schedule("reminders", "call back", key="42", id="first", delay="1m")
"""
    return [
        Snippet("Command line", "On this machine, where delaystream is installed.", _lines(command)),
        Snippet("Any producer", "Here kcat. The headers are all there is to it.", _lines(kcat)),
        Snippet("Python", None, python),
    ]


@dataclass(frozen=True)
class Draft:
    """What a schedule's request says; whoever has it need not have a schedule yet."""

    topic: str
    id: str
    destination: str
    #: its other fields as the texts of their headers, by the names of the interface; without the id
    fields: Mapping[str, str]
    key: bytes | None = None
    value: bytes | None = None
    headers: Sequence[tuple[str, str | None]] = ()
    #: whether there is no such schedule yet
    new: bool = False

    @classmethod
    def of(cls, schedule: ScheduleBody, payload: Payload | None) -> Draft:
        """Of a schedule; without a payload, its value is left to fill in."""
        definition = schedule.definition
        draft = cls(
            schedule.request_topic,
            schedule.id,
            definition.destination,
            _options(definition),
            _content(schedule.key, schedule.key_base64),
            _HIDDEN,
        )
        if payload is None:
            return draft
        return replace(
            draft,
            key=_content(payload.key, payload.key_base64),
            value=_content(payload.value, payload.value_base64),
            headers=[(name, _header_text(content)) for name, content in payload.headers],
        )

    @property
    def options(self) -> dict[str, str]:
        """Everything but where it goes, and what it delivers."""
        return {"id": self.id, **self.fields} if self.id else dict(self.fields)

    @property
    def tags(self) -> list[str]:
        """Its tags."""
        return [tag.strip() for tag in self.fields["tags"].split(",")] if "tags" in self.fields else []

    @property
    def control(self) -> list[tuple[str, str]]:
        """The control headers."""
        told = {"destination": self.destination, **self.options}
        return [(f"{PREFIX}{name.replace('_', '-')}", text) for name, text in told.items()]


def _header_text(content: str | HeaderBytes | None) -> str | None:
    """A header's value as text: in a shell and in most clients it can be nothing else."""
    if isinstance(content, HeaderBytes):
        return b64decode(content.base64).decode("utf-8", "backslashreplace")
    return content


def _options(definition: DefinitionBody) -> dict[str, str]:
    """A definition's fields as the texts of its headers, but for the destination."""
    told: dict[str, str] = {}
    for name in DefinitionBody.model_fields:
        value: Any = getattr(definition, name)
        if name == "destination" or value is None:
            continue
        if name == "at":
            told[name] = ",".join(map(format_instant, value))
        elif name in {"start", "end"}:
            told[name] = format_instant(value)
        elif name == "tags":
            told[name] = ",".join(value)
        else:
            told[name] = str(value)
    return told


def _content(text: str | None, base64: str | None) -> bytes | None:
    return b64decode(base64) if base64 is not None else None if text is None else text.encode()


# -- by language -------------------------------------------------------------------------------------------


def _address(told: Draft, target: Target) -> str:
    query = urlencode({"request_topic": told.topic})
    return f"{target.url}/v1/schedules/{quote(told.id, safe='')}?{query}"


def _get(told: Draft, target: Target) -> str:
    return f"curl --fail-with-body {shlex.quote(_address(told, target))}\n"


def _written(told: Draft, target: Target) -> str:
    body: dict[str, object] = {"destination": told.destination}
    body |= {name: value for name, value in told.options.items() if told.new or name != "id"}
    if told.tags:
        body["tags"] = told.tags
    if told.key is not None:
        body |= _field("key", told.key)
    body |= {"value": None} if told.value is None else _field("value", told.value)
    if told.headers:
        body["headers"] = told.headers
    query = urlencode({"request_topic": told.topic})
    asks = (
        f"-X POST {shlex.quote(f'{target.url}/v1/schedules?{query}')}"
        if told.new
        else f"-X PUT {shlex.quote(_address(told, target))}"
    )
    # Of printable ASCII alone, whatever is in it: JSON escapes the rest.
    return _lines(
        [
            f"curl --fail-with-body {asks}",
            "-H 'Content-Type: application/json'",
            f"--data-binary {shlex.quote(json.dumps(body))}",
        ]
    )


def _field(name: str, content: bytes) -> dict[str, object]:
    text, base64 = text_or_base64(content)
    return {name: text} if base64 is None else {f"{name}_base64": base64}


def _command_line(told: Draft, target: Target) -> str:
    # An argument that begins with a dash is no option behind `--`; an option's value stands behind `=`.
    words = ["delaystream send", f"-b {shlex.quote(target.bootstrap_servers)} --topic={_shell(told.topic)}"]
    words.append(f"--to={_shell(told.destination)}")
    words += [f"--{name.replace('_', '-')}={_shell(text)}" for name, text in told.options.items()]
    if told.key is not None:
        words.append(f"--key={_shell(told.key)}")
    words += [
        f"--header={_shell(f'{name}={content}')}"
        for name, content in told.headers
        if content is not None and "=" not in name
    ]
    if told.value is None:
        words.append("--null")
    elif b"\0" in told.value:
        words[0] = f"base64 -d <<< {b64encode(told.value).decode()} | delaystream send"
        words.append("--file=-")
    else:
        words.append(f"-- {_shell(told.value)}")
    return _lines(words)


def _python(told: Draft, target: Target) -> str:
    lines = [
        "from delaystream.client import Client",
        "",
        f"with Client({target.bootstrap_servers!r}, request_topic={told.topic!r}) as client:",
        "    client.schedule(",
        f"        {told.destination!r},",
        f"        {_literal(told.value)},",
    ]
    if told.key is not None:
        lines.append(f"        key={_literal(told.key)},")
    if told.headers:
        pairs = [(name, None if content is None else content.encode()) for name, content in told.headers]
        lines.append(f"        headers={pairs!r},")
    lines += [f"        {name}={text!r}," for name, text in told.options.items()]
    return "\n".join([*lines, "    )", ""])


def _headers(told: Draft) -> str:
    pairs: list[tuple[str, str | None]] = [*told.control, *told.headers]
    return "".join(f"{name}: {_line(content)}\n" for name, content in pairs if content is not None)


def _line(text: str) -> str:
    """Of one line, whatever it holds."""
    return text if text.isprintable() else text.encode("unicode_escape").decode()


def _literal(content: bytes | None) -> str:
    """Bytes as Python writes them; text where it is text, for it reads better."""
    if content is None:
        return "None"
    try:
        return repr(content.decode())
    except UnicodeDecodeError:
        return repr(content)


def _shell(content: str | bytes) -> str:
    """One word of a shell. What cannot be printed is written as bash and zsh read it (`$'…'`)."""
    raw = (content.encode() if isinstance(content, str) else content).replace(b"\0", b"")
    try:
        text = raw.decode()
    except UnicodeDecodeError:
        text = ""
    if text.isprintable() and (text or not raw):
        return shlex.quote(text)
    return "$'" + "".join(_escaped(byte) for byte in raw) + "'"


def _escaped(byte: int) -> str:
    character = chr(byte)
    if character in "\\'":
        return f"\\{character}"
    return character if " " <= character <= "~" else f"\\x{byte:02x}"


def _lines(words: list[str]) -> str:
    return " \\\n  ".join(words) + "\n"
