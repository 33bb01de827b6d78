"""The commands by name, and the boundary at which an error becomes a sentence and an exit code."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import typer

from delaystream import __version__
from delaystream.cli.dev.command import dev
from delaystream.cli.looking.commands import (
    dead_letters,
    fires,
    get,
    list_,
    pending,
    stats,
    upcoming,
    where,
)
from delaystream.cli.looking.events import events
from delaystream.cli.looking.letters import discard, redrive
from delaystream.cli.looking.operations import operations
from delaystream.cli.operate.configuration import config
from delaystream.cli.operate.console import console
from delaystream.cli.operate.topics import topics
from delaystream.cli.operate.transfer import export, import_
from delaystream.cli.operate.worker import worker
from delaystream.cli.output import complain, say
from delaystream.cli.requests.control import (
    cancel,
    describe,
    pause,
    rate,
    reschedule,
    resume,
    trigger,
    update,
)
from delaystream.cli.requests.cron import cron
from delaystream.cli.requests.send import send
from delaystream.cli.requests.watch import watch
from delaystream.exit_codes import EXIT_CODES_HELP, ExitCode

HELP = f"""\
Delayed events for Apache Kafka: any record, delivered on time, exactly once.

A request is an ordinary record on a request topic (delay-requests). Its headers say when and where:
delaystream-destination: reminders, delaystream-delay: 15m. Key, value and all other headers arrive untouched.

Settings come from flags, then the environment (DELAYSTREAM_...), then the file of --config, then defaults;
`delaystream config` prints them all.

{EXIT_CODES_HELP}
"""

_OUTPUT_ERRORS: Final = frozenset({errno.EPIPE, errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO})

app = typer.Typer(
    name="delaystream",
    help=HELP,
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110},
)


def _print_version(asked: bool) -> None:
    if asked:
        say(f"delaystream {__version__}")
        raise typer.Exit


@app.callback()
def _common(
    version: bool = typer.Option(
        False, "--version", callback=_print_version, is_eager=True, help="Print the version and exit."
    ),
) -> None:
    pass


app.command()(worker)
app.command()(dev)
app.add_typer(console, name="console")
app.add_typer(topics, name="topics")
app.command()(send)
app.command()(watch)
app.command()(cancel)
app.command()(pause)
app.command()(resume)
app.command()(trigger)
app.command()(reschedule)
app.command()(update)
app.command()(describe)
app.command()(rate)
app.command(name="list")(list_)
app.command()(get)
app.command()(fires)
app.command()(upcoming)
app.command()(pending)
app.command()(where)
app.command()(stats)
app.command()(dead_letters)
app.command()(redrive)
app.command()(discard)
app.command()(events)
app.add_typer(operations, name="operations")
app.command()(cron)
app.command()(export)
app.command(name="import")(import_)
app.command()(config)


def run(arguments: Sequence[str]) -> int:
    """Run one command. Errors that people can correct end with a sentence on standard error."""
    _open_streams()
    try:
        code = _run(arguments)
        # Flush here: at its end the interpreter would report the error in its own form.
        sys.stdout.flush()
    except OSError as error:
        if error.errno not in _OUTPUT_ERRORS:
            raise
        _drop_output()
        if error.errno == errno.EPIPE:
            return ExitCode.CRASH  # the reader is gone, as after `| head`: there is nothing to say
        complain(f"there is no room for the output: {error.strerror}")
        return ExitCode.NO_STORAGE
    return code


def _run(arguments: Sequence[str]) -> int:
    # Standalone, typer reports wrong usage itself, and every command ends in SystemExit.
    try:
        app(args=list(arguments), prog_name="delaystream")
    except SystemExit as end:
        return end.code if isinstance(end.code, int) else int(end.code is not None)
    except Exception as error:
        code = _exit_code(error)
        if code is None:
            raise
        complain(str(error))
        return code
    return ExitCode.OK


def _open_streams() -> None:
    """Make both outputs accept any text, and drop it if the caller has closed them."""
    if sys.stdout is None:
        sys.stdout = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115  # until the process ends
    if sys.stderr is None:
        sys.stderr = Path(os.devnull).open("w", encoding="utf-8")  # noqa: SIM115
    # The text may come from anybody. Characters that the output cannot encode are escaped, as on standard
    # error.
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")


def _drop_output() -> None:
    """Drop the unwritten text, so that the interpreter does not try to write it again at its end."""
    with contextlib.suppress(OSError, ValueError):
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _exit_code(error: Exception) -> ExitCode | None:
    """The code for an error whose message is a sentence for people; None for other errors."""
    # By name: an import of all these modules would slow down every command, and only failures need them.
    kinds = {f"{kind.__module__}.{kind.__qualname__}" for kind in type(error).__mro__}
    for name, code in _ERRORS.items():
        if name in kinds:
            return code
    return None


#: The first match counts: a subclass stands before its base classes.
_ERRORS = {
    "delaystream.config.errors.ConfigurationError": ExitCode.CONFIGURATION,
    "delaystream.cli.looking.console_client.ConsoleRefusedError": ExitCode.REFUSED,
    "delaystream.cli.looking.console_client.ConsoleUnavailableError": ExitCode.UNAVAILABLE,
    "delaystream.engine.failures.Misconfigured": ExitCode.CONFIGURATION,
    "delaystream.engine.failures.StoreFailed": ExitCode.NO_STORAGE,
    "delaystream.client.requests.outcomes.MissingTopicError": ExitCode.CONFIGURATION,
    "delaystream.client.requests.outcomes.MissingPartitionError": ExitCode.REFUSED,
    "delaystream.client.requests.outcomes.UnavailableError": ExitCode.UNAVAILABLE,
    "delaystream.adapters.security.oauth_tokens.TokenUnavailable": ExitCode.UNAVAILABLE,
    "delaystream.topics.cluster.TopicsRefused": ExitCode.CONFIGURATION,
    "delaystream.topics.cluster.TopicsError": ExitCode.UNAVAILABLE,
    "delaystream.transfer.kafka.TransferError": ExitCode.REFUSED,
    "delaystream.engine.failures.LogUnavailable": ExitCode.UNAVAILABLE,
    "delaystream.engine.failures.TransactionFailed": ExitCode.UNAVAILABLE,
    "delaystream.dev.errors.PortInUseError": ExitCode.CONFIGURATION,
    "delaystream.dev.errors.JavaMissingError": ExitCode.CONFIGURATION,
    "delaystream.dev.errors.DataDirInUseError": ExitCode.NO_STORAGE,
    "delaystream.dev.errors.DataDirUnusableError": ExitCode.NO_STORAGE,
    "delaystream.dev.errors.BrokerError": ExitCode.UNAVAILABLE,
}
