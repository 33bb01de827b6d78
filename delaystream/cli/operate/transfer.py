"""`delaystream export` and `delaystream import`: everything pending, as JSON Lines."""

import asyncio
import os
import shutil
import sys
import tempfile
from contextlib import contextmanager
from pathlib import Path
from typing import IO, TYPE_CHECKING, Annotated, BinaryIO, Literal, cast

import typer

from delaystream.cli import options
from delaystream.cli.groups import expanded
from delaystream.cli.output import complain, progress, say, say_json, tell
from delaystream.cli.rendering import number_of
from delaystream.exit_codes import ExitCode

if TYPE_CHECKING:
    from collections.abc import Iterator

    from delaystream.adapters.security.client_config import ClientConfig
    from delaystream.config import Settings
    from delaystream.transfer import Export, Import


@expanded
def export(
    *,
    file: Annotated[
        Path | None,
        typer.Option("--file", "-f", help="A new file; default: standard output.", metavar="FILE"),
    ] = None,
    output: Annotated[
        Literal["jsonl", "table", "json"],
        typer.Option(
            "--output",
            "-o",
            help="JSON Lines, which import reads; a table for people; json, with --file or --reopen: what "
            "was done, as an object on standard output.",
            metavar="jsonl|table|json",
        ),
    ] = "jsonl",
    remembered: Annotated[
        bool, typer.Option("--remembered", help="Also ids that are over and not forgotten yet.")
    ] = False,
    final: Annotated[
        bool,
        typer.Option(
            "--final",
            help="For a move: close the application first, so that it never fires again; needs --file.",
        ),
    ] = False,
    reopen: Annotated[
        bool,
        typer.Option("--reopen", help="Take a final export back. Only if it was imported nowhere."),
    ] = False,
    connection: options.Connection,
) -> None:
    """Write everything pending to a file.

    For a backup, to look at, or as one end of a move. Reads the changelog alone: no worker is needed, and
    none is disturbed, unless by --final. Values, keys and headers are base64. docs/operations.md says how to
    move to another partition count with it.
    """
    if output == "json" and file is None and not reopen:
        raise typer.BadParameter("--output json tells what was done, and needs --file or --reopen")
    if final and (file is None or output == "table"):
        raise typer.BadParameter("--final needs --file, and writes JSON Lines")
    if reopen and (final or file is not None):
        raise typer.BadParameter("--reopen stands alone")
    settings = _settings(connection)

    from delaystream import transfer
    from delaystream.adapters.security.client_config import ClientConfig

    client = ClientConfig.parse(settings.kafka)
    application = transfer.Application(settings, client, _partitions(settings, client))
    if reopen:
        _reopened(asyncio.run(transfer.reopen(application)), output)
        return
    with _new_file(file, as_table=output == "table") as out:
        done = asyncio.run(
            transfer.export(application, out, final=final, remembered=remembered, progress=progress())
        )
    if output == "json":
        say_json({"exported": _counts(done), "transfer": done.transfer or None, "unread": dict(done.unread)})
    else:
        _told(done)


@expanded
def import_(
    *,
    file: Annotated[
        Path, typer.Argument(help="A file that `delaystream export` wrote; /dev/stdin too.", metavar="FILE")
    ],
    from_copy: Annotated[
        bool,
        typer.Option(
            "--from-copy",
            help="Take an export that is not final: whatever fired since then fires again, with the same id.",
        ),
    ] = False,
    leave_unread: Annotated[
        bool,
        typer.Option(
            "--leave-unread",
            help="Go on although there are unread requests on topics that this application does not read.",
        ),
    ] = False,
    rows: Annotated[int, typer.Option(help="Rows of one transaction.", metavar="N", min=1)] = 2000,
    output: options.HumanOrJson = "human",
    connection: options.Connection,
) -> None:
    """Read an export into a new application.

    Its changelog topic must be empty. Stop the workers first, start them afterwards: until all is there they
    refuse to. Ids, fire ids and due times stay as they were. An import that was interrupted is run again, and
    goes on; one that is complete changes nothing when it is run again.
    """
    settings = _settings(connection)

    from delaystream import transfer
    from delaystream.adapters.security.client_config import ClientConfig
    from delaystream.app.tenants import tenants_of
    from delaystream.topics import connect, topic_ids

    client = ClientConfig.parse(settings.kafka)
    with _seekable(file) as opened:
        partitions = _partitions(settings, client)
        _check_topics(settings, client, partitions)
        ids = topic_ids(connect(client.confluent()), [*settings.request_topics, settings.commands_topic])
        done = asyncio.run(
            transfer.import_(
                transfer.Application(settings, client, partitions),
                transfer.Requests(ids, tenants_of(settings).parse_command),
                opened,
                allowed=transfer.Allowed(copy=from_copy, unread=leave_unread),
                rows=rows,
                progress=progress(),
            )
        )
    what = _counted(done)
    if output == "json":
        say_json(
            {
                "imported": _counts(done),
                "transfer": done.transfer,
                "already": done.already,
                "partitions": partitions,
            }
        )
    elif done.already:
        say(f"nothing to do: {what} of {done.transfer} are here already")
    else:
        say(f"imported {what} of {done.transfer} into {number_of(partitions, 'partition')}")


