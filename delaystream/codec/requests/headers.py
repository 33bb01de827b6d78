"""Kafka headers -> `Request` or `Rejection`: the contract with everybody who sends a request.

Names have the prefix `delaystream-`, in any case. Values are UTF-8 text.

| header (prefix `delaystream-`) | value | default |
|---|---|---|
| `destination` | topic to deliver to | the request topic's default, else required |
| `delay` | `15m`, `1h30m`, `500ms`, `PT15M`, `0`; or a comma list: one delivery for each | |
| `at` | RFC 3339 with offset, epoch milliseconds, or a local time beside `timezone`, or a comma list | |
| `every` | a duration as in `delay`; needs `id` | |
| `cron` | an expression; needs `id` | |
| `start`, `end` | of `every` or `cron`: first and last time, jitter included | the request; none |
| `max-fires` | of `every` or `cron`: deliveries, 1 or more | unbounded |
| `jitter` | of `every` or `cron`: a duration of at most 36500 days | none |
| `timezone`, `dst-gap`, `dst-overlap` | of `cron`, of local times in `at` | the topic's; `shift`, `first` |
| `catch-up` | of `every` or `cron`: `latest`, `all`, `none` | `latest` |
| `id` | names the schedule, 1 to 256 bytes | none: only its coordinates name it |
| `action` | `schedule`, or a command: one of `delaystream.core.request.Action` | `schedule` |
| `match-tags`, `match-destination`, `match-id-prefix`, `match-key` | in place of `id`: all that match | |
| `match-new`, `match-anonymous` | beside them, of `pause`, of `cancel`: `true`, `false` | `false` |
| `coordinates` | of `cancel`, `reschedule`, `trigger`, `describe` without `id`: `topic/partition/offset` | |
| `until` | of `pause`: one time, as in `at` with an offset | none |
| `status` | of `schedule` with `id`: `pending`, `paused` | that of the id, else `pending` |
| `payload` | of `update`: `keep`, `replace` | `keep`, for an update without a value |
| `rate` | of `rate`: `50`, `600/m`, `none` | |
| `if-exists` | `replace`, `keep`, `reject`; needs `id` | `replace` |
| `on-late` | of `delay` or `at`: `fire`, `drop`, or a topic: what to do when later than `grace` | `fire` |
| `grace` | a duration of at most 36500 days | never too late; recurring: 15 minutes |
| `destination-partition` | 0 to 2147483647 | murmur2 of the key |
| `destination-key` | the key to deliver with, may be empty | the request's key |
| `reply-to` | topic for the receipt; one that may not be written to: no receipt | none |
| `name`, `description`, `tags` | for people; `tags` is a comma list | none |
| `actor` | who asks, for the events | none |
| `note` | why, at most 1024 bytes | none |
| `if-version` | with `id`: 0 to 2^63-1 | none |
| `request-id` | with `id`: 1 to 128 bytes | none |
| `declared-by`, `deploy` | of `schedule`, `update`, `cancel` with `id`: 1 to 128 bytes; 0 to 2^63-1 | none |
| `attempt` | 1 to 2147483647: delivered as it is, as the last of the record's own headers | none |
| what deliveries, dead letters and receipts carry (`codec.outgoing`) | dropped | |

Exactly one of `delay`, `at`, `every` and `cron`; a delay counts from the record's timestamp. What a
`reschedule` and an `update` leave out stays as it is, and `none` clears (`codec.requests.given`). A header
with the prefix that is unknown, given twice or null is refused. All other headers are foreign: they pass
through byte for byte, in order, repeats and nulls included. The notations are those of `core.durations`,
`core.instants` and `core.recurrence`; what commands take is in `codec.requests.actions`.
"""

from collections.abc import Sequence
from typing import Final, TypeAlias

from msgspec.structs import replace

from delaystream.codec.command import COMMAND_HEADER, Command, Report, detach
from delaystream.codec.requests import values
from delaystream.codec.requests.actions import RETIMING, Actions, Sorted
from delaystream.codec.requests.due import CLOCK_DIFFERENCE_MS, DueTimes, remember
from delaystream.codec.requests.names import ATTEMPT, DROPPED, KINDS, PREFIX, kind_of
from delaystream.codec.requests.options import NO_OPTIONS, Options, read_options
from delaystream.codec.requests.sender import sender
from delaystream.codec.requests.timing import read_recurrence
from delaystream.codec.requests.values import RefusedError
from delaystream.core import instants
from delaystream.core.defaults import Defaults
from delaystream.core.destinations import DestinationFilter
from delaystream.core.instants import format_instant
from delaystream.core.limits import Limits
from delaystream.core.record import Record
from delaystream.core.recurrence import NO_TIMING, Recurrence
from delaystream.core.rejection import Code, Rejection, shown
from delaystream.core.request import ON_LATE_FIRE, Action, Header, IfExists, Request

