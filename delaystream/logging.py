"""Logs: one event a line on standard error, for people on a terminal and as JSON otherwise.

Code of this project logs with `structlog.get_logger()` and keyword arguments. What libraries log with the
standard library goes through the same formatter, at levels that keep their chatter out.
"""

import logging
import sys
from typing import Literal, TextIO

import orjson
import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

Format = Literal["auto", "human", "json"]
Level = Literal["debug", "info", "warning", "error"]

_LIBRARY_LEVELS = {
    # Faust and mode tell of every service they start; what matters of it the worker logs itself.
    "faust": logging.WARNING,
    "mode": logging.WARNING,
    "venusian": logging.WARNING,
    "aiokafka": logging.WARNING,
    "asyncio": logging.WARNING,
    "uvicorn": logging.WARNING,
    "uvicorn.access": logging.ERROR,
}


def configure_logging(
    log_format: Format = "auto", level: Level = "info", stream: TextIO | None = None
) -> None:
    """Set up structlog and the standard library's root logger; may be called again.

    At `debug` the libraries log at `info`: their own debug output is larger than what it explains.
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
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, structlog.stdlib.ExtraAdder()],
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


def _rendering(human: bool, stream: TextIO) -> list[Processor]:
    if human:
        # The default, rich's, shows the local variables of each frame: passwords and payloads among them.
        plain = structlog.dev.plain_traceback
        colors = stream.isatty()
        return [structlog.dev.ConsoleRenderer(colors=colors, pad_event_to=40, exception_formatter=plain)]
    return [structlog.processors.format_exc_info, _render_json]


def _render_json(logger: WrappedLogger, method: str, event: EventDict) -> str:
    """One JSON object: `timestamp`, `level`, `logger`, `event`, then the event's own fields."""
    first = {name: event.pop(name) for name in ("timestamp", "level", "logger", "event") if name in event}
    return orjson.dumps({**first, **event}, default=str, option=orjson.OPT_NON_STR_KEYS).decode()
