"""How a letter comes back: what is kept of it, what is repaired, and what a console adds. Pure.

| what was refused or given up | comes back as |
|---|---|
| a request | the request, on its own request topic |
| a fire | a new request with `delaystream-delay: 0` for its destination, on its request's topic |
| a delivery that a consumer gave up | the same, for the topic and partition that the consumer read |

Workers deliver all of them, so that allow-lists, rates and holds are as for everybody's, and a console
writes to request topics alone. A one-time request without an id gets one, because only of ids workers
remember which requests they have carried out: however often a console sends the same redrive, it is once.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from hashlib import blake2b
from typing import Final

import msgspec
from msgspec import UNSET, UnsetType

from delaystream.client.requests.records import RequestRecord
from delaystream.codec.requests.names import DROPPED, PREFIX, kind_of
from delaystream.codec.requests.values import RefusedError
from delaystream.console.letters.latest import BATCHES, Kind, Letter
from delaystream.console.letters.originals import Original
from delaystream.core.record import Record
from delaystream.core.rejection import Rejection
from delaystream.core.request import Action, Coordinates, Header, IfExists, Request
from delaystream.dialects import Dialect

_ID: Final = f"{PREFIX}id"
_REQUEST_ID: Final = f"{PREFIX}request-id"
_IF_EXISTS: Final = f"{PREFIX}if-exists"
_DESTINATION: Final = f"{PREFIX}destination"
_PARTITION: Final = f"{PREFIX}destination-partition"
_DELAY: Final = f"{PREFIX}delay"
_ATTEMPT: Final = f"{PREFIX}attempt"
_NOTE: Final = f"{PREFIX}note"
_ACTOR: Final = f"{PREFIX}actor"
_REPLY_TO: Final = f"{PREFIX}reply-to"
_TIMES: Final = tuple(PREFIX + name for name in ("delay", "at", "every", "cron"))
OURS: Final = (_ACTOR, _REPLY_TO, _REQUEST_ID)
"""Headers that a console writes itself: who asks, where the receipt goes, and the name of the request."""
_DIGEST_BYTES: Final = 6


class RepairError(Exception):
    """Why a letter cannot be sent again as asked: a stable code, and a sentence."""

    def __init__(self, code: str, detail: str) -> None:
        super().__init__(detail)
        self.code = code
        self.detail = detail


class Repair(msgspec.Struct, frozen=True, kw_only=True):
    """What is asked to be another than in the letter. Nothing of it: it comes back as it is."""

    set: Sequence[Header] = ()
    """Each takes the place of every header of its name, or is added."""
    remove: Sequence[str] = ()
    """Names of headers that are left out."""
    value: bytes | UnsetType | None = UNSET
    key: bytes | UnsetType | None = UNSET
    destination: str | None = None
    if_exists: IfExists | None = None
    """Of a request that schedules; None: `keep`, unless `set` says otherwise."""

    @property
    def changed(self) -> list[str]:
        """The repairs, in words."""
        words = [f"set {name}" for name, _ in self.set] + [f"remove {name}" for name in self.remove]
        told = {
            "value": self.value is not UNSET,
            "key": self.key is not UNSET,
            "destination": self.destination is not None,
            "if-exists": self.if_exists is not None,
        }
        return words + [name for name, given in told.items() if given]

    @property
    def fingerprint(self) -> str:
        """The same for the same repair."""
        return blake2b(msgspec.msgpack.encode(self), digest_size=16).hexdigest()


AS_IT_IS: Final = Repair()


class Said(msgspec.Struct, frozen=True, kw_only=True):
    """What a console adds to a letter that comes back."""

    request_topic: str
    actor: str
    """Who asks; what the letter says of that is left out: a console vouches for nobody else."""
    number: int = 1
    """Of the redrive, among what was done about the letter."""
    request_id: str
    note: str | None = None


class Reading(msgspec.Struct, frozen=True):
    """How requests of one topic are read."""

    parse: Callable[[RequestRecord], Request]
    """Raises RejectedError where a worker would refuse it."""
    dialects: Sequence[Dialect] = ()


class Difference(msgspec.Struct, frozen=True):
    """One thing that is another in what is sent: a header by its name, `key` or `value`."""

    name: str
    is_header: bool
    before: Sequence[bytes | None]
    """Of a header its values in order; empty: it is not there."""
    after: Sequence[bytes | None]


def unsendable(letter: Letter) -> str | None:
    """Why a letter can never be sent again, in a sentence; None where it can."""
    if letter.kind is not Kind.OTHER:
        return None
    if not letter.code:
        return "No worker and no consumer of delaystream wrote it: the topic to send it to is not known."
    if letter.code in BATCHES:
        return "It stands for a whole batch of records, which are not in it: their producer sends them again."
    if letter.source is not None and letter.source_at_ms is None:
        return "It holds a row that a worker had stored, not the request that was sent."
    return "It has no coordinates of its record: the topic to send it to is not known."


def request_id_of(letter: Letter, number: int) -> str:
    """The name of a redrive: it is the same whoever asks for it, and however often."""
    return f"redrive-{letter.name}-{_digest(letter, number)}"


def composed(original: Original, repair: Repair, said: Said, reading: Reading) -> RequestRecord:
    """The request that a letter comes back as.

    Raises RejectedError where a worker would refuse it, RepairError where nothing could be sent.
    """
    letter = original.letter
    if (why := unsendable(letter)) is not None:
        raise RepairError("not-redrivable", why)
    if letter.left_out and repair.value is UNSET:
        raise RepairError(
            "not-redrivable",
            "Its key, value and headers were too large for the topic and are not in it; expected a value, "
            f"and headers. What was sent stood at {letter.source or letter.delivery}.",
        )
    value = original.value if isinstance(repair.value, UnsetType) else repair.value
    key = original.key if isinstance(repair.key, UnsetType) else repair.key
    headers = _repaired(letter, own(original.headers), repair)
    key, headers = _translated(letter, said.request_topic, key, value, headers, reading.dialects)
    # A translation may say who asks, too.
    headers = _without(headers, (_ACTOR, _REPLY_TO))
    headers.append((_ACTOR, said.actor.encode("utf-8", "backslashreplace")))
    if said.note is not None:
        headers = [*_without(headers, (_NOTE,)), (_NOTE, said.note.encode())]
    record = RequestRecord(said.request_topic, key, value, headers)
    _check_names(headers)
    request = reading.parse(record)
    id = request.id
    if request.action is Action.SCHEDULE:
        if id is None:
            id = f"redrive/{letter.name}/{_digest(letter, said.number)}"
            headers = [*headers, (_ID, id.encode())]
        headers = _with_if_exists(headers, repair)
    if id is not None and not _has(headers, _REQUEST_ID):
        headers = [*headers, (_REQUEST_ID, said.request_id.encode())]
    partition = None if request.subject is None else request.subject.partition
    return RequestRecord(said.request_topic, key, value, headers, partition, id)


def differences(original: Original, record: RequestRecord) -> list[Difference]:
    """The differences between the record that is sent and the one that was refused, headers by name."""
    before, after = _by_name(own(original.headers)), _by_name(record.headers)
    found = [
        Difference(name, True, before.get(name, ()), after.get(name, ()))
        for name in dict.fromkeys([*before, *after])
        if before.get(name, ()) != after.get(name, ())
    ]
    for name, was, is_ in (("key", original.key, record.key), ("value", original.value, record.value)):
        if was != is_:
            found.append(Difference(name, False, [was], [is_]))
    return found


def _repaired(letter: Letter, headers: list[Header], repair: Repair) -> list[Header]:
    destination = repair.destination
    if letter.kind is Kind.DELIVERY:
        headers = _without(headers, (_ATTEMPT, _DESTINATION, _PARTITION))
        stood = letter.delivery or ""
        headers.append((_DESTINATION, (letter.destination or "").encode()))
        if destination is None:
            headers.append((_PARTITION, stood.rsplit("/", 2)[1].encode()))
    if destination is not None:
        headers = _put(headers, (_DESTINATION, destination.encode()))
    headers = _without(headers, repair.remove)
    for header in repair.set:
        if header[0].lower() in OURS:
            raise RepairError(
                "not-applicable", f"{header[0]} is the console's own; expected a repair of other headers."
            )
        headers = _put(headers, header)
    if letter.kind is not Kind.REQUEST and not any(_has(headers, name) for name in _TIMES):
        headers.append((_DELAY, b"0"))
    return headers


def _translated(
    letter: Letter,
    topic: str,
    key: bytes | None,
    value: bytes | None,
    headers: list[Header],
    dialects: Iterable[Dialect],
) -> tuple[bytes | None, list[Header]]:
    """In our own names, which is what the rest is added to. Raises RepairError."""
    if letter.kind is not Kind.REQUEST:
        return key, headers
    record = Record(Coordinates(topic, 0, 0), max(0, letter.at_ms), key, value, headers)
    for dialect in dialects:
        translated = dialect.translate(record)
        if isinstance(translated, Rejection):
            raise RepairError(translated.code.value, translated.detail)
        if translated is not None:
            return translated.key, list(translated.headers)
    return key, headers


def _with_if_exists(headers: list[Header], repair: Repair) -> list[Header]:
    """A schedule with the id stays as it is, unless the repair says otherwise; the letter cannot."""
    if repair.if_exists is None and any(name.lower() == _IF_EXISTS for name, _ in repair.set):
        return headers
    wanted = repair.if_exists or IfExists.KEEP
    return _put(headers, (_IF_EXISTS, wanted.value.encode()))


def _check_names(headers: Iterable[Header]) -> None:
    for name, _ in headers:
        try:
            name.encode()
        except UnicodeEncodeError:
            raise RepairError(
                "not-utf8", f"The name of the header {ascii(name)[:80]} is not UTF-8; expected it removed."
            ) from None


def own(headers: Sequence[Header]) -> list[Header]:
    """A letter's headers without what workers and consumers wrote: it would be dropped on arrival."""
    return [header for header in headers if not is_dropped(header[0])]


