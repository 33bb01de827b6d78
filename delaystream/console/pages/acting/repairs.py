"""The repair of a dead letter as a form has it: from the letter to fields, from those to a body. Pure."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from delaystream.codec.requests.names import PREFIX
from delaystream.console.api.models import DifferenceBody, Json
from delaystream.console.api.problems import invalid
from delaystream.console.api.rendering import header_name, header_value, text_or_base64
from delaystream.console.letters.originals import Original
from delaystream.console.letters.repair import OURS, folded, own
from delaystream.console.pages.acting.drafts import Change, Written, headers_text, is_line, pairs_of
from delaystream.console.pages.acting.panels import Input

KEEP: Final = "keep"
SHOWN_BYTES: Final = 65_536
"""A value that is longer is not put into a form: it stays, or gets another one."""
_DESTINATION: Final = f"{PREFIX}destination"
_NAMED: Final = 10
#: Headers that have a field, or that a console writes anew.
_APART: Final = frozenset({*OURS, _DESTINATION, f"{PREFIX}if-exists", f"{PREFIX}note"})
#: What a browser changes in a field of several lines.
_LOST: Final = re.compile("[\x00\r]")
_IF_EXISTS: Final = (
    ("", "keep: what is there stays"),
    ("replace", "replace: it takes that place"),
    ("reject", "reject: it is refused again"),
)
HEADERS_HELP: Final = "A line each: name: value. A line that is taken away is left out."


def texts_of(original: Original, *, every_header: bool, payload: bool) -> dict[str, str]:
    """The fields of a letter as it stands; `payload`: with key and value, where they can be shown."""
    written, odd = _headers(original, every_header=every_header)
    texts = {
        "destination": original.letter.destination or "",
        "headers": headers_text(written),
        "value_kind": KEEP,
        "value": "",
    }
    if odd:
        texts["remove"] = ""
    if payload:
        text, encoded = text_or_base64(original.key)
        if encoded is None and _LOST.sub("", text or "").replace("\n", "") == (text or ""):
            texts["key"] = text or ""
        if original.value is not None and len(original.value) <= SHOWN_BYTES:
            text, encoded = text_or_base64(original.value)
            if text is not None and not _LOST.search(text):
                texts |= {"value_kind": "text", "value": text}
    return texts


def odd_names(original: Original, *, every_header: bool) -> list[str]:
    """Names of the headers that no line of a form can hold: they stay, or are left out."""
    return list(dict.fromkeys(name for name, _ in _headers(original, every_header=every_header)[1]))


def _headers(original: Original, *, every_header: bool) -> tuple[list[Written], list[Written]]:
    """Those that are lines of a form, and those that are not; all of a name are of one kind."""
    headers: list[Written] = [
        (header_name(name), header_value(content))
        for name, content in own(original.headers)
        if folded(name) not in _APART and (every_header or folded(name).startswith(PREFIX))
    ]
    odd = {folded(header[0]) for header in headers if not is_line(header)}
    written = [header for header in headers if folded(header[0]) not in odd]
    return written, [header for header in headers if folded(header[0]) in odd]


def inputs_of(texts: Mapping[str, str], odd: Sequence[str], topics: Sequence[str] = ()) -> list[Input]:
    """The fields of one letter.

    `odd`: names of the headers that are no lines. `topics`: to choose from, where the letter does not say it
    itself.
    """
    options = [(KEEP, "as it is"), ("text", "text"), ("base64", "base64"), ("none", "none: a tombstone")]
    inputs = [
        Input("destination", "Destination", help="The topic that it is delivered to."),
        Input("headers", "Headers", kind="area", help=HEADERS_HELP),
        Input("value_kind", "Value as", kind="select", options=options),
        Input("value", "Value" if "key" in texts else "Another value", kind="area"),
    ]
    if odd:
        names = ", ".join(name[:60] for name in odd[:_NAMED])
        told = f"Names, with commas between. No text: {names}."
        inputs.insert(2, Input("remove", "Other headers to leave out", help=told))
    if "key" in texts:
        inputs.append(Input("key", "Key", help="Empty: none."))
    if len(topics) > 1:
        choice = [(topic, topic) for topic in topics]
        inputs.append(Input("request_topic", "On the request topic", topics[0], "select", options=choice))
    inputs += [if_exists_input()]
    return [replace(one, value=texts.get(one.name, one.value)) for one in inputs]


def if_exists_input() -> Input:
    """What becomes of an id that is in use."""
    return Input("if_exists", "Where its id is in use", "", "select", options=_IF_EXISTS)


def repair_body(before: Mapping[str, str], after: Mapping[str, str]) -> Json:
    """What differs, as a body of the interface. Raises ProblemError."""
    body: Json = {}
    destination = after.get("destination", "").strip()
    if destination != before["destination"]:
        if not destination:
            raise invalid("missing-destination", "The destination is empty; expected a topic.")
        body["destination"] = destination
    changed, removed = _differing(before["headers"], after.get("headers", ""))
    if changed:
        body["set"] = changed
    removed += names_of(after.get("remove", ""))
    if removed:
        body["remove"] = removed
    body |= _value(before, after)
    if "key" in before and after.get("key", "") != before["key"]:
        body["key"] = after.get("key") or None
    if after.get("if_exists"):
        body["if_exists"] = after["if_exists"]
    return body


def many_body(texts: Mapping[str, str]) -> Json:
    """The repair of many letters, as a body of the interface. Raises ProblemError."""
    changed, _ = _differing("", texts.get("headers", ""))
    said = {
        "set": changed,
        "remove": names_of(texts.get("remove", "")),
        "new_destination": texts.get("new_destination", "").strip(),
        "if_exists": texts.get("if_exists", ""),
    }
    return {name: value for name, value in said.items() if value}


def names_of(text: str) -> list[str]:
    """Names with commas between."""
    return [name.strip() for name in text.split(",") if name.strip()]


def changes_of(differences: Sequence[DifferenceBody]) -> list[Change]:
    """What is another in what would be sent, to be shown."""
    return [Change(one.name, _told(one.before), _told(one.after)) for one in differences]


def _told(values: Sequence[str | None]) -> str:
    return "\n".join("null" if value is None else value for value in values)


def _differing(before: str, after: str) -> tuple[list[list[object]], list[str]]:
    """Headers that have another value, and those that are gone. Raises ProblemError."""
    was, now = _by_name(before), _by_name(after)
    changed = []
    for key, pairs in now.items():
        if pairs == was.get(key):
            continue
        if len(pairs) > 1:
            raise invalid(
                "invalid-headers",
                f"headers: {pairs[0][0][:60]!r} stands there {len(pairs)} times; expected it once: it takes "
                "the place of all of its name.",
            )
        changed.append(list(pairs[0]))
    return changed, [pairs[0][0] for key, pairs in was.items() if key not in now]


def _by_name(text: str) -> dict[str, list[tuple[str, object]]]:
    pairs = pairs_of(text)
    found: dict[str, list[tuple[str, object]]] = {}
    for pair in pairs if isinstance(pairs, list) else [None]:
        if not (isinstance(pair, list) and len(pair) == 2 and isinstance(pair[0], str) and pair[0]):
            raise invalid("invalid-headers", "headers: expected pairs of a name and a value.")
        found.setdefault(folded(pair[0]), []).append((pair[0], pair[1]))
    return found


def _value(before: Mapping[str, str], after: Mapping[str, str]) -> Json:
    kind, text = after.get("value_kind", KEEP), after.get("value", "")
    if kind == KEEP:
        if text and text != before["value"]:
            raise invalid(
                "invalid-value", "A value is written, and it is to stay as it is: choose one of them."
            )
        return {}
    if kind == "none":
        return {"value": None}
    if kind == "base64":
        return {"value_base64": "".join(text.split())}
    return {} if (kind, text) == (before["value_kind"], before["value"]) else {"value": text}
