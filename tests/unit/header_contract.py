"""The header contract's files in the types of the code: what they ask a parser, and what it answers."""

from __future__ import annotations

import base64
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, Final

from msgspec import UNSET

from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.record import Record
from delaystream.core.recurrence import Recurrence, Timing
from delaystream.core.rejection import Rejection
from delaystream.core.request import Action, Coordinates, Header, Lateness, Match, Request, Update
from tests.unit.test_setup import ROOT

FILES: Final = ROOT / "delaystream" / "contract"


def load(name: str) -> dict[str, Any]:
    """A file of the contract as any client reads it."""
    read: dict[str, Any] = json.loads((FILES / f"{name}.json").read_text("utf-8"))
    return read


CONTRACT: Final = load("headers")
VECTORS: Final = load("vectors")
NOW_MS: Final[int] = VECTORS["now_ms"]
PREFIX: Final[str] = CONTRACT["prefix"]


def content(written: Any) -> bytes | None:
    """The bytes that a file means: text, null, base64, or a text so many times."""
    if written is None:
        return None
    if isinstance(written, str):
        return written.encode()
    if "base64" in written:
        return base64.b64decode(written["base64"], validate=True)
    repeated: str = written["repeat"]
    return repeated.encode() * int(written["times"])


def text(written: Any) -> str:
    """The same of what is text; what is not UTF-8 fails."""
    found = content(written)
    assert found is not None
    return found.decode()


def read_as_written(value: Any) -> Any:
    """An expected value with each of its texts and bytes written out."""
    if isinstance(value, dict):
        if value.keys() in ({"base64"}, {"repeat", "times"}):
            return content(value)
        return {name: read_as_written(item) for name, item in value.items()}
    if isinstance(value, list):
        return [read_as_written(item) for item in value]
    return value.encode() if isinstance(value, str) else value


def parser(settings: Mapping[str, Any] | None = None) -> RequestParser:
    """As a worker with a vector's settings has it; what these leave out, the file says."""
    said = {**VECTORS["settings"], **(settings or {})}
    filter = DestinationFilter(said["allow"], said["denied"], said["receipts_topic"])
    return RequestParser(
        filter,
        Limits(**said["limits"]),
        said["default_destination"],
        said["default_timezone"],
        said["default_grace_ms"],
    )


_PARSER: Final = parser()


def headers_of(vector: Mapping[str, Any]) -> list[Header]:
    """What the vector's record carries."""
    return [(text(name), content(value)) for name, value in vector["headers"]]


def parsed(vector: Mapping[str, Any]) -> Request | Rejection:
    """What the code makes of a vector's record, the first time and whenever it comes again."""
    record = {**VECTORS["record"], **vector.get("record", {})}
    worker = parser(vector.get("settings"))
    first = _read(worker, record, headers_of(vector))
    assert _read(worker, record, headers_of(vector)) == first, "what is remembered changes the answer"
    return first


def asked(control: Mapping[str, str]) -> Request | Rejection:
    """What the code makes of a record with these control headers and a null value."""
    headers = [(PREFIX + name, text.encode()) for name, text in control.items()]
    return _read(_PARSER, VECTORS["record"] | {"value": None}, headers)


def _read(worker: RequestParser, record: Mapping[str, Any], headers: Sequence[Header]) -> Request | Rejection:
    source = Coordinates(record["topic"], record["partition"], record["offset"])
    key, value = content(record["key"]), content(record["value"])
    return worker.parse(Record(source, record["timestamp_ms"], key, value, headers), NOW_MS)


def expected(vector: Mapping[str, Any]) -> dict[str, Any]:
    """The request that a vector tells, every field of it."""
    record = {**VECTORS["record"], **vector.get("record", {})}
    fields = {
        name: record[name] if field["default"] == "record" else field["default"]
        for name, field in CONTRACT["request"].items()
    }
    assert vector["request"].keys() <= fields.keys(), vector["name"]
    told: dict[str, Any] = read_as_written(fields | vector["request"])
    return told


