"""What may happen to a worker: records of every kind, valid, nearly valid and neither, and its surroundings.

Hypothesis draws a script; `tests.fuzz.world` carries it out. `{now+5000}` in a header's value stands for a
time so many milliseconds from the moment at which the record is sent.
"""

from __future__ import annotations

from itertools import groupby
from typing import Any, NamedTuple, TypeAlias

import msgspec
from hypothesis import strategies as st

from delaystream.codec.command import COMMAND_HEADER
from delaystream.core.request import Action, Header

PREFIX = "delaystream-"
REQUESTS = "delay-requests"
#: has an allow-list, a default destination, a bound on what is pending, and small limits
NARROW = "narrow-requests"
COMMANDS = "delay-commands"
DIALECTS = ("kaspr", "etf1", "nats", "karafka", "activemq")
#: Where records may be asked to go. `tiny` takes small records only, `closed` none, `absent` does not exist.
DESTINATIONS = ("orders", "emails", "late", "replies", "tiny", "closed", "absent")
#: of forged commands: beyond every offset that a request of a script has
FORGED_FROM = 1_000_000

SECOND_MS = 1_000
HOUR_MS = 3_600 * SECOND_MS
DAY_MS = 24 * HOUR_MS
YEAR_MS = 365 * DAY_MS
#: `catch-up: all` delivers each missed second: more of them only take longer
MOST_CAUGHT_UP_MS = 10 * 60 * SECOND_MS


class Send(NamedTuple):
    """A record; its timestamp is counted from now, or as it is."""

    topic: str
    partition: int
    key: bytes | None
    value: bytes | None
    headers: tuple[Header, ...]
    timestamp_ms: int = 0
    from_now: bool = True

    def __repr__(self) -> str:
        where = f"{self.topic!r}, {self.partition}, {_short(self.key)}, {_short(self.value)}"
        headers = ""
        for (name, value), run in groupby(self.headers):
            times = len(list(run))
            header = f"({name!r}, {_short(value)})"
            headers += f"{header}, " if times == 1 else f"*[{header}] * {times}, "
        return f"Send({where}, ({headers}), {self.timestamp_ms}, {self.from_now})"


def _short(content: bytes | None) -> str:
    """A literal of it, in few characters also where it repeats one byte."""
    if content and len(content) > 40 and content == content[:1] * len(content):
        return f"{content[:1]!r} * {len(content)}"
    return repr(content)


class Pass(NamedTuple):
    """Time passes."""

    ms: int


class Away(NamedTuple):
    """The worker stops; so much later it is back, its store may be lost by then."""

    ms: int
    lost: bool


class ClockStep(NamedTuple):
    """The clock is set, forward or back."""

    ms: int


class Turn(NamedTuple):
    """A topic vanishes, refuses every record, or is as it should be."""

    topic: str
    to: str


Happening: TypeAlias = Send | Pass | Away | ClockStep | Turn


class Script(NamedTuple):
    """A life of a worker with so many partitions, whose steps take so many records."""

    partitions: int
    step_records: int
    happenings: tuple[Happening, ...]


# -- values of control headers ---------------------------------------------------------------------------

IDS = (*[b"a", b"b"] * 6, "ä\u202e".encode(), b"i" * 256, b"orders/0/1", b"\0", b"a/b")
_TIMES = (b"{now+5000}", b"{now-60000}", b"{now+0}", b"{now+3600000}", b"{now+315000000000}")
_DURATIONS = (b"0", b"1s", b"500ms", b"5s", b"PT1M", b"1h30m", b"30d", b"1.5s", b"36500d", b"3650d")
_TOPICS = tuple(name.encode() for name in DESTINATIONS)

