"""A schedule as a form has it: from what is stored to fields, from those to a body, what differs. Pure."""

from __future__ import annotations

import difflib
import json
import re
from base64 import b64decode, b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final, TypeAlias

from delaystream.console.api.models import HeaderBytes, Json, Payload, ScheduleBody
from delaystream.console.api.problems import invalid
from delaystream.console.pages.acting.panels import Input
from delaystream.console.pages.acting.when import KINDS, RECURRING, kind_of, when_inputs, when_texts
from delaystream.console.pages.snippets import Draft
from delaystream.core.instants import format_instant

WHAT: Final = ("destination", "name", "description", "tags")
#: By the kinds of time with which they can be said.
OPTIONS: Final[Mapping[str, frozenset[str]]] = {
    "timezone": frozenset({"cron", "at"}),
    "dst_gap": frozenset({"cron"}),
    "dst_overlap": frozenset({"cron"}),
    "start": RECURRING,
    "end": RECURRING,
    "max_fires": RECURRING,
    "jitter": RECURRING,
    "catch_up": RECURRING,
    "on_late": frozenset({"delay", "at"}),
    "grace": frozenset(KINDS),
    "destination_partition": frozenset(KINDS),
    "destination_key": frozenset(KINDS),
}
PAYLOAD: Final = ("key", "value", "value_kind", "headers")
_LISTS: Final = frozenset({"tags"})
#: What a browser changes in a field of one line, and in one of several.
_LOST_IN_LINE: Final = re.compile("[\x00\r\n]")
_LOST_IN_AREA: Final = re.compile("[\x00\r]")
#: a header of one line
_PLAIN: Final = re.compile(r"[^\s:\0\[][^:\r\n\0]*: (\S([^\r\n\0]*\S)?)?")
_MOST_LINES: Final = 400

_OPTION_INPUTS: Final = (
    Input("start", "Not before", hint="2030-01-31T09:00:00Z", shown="of-recurring"),
    Input("end", "Not after", hint="2031-01-31T09:00:00Z", shown="of-recurring"),
    Input("max_fires", "At most so many times", hint="10", shown="of-recurring"),
    Input(
        "jitter", "Put off by up to", hint="30s", help="So that not all fire at once.", shown="of-recurring"
    ),
    Input(
        "catch_up",
        "Times that passed",
        kind="select",
        options=[("", "the default"), ("latest", "latest"), ("all", "all"), ("none", "none")],
        shown="of-recurring",
    ),
    Input("on_late", "When it is late", hint="fire", help="fire, drop, or a topic.", shown="of-once"),
    Input("grace", "Late is more than", hint="15m"),
    Input("dst_gap", "In the gap of a clock change", hint="fire", shown="of-cron"),
    Input("dst_overlap", "In the hour that comes twice", hint="first", shown="of-cron"),
    Input("destination_partition", "Partition of the destination"),
    Input("destination_key", "Key in place of the record's"),
)


Written: TypeAlias = tuple[str, str | HeaderBytes | None]
"""A header as the interface has it."""


@dataclass(frozen=True)
class Change:
    """One field that differs."""

    name: str
    before: str
    after: str

    @property
    def lines(self) -> list[tuple[str, str]]:
        """Its lines, each with what became of it: `same`, `gone` or `new`."""
        kinds = {" ": "same", "-": "gone", "+": "new"}
        before, after = self.before.split("\n")[:_MOST_LINES], self.after.split("\n")[:_MOST_LINES]
        told = difflib.ndiff(before, after, charjunk=None)
        return [(kinds[line[0]], line[2:]) for line in told if line[0] in kinds]


def texts_of(schedule: ScheduleBody, payload: Payload | None) -> dict[str, str]:
    """The fields of a schedule, as a form shows them; without a payload nothing of it."""
    definition = schedule.definition
    texts = {"id": schedule.id, "request_topic": schedule.request_topic, **when_texts(definition)}
    for name in (*WHAT, *OPTIONS):
        value = getattr(definition, name)
        if value is None:
            texts.setdefault(name, "")
        elif name in {"start", "end"}:
            texts[name] = format_instant(value)
        else:
            texts[name] = ",".join(value) if name in _LISTS else str(value)
    if payload is not None:
        texts |= _payload_texts(payload)
    return {name: _as_sent(name, text) for name, text in texts.items()}


