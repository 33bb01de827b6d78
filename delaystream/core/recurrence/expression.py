"""A cron expression as text -> its times.

    minute hour day-of-month month day-of-week              `30 9 * * MON-FRI`
    second minute hour day-of-month month day-of-week       `*/10 * * * * *`
    a name                                                  `@daily`

Fields are separated by spaces or tabs; upper and lower case are equal. `fields` and `days` define the content
of a field.
"""

import re
from functools import lru_cache
from typing import Final

from delaystream.core.recurrence.days import day_table
from delaystream.core.recurrence.fields import HOUR, MINUTE, MONTH, SECOND, CronError, Field, number_set
from delaystream.core.recurrence.pattern import CronPattern
from delaystream.core.rejection import Code, shown

NAMES: Final = {
    "@HOURLY": "0 * * * *",
    "@DAILY": "0 0 * * *",
    "@MIDNIGHT": "0 0 * * *",
    "@WEEKLY": "0 0 * * 0",
    "@MONTHLY": "0 0 1 * *",
    "@YEARLY": "0 0 1 1 *",
    "@ANNUALLY": "0 0 1 1 *",
}


_ZONE: Final = re.compile(r"(?:^|\s)((?:CRON_)?TZ=\S*)", re.IGNORECASE)


@lru_cache(maxsize=16_384)
def parse_cron(expression: str) -> CronPattern:
    """The pattern of an expression that matches at least once. Raises CronError."""
    if not (expression.isascii() and expression.replace("\t", " ").isprintable()):
        raise CronError(Code.INVALID_CRON, "it has characters other than printable ASCII, spaces and tabs")
    if (zone := _ZONE.search(expression)) is not None:
        raise CronError(
            Code.INVALID_CRON,
            f"a time zone is not part of the expression; leave {shown(zone[1])} out, and write the zone in "
            "the header delaystream-timezone",
        )
    written = expression.upper().strip()
    if written[:1] == "@":
        if written not in NAMES:
            raise CronError(Code.INVALID_CRON, _unknown_name(written))
        written = NAMES[written]
    fields = written.split()
    if len(fields) == 5:
        fields.insert(0, "0")
    if len(fields) == 7:
        raise CronError(
            Code.UNSUPPORTED_CRON,
            "it has 7 fields, and years are not supported; write the first 6, and bound them with the "
            "headers delaystream-start and delaystream-end",
        )
    if len(fields) != 6:
        raise CronError(
            Code.INVALID_CRON,
            f"it has {len(fields)} field{'s' * (len(fields) != 1)}; expected 5, or 6 with seconds first",
        )
    second, minute, hour, day, month, weekday = fields
    pattern = CronPattern(
        seconds=_numbers(SECOND, second),
        minutes=_numbers(MINUTE, minute),
        hours=_numbers(HOUR, hour),
        months=_numbers(MONTH, month),
        days=day_table(day, weekday),
        # Debian's cron checks the first character of minute and hour; it has no seconds.
        follows_clock="*" in {second[0], minute[0], hour[0]},
    )
    if not pattern.ever():
        raise CronError(Code.NEVER_FIRES, "no such date ever comes")
    return pattern


@lru_cache(maxsize=4096)
def _numbers(field: Field, text: str) -> int:
    return number_set(field, text)


def _unknown_name(written: str) -> str:
    if written.startswith("@EVERY"):
        return "an interval is written in the header delaystream-every"
    return f"{shown(written.lower())} is not a name; expected one of {', '.join(NAMES).lower()}"
