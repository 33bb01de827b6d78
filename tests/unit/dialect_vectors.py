"""Records of other systems, with what each asks for in our names, or the code that it is refused by."""

from delaystream.core.rejection import Code
from delaystream.core.request import Coordinates, Header

SOURCE = Coordinates("requests", 3, 17)
NOW_MS = 1_790_000_000_400
AT_S = 1_893_456_000
#: what every vector's record carries besides, and every delivery must have
USERS: list[Header] = [("trace", b"\xff\x00"), ("trace", None)]

Theirs = dict[str, str | bytes]

KASPR: Theirs = {"x-scheduler-deliver-to": "reminders", "x-scheduler-deliver-at": "2030-01-01T00:00:00Z"}
KASPR_CRON: Theirs = {
    "x-scheduler-action": "CRON_ADD",
    "x-scheduler-request-id": "report",
    "x-scheduler-deliver-to": "reminders",
    "x-scheduler-cron-expr": "0 9 * * 1-5",
}
ETF1: Theirs = {
    "scheduler-epoch": "1893456000",
    "scheduler-target-topic": "videos",
    "scheduler-target-key": "vid1",
}
NATS: Theirs = {"Nats-Schedule": "@at 2030-01-01T01:00:00+01:00", "Nats-Schedule-Target": "orders"}
KARAFKA: Theirs = {
    "schedule_schema_version": "1.0.0",
    "schedule_target_epoch": "1893456000",
    "schedule_source_type": "schedule",
    "schedule_target_topic": "orders",
}
AT_MS = str(AT_S * 1000)
ANY_LATENESS = {"grace": "36500d"}
NATS_RECURRING = {"destination": "orders", "id": "k", "catch-up": "latest", **ANY_LATENESS}
NATS_CRON = {**NATS_RECURRING, "dst-gap": "skip", "dst-overlap": "both"}