def _settings(connection: options.Connection) -> "Settings":
    """The settings, where the client libraries are those that were tested, or somebody insists.

    This comes before the imports that need the libraries: one of another version may lack what they look for.
    Raises ConfigurationError.
    """
    from delaystream.adapters.internals.versions import TESTED, require_tested, untested

    settings = connection.load().settings
    require_tested(allow_others=settings.allow_untested_clients)
    for name, version in untested().items():
        complain(f"{name} {version} is installed, tested: {TESTED[name]}")
    return settings


def _partitions(settings: "Settings", client: "ClientConfig") -> int:
    from delaystream.client.kafka.reading import partitions_of

    return partitions_of(client.confluent(), settings.changelog_topic)


def _check_topics(settings: "Settings", client: "ClientConfig", partitions: int) -> None:
    """Refuse topics that a worker would refuse."""
    from delaystream.topics import check, connect, plan
    from delaystream.transfer import TransferError

    differences = check(connect(client.confluent()), plan(settings, partitions=partitions))
    if errors := [difference.sentence for difference in differences if difference.severity == "error"]:
        raise TransferError("\n".join(errors))


def _counts(done: "Export | Import") -> dict[str, int]:
    """For programs."""
    return {"schedules": done.schedules, "anonymous": done.anonymous, "commands": done.commands}


def _counted(done: "Export | Import") -> str:
    return (
        f"{number_of(done.schedules, 'schedule')}, {number_of(done.anonymous, 'fire')} without an id, "
        f"{number_of(done.commands, 'command')}"
    )


def _reopened(transfer: str | None, output: str) -> None:
    if transfer is None:
        complain("nothing was exported for good")
        raise typer.Exit(ExitCode.REFUSED)
    if output == "json":
        say_json({"reopened": transfer})
    else:
        say(f"transfer {transfer} is taken back: workers may fire here again, its file must not be imported")


def _told(done: "Export") -> None:
    named = f", transfer {done.transfer}" if done.transfer else ""
    tell(f"exported {_counted(done)} on the way{named}")
    for topic, count in done.unread.items():
        complain(
            f"{number_of(count, 'request')} on {topic} {'was' if count == 1 else 'were'} not read yet, and "
            "not in the export"
        )


def _seekable(path: Path) -> BinaryIO:
    """A file that can be read more than once. The content of a pipe is kept in a temporary file.

    Raises `typer.BadParameter`.
    """
    try:
        file = path.open("rb")
        if file.seekable():
            return file
        with file:
            kept = cast("BinaryIO", tempfile.TemporaryFile())  # noqa: SIM115  # its reader closes it
            shutil.copyfileobj(file, kept)
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be read: {error.strerror}") from None
    return kept


@contextmanager
def _new_file(path: Path | None, *, as_table: bool) -> "Iterator[BinaryIO]":
    """Standard output, or a file that gets its name only when it is complete."""
    if path is None:
        yield _out(sys.stdout.buffer, as_table=as_table)
        sys.stdout.flush()
        return
    if path.exists():
        raise typer.BadParameter(f"{path} is there already: name a new file")
    part = path.with_name(f"{path.name}.part")
    try:
        file = part.open("wb")
    except OSError as error:
        raise typer.BadParameter(f"{path} cannot be written: {error.strerror}") from None
    try:
        with file:
            yield _out(file, as_table=as_table)
            file.flush()
            os.fsync(file.fileno())
        part.rename(path)
    finally:
        part.unlink(missing_ok=True)


def _out(file: IO[bytes], *, as_table: bool) -> BinaryIO:
    from delaystream.cli.operate.export_table import Table

    return Table(file) if as_table else file  # type: ignore[return-value]