def is_dropped(name: str) -> bool:
    """Whether only workers and consumers write a header."""
    try:
        return kind_of(name) == DROPPED
    except RefusedError:
        return False


def folded(name: str) -> str:
    """A header's name as it is compared: ours in any case, those of others as they are written."""
    return name.lower() if name.lower().startswith(PREFIX) else name


def _same(name: str, other: str) -> bool:
    return folded(name) == folded(other)


def _has(headers: Sequence[Header], name: str) -> bool:
    return any(_same(name, one) for one, _ in headers)


def _without(headers: Sequence[Header], names: Iterable[str]) -> list[Header]:
    left_out = list(names)
    return [header for header in headers if not any(_same(header[0], name) for name in left_out)]


def _put(headers: Sequence[Header], header: Header) -> list[Header]:
    """Where the first of its name was, or at the end."""
    at = next((index for index, (name, _) in enumerate(headers) if _same(name, header[0])), len(headers))
    return [*_without(headers[:at], (header[0],)), header, *_without(headers[at:], (header[0],))]


def _by_name(headers: Sequence[Header]) -> Mapping[str, list[bytes | None]]:
    found: dict[str, list[bytes | None]] = {}
    for name, content in headers:
        found.setdefault(folded(name), []).append(content)
    return found


def _digest(letter: Letter, number: int) -> str:
    """Of a letter, apart from others at the same place of a topic that was made anew."""
    told = f"{letter.partition}.{letter.offset}.{letter.at_ms}.{number}".encode()
    return blake2b(told, digest_size=_DIGEST_BYTES).hexdigest()
