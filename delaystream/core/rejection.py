"""Rejections of requests: stable codes, and the value that brings one to dead letters and receipts."""

from enum import StrEnum
from typing import Final

import msgspec


class Code(StrEnum):
    """The stable name of a reason, in `delaystream-error`, receipts and metrics; see `DESCRIPTIONS`.

    A code is never renamed and never gets another meaning. New codes may be added.
    """

    MISSING_DESTINATION = "missing-destination"
    INVALID_DESTINATION = "invalid-destination"
    DESTINATION_DENIED = "destination-denied"
    INVALID_DESTINATION_PARTITION = "invalid-destination-partition"
    DESTINATION_PARTITION_OUT_OF_RANGE = "destination-partition-out-of-range"
    NO_SCHEDULE = "no-schedule"
    DELAY_AND_AT = "delay-and-at"
    INVALID_DELAY = "invalid-delay"
    DELAY_TOO_LONG = "delay-too-long"
    INVALID_AT = "invalid-at"
    AT_NOT_MILLISECONDS = "at-not-milliseconds"
    INVALID_CRON = "invalid-cron"
    UNSUPPORTED_CRON = "unsupported-cron"
    CRON_TOO_LONG = "cron-too-long"
    INVALID_TIMEZONE = "invalid-timezone"
    TOO_FREQUENT = "too-frequent"
    JITTER_TOO_LONG = "jitter-too-long"
    NEVER_FIRES = "never-fires"
    INVALID_EVERY = "invalid-every"
    INVALID_START = "invalid-start"
    INVALID_END = "invalid-end"
    INVALID_MAX_FIRES = "invalid-max-fires"
    INVALID_JITTER = "invalid-jitter"
    INVALID_DST = "invalid-dst"
    INVALID_CATCH_UP = "invalid-catch-up"
    INVALID_MATCH = "invalid-match"
    NOT_APPLICABLE = "not-applicable"
    LIST_TOO_LONG = "list-too-long"
    INVALID_ID = "invalid-id"
    ID_REQUIRED = "id-required"
    ID_TOO_LONG = "id-too-long"
    INVALID_ACTION = "invalid-action"
    INVALID_IF_EXISTS = "invalid-if-exists"
    INVALID_ON_LATE = "invalid-on-late"
    INVALID_GRACE = "invalid-grace"
    INVALID_REPLY_TO = "invalid-reply-to"
    REPLY_TO_REQUIRED = "reply-to-required"
    INVALID_NOTE = "invalid-note"
    INVALID_TAGS = "invalid-tags"
    INVALID_UNTIL = "invalid-until"
    INVALID_STATUS = "invalid-status"
    INVALID_COORDINATES = "invalid-coordinates"
    INVALID_VERSION = "invalid-version"
    INVALID_REQUEST_ID = "invalid-request-id"
    INVALID_DECLARED_BY = "invalid-declared-by"
    INVALID_DEPLOY = "invalid-deploy"
    INVALID_PAYLOAD = "invalid-payload"
    NOTHING_TO_CHANGE = "nothing-to-change"
    INVALID_RATE = "invalid-rate"
    INVALID_ATTEMPT = "invalid-attempt"
    UNKNOWN_HEADER = "unknown-header"
    DUPLICATE_HEADER = "duplicate-header"
    NULL_HEADER = "null-header"
    NOT_UTF8 = "not-utf8"
    NOT_SUPPORTED = "not-supported"
    KEY_TOO_LARGE = "key-too-large"
    VALUE_TOO_LARGE = "value-too-large"
    TOO_MANY_HEADERS = "too-many-headers"
    HEADERS_TOO_LARGE = "headers-too-large"
    UNDECODABLE_RECORD = "undecodable-record"
    INVALID_TIMESTAMP = "invalid-timestamp"
    BATCH_TOO_LARGE = "batch-too-large"
    UNREADABLE_BATCH = "unreadable-batch"
    INVALID_COMMAND = "invalid-command"
    ALREADY_EXISTS = "already-exists"
    VERSION_CHANGED = "version-changed"
    DEPLOY_SUPERSEDED = "deploy-superseded"
    CANCELLED_EARLIER = "cancelled-earlier"
    QUOTA_EXCEEDED = "quota-exceeded"
    DIALECT_MISSING = "dialect-missing"
    DIALECT_INVALID = "dialect-invalid"
    DIALECT_UNSUPPORTED = "dialect-unsupported"
    TOO_MANY_TRIGGERS = "too-many-triggers"
    TOO_MANY_RATES = "too-many-rates"
    TOO_MANY_HOLDS = "too-many-holds"
    TOO_MANY_COMMANDS = "too-many-commands"
    TOO_MANY_CANCELS = "too-many-cancels"
    QUARANTINED = "quarantined"
    INTERNAL_ERROR = "internal-error"
    ATTEMPTS_EXHAUSTED = "attempts-exhausted"
    GIVEN_UP = "given-up"