# An enumeration's member costs a slow look-up each time it is named through its class (Python 3.11).
_SCHEDULE: Final = Action.SCHEDULE
_REPLACE: Final = IfExists.REPLACE

_WITHOUT_OPTIONS: Final = frozenset({"destination", "delay", "at", "id", "action", "reply-to"})

# Longer names are looked up anew each time: the memo stays below a few megabytes.
_MEMO_ENTRIES: Final = 4096
_MEMO_BYTES: Final = 256

_EARLIEST_MS: Final = instants.EARLIEST_MS

_Sorted: TypeAlias = tuple[list[Header], dict[str, bytes]]
"""Headers: those that are delivered, and the control headers by kind."""


class RequestParser:
    """Parses records of request topics; for use by one thread.

    `default_destination` is for requests without `delaystream-destination`; ValueError when it is denied.
    `default_timezone` is for cron expressions and local times without a zone. `default_grace_ms` is for
    requests without `grace` that recur or have `on-late`; None: as the contract says. A command that changes
    a schedule carries both, for fields that the schedule does not have yet.
    Parsed values are remembered, so that a usual request costs a few look-ups.
    """

    def __init__(
        self,
        filter: DestinationFilter,
        limits: Limits,
        default_destination: str | None = None,
        default_timezone: str | None = None,
        default_grace_ms: int | None = None,
    ) -> None:
        self._defaults = Defaults(default_timezone, default_grace_ms)
        if default_destination is not None and (reason := filter.refusal(default_destination)):
            raise ValueError(f"the default destination {shown(default_destination)} {reason}")
        self._filter = filter
        self._limits = limits
        self._default_destination = default_destination
        self._ahead_ms = max(limits.max_delay_ms, CLOCK_DIFFERENCE_MS)
        self._kinds = dict(KINDS)
        #: the headers of the last usual request, as they came in and sorted: of many the next has the same
        self._last: Sequence[Header] | None = None
        self._last_sorted: _Sorted = ([], {})
        self._destinations: dict[bytes, str] = {}
        due = DueTimes(limits)
        self._due = due.read
        self._actions = Actions(filter, limits, due)

    @property
    def limits(self) -> Limits:
        """The bounds that it holds requests to."""
        return self._limits

    def permits(self, topic: str) -> bool:
        """Whether records may be delivered to a topic: asked again when a schedule fires."""
        return self._filter.permits(topic)

    def addressed(self, rejection: Rejection, headers: Sequence[Header]) -> Rejection:
        """A rejection with who asks and who is to be told of it, as far as the headers say."""
        return Rejection(rejection.code, rejection.detail, *sender(headers, self._limits, self._filter))

    def judged(self, report: Report) -> Report:
        """A report of a bulk command, without the topic for the receipt if none may be written there."""
        if report.reply_to is None or self._filter.receipt_refusal(report.reply_to) is None:
            return report
        return replace(report, reply_to=None)

    def parse(self, record: Record, now_ms: int) -> Request | Rejection:
        """The request in a record of a request topic, or its rejection; no input makes it raise.

        Delays count from the record's own timestamp; where it has none, from `now_ms`.
        """
        try:
            self._check_sizes(record)
            headers = record.headers
            foreign, control = found = self._last_sorted if headers == self._last else self._sort(headers)
            timestamp_ms = record.timestamp_ms
            if timestamp_ms < 0:
                record = replace(record, timestamp_ms=now_ms)
                timestamp_ms = now_ms
            elif not _EARLIEST_MS <= timestamp_ms <= now_ms + self._ahead_ms:
                raise _not_the_present(timestamp_ms)
            if "destination" in control and (
                "delay" in control or ("at" in control and self._defaults.timezone is None)
            ):
                # The usual requests, without the cost of looking for anything else.
                if len(control) == 2:
                    self._last, self._last_sorted = headers, found
                    return Request(
                        record.source, timestamp_ms, record.key, record.value, foreign, _SCHEDULE, None,
                        self._destination(control, None), self._due(control, timestamp_ms, now_ms),
                        None, None, False, _REPLACE, ON_LATE_FIRE, None, None, None, None, (),
                    )  # fmt: skip
                if len(control) == 3 and (id := control.get("id")) is not None:
                    return Request(
                        record.source, timestamp_ms, record.key, record.value, foreign, _SCHEDULE,
                        values.schedule_name(PREFIX + "id", id, self._limits),
                        self._destination(control, None), self._due(control, timestamp_ms, now_ms),
                        None, None, False, _REPLACE, ON_LATE_FIRE, None, None, None, None, (),
                        relative="delay" in control,
                    )  # fmt: skip
            return self._request(record, foreign, control, now_ms, None)
        except RefusedError as refused:
            return self._refused(refused, record.headers)

    def parse_command(self, record: Record, now_ms: int) -> Request | Report | Rejection:
        """The request in a record of the commands topic, as it was when it was first seen, or a partition's
        report about a bulk command.

        A request's source, timestamp, default destination and due times are those of the command header; the
        record's own coordinates and timestamp only appear in the sentence of the rejection `invalid-command`.
        """
        command, own = detach(record.headers)
        if type(command) is Report:
            return command
        try:
            if type(command) is not Command:
                raise _no_command(record)
            produced = Record(command.source, command.timestamp_ms, record.key, record.value, own)
            self._check_sizes(produced)
            foreign, control = self._sort(own)
            request = self._request(produced, foreign, control, now_ms, command)
            if not _agree(request, command):
                raise _disagreeing(record)
        except RefusedError as refused:
            return self._refused(refused, own)
        return request

    def _refused(self, refused: RefusedError, headers: Sequence[Header]) -> Rejection:
        return Rejection(refused.code, refused.detail, *sender(headers, self._limits, self._filter))

    def _check_sizes(self, record: Record) -> None:
        """Refuse what is too large of a record; its headers are measured as they are sorted."""
        limits, key, value = self._limits, record.key, record.value
        if len(record.headers) > limits.max_headers:
            detail = f"The record has {len(record.headers)} headers; expected at most {limits.max_headers}."
            raise RefusedError(Code.TOO_MANY_HEADERS, detail)
        if value is not None and len(value) > limits.max_value_bytes:
            raise _too_large(Code.VALUE_TOO_LARGE, "value holds", len(value), limits.max_value_bytes)
        if key is not None and len(key) > limits.max_key_bytes:
            raise _too_large(Code.KEY_TOO_LARGE, "key holds", len(key), limits.max_key_bytes)

    def _sort(self, headers: Sequence[Header]) -> _Sorted:
        """The delivered headers: the foreign ones, then `attempt`; and the other control headers by kind."""
        foreign: list[Header] = []
        control: dict[str, bytes] = {}
        header_bytes = 0
        kinds = self._kinds
        for header in headers:
            name, content = header
            header_bytes += len(name)
            if content is not None:
                header_bytes += len(content)
            kind = kinds.get(name)
            if kind is None:
                kind = self._learn(name)
            if not kind:
                foreign.append(header)
            elif kind != DROPPED:
                if content is None:
                    raise RefusedError(Code.NULL_HEADER, f"{name} is null; expected UTF-8 text.")
                if kind in control:
                    raise RefusedError(Code.DUPLICATE_HEADER, f"{name} is given twice; expected it once.")
                control[kind] = content
        if ATTEMPT in control:
            # Delivered with the record, so that whoever fails on it again counts on.
            foreign.append((PREFIX + ATTEMPT, values.attempt(PREFIX + ATTEMPT, control.pop(ATTEMPT))))
        if header_bytes > self._limits.max_header_bytes // 4:
            self._check_header_bytes(header_bytes, headers)
        return foreign, control

    def _check_header_bytes(self, header_bytes: int, headers: Sequence[Header]) -> None:
        """Refuse headers that are too large together: of their names `header_bytes` counts characters."""
        # A character is up to four bytes.
        header_bytes += sum(len(name.encode("utf-8", "surrogatepass")) - len(name) for name, _ in headers)
        most = self._limits.max_header_bytes
        if header_bytes > most:
            raise _too_large(Code.HEADERS_TOO_LARGE, "headers hold", header_bytes, most)

    def _learn(self, name: str) -> str:
        """The kind of a header whose name is not among those remembered."""
        kind = kind_of(name)
        if len(name) <= _MEMO_BYTES:
            if len(self._kinds) >= _MEMO_ENTRIES:
                self._kinds = dict(KINDS)
            self._kinds[name] = kind
        return kind

    def _request(
        self,
        record: Record,
        foreign: list[Header],
        control: dict[str, bytes],
        now_ms: int,
        command: Command | None,
    ) -> Request:
        """The request of a record as it was produced; its times are those of the command, if there is one."""
        action = _SCHEDULE
        id = reply_to = no_receipt = None
        if (content := control.get("id")) is not None:
            id = values.schedule_name(PREFIX + "id", content, self._limits)
        if (content := control.get("reply-to")) is not None:
            reply_to, no_receipt = values.reply_to(PREFIX + "reply-to", content, self._filter)
        if (content := control.get("action")) is not None:
            action = values.choice(PREFIX + "action", content, Action, Code.INVALID_ACTION)
        defaults = self._defaults if command is None or command.defaults is None else command.defaults
        if defaults.timezone is not None and _has_local_times(action, control):
            # Due times are worked out now, before anybody knows what there is under the id.
            control.setdefault("timezone", defaults.timezone.encode())
        if action is not _SCHEDULE:
            sorted_ = Sorted(record, foreign, control, id, reply_to, no_receipt, defaults)
            return self._actions.read(action, sorted_, now_ms, command)
        options = (
            NO_OPTIONS if control.keys() <= _WITHOUT_OPTIONS else read_options(control, id, self._filter)
        )
        recurrence = None
        if command is None:
            destination = self._destination(control, self._default_destination)
            if options is not NO_OPTIONS:
                recurrence = read_recurrence(
                    control, record.timestamp_ms, now_ms, self._limits, defaults.cron_zone
                )
            due_ms = () if recurrence is not None else self._due(control, record.timestamp_ms, now_ms)
        else:
            destination = self._destination(control, command.destination)
            due_ms, recurrence = command.due_ms, command.recurrence
        return Request(
            record.source, record.timestamp_ms, record.key, record.value, foreign,
            action, id, destination, due_ms,
            options.destination_partition, options.destination_key, options.destination_key is not None,
            options.if_exists, options.on_late, _grace_ms(options, recurrence, defaults),
            reply_to, options.name, options.description, options.tags, recurrence, options.catch_up,
            options.actor, None, no_receipt, options.terms, options.status,
            relative=id is not None and "delay" in control,
            defaults=defaults,
        )  # fmt: skip

    def _destination(self, control: dict[str, bytes], default: str | None) -> str:
        content = control.get("destination")
        if content is None:
            if default is None:
                detail = f"{PREFIX}destination is missing; expected the topic to deliver to."
                raise RefusedError(Code.MISSING_DESTINATION, detail)
            return values.permitted_topic(
                "The default destination", default, Code.INVALID_DESTINATION, self._filter
            )
        destination = self._destinations.get(content)
        if destination is None:
            destination = values.topic(
                PREFIX + "destination", content, Code.INVALID_DESTINATION, self._filter
            )
            remember(self._destinations, content, destination)
        return destination