VECTORS: dict[str, tuple[str, Theirs, dict[str, str]]] = {
    "kaspr: a message at a time": ("kaspr", KASPR, {"destination": "reminders", "at": AT_MS}),
    "kaspr: UTC without an offset": (
        "kaspr",
        {**KASPR, "x-scheduler-deliver-at": "2030-01-01T00:00:00"},
        {"destination": "reminders", "at": AT_MS},
    ),
    "kaspr: a date alone": (
        "kaspr",
        {**KASPR, "x-scheduler-deliver-at": "2030-01-01"},
        {"destination": "reminders", "at": AT_MS},
    ),
    "kaspr: an offset": (
        "kaspr",
        {**KASPR, "x-scheduler-deliver-at": "2029-12-31T19:00:00-05:00"},
        {"destination": "reminders", "at": AT_MS},
    ),
    "kaspr: with an id": (
        "kaspr",
        {**KASPR, "x-scheduler-request-id": "r1"},
        {"destination": "reminders", "at": AT_MS, "id": "r1"},
    ),
    "kaspr: replace": (
        "kaspr",
        {**KASPR, "x-scheduler-action": "REPLACE", "x-scheduler-request-id": "r1"},
        {"destination": "reminders", "at": AT_MS, "id": "r1"},
    ),
    "kaspr: cancel": (
        "kaspr",
        {"x-scheduler-action": "CANCEL", "x-scheduler-request-id": "r1"},
        {"action": "cancel", "id": "r1"},
    ),
    "kaspr: cron": (
        "kaspr",
        KASPR_CRON,
        {
            "destination": "reminders",
            "cron": "0 9 * * 1-5",
            "id": "report",
            "catch-up": "all",
            **ANY_LATENESS,
        },
    ),
    "kaspr: cron with the seconds last, and without what was missed": (
        "kaspr",
        {
            **KASPR_CRON,
            "x-scheduler-cron-expr": "5 9 * * * 30",
            "x-scheduler-cron-missed-fire-policy": "skip",
        },
        {
            "destination": "reminders",
            "cron": "30 5 9 * * *",
            "id": "report",
            "catch-up": "none",
            **ANY_LATENESS,
        },
    ),
    "kaspr: a step in a day field is no wildcard to croniter": (
        "kaspr",
        {**KASPR_CRON, "x-scheduler-cron-expr": "0 9 */10 * 1"},
        {
            "destination": "reminders",
            "cron": "0 9 1-31/10 * 1",
            "id": "report",
            "catch-up": "all",
            **ANY_LATENESS,
        },
    ),
    "kaspr: pause": (
        "kaspr",
        {"x-scheduler-action": "CRON_PAUSE", "x-scheduler-request-id": "report"},
        {"action": "pause", "id": "report"},
    ),
    "kaspr: resume": (
        "kaspr",
        {"x-scheduler-action": "CRON_RESUME", "x-scheduler-request-id": "report"},
        {"action": "resume", "id": "report"},
    ),
    "kaspr: cancel a cron": (
        "kaspr",
        {"x-scheduler-action": "CRON_CANCEL", "x-scheduler-request-id": "report"},
        {"action": "cancel", "id": "report"},
    ),
    "etf1: the example of its README": ("etf1", ETF1, {"id": "k", "at": AT_MS, "destination": "videos"}),
    "nats: once": ("nats", NATS, {"destination": "orders", "at": AT_MS, "id": "k"}),
    "nats: once, not after its time to live": (
        "nats",
        {**NATS, "Nats-Schedule": "@at 2026-09-21T15:33:20.400Z", "Nats-TTL": "1h30m"},
        {
            "destination": "orders",
            "at": "1790004800400",
            "id": "k",
            "on-late": "drop",
            "grace": "600000ms",
        },
    ),
    "nats: once, however late": (
        "nats",
        {**NATS, "Nats-TTL": "999999999999"},
        {"destination": "orders", "at": AT_MS, "id": "k"},
    ),
    "nats: once, long ago, and not a century after its time to live": (
        "nats",
        {**NATS, "Nats-Schedule": "@at 1971-09-21T15:33:20.400Z", "Nats-TTL": "3153600000"},
        {
            "destination": "orders",
            "at": "54315200400",
            "id": "k",
            "on-late": "drop",
            "grace": "3153600000000ms",
        },
    ),
    "nats: an interval that never ends": (
        "nats",
        {**NATS, "Nats-Schedule": "@every 1.5h", "Nats-TTL": "999999999999"},
        {**NATS_RECURRING, "every": "5400000ms", "start": "1790005400000"},
    ),
    "nats: an interval, from the next whole second": (
        "nats",
        {**NATS, "Nats-Schedule": "@every 1m30s"},
        {**NATS_RECURRING, "every": "90000ms", "start": "1790000090000"},
    ),
    "nats: an interval that ends": (
        "nats",
        {**NATS, "Nats-Schedule": "@every 1.5h", "Nats-TTL": "86400"},
        {**NATS_RECURRING, "every": "5400000ms", "start": "1790005400000", "end": "1790086400400"},
    ),
    "nats: 6 fields in a time zone": (
        "nats",
        {**NATS, "Nats-Schedule": "0 30 9 * jan-mar MON", "Nats-Schedule-Time-Zone": "Europe/Amsterdam"},
        {**NATS_CRON, "cron": "0 30 9 * 1-3 1", "timezone": "Europe/Amsterdam"},
    ),
    "nats: a word": ("nats", {**NATS, "Nats-Schedule": "@weekly"}, {**NATS_CRON, "cron": "0 0 0 * * 0"}),
    "nats: a step from a number goes on to the end": (
        "nats",
        {**NATS, "Nats-Schedule": "*/15 5/20 * ? * *"},
        {**NATS_CRON, "cron": "*/15 5-45/20 * * * *"},
    ),
    "nats: either day field is enough, a stepped one too": (
        "nats",
        {**NATS, "Nats-Schedule": "0 0 0 */15 * 5"},
        {**NATS_CRON, "cron": "0 0 0 1-31/15 * 5"},
    ),
    "karafka: schedule": ("karafka", KARAFKA, {"id": "k", "at": AT_MS, "destination": "orders"}),
    "karafka: to a partition": (
        "karafka",
        {**KARAFKA, "schedule_target_partition": "7"},
        {"id": "k", "at": AT_MS, "destination": "orders", "destination-partition": "7"},
    ),
    "activemq: a delay": (
        "activemq",
        {"AMQ_SCHEDULED_DELAY": "60000"},
        {"id": "requests/3/17", "delay": "60000ms"},
    ),
    "activemq: a Java Long, as Camel writes it": (
        "activemq",
        {"AMQ_SCHEDULED_DELAY": (60_000).to_bytes(8, "big")},
        {"id": "requests/3/17", "delay": "60000ms"},
    ),
    "activemq: ten, one each 10 s, the first after 30 s": (
        "activemq",
        {"AMQ_SCHEDULED_DELAY": "30000", "AMQ_SCHEDULED_PERIOD": "10000", "AMQ_SCHEDULED_REPEAT": "9"},
        {
            "id": "requests/3/17",
            "every": "10000ms",
            "start": str(NOW_MS + 30_000),
            "max-fires": "10",
        },
    ),
    "activemq: a period without a delay is the delay of the first": (
        "activemq",
        {"AMQ_SCHEDULED_PERIOD": "10000", "AMQ_SCHEDULED_REPEAT": (-1).to_bytes(4, "big", signed=True)},
        {"id": "requests/3/17", "every": "10000ms", "start": str(NOW_MS + 10_000)},
    ),
    "activemq: a period that does not repeat": (
        "activemq",
        {"AMQ_SCHEDULED_PERIOD": "10000"},
        {"id": "requests/3/17", "delay": "10000ms"},
    ),
    "activemq: a crontab entry": (
        "activemq",
        {"AMQ_SCHEDULED_CRON": "0 * * * *"},
        {"id": "requests/3/17", "cron": "0 * * * *"},
    ),
    "activemq: steps are multiples": (
        "activemq",
        {"AMQ_SCHEDULED_CRON": "10-30/7 */6 */10 * ?"},
        {"id": "requests/3/17", "cron": "14-28/7 */6 10-30/10 * *"},
    ),
    "activemq: what the sender gave a job id is sent at once": (
        "activemq",
        {"AMQ_SCHEDULED_DELAY": "60000", "scheduledJobId": "ID:host-1"},
        {"delay": "0"},
    ),
    "activemq: remove a job": (
        "activemq",
        {"AMQ_SCHEDULER_ACTION": "REMOVE", "scheduledJobId": "requests/3/4"},
        {"action": "cancel", "id": "requests/3/4"},
    ),
    "activemq: remove all jobs": (
        "activemq",
        {"AMQ_SCHEDULER_ACTION": "REMOVEALL"},
        {"action": "cancel", "match-destination": "*", "match-anonymous": "true"},
    ),
}