def _payload_texts(payload: Payload) -> dict[str, str]:
    told = {"key": payload.key if payload.key is not None else payload.key_base64 or ""}
    value = payload.value
    if value is not None and not _LOST_IN_AREA.search(value):
        told |= {"value": value, "value_kind": "text"}
    elif value is None and payload.value_base64 is None:
        told |= {"value": "", "value_kind": "none"}
    else:
        raw = payload.value_base64 or b64encode((value or "").encode()).decode()
        told |= {"value": raw, "value_kind": "base64"}
    told["headers"] = headers_text(payload.headers)
    return told


def is_line(header: Written) -> bool:
    """Whether a header can be written as a line of a form."""
    name, content = header
    return isinstance(content, str) and _PLAIN.fullmatch(f"{name}: {content}") is not None


def headers_text(headers: Sequence[Written]) -> str:
    """Headers as a form has them: a line each, or JSON where one is not of one line."""
    if all(map(is_line, headers)):
        return "\n".join(f"{name}: {content}" for name, content in headers)
    pairs = [
        [name, content.model_dump() if isinstance(content, HeaderBytes) else content]
        for name, content in headers
    ]
    return json.dumps(pairs)


def fields_of(texts: Mapping[str, str]) -> dict[str, str]:
    """What a form says of the definition, without what is empty, or not for its kind of time."""
    kind = kind_of(texts)
    said = {name: texts.get(name, "").strip() for name in (*WHAT, kind)}
    said |= {name: texts.get(name, "").strip() for name, kinds in OPTIONS.items() if kind in kinds}
    return {name: text for name, text in said.items() if text}


def headers_of(texts: Mapping[str, str]) -> dict[str, str]:
    """The same by the names of the header contract, without prefix."""
    return {name.replace("_", "-"): text for name, text in fields_of(texts).items()}


def definition_body(texts: Mapping[str, str]) -> Json:
    """The same as a body of the interface."""
    return {name: _for_body(name, text) for name, text in fields_of(texts).items()}


def _for_body(name: str, text: str) -> object:
    return [tag.strip() for tag in text.split(",")] if name in _LISTS else text


def payload_body(texts: Mapping[str, str], payload: Payload | None = None) -> Json:
    """What is delivered, as a body of the interface; what nobody touched as it was. Raises ProblemError."""
    was = (
        {}
        if payload is None
        else {name: _as_sent(name, text) for name, text in _payload_texts(payload).items()}
    )
    body: Json = {}
    if payload is not None and texts.get("key") == was["key"]:
        body |= {"key": payload.key} if payload.key_base64 is None else {"key_base64": payload.key_base64}
    elif texts.get("key"):
        body["key"] = texts["key"]
    kind = texts.get("value_kind", "text")
    if kind == "none":
        body["value"] = None
    elif kind == "base64":
        body["value_base64"] = "".join(texts.get("value", "").split())
    else:
        body["value"] = texts.get("value", "")
    if payload is not None and texts.get("headers", "") == was["headers"]:
        pairs: object = [
            [name, content.model_dump() if isinstance(content, HeaderBytes) else content]
            for name, content in payload.headers
        ]
    else:
        pairs = pairs_of(texts.get("headers", ""))
    if pairs:
        body["headers"] = pairs
    return {name: value for name, value in body.items() if value is not None or name == "value"}


def pairs_of(text: str) -> object:
    """Headers as written: a line each, or JSON. Raises ProblemError."""
    text = text.strip()
    if text.startswith("["):
        try:
            return json.loads(text)
        except ValueError as error:
            raise invalid("invalid-headers", f"headers are no JSON: {error}.") from None
    pairs = []
    for line in filter(None, map(str.strip, text.split("\n"))):
        name, colon, content = line.partition(":")
        if not colon:
            raise invalid("invalid-headers", f"headers: {line[:60]!r} has no colon; expected name: value.")
        pairs.append([name.strip(), content.strip()])
    return pairs