VALUES: dict[str, tuple[bytes, ...]] = {
    "destination": (b"orders", b"orders", b"emails", *_TOPICS),
    "delay": (*_DURATIONS[:6], b"1s,2s,3s", b"0,0", b"0,5s,1h", b"1s," * 99 + b"2s"),
    "at": (
        *_TIMES,
        b"2023-11-15T00:00:00Z",
        b"2030-01-01T00:00:00+05:30",
        b"{now+1},{now-1},{now+9000}",
        # In no zone a time at which clocks change: so many deliveries as there are items.
        b"2023-11-15T12:00",
        b"2023-11-15T12:00:00.5,{now+5000}",
    ),
    "every": (b"1s", b"5s", b"1m", b"1h", b"P1D", b"3650d", b"1001ms"),
    "cron": (
        b"* * * * *",
        b"*/5 * * * * *",
        b"0 9 * * 1-5",
        b"0 0 29 2 *",
        b"0 0 L * *",
        b"0 9 * * MON#1",
        b"30 2 * * *",
        b"0 0 LW * *",
        b"0 0 1W 1 *",
        b"@hourly",
    ),
    "timezone": (b"UTC", b"Europe/Berlin", b"America/New_York", b"Australia/Lord_Howe", b"Pacific/Apia"),
    "start": _TIMES,
    "end": _TIMES,
    "max-fires": (b"1", b"2", b"10", b"9999999999"),
    "jitter": (b"0", b"500ms", b"999ms", b"10s"),
    "dst-gap": (b"shift", b"skip"),
    "dst-overlap": (b"first", b"second", b"both"),
    "catch-up": (b"latest", b"none", b"all"),
    "id": IDS,
    "action": tuple(action.encode() for action in Action),
    "match-tags": (b"a", b"a,b", b"x"),
    "match-destination": (b"*", b"orders", b"o*", b"[", b"?mails"),
    "match-id-prefix": (b"a", b"i", b"\0", "ä".encode(), b"\xf4\x8f\xbf\xbf"),
    "match-key": (b"key", b"", b"\xff\0"),
    "match-new": (b"true", b"false"),
    "match-anonymous": (b"true", b"false"),
    "coordinates": (
        b"delay-requests/0/0",
        b"delay-requests/0/3",
        b"narrow-requests/1/0",
        b"delay-requests/7/9",
    ),
    "until": _TIMES,
    "status": (b"pending", b"paused"),
    "if-version": (b"0", b"1", b"9223372036854775807"),
    "request-id": (b"r", "é".encode(), b"r" * 128),
    "declared-by": (b"billing", b"d" * 128),
    "deploy": (b"0", b"1", b"9223372036854775807"),
    "payload": (b"keep", b"replace"),
    "rate": (b"1", b"600/m", b"0.5/s", b"none", b"10000000"),
    "note": (b"", b"why", b"n" * 1024),
    "if-exists": (b"replace", b"keep", b"reject"),
    "on-late": (b"fire", b"drop", b"late", b"absent", b"tiny", b"orders"),
    "grace": (b"0", b"1s", b"1h", b"36500d"),
    "destination-partition": (b"0", b"1", b"7", b"2147483647"),
    "destination-key": (b"", b"other", b"\xff\0"),
    "reply-to": (b"replies", b"delay-receipts", b"absent", b"closed", b"tiny", b"delay-events"),
    "name": (b"", b"nightly", "ß\n".encode()),
    "description": (b"", b"what it is for" * 20),
    "tags": (b"a,b", b"a", b" ,x, ", b""),
    "actor": (b"somebody", b"", "\u0000é".encode()),
}

#: Close to being right, for one header or another, and what is never right.
NASTY = (
    b"", b" ", b"\0", b"\xff\xfe", b"\xed\xa0\x80", b"-1s", b"1", b"-0", b"+5", b"999999999999999999d",
    b"1e9", b"9" * 5_000, b"1," * 200, b"1s,", b",", b"1700000000", b"1700000000000000", b"-62135596800001",
    b"9223372036854775807", b"18446744073709551616", "٣s".encode(), "١٢".encode(), b"2023-02-30T00:00:00Z",
    b"0001-01-01T00:00:00Z", b"9999-12-31T23:59:60Z", b"9999-12-31T23:59:59-23:59", b"0000-00-00T00:00:00Z",
    b"* * * * * * *", b"*/0 * * * *", b"0 0 30 2 *", b"0 0 31 4,6 *", b"59-0 * * * *", b"a" * 300,
    "\u202e\u2028".encode(), b"\n\r\t", b"null", b"ALL", b"Cancel", b"*", b"__consumer_offsets", b"..", b".",
    b"delay-requests", b"delay-commands", b"orders ", b"Orders", "İ".encode(), b"Etc/GMT+14", b"../UTC",
    b"CRON_TZ=UTC 0 0 * * *", b"0.0000000001s", b"PT", b"P1M", b"infinite", b"NaN",
)  # fmt: skip

nasty = (
    st.sampled_from(NASTY)
    | st.binary(max_size=12)
    | st.text(max_size=8).map(lambda text: text.encode("utf-8", "surrogatepass"))
)