def _grace_ms(options: Options, recurrence: Recurrence | None, defaults: Defaults) -> int | None:
    if options.grace_ms is not None:
        return options.grace_ms
    return defaults.grace_of(recurs=recurrence is not None, diverts=options.on_late != ON_LATE_FIRE)


def _has_local_times(action: Action, control: dict[str, bytes]) -> bool:
    """Whether a request has local times and no zone for them."""
    content = control.get("at")
    if content is None or "timezone" in control or not (action is _SCHEDULE or action in RETIMING):
        return False
    return not content.isdigit() and values.any_local(PREFIX + "at", content)


def _agree(request: Request, command: Command) -> bool:
    """Whether a request is one that is handed on, and its command has the times that it needs."""
    named = request.id is not None or request.match is not None or request.subject is not None
    return (named or request.action is Action.RATE) and _timed(request, command)


def _timed(request: Request, command: Command) -> bool:
    action, timing = request.action, command.timing
    one_time, recurring = bool(command.due_ms), command.recurrence is not None
    if action is _SCHEDULE:
        return timing is None and one_time != recurring
    if timing is None:
        return not (one_time or recurring or action in RETIMING)
    if recurring or (one_time and timing != NO_TIMING):
        return False
    if action is Action.RESCHEDULE:
        return one_time or timing != NO_TIMING
    return action is Action.UPDATE