REFUSED: dict[str, tuple[str, Theirs, Code]] = {
    "kaspr: no time": ("kaspr", {"x-scheduler-deliver-to": "t"}, Code.DIALECT_MISSING),
    "kaspr: no destination": ("kaspr", {"x-scheduler-deliver-at": "2030-01-01"}, Code.DIALECT_MISSING),
    "kaspr: not a time": ("kaspr", {**KASPR, "x-scheduler-deliver-at": "soon"}, Code.DIALECT_INVALID),
    "kaspr: cancels nothing": ("kaspr", {"x-scheduler-action": "CANCEL"}, Code.DIALECT_MISSING),
    "kaspr: no such action": ("kaspr", {**KASPR, "x-scheduler-action": "PURGE"}, Code.DIALECT_MISSING),
    "kaspr: no such action, with an id": (
        "kaspr",
        {**KASPR, "x-scheduler-action": "PURGE", "x-scheduler-request-id": "r"},
        Code.DIALECT_INVALID,
    ),
    "kaspr: no such policy": (
        "kaspr",
        {**KASPR_CRON, "x-scheduler-cron-missed-fire-policy": "most"},
        Code.DIALECT_INVALID,
    ),
    "kaspr: a year": (
        "kaspr",
        {**KASPR_CRON, "x-scheduler-cron-expr": "0 9 * * 1 0 2031"},
        Code.DIALECT_UNSUPPORTED,
    ),
    "etf1: milliseconds": ("etf1", {**ETF1, "scheduler-epoch": AT_MS}, Code.DIALECT_INVALID),
    "etf1: no time": ("etf1", {"scheduler-target-topic": "t"}, Code.DIALECT_MISSING),
    "etf1: no destination": ("etf1", {"scheduler-epoch": "1893456000"}, Code.DIALECT_MISSING),
    "etf1: not a number": ("etf1", {**ETF1, "scheduler-epoch": "tomorrow"}, Code.DIALECT_INVALID),
    "nats: no target": ("nats", {"Nats-Schedule": "@hourly"}, Code.DIALECT_MISSING),
    "nats: 5 fields": ("nats", {**NATS, "Nats-Schedule": "0 9 * * 1"}, Code.DIALECT_INVALID),
    "nats: backwards": ("nats", {**NATS, "Nats-Schedule": "0 0 0 * * fri-mon"}, Code.DIALECT_INVALID),
    "nats: Sunday is 0": ("nats", {**NATS, "Nats-Schedule": "0 0 0 * * 7"}, Code.DIALECT_INVALID),
    "nats: less than a second": ("nats", {**NATS, "Nats-Schedule": "@every 500ms"}, Code.DIALECT_INVALID),
    "nats: days": ("nats", {**NATS, "Nats-Schedule": "@every 1d"}, Code.DIALECT_INVALID),
    "nats: no offset": ("nats", {**NATS, "Nats-Schedule": "@at 2030-01-01T00:00:00"}, Code.DIALECT_INVALID),
    "nats: epoch": ("nats", {**NATS, "Nats-Schedule": f"@at {AT_MS}"}, Code.DIALECT_INVALID),
    "nats: no such word": ("nats", {**NATS, "Nats-Schedule": "@fortnightly"}, Code.DIALECT_INVALID),
    "nats: a zone without cron": (
        "nats",
        {**NATS, "Nats-Schedule-Time-Zone": "Europe/Paris"},
        Code.DIALECT_INVALID,
    ),
    "nats: an empty zone": (
        "nats",
        {**NATS, "Nats-Schedule": "@daily", "Nats-Schedule-Time-Zone": ""},
        Code.DIALECT_INVALID,
    ),
    "nats: the server's zone": (
        "nats",
        {**NATS, "Nats-Schedule": "@daily", "Nats-Schedule-Time-Zone": "Local"},
        Code.DIALECT_UNSUPPORTED,
    ),
    "nats: sampling": ("nats", {**NATS, "Nats-Schedule-Source": "sensors"}, Code.DIALECT_UNSUPPORTED),
    "nats: rollup": ("nats", {**NATS, "Nats-Schedule-Rollup": "sub"}, Code.DIALECT_UNSUPPORTED),
    "nats: a TTL below a second": ("nats", {**NATS, "Nats-Schedule-TTL": "10ms"}, Code.DIALECT_INVALID),
    "nats: over before it fires": ("nats", {**NATS, "Nats-TTL": "5m"}, Code.DIALECT_INVALID),
    "nats: ends a schedule and publishes": (
        "nats",
        {"Nats-Schedule-Next": "purge", "Nats-Scheduler": "schedules.1"},
        Code.DIALECT_UNSUPPORTED,
    ),
    "karafka: a newer envelope": (
        "karafka",
        {**KARAFKA, "schedule_schema_version": "1.10.0"},
        Code.DIALECT_UNSUPPORTED,
    ),
    "karafka: no version": ("karafka", {"schedule_source_type": "cancel"}, Code.DIALECT_MISSING),
    "karafka: no such type": (
        "karafka",
        {**KARAFKA, "schedule_source_type": "message"},
        Code.DIALECT_INVALID,
    ),
    "karafka: by a partition key": (
        "karafka",
        {**KARAFKA, "schedule_target_partition_key": "user-1"},
        Code.DIALECT_UNSUPPORTED,
    ),
    "activemq: bursts": (
        "activemq",
        {"AMQ_SCHEDULED_CRON": "0 * * * *", "AMQ_SCHEDULED_DELAY": "1000"},
        Code.DIALECT_UNSUPPORTED,
    ),
    "activemq: too many": (
        "activemq",
        {"AMQ_SCHEDULED_PERIOD": "1000", "AMQ_SCHEDULED_REPEAT": "1001"},
        Code.DIALECT_INVALID,
    ),
    "activemq: repeats without a period": (
        "activemq",
        {"AMQ_SCHEDULED_DELAY": "1000", "AMQ_SCHEDULED_REPEAT": "2"},
        Code.DIALECT_MISSING,
    ),
    "activemq: names": ("activemq", {"AMQ_SCHEDULED_CRON": "0 9 * * MON"}, Code.DIALECT_INVALID),
    "activemq: 6 fields": ("activemq", {"AMQ_SCHEDULED_CRON": "0 0 9 * * 1"}, Code.DIALECT_INVALID),
    "activemq: a negative Long": (
        "activemq",
        {"AMQ_SCHEDULED_DELAY": (-5).to_bytes(8, "big", signed=True)},
        Code.DIALECT_INVALID,
    ),
    "activemq: remove the jobs of an hour": (
        "activemq",
        {"AMQ_SCHEDULER_ACTION": "REMOVEALL", "ACTION_START_TIME": "1893456000000"},
        Code.DIALECT_UNSUPPORTED,
    ),
    "activemq: browsing": ("activemq", {"AMQ_SCHEDULER_ACTION": "BROWSE"}, Code.DIALECT_UNSUPPORTED),
}