USED_UP: Final = frozenset(
    {
        Code.QUOTA_EXCEEDED,
        Code.TOO_MANY_TRIGGERS,
        Code.TOO_MANY_RATES,
        Code.TOO_MANY_HOLDS,
        Code.TOO_MANY_COMMANDS,
        Code.TOO_MANY_CANCELS,
    }
)
"""A bound is used up, nothing is wrong with the request: the same one may pass later (HTTP's 429)."""

DESCRIPTIONS: Final[dict[Code, str]] = {
    Code.MISSING_DESTINATION: "No `destination`, and the request topic has no default one.",
    Code.INVALID_DESTINATION: "`destination` is not a Kafka topic name.",
    Code.DESTINATION_DENIED: (
        "The topic in `destination` or `on-late` is outside the allow-list, internal to Kafka, a request "
        "topic, or one of delaystream's own."
    ),
    Code.INVALID_DESTINATION_PARTITION: "`destination-partition` is not a whole number from 0 to 2147483647.",
    Code.DESTINATION_PARTITION_OUT_OF_RANGE: (
        "The destination has fewer partitions than `destination-partition` asks for."
    ),
    Code.NO_SCHEDULE: (
        "None of `delay`, `at`, `every` and `cron` is given, and a reschedule changes no other time field."
    ),
    Code.DELAY_AND_AT: "More than one of `delay`, `at`, `every` and `cron`.",
    Code.INVALID_DELAY: "`delay` is neither a duration with a unit nor `0`.",
    Code.DELAY_TOO_LONG: "The due time lies further ahead than the configured maximum.",
    Code.INVALID_AT: (
        "`at` is neither RFC 3339 with an offset nor epoch milliseconds, nor a local time beside `timezone`."
    ),
    Code.AT_NOT_MILLISECONDS: (
        "`at` falls in 1970 or earlier, or after the year 9999: epoch seconds, microseconds or nanoseconds "
        "where milliseconds are expected."
    ),
    Code.INVALID_CRON: (
        "`cron` is no cron expression: 5 fields, 6 with seconds first, or a name such as `@daily`."
    ),
    Code.UNSUPPORTED_CRON: "`cron` has `R` or `H`, whose times would be random, or a field of years.",
    Code.CRON_TOO_LONG: "`cron` is longer than the configured maximum.",
    Code.INVALID_TIMEZONE: "`timezone` is not a name of the IANA time zone database.",
    Code.TOO_FREQUENT: (
        "`cron` or `every` fires more often than the configured minimum, anywhere in its pattern."
    ),
    Code.JITTER_TOO_LONG: "`jitter` is not shorter than the shortest time between two fires.",
    Code.NEVER_FIRES: "No time of the schedule ever comes, or none between `start` and `end`.",
    Code.INVALID_EVERY: "`every` is not a duration with a unit, or it is outside the configured bounds.",
    Code.INVALID_START: "`start` is not a point in time, or it is further ahead than the configured maximum.",
    Code.INVALID_END: "`end` is not a point in time.",
    Code.INVALID_MAX_FIRES: "`max-fires` is not a whole number from 1.",
    Code.INVALID_JITTER: (
        "`jitter` is neither a duration with a unit nor `0`, or it is longer than a century."
    ),
    Code.INVALID_DST: (
        "`dst-gap` is not `shift` or `skip`, or `dst-overlap` is not `first`, `second` or `both`."
    ),
    Code.INVALID_CATCH_UP: "`catch-up` is not `latest`, `all` or `none`.",
    Code.INVALID_MATCH: (
        "`match-tags`, `match-destination` or `match-id-prefix` is empty, has more than 100 tags or is "
        "longer than a topic name, or `match-new` or `match-anonymous` is not `true` or `false`."
    ),
    Code.NOT_APPLICABLE: "A header has no meaning here: it is for another action or kind of schedule.",
    Code.LIST_TOO_LONG: "More due times in one request than the configured maximum.",
    Code.INVALID_ID: "`id` is empty.",
    Code.ID_REQUIRED: "The action or a header, such as `every` or `if-exists`, needs an `id`: there is none.",
    Code.ID_TOO_LONG: "`id` is longer than the configured maximum.",
    Code.INVALID_ACTION: "`action` is not one of the known actions.",
    Code.INVALID_IF_EXISTS: "`if-exists` is not `replace`, `keep` or `reject`.",
    Code.INVALID_ON_LATE: "`on-late` is not `fire`, `drop` or a topic name.",
    Code.INVALID_GRACE: "`grace` is neither a duration with a unit nor `0`, or it is longer than a century.",
    Code.INVALID_REPLY_TO: "`reply-to` is not a Kafka topic name.",
    Code.REPLY_TO_REQUIRED: "`action: describe` has no `reply-to`, or one that nothing may be written to.",
    Code.INVALID_NOTE: "`note` is longer than 1024 bytes.",
    Code.INVALID_TAGS: "`tags` has more than 100 tags.",
    Code.INVALID_UNTIL: (
        "`until` is not a point in time after the record's timestamp, or it is further ahead than the "
        "configured maximum."
    ),
    Code.INVALID_STATUS: "`status` is not `pending` or `paused`.",
    Code.INVALID_COORDINATES: (
        "`coordinates` is not `topic/partition/offset`, or it names another request topic than the command's."
    ),
    Code.INVALID_VERSION: "`if-version` is not a whole number from 0 to 2^63-1.",
    Code.INVALID_REQUEST_ID: "`request-id` is empty or longer than 128 bytes.",
    Code.INVALID_DECLARED_BY: "`declared-by` is empty or longer than 128 bytes.",
    Code.INVALID_DEPLOY: "`deploy` is not a whole number from 0 to 2^63-1.",
    Code.NOTHING_TO_CHANGE: "An update has nothing to change.",
    Code.INVALID_PAYLOAD: (
        "`payload` is not `keep` or `replace`, or it is missing from an update that has a value."
    ),
    Code.INVALID_RATE: (
        "`rate` is missing, or neither a number of records a second, minute or hour nor `none`."
    ),
    Code.INVALID_ATTEMPT: "`attempt` is not a whole number from 1 to 2147483647.",
    Code.UNKNOWN_HEADER: "A header has the prefix `delaystream-` and a name that is not in the contract.",
    Code.DUPLICATE_HEADER: "A control header is given more than once.",
    Code.NULL_HEADER: "A control header has a null value.",
    Code.NOT_UTF8: "A control header's value is not UTF-8.",
    Code.NOT_SUPPORTED: (
        "The contract reserves the header or the action, and this version does not support it."
    ),
    Code.KEY_TOO_LARGE: "The record's key is larger than the configured maximum.",
    Code.VALUE_TOO_LARGE: "The record's value is larger than the configured maximum.",
    Code.TOO_MANY_HEADERS: "The record has more headers than the configured maximum.",
    Code.HEADERS_TOO_LARGE: "The record's headers are together larger than the configured maximum.",
    Code.UNDECODABLE_RECORD: (
        "The record cannot be read at all, for instance a header name that is not UTF-8."
    ),
    Code.INVALID_TIMESTAMP: (
        "The record's timestamp is not a present time in epoch milliseconds: it is in 1970 or earlier, or "
        "further ahead than a due time may be."
    ),
    Code.BATCH_TOO_LARGE: (
        "The record's whole batch decompresses to more than the configured maximum; one letter without key "
        "and value stands for all records of the batch."
    ),
    Code.UNREADABLE_BATCH: (
        "The record's batch was produced so that it cannot be decompressed or parsed; one letter without key "
        "and value stands for all records of the batch that could not be read."
    ),
    Code.INVALID_COMMAND: "A record on the commands topic was not written by a worker of a known version.",
    Code.ALREADY_EXISTS: "`if-exists: reject`, and the id names a pending schedule.",
    Code.VERSION_CHANGED: "The id does not have the version in `if-version`; with 0, it exists.",
    Code.DEPLOY_SUPERSEDED: "A later `deploy` of the same `declared-by` has decided on the id.",
    Code.CANCELLED_EARLIER: "A cancel of this id with a newer timestamp arrived before the request did.",
    Code.QUOTA_EXCEEDED: "The request topic has reached its quota of pending fires (`max_pending`).",
    Code.DIALECT_MISSING: "A header, or the key, that the topic's dialect requires is missing.",
    Code.DIALECT_INVALID: "A header of the topic's dialect has a value that its own system would not accept.",
    Code.DIALECT_UNSUPPORTED: "delaystream does not support this feature of the topic's dialect.",
    Code.TOO_MANY_RATES: "The number of destinations with a rate by command has reached its limit.",
    Code.TOO_MANY_TRIGGERS: "The id has reached its limit of waiting triggered fires (`max_triggers`).",
    Code.TOO_MANY_HOLDS: "The request topic has reached its limit of bulk pauses in force (`max_holds`).",
    Code.TOO_MANY_COMMANDS: (
        "The request topic has reached its limit of running bulk commands and commands by `coordinates` "
        "(`max_commands_at_work`)."
    ),
    Code.TOO_MANY_CANCELS: (
        "The request topic has reached its limit of remembered cancels of unknown ids "
        "(`max_remembered_cancels`)."
    ),
    Code.QUARANTINED: (
        "The fire proved impossible: too large for the destination, or refused until the timeout."
    ),
    Code.INTERNAL_ERROR: (
        "The worker failed on the record, twice: a fault of delaystream. The log shows the whole error."
    ),
    Code.ATTEMPTS_EXHAUSTED: (
        "A consumer could not handle the delivery, and that was the last attempt that it allows."
    ),
    Code.GIVEN_UP: "A consumer could not handle the delivery, and says that no further attempt would help.",
}
"""The meaning of each code, for people. The table in the documentation is generated from it."""