def as_contract(request: Request) -> dict[str, Any]:
    """A request by the names of the contract, texts as UTF-8."""
    terms, subject = request.terms, request.subject
    told = {
        "action": request.action.value,
        "timestamp_ms": request.timestamp_ms,
        "key": request.key,
        "value": request.value,
        "headers": [[name, value] for name, value in request.headers],
        "id": request.id,
        "destination": request.destination or None,
        "due_at_ms": list(request.due_ms),
        "relative": request.relative,
        "recurrence": None if request.recurrence is None else _recurrence(request.recurrence),
        "destination_partition": request.destination_partition,
        "destination_key": request.destination_key,
        "if_exists": request.if_exists.value,
        "on_late": request.on_late,
        "grace_ms": request.grace_ms,
        "catch_up": request.catch_up.value,
        "name": request.name,
        "description": request.description,
        "tags": list(request.tags),
        "status": request.status,
        "reply_to": request.reply_to,
        "no_receipt": request.no_receipt is not None,
        "actor": request.actor,
        "note": terms.note,
        "if_version": terms.if_version,
        "request_id": terms.request_id,
        "declared_by": terms.declared_by,
        "deploy": terms.deploy,
        "coordinates": None if subject is None else subject.text,
        "match": None if request.match is None else _match(request.match),
        "until_ms": request.until_ms,
        "lateness": None if request.lateness is None else _lateness(request.lateness),
        "timing": None if request.timing is None else _timing(request.timing),
        "update": None if request.update is None else _update(request.update),
        "rate_per_second": request.rate,
    }
    assert request.has_destination_key == (request.destination_key is not None)
    assert (request.reply_to is None) or (request.no_receipt is None)
    # What else a command has of a schedule's fields is said in `timing` and `update`.
    assert request.action is Action.SCHEDULE or request.recurrence is None
    bytes_told: dict[str, Any] = _encoded(told)
    return bytes_told


def _encoded(value: Any) -> Any:
    if isinstance(value, dict):
        return {name: _encoded(item) for name, item in value.items()}
    if isinstance(value, list):
        return [_encoded(item) for item in value]
    return value.encode() if isinstance(value, str) else value


def _recurrence(recurrence: Recurrence) -> dict[str, Any]:
    return {
        "every_ms": recurrence.every_ms or None,
        "cron": recurrence.cron,
        "timezone": recurrence.timezone,
        "dst_gap": recurrence.dst_gap,
        "dst_overlap": recurrence.dst_overlap,
        "start_at_ms": recurrence.start_ms,
        "end_at_ms": recurrence.end_ms,
        "max_fires": recurrence.max_fires or None,
        "jitter_ms": recurrence.jitter_ms,
    }


def _match(match: Match) -> dict[str, Any]:
    return {
        "tags": list(match.tags),
        "destination": match.destination,
        "id_prefix": match.id_prefix,
        "key": match.key,
        "new": match.arriving,
        "anonymous": match.anonymous,
    }


def _lateness(lateness: Lateness) -> dict[str, Any]:
    return {
        "catch_up": None if lateness.catch_up is None else lateness.catch_up.value,
        "on_late": lateness.on_late,
        "grace_ms": lateness.grace_ms,
        "default_grace_ms": lateness.default_grace_ms,
    }


def _timing(timing: Timing) -> dict[str, Any]:
    told = {
        "every_ms": timing.every_ms,
        "cron": timing.cron,
        "timezone": timing.timezone,
        "dst_gap": timing.dst_gap,
        "dst_overlap": timing.dst_overlap,
        "start_at_ms": timing.start_ms,
        "end_at_ms": timing.end_ms,
        "max_fires": timing.max_fires,
        "jitter_ms": timing.jitter_ms,
    }
    return _given(told)


def _update(update: Update) -> dict[str, Any]:
    told = {
        "payload": "replace" if update.replaces_payload else "keep",
        "destination": update.destination,
        "destination_partition": update.destination_partition,
        "destination_key": update.destination_key,
        "on_late": update.on_late,
        "grace_ms": update.grace_ms,
        "catch_up": UNSET if update.catch_up is UNSET else update.catch_up.value,
        "name": update.name,
        "description": update.description,
        "tags": UNSET if update.tags is UNSET else list(update.tags) or None,
    }
    return _given(told)


def _given(told: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in told.items() if value is not UNSET}


def broken(action: str, given: Iterable[str]) -> set[str]:
    """The codes of all rules that a request with these headers breaks, by the contract's tables."""
    names = set(given)
    codes = {code for need in CONTRACT["actions"][action]["needs"] for code in _missing(need, names)}
    for name in names:
        header = CONTRACT["headers"][name]
        if action in header["ignored_on"]:
            continue
        if action not in header["on"]:
            codes.add(CONTRACT["not_taken_code"])
            continue
        rule = header["on"][action]
        codes |= {code for need in rule.get("needs", ()) for code in _missing(need, names)}
        codes |= {excluded["code"] for excluded in rule.get("excludes", ()) if names & {*excluded["names"]}}
    return codes


def _missing(need: Mapping[str, Any], names: set[str]) -> Iterator[str]:
    counts = "beside" not in need or bool(names & {*need["beside"]})
    if counts and not names & {*need["any_of"]}:
        yield need["code"]


def names(parts: Sequence[Mapping[str, Any]]) -> list[str]:
    """The name of each of some vectors."""
    return [part["name"] for part in parts]
