"""Logs: one event a line on standard error, for people on a terminal and as JSON otherwise.

Code of this project logs with `structlog.get_logger()` and keyword arguments. Log lines of libraries, from
the standard library's logging, go through the same formatter; their levels keep unimportant lines out.
"""

import io
import json
import logging
import re
import sys
import time
from collections.abc import Callable
from typing import Final, Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, ExcInfo, Processor, WrappedLogger

from delaystream.printable import printable, printable_json

Format = Literal["auto", "human", "json"]
Level = Literal["debug", "info", "warning", "error"]

FIELDS = {
    "timestamp": "When, ISO 8601; in UTC, with `Z`, in JSON.",
    "level": "debug, info, warning, error or critical.",
    "logger": "The module that logs; those of libraries have their own names (`aiokafka.…`, `faust.…`).",
    "event": "The event, as text. Do not match on the text: fields and metrics are the promise.",
    "exception": "A traceback, on the same line. Without local variables.",
    "app_id": "The setting `app_id`.",
    "authentication": "How a console knows its callers: `none`, `tokens` or `oidc`.",
    "count": "Number of further cases, which have no line of their own.",
    "data_dir": "The directory of the local state.",
    "error": "A library's description of a failure.",
    "exit_code": "The exit code that the process ends with.",
    "host": "Where the HTTP server listens.",
    "library": "A client library: its name, the version that is installed, and the one that was tested.",
    "partition": "The partition of the request topics.",
    "partitions": "Number of partitions of the request topics.",
    "pid": "The process id.",
    "port": "The HTTP server's port.",
    "problem": "The fault of a topic, as a sentence; `missing ACL: …` names the ACL.",
    "reason": "Why the process ends, or waits to begin, in one or more sentences.",
    "request_topics": "The setting `request_topics`.",
    "signal": "The signal that the process was sent.",
    "tasks": "The stack of each task, when the worker hangs.",
    "topic": "A topic.",
    "topics": "Several topics.",
    "url": "Where the console answers.",
    "version": "delaystream's version.",
}
"""The meanings of a line's fields."""

_PARTITION = "partition %d: "

_LIBRARY_LEVELS = {
    # Faust and mode log every service that they start. The worker itself logs the important ones.
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "venusian": logging.WARNING,
    "aiokafka": logging.WARNING,
    "alembic": logging.WARNING,
    "asyncio": logging.WARNING,
    "uvicorn": logging.WARNING,
    "uvicorn.access": logging.ERROR,
}


def configure_logging(
    log_format: Format = "auto", level: Level = "info", stream: TextIO | None = None
) -> None:
    """Set up structlog and the standard library's root logger; may be called again.

    At `debug` the libraries log at `info`: their own debug output is too large to be useful.
    """
    stream = stream or sys.stderr
    human = log_format == "human" or (log_format == "auto" and stream.isatty())
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=not human),
        structlog.processors.StackInfoRenderer(),
    ]
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *shared,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=False,
    )
    handler = logging.StreamHandler(stream)
    handler.addFilter(RepeatFilter(("aiokafka", "faust")))
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            pass_foreign_args=True,
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder(), _add_partition],
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                *_rendering(human, stream),
            ],
        )
    )
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(level.upper())
    for name, least in _LIBRARY_LEVELS.items():
        library = logging.getLogger(name)
        library.handlers.clear()
        library.propagate = True
        library.setLevel(logging.INFO if level == "debug" else max(least, root.level))
    logging.captureWarnings(True)


class RepeatFilter(logging.Filter):
    """Lets named loggers log the same message once in ``interval_s``, and then with the number of repeats.

    While a broker is down, Kafka's clients report each attempt to connect, twenty times a second. Messages
    that differ only in digits count as the same.
    """

    _DIGITS: Final = re.compile(r"\d+")

    def __init__(
        self,
        loggers: tuple[str, ...],
        interval_s: float = 10.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        super().__init__()
        self._loggers = loggers
        self._interval_s = interval_s
        self._clock = clock
        #: when a message was last let through, and how many have been dropped since
        self._seen: dict[tuple[str, str], tuple[float, int]] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Whether to log a record; its message gets the number of dropped ones before it."""
        if not record.name.startswith(self._loggers):
            return True
        key = (record.name, self._DIGITS.sub("#", record.getMessage()))
        now = self._clock()
        said_at, withheld = self._seen.get(key, (float("-inf"), 0))
        if now - said_at < self._interval_s:
            self._seen[key] = (said_at, withheld + 1)
            return False
        if len(self._seen) >= 1000:
            self._seen.clear()
        self._seen[key] = (now, 0)
        if withheld:
            record.msg = f"{record.getMessage()} (and {withheld} more like it in {now - said_at:.0f} s)"
            record.args = None
        return True


def _add_partition(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Turn the partition at the start of the engine's lines into a field: they come from standard logging."""
    arguments = event.pop("positional_args")
    text = event["_record"].msg
    if arguments and isinstance(text, str) and text.startswith(_PARTITION):
        event["partition"] = arguments[0]
    return event


def _rendering(human: bool, stream: TextIO) -> list[Processor]:
    if human:
        colors = stream.isatty()
        renderer = structlog.dev.ConsoleRenderer(
            colors=colors, pad_event_to=40, exception_formatter=_write_traceback
        )
        return [_escape_event, renderer]
    return [structlog.processors.format_exc_info, _render_json]


def _escape_event(logger: WrappedLogger, method: str, event: EventDict) -> EventDict:
    """Topics and brokers' answers are in an event's text, too; the renderer escapes the fields alone."""
    event["event"] = printable(str(event["event"]))
    return event


def _write_traceback(stream: TextIO, exception: ExcInfo) -> None:
    """A traceback, indented: none of its lines looks like one of the log.

    The renderer's own, rich's, shows the local variables of each frame, with passwords and payloads.
    """
    text = io.StringIO()
    structlog.dev.plain_traceback(text, exception)
    for line in text.getvalue().strip("\n").split("\n"):
        stream.write(f"\n  {printable(line)}")


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """One JSON object: `timestamp`, `level`, `logger`, `event`, then the event's own fields."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "logger", "event") if name in event}
    try:
        text = orjson.dumps({**first, **event}, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
    except orjson.JSONEncodeError:
        # For text that is not UTF-8, such as a file name, and for integers beyond 64 bits.
        return json.dumps({str(name): value for name, value in {**first, **event}.items()}, default=str)
    return printable_json(text)
