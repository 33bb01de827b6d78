"""`delaystream cron`: when a cron expression fires, without a broker."""

import time
from typing import TYPE_CHECKING, Annotated, Any, Literal

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded
from delaystream.cli.output import complain, say, say_all, say_json
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from delaystream.core.recurrence.occurrences import Occurrence


@expanded
def cron(
    expression: Annotated[
        str,
        typer.Argument(
            help="5 fields, 6 with seconds first, or @hourly, @daily, ...; quoted.", metavar="EXPRESSION"
        ),
    ],
    timezone: Annotated[
        str, typer.Option("--timezone", "-z", help="IANA name of a time zone.", metavar="ZONE")
    ] = "UTC",
    from_: Annotated[
        str | None,
        typer.Option(
            "--from",
            help="First time looked at: RFC 3339 or epoch milliseconds. Default: now.",
            metavar="TIME",
        ),
    ] = None,
    count: Annotated[
        int, typer.Option("--count", "-n", min=1, max=10_000, help="Fires to print.", metavar="N")
    ] = 10,
    dst_gap: Annotated[
        Literal["shift", "skip"],
        typer.Option(help="A local time that does not exist: after the gap, or not at all."),
    ] = "shift",
    dst_overlap: Annotated[
        Literal["first", "second", "both"], typer.Option(help="A local time that comes twice.")
    ] = "first",
    output: Annotated[
        Literal["table", "json"], typer.Option("--output", "-o", help="For people, or for programs.")
    ] = "table",
    config: options.ConfigFile = None,
    settings: options.SettingPairs = None,
) -> None:
    """Print the next times of a cron expression.

    In local time and UTC. Needs no cluster. What a worker would refuse is refused with the same code: exit
    with 65. Gaps and folds of the local clock are marked. --dst-gap and --dst-overlap mean nothing to an
    expression with a wildcard in its seconds, minutes or hours: it goes by elapsed time.
    """
    from delaystream.cli.wording import in_options
    from delaystream.core.recurrence import Recurrence, calendar_ends, check
    from delaystream.core.recurrence.occurrences import occurrences

    limits = options.load_settings(config, None, None, settings).settings.limits()
    start_ms = time.time_ns() // 1_000_000 if from_ is None else _instant(from_)
    recurrence = Recurrence(
        cron=expression,
        every_ms=0,
        timezone=timezone,
        dst_gap=dst_gap,
        dst_overlap=dst_overlap,
        start_ms=start_ms,
    )
    refusal = check(
        recurrence, min_interval_ms=limits.min_interval_ms, max_expression=limits.max_cron_characters
    )
    if refusal is not None:
        detail = in_options(refusal.detail, "cron")
        complain(f"a worker would refuse it as {refusal.code.value}: {detail}")
        raise typer.Exit(ExitCode.REFUSED)
    found = occurrences(recurrence, start_ms - 1, count)
    if output == "json":
        say_json(_rows(found), indent=True)
        return
    say_all(_table(found, timezone))
    if len(found) < count:
        ends = calendar_ends(found[-1].due_ms if found else start_ms)
        say(f"No further time {'before the year 9999' if ends else 'within a century'}.")


def _instant(text: str) -> int:
    from delaystream.core.instants import EXPECTED, InstantError, parse_instant

    try:
        return parse_instant(text)
    except InstantError as error:
        raise typer.BadParameter(f"--from {text!r} {error}; expected {EXPECTED}") from None


def _rows(found: "list[Occurrence]") -> "list[dict[str, Any]]":
    from delaystream.core.instants import format_instant

    return [
        {
            "due_at_ms": occurrence.due_ms,
            "local": occurrence.local.isoformat(),
            "utc": format_instant(occurrence.due_ms),
            "note": occurrence.note,
        }
        for occurrence in found
    ]


def _table(found: "list[Occurrence]", timezone: str) -> list[str]:
    from datetime import UTC

    rows = [(f"local time, {timezone}", "UTC", "")]
    for occurrence in found:
        utc = occurrence.local.astimezone(UTC).replace(tzinfo=None)
        local = f"{occurrence.local:%a} {occurrence.local.isoformat(sep=' ')}"
        rows.append((local, utc.isoformat(sep=" "), occurrence.note or ""))
    widths = [max(len(row[column]) for row in rows) for column in range(2)]
    return [f"{a:<{widths[0]}}  {b:<{widths[1]}}  {note}".rstrip() for a, b, note in rows]