def _no_command(record: Record) -> RefusedError:
    """The record of the commands topic is none that a worker has written there."""
    return RefusedError(
        Code.INVALID_COMMAND,
        f"The record at {record.source.text} with timestamp {record.timestamp_ms} does not end in a "
        f"{COMMAND_HEADER} header of a known version; expected no writers but the workers.",
    )


def _disagreeing(record: Record) -> RefusedError:
    """The header of the workers is none of this request's."""
    return RefusedError(
        Code.INVALID_COMMAND,
        f"The {COMMAND_HEADER} header of the record at {record.source.text} belongs to another "
        "request than the headers before it; expected no writers but the workers.",
    )


def _not_the_present(timestamp_ms: int) -> RefusedError:
    """The record's timestamp is one that only a mix-up of units, or a clock gone wrong, puts there."""
    after = timestamp_ms > instants.LATEST_MS
    return RefusedError(
        Code.INVALID_TIMESTAMP,
        f"The record's timestamp is {timestamp_ms}, in epoch milliseconds "
        f"{'after the year 9999' if after else format_instant(timestamp_ms)}; expected the present. "
        "Epoch seconds are too small for that, microseconds too large.",
    )


def _too_large(code: Code, what_holds: str, size: int, limit: int) -> RefusedError:
    return RefusedError(code, f"The record's {what_holds} {size} bytes; expected at most {limit}.")