def _mutated(value: bytes, how: int, at: int, byte: int) -> bytes:
    at = at % (len(value) + 1)
    changed = (
        value.upper(),
        value[:at],
        value[:at] + bytes((byte,)) + value[at:],
        value[:at] + bytes((byte,)) + value[at + 1 :],
        value + b"," + value,
        b" " + value + b" ",
        value + value,
    )
    return changed[how % len(changed)]


def nearly(values: tuple[bytes, ...]) -> st.SearchStrategy[bytes]:
    """Mostly one of some valid values; else one that is nearly so, or anything."""
    valid = st.sampled_from(values)
    mutated = st.builds(_mutated, valid, st.integers(0, 6), st.integers(0, 40), st.integers(0, 255))
    return st.sampled_from(range(30)).flatmap(lambda n: valid if n < 27 else (mutated if n < 29 else nasty))


BY_KIND = {kind: nearly(values) for kind, values in VALUES.items()}
KINDS = tuple(VALUES)

#: Names that are nearly ours, ours in capitals, what we write ourselves, and any others.
NAMES = (
    "trace", "", "X-Trace", "content-type", "delaystream", "delaystream-", "delaystream-dely",
    "DELAYSTREAM-DELAY", "Delaystream-Id", "delaystream-fire-id", "delaystream-error", "delaystream-source",
    "Delaystream-Receipt", COMMAND_HEADER, "delaystream-ID\0", "\u017f", "é", "名", "a" * 400, "bad\udcff",
    "\udcfe", "Nats-Next", "scheduledJobId", "x-scheduler-action", "scheduler-epoch", "delaystream-due-at",
)  # fmt: skip

foreign: st.SearchStrategy[Header] = st.tuples(
    st.sampled_from(NAMES) | st.text(max_size=6).map(lambda name: name.encode("utf-8", "replace").decode()),
    st.none() | nasty,
)

# -- records -------------------------------------------------------------------------------------------

#: What records have in common: the kinds that they need, and those that they may have.
_EXTRAS = (
    "reply-to", "actor", "name", "tags", "description", "destination-partition", "destination-key", "note",
)  # fmt: skip
_NAMED = (*_EXTRAS, "if-exists", "status", "if-version", "request-id", "declared-by")
_BOUNDS = ("start", "end", "max-fires", "jitter", "catch-up", "grace")
_CALENDAR = ("timezone", "dst-gap", "dst-overlap", *_BOUNDS)
SHAPES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("destination", "delay"), (*_EXTRAS, "on-late", "grace")),
    (("destination", "at"), (*_EXTRAS, "on-late", "grace")),
    (("destination", "at", "timezone"), (*_EXTRAS, "on-late", "grace")),
    (("destination", "delay", "id"), (*_NAMED, "on-late", "grace")),
    (("destination", "every", "id"), (*_NAMED, *_BOUNDS)),
    (("destination", "cron", "id"), (*_NAMED, *_CALENDAR)),
    (("id", "action"), ("reply-to", "actor", "note", "until", "if-version", "request-id", "catch-up")),
    (("id", "action", "delay"), ("reply-to",)),
    (("id", "action", "every"), ("reply-to", "jitter", "end")),
    (
        ("id", "action", "payload"),
        ("destination", "tags", "name", "grace", "on-late", "end", "jitter", "cron", "delay", "timezone"),
    ),
    (("action", "coordinates"), ("reply-to", "note", "delay")),
    (("action", "match-destination"), ("reply-to", "actor", "match-tags", "match-new", "match-anonymous")),
    (("action", "match-id-prefix"), ("reply-to", "actor", "match-tags", "match-key")),
    (("action", "destination", "rate"), ("reply-to", "note")),
    ((), KINDS),
)  # fmt: skip


@st.composite
def own_headers(draw: st.DrawFn) -> list[Header]:
    """Control headers that belong together, and then perhaps one that does not."""
    needed, possible = draw(st.sampled_from((*SHAPES, *SHAPES[:-1])))
    kinds = [*needed, *draw(st.lists(st.sampled_from(possible), max_size=3, unique=True))]
    headers: list[Header] = [(PREFIX + kind, draw(BY_KIND[kind])) for kind in kinds]
    return _disturbed(draw, headers)