_SHOWN_CHARACTERS = 60


class Rejection(msgspec.Struct, frozen=True):
    """A request that is refused. It goes to the dead letters with unchanged bytes.

    `detail` is one sentence: the header, the bad value (truncated, printable), and what would be accepted.
    `id` and `reply_to` (a topic that receipts may be written to) are the request's, if they could be read,
    for the receipt. `no_receipt` says why there will be no receipt although one was requested. `actor` and
    `note` come from a request that could not be parsed as a whole, for its event. `records` is the number of
    refused records: more than one if the record stands for a whole batch.
    """

    code: Code
    detail: str
    id: str | None = None
    reply_to: str | None = None
    no_receipt: str | None = None
    actor: str | None = None
    note: str | None = None
    records: int = 1


HEADER_NAME_NOT_UTF8: Final = Rejection(
    Code.UNDECODABLE_RECORD, "a header's name is not UTF-8; Kafka's header names are UTF-8 strings"
)


def shown(value: str | bytes) -> str:
    """The first 60 characters of `value`, for a sentence: quoted, and escaped if not printable."""
    if isinstance(value, bytes):
        # A character has at most four bytes, so this has at least one character more than is shown.
        value = value[: (_SHOWN_CHARACTERS + 1) * 4].decode("utf-8", "backslashreplace")
    if len(value) <= _SHOWN_CHARACTERS:
        return repr(value)
    return repr(value[:_SHOWN_CHARACTERS]) + "..."