def patch_body(before: Mapping[str, str], after: Mapping[str, str]) -> Json:
    """What differs of the definition, as a merge patch.

    What goes by itself with another kind of time is left out.
    """
    was, now, kind = fields_of(before), fields_of(after), kind_of(after)
    body: Json = {name: _for_body(name, text) for name, text in now.items() if was.get(name) != text}
    if kind != kind_of(before):
        body[kind] = now.get(kind)
    for name in was.keys() - now.keys():
        if name in WHAT or kind in OPTIONS.get(name, ()):
            body[name] = None
    return body


def touches_payload(before: Mapping[str, str], after: Mapping[str, str]) -> bool:
    """Whether anything of what is delivered differs."""
    return "value" in before and any(before.get(name, "") != after.get(name, "") for name in PAYLOAD)


def changes_of(before: Mapping[str, str], after: Mapping[str, str]) -> list[Change]:
    """What differs, field by field."""
    was, now = fields_of(before), fields_of(after)
    names = [name for name in (*WHAT, *KINDS, *OPTIONS) if was.get(name) != now.get(name)]
    changes = [Change(name, was.get(name, ""), now.get(name, "")) for name in names]
    if "value" in before:
        changes += [
            Change(name, before.get(name, ""), after.get(name, ""))
            for name in PAYLOAD
            if before.get(name, "") != after.get(name, "")
        ]
    return changes


def draft_of(texts: Mapping[str, str], body: Json | None, *, new: bool) -> Draft:
    """As a request that can be copied; without a body its value is left to fill in."""
    fields = fields_of(texts)
    destination = fields.pop("destination", "DESTINATION")
    draft = Draft(
        texts["request_topic"], texts.get("id", "").strip(), destination, fields, None, b"VALUE", (), new
    )
    if body is None:
        return draft
    pairs = body.get("headers") or ()
    return replace(
        draft,
        key=_raw(body, "key"),
        value=_raw(body, "value"),
        headers=[
            (str(pair[0]), _text(pair[1])) for pair in pairs if isinstance(pair, list) and len(pair) == 2
        ],
    )


def _raw(body: Json, name: str) -> bytes | None:
    if f"{name}_base64" in body:
        try:
            return b64decode(str(body[f"{name}_base64"]), validate=True)
        except ValueError:
            return b""
    text = body.get(name)
    return None if text is None else str(text).encode("utf-8", "replace")


def _text(content: object) -> str | None:
    if isinstance(content, Mapping):
        return _raw({"v_base64": content.get("base64", "")}, "v").decode("utf-8", "backslashreplace")  # type: ignore[union-attr]
    return None if content is None else str(content)


def groups_of(texts: Mapping[str, str], *, new: bool, payload: bool) -> list[tuple[str, list[Input]]]:
    """The fields of the form, in groups with a heading; empty: none."""
    what = [
        *(
            [Input("id", "Id", hint="invoice-4711/reminder", help="Names it. Empty: one is made up.")]
            if new
            else []
        ),
        Input("destination", "Destination", hint="reminders", help="The topic that it is delivered to."),
        Input("name", "Name"),
        Input("description", "Description", kind="area"),
        Input("tags", "Tags", hint="billing,dunning"),
    ]
    delivers = [
        Input("key", "Key", help="Of the record. Empty: none."),
        Input(
            "value_kind",
            "Value as",
            "text",
            "select",
            options=[("text", "text"), ("base64", "base64"), ("none", "none: a tombstone")],
        ),
        Input("value", "Value", kind="area"),
        Input(
            "headers",
            "Headers",
            kind="area",
            hint="type: reminder",
            help="A line each: name: value. Or JSON.",
        ),
    ]
    groups = [("What", what), ("When", when_inputs(texts)), ("Options", list(_OPTION_INPUTS))]
    if payload:
        groups.insert(2, ("What it delivers", delivers))
    return [
        (title, [replace(one, value=texts.get(one.name, one.value)) for one in some])
        for title, some in groups
    ]


def _as_sent(name: str, text: str) -> str:
    """What comes back from a browser when nobody touches the field."""
    lost = _LOST_IN_AREA if name in {"value", "headers", "description"} else _LOST_IN_LINE
    return lost.sub("", text)