def _disturbed(draw: st.DrawFn, headers: list[Header]) -> list[Header]:
    disturbance = 39 - draw(st.sampled_from(range(40)))
    if headers and disturbance < 6:
        at = draw(st.integers(0, len(headers) - 1))
        name, value = headers[at]
        if disturbance == 0:
            headers[at] = (name, None)
        elif disturbance == 1:
            headers.append((name.upper(), value))
        elif disturbance == 2:
            headers[at] = (name.title(), value)
        elif disturbance == 3:
            del headers[at]
        elif disturbance == 4:
            headers[at] = (name, draw(nasty))
        else:
            kind = draw(st.sampled_from(KINDS))
            headers.append((PREFIX + kind, draw(BY_KIND[kind])))
    if disturbance in range(6, 12):
        headers += draw(st.lists(foreign, min_size=1, max_size=3))
    if disturbance == 12:
        headers += [("trace", b"1")] * 100
    return headers


SPOKEN: dict[str, tuple[dict[str, tuple[bytes, ...]], ...]] = {
    "kaspr": (
        {
            "x-scheduler-deliver-to": _TOPICS,
            "x-scheduler-deliver-at": (b"2023-11-15T00:00:00Z", b"2023-11-15", b"2030-01-01 00:00:00"),
            "x-scheduler-request-id": IDS,
            "x-scheduler-action": (b"ADD", b"REPLACE", b"CANCEL", b"add"),
        },
        {
            "x-scheduler-action": (b"CRON_ADD", b"CRON_ADD", b"CRON_CANCEL", b"CRON_PAUSE", b"CRON_RESUME"),
            "x-scheduler-request-id": IDS,
            "x-scheduler-deliver-to": _TOPICS,
            "x-scheduler-cron-expr": (b"* * * * *", b"0 0 * * * 5", b"*/7 * * * *", b"0 0 0 1 1 * 2030"),
            "x-scheduler-cron-missed-fire-policy": (b"skip", b"replay"),
        },
    ),
    "etf1": (
        {
            "scheduler-epoch": (b"1700000005", b"1699999999", b"1700000005000", b"99999999999", b"0"),
            "scheduler-target-topic": _TOPICS,
            "scheduler-target-key": (b"", b"k", b"\xff"),
        },
    ),
    "nats": (
        {
            "Nats-Schedule": (
                b"@at 2023-11-14T22:13:25Z", b"@every 1s", b"@every 1h30m", b"@daily", b"0 0 9 * * 1-5",
                b"@at 1700000005000", b"@every .5s", b"@every 999999999h", b"@hourly", b"*/5 * * * * *",
            ),
            "Nats-Schedule-Target": _TOPICS,
            "Nats-Schedule-TTL": (b"5m", b"never", b"60", b"0"),
            "Nats-Schedule-Time-Zone": (b"Europe/Berlin", b"Local", b""),
            "Nats-TTL": (b"1h", b"never", b"1", b"999999999999"),
        },
        {"Nats-Schedule-Next": (b"purge", b"x"), "Nats-Scheduler": IDS},
    ),
    "karafka": (
        {
            "schedule_schema_version": (b"1.0.0", b"1.0", b"2.0.0", b"1.0.0.0"),
            "schedule_source_type": (b"schedule", b"schedule", b"cancel", b"tombstone"),
            "schedule_target_epoch": (b"1700000005", b"1699999999", b"99999999999"),
            "schedule_target_topic": _TOPICS,
            "schedule_target_partition": (b"0", b"3"),
            "schedule_target_key": (b"", b"k"),
            "schedule_target_partition_key": (b"p",),
        },
    ),
    "activemq": (
        {
            "delaystream-destination": _TOPICS,
            "AMQ_SCHEDULED_DELAY": (b"5000", b"0", b"-1", b"\0\0\x13\x88", b"\xff\xff\xff\xff"),
            "AMQ_SCHEDULED_PERIOD": (b"1000", b"\0\0\0\0\0\0\x13\x88", b"1"),
            "AMQ_SCHEDULED_REPEAT": (b"3", b"-1", b"1000", b"1001"),
        },
        {
            "delaystream-destination": _TOPICS,
            "AMQ_SCHEDULED_CRON": (b"* * * * *", b"0 9 * * 1-5", b"*/7 1 * * *"),
        },
        {"AMQ_SCHEDULER_ACTION": (b"REMOVE", b"BROWSE"), "scheduledJobId": (b"activemq-requests/0/0", b"x")},
    ),
}  # fmt: skip


