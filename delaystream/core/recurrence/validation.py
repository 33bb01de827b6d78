"""Whether a recurrence can be accepted: a rejection with its code, or None."""

from zoneinfo import ZoneInfo, ZoneInfoNotFoundError

from croniter import croniter

from delaystream.core.recurrence.fires import next_after
from delaystream.core.recurrence.recurrence import Recurrence
from delaystream.core.rejection import Code, Rejection, shown


def check(  # noqa: PLR0911
    recurrence: Recurrence, *, min_interval_ms: int, max_expression: int
) -> Rejection | None:
    """Why a worker refuses `recurrence`, None if it does not; nothing else may be called before this.

    `min_interval_ms` bounds how often it fires; `max_expression` is the longest expression, in characters.
    """
    expression = recurrence.cron
    if expression is None:
        if recurrence.every_ms < min_interval_ms:
            return Rejection(
                Code.TOO_FREQUENT, f"every {recurrence.every_ms} ms is more often than {min_interval_ms} ms"
            )
        return None
    if len(expression) > max_expression:
        return Rejection(
            Code.CRON_TOO_LONG,
            f"cron has {len(expression)} characters: expected at most {max_expression}",
        )
    if not croniter.is_valid(expression, second_at_beginning=True):
        return Rejection(Code.INVALID_CRON, f"cron {shown(expression)} is not a cron expression")
    try:
        ZoneInfo(recurrence.timezone)
    except (ZoneInfoNotFoundError, ValueError):
        return Rejection(
            Code.INVALID_TIMEZONE, f"timezone {shown(recurrence.timezone)} is not a time zone's name"
        )
    if next_after(recurrence, recurrence.start_ms - 1) is None:
        return Rejection(Code.NEVER_FIRES, f"cron {shown(expression)} never comes")
    return None