@st.composite
def spoken_headers(draw: st.DrawFn, dialect: str) -> list[Header]:
    """Headers in another system's names; a header is left out now and then."""
    shape = draw(st.sampled_from(SPOKEN[dialect]))
    left_out = draw(st.sets(st.sampled_from(sorted(shape)), max_size=len(shape) // 2))
    headers: list[Header] = [
        (name, draw(nearly(values))) for name, values in shape.items() if name not in left_out
    ]
    return _disturbed(draw, headers)


#: Boundaries of what a timestamp may be, and of what it is read as.
INT64 = st.integers(-(1 << 63), (1 << 63) - 1)
EDGES = (-(1 << 63), -1, 0, 1, 31_535_999_999, 31_536_000_000, 253_402_300_799_999, 253_402_300_800_000,
         1_700_000_000, 1_700_000_000_000_000, (1 << 63) - 1, -62_135_596_800_001)  # fmt: skip
_NEAR = (
    0,
    0,
    0,
    -1,
    1,
    -HOUR_MS,
    HOUR_MS,
    -DAY_MS,
    DAY_MS,
    DAY_MS + 1,
    3650 * DAY_MS,
    3650 * DAY_MS + 1,
    -10 * YEAR_MS,
)

_keys = st.sampled_from(
    (*[b"key"] * 10, *[b"a", b"b"] * 5, None, b"", b"\xff\0", b"k" * 33_000, "ä".encode())
)
_values = st.sampled_from((b"value", b"value", None, b"", b"v" * 2_000, b"v" * 25_000, b"\0\xff"))


def _catches_up(headers: tuple[Header, ...]) -> bool:
    """Whether each scheduled time that was missed may be delivered."""
    return any(
        value is not None and (b"all" in value.lower() or b"replay" in value.lower() or b"CRON_ADD" in value)
        for _, value in headers
    )


@st.composite
def sends(draw: st.DrawFn, partitions: int) -> Send:
    """A record of a request topic or, forged, of the commands topic."""
    where = draw(st.sampled_from(range(20)))
    partition = draw(st.integers(0, partitions - 1))
    headers: list[Header]
    if where < 11:
        topic, headers = REQUESTS, draw(own_headers())
    elif where < 13:
        topic, headers = NARROW, draw(own_headers())
    elif where < 18:
        dialect = DIALECTS[where - 13]
        topic, headers = f"{dialect}-requests", draw(spoken_headers(dialect))
    else:
        topic, headers = COMMANDS, [*draw(own_headers()), *draw(command_headers())]
    kept = tuple(headers)
    stamp = draw(st.sampled_from(range(16)))
    timestamp_ms, from_now = 0, True
    if _catches_up(kept):
        timestamp_ms = -(stamp // 3 * SECOND_MS)
    elif stamp == 15:
        timestamp_ms, from_now = draw(st.sampled_from(EDGES) | INT64), False
    elif stamp > 11:
        timestamp_ms = draw(st.sampled_from(_NEAR))
    return Send(topic, partition, draw(_keys), draw(_values), kept, timestamp_ms, from_now)


# -- what only workers write ---------------------------------------------------------------------------

_numbers = st.sampled_from((0, 1, 2, 1_700_000_005_000, (1 << 31) - 1, 1 << 32, (1 << 63) - 1, 1 << 63, -1))
_recurrences: st.SearchStrategy[Any] = st.none() | st.tuples(
    st.sampled_from((None, "* * * * *", "* * * *", "0 0 30 2 *", "\0")),
    st.sampled_from((0, 1, 1_000, 60_000, -5, 1 << 62)),
    st.sampled_from(("UTC", "Europe/Berlin", "Nowhere/Else", "../UTC", "")),
    st.sampled_from(("shift", "skip", "x")),
    st.sampled_from(("first", "both")),
    st.sampled_from((0, 1_700_000_000_000, -5, (1 << 63) - 1)),
    st.sampled_from((None, 1_700_000_100_000, 0, -1)),
    st.sampled_from((0, 1, -1)),
    st.sampled_from((0, 500, 1 << 40, -7)),
).map(list)
_timings: st.SearchStrategy[Any] = st.none() | st.fixed_dictionaries(
    {},
    optional={
        "every_ms": st.sampled_from((0, 1_000, 60_000, -5, 1 << 62)),
        "cron": st.sampled_from(("* * * * *", "* * * *", "0 0 30 2 *", None)),
        "timezone": st.sampled_from(("UTC", "Nowhere/Else", None, "")),
        "end_ms": st.sampled_from((None, 1_700_000_100_000, -1)),
        "max_fires": st.sampled_from((None, 1, -1)),
        "jitter_ms": st.sampled_from((None, 500, 1 << 40, -7)),
    },
)


@st.composite
def command_headers(draw: st.DrawFn) -> list[Header]:
    """The header of a command or of a report: well formed, nearly so, cut off or any bytes."""
    fields: list[Any] = [
        draw(st.sampled_from((2, 2, 2, 2, 2, 0, 1, 3, -1, "2"))),
        draw(st.sampled_from((REQUESTS, REQUESTS, NARROW, "kaspr-requests", "", "x\0y", "é", "t" * 300))),
        draw(st.sampled_from((0, 0, 0, 1, 5)) | _numbers),
        FORGED_FROM + draw(st.integers(0, 1 << 20)),
        draw(st.sampled_from((1_700_000_000_000, 1_700_000_000_000)) | _numbers),
        draw(st.sampled_from(("orders", "orders", "", "absent", "delay-events", "\0"))),
        draw(st.lists(st.sampled_from((1_700_000_005_000, 1_699_999_999_000)) | _numbers, max_size=3)),
        draw(_recurrences),
        draw(
            st.none()
            | st.tuples(_numbers, _numbers, st.sampled_from((None, "replies", "absent", ""))).map(list)
        ),
        draw(_timings),
    ]
    fields = fields[: draw(st.sampled_from((10, 10, 9, 9, 9, 8, 7, 7, 5, 0)))]
    content: bytes | None = msgspec.msgpack.encode(fields)
    how = 19 - draw(st.sampled_from(range(20)))
    if content is not None and how == 0:
        content = content[: draw(st.integers(0, len(content)))]
    elif content is not None and how == 1:
        content = _mutated(content, 3, draw(st.integers(0, len(content))), draw(st.integers(0, 255)))
    elif how == 2:
        content = draw(st.none() | st.binary(max_size=20))
    return [(COMMAND_HEADER, content)]


# -- scripts -------------------------------------------------------------------------------------------

_PASSES_MS = (1, 500, 1_000, 5_000, 5_001, 30_000, 61_000)
_ABSENCES_MS = (0, 1_000, HOUR_MS, 25 * HOUR_MS, 40 * DAY_MS, YEAR_MS, 12 * YEAR_MS)
_STEPS_MS = (1, -1, 5_000, -5_000, HOUR_MS, -HOUR_MS, 3 * DAY_MS, -3 * DAY_MS, 2 * YEAR_MS)
_passes = st.builds(Pass, st.sampled_from(_PASSES_MS))
_aways = st.builds(Away, st.sampled_from(_ABSENCES_MS), st.booleans())
_steps = st.builds(ClockStep, st.sampled_from(_STEPS_MS))
_turns = st.builds(
    Turn,
    st.sampled_from((*DESTINATIONS, "delay-receipts", "delay-dead-letters", "delay-events")),
    st.sampled_from(("missing", "refusing", "there", "there")),
)


def _tame(happenings: list[Happening]) -> tuple[Happening, ...]:
    """No long absence where every second of it may be delivered: that takes long, and shows nothing more."""
    if not any(isinstance(happening, Send) and _catches_up(happening.headers) for happening in happenings):
        return tuple(happenings)
    tamed: list[Happening] = []
    for happening in happenings:
        if isinstance(happening, Away):
            tamed.append(happening._replace(ms=min(happening.ms, MOST_CAUGHT_UP_MS)))
        elif isinstance(happening, ClockStep):
            tamed.append(ClockStep(max(-MOST_CAUGHT_UP_MS, min(happening.ms, MOST_CAUGHT_UP_MS))))
        else:
            tamed.append(happening)
    return tuple(tamed)


@st.composite
def scripts(draw: st.DrawFn, longest: int = 30) -> Script:
    """A whole life."""
    partitions = draw(st.sampled_from((1, 2, 2)))
    weighed: st.SearchStrategy[st.SearchStrategy[Happening]] = st.sampled_from(
        (*[sends(partitions)] * 14, *[_passes] * 4, _aways, _steps, _turns)
    )
    least = draw(st.sampled_from((1, longest // 2, longest // 2)))
    happenings = draw(st.lists(weighed.flatmap(lambda kind: kind), min_size=least, max_size=longest))
    return Script(partitions, draw(st.sampled_from((8_000, 8_000, 3, 1))), _tame(happenings))
