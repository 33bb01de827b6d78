"""Logs: the same events for people and for machines."""

import io
import json
import logging
from collections.abc import Iterator

import pytest
import structlog

from delaystream.logging import FIELDS, Format, RepeatFilter, configure_logging
from tests.unit.test_setup import script

log_lines = script("log_lines")


@pytest.fixture(autouse=True)
def _restored() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)
    logging.captureWarnings(False)
    structlog.reset_defaults()


def test_json_has_one_object_a_line_from_structlog_and_the_standard_library() -> None:
    """With the same fields."""
    stream = io.StringIO()
    configure_logging("auto", "info", stream)
    structlog.get_logger("delaystream.x").info("partition recovered", partition=3, took_ms=12)
    logging.getLogger("delaystream.y").warning("slow: %d ms", 7)
    ours, foreign = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert list(ours) == ["timestamp", "level", "logger", "event", "partition", "took_ms"]
    assert (ours["level"], ours["event"], ours["partition"]) == ("info", "partition recovered", 3)
    assert (foreign["level"], foreign["event"], foreign["logger"]) == (
        "warning",
        "slow: 7 ms",
        "delaystream.y",
    )


def test_json_holds_what_is_no_text_and_no_number_of_json() -> None:
    """A file's name may be any bytes."""
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    structlog.get_logger().info("worker starts", data_dir="/state/\udcff", offset=2**70)
    (line,) = stream.getvalue().splitlines()
    found = json.loads(line)
    assert (found["event"], found["data_dir"], found["offset"]) == ("worker starts", "/state/\udcff", 2**70)
    assert line.isascii()


def test_an_exception_stays_on_its_line() -> None:
    """A log collector reads lines."""
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    try:
        raise ValueError("boom")  # noqa: TRY301
    except ValueError:
        structlog.get_logger().exception("failed")
    (line,) = stream.getvalue().splitlines()
    assert "ValueError: boom" in json.loads(line)["exception"]


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_a_traceback_shows_no_local_variables(log_format: Format) -> None:
    """Among them are passwords, and what others send."""
    stream = io.StringIO()
    configure_logging(log_format, "debug", stream)

    def connect(password: str) -> None:
        raise ValueError(f"no connection with a password of {len(password)} characters")

    try:
        connect("planted" + "-secret")
    except ValueError:
        structlog.get_logger().exception("failed")
        logging.getLogger("aiokafka").exception("failed")
    assert stream.getvalue().count("with a password of 14 characters") >= 2
    assert "planted-secret" not in stream.getvalue()


@pytest.mark.parametrize("log_format", ["human", "json"])
def test_a_terminal_obeys_nothing_that_is_logged(log_format: Format) -> None:
    """Texts, fields and tracebacks, of this project and of libraries: names of topics are anybody's."""
    hostile = "x\x1b[2J\x9b31m\x07\u202e\U000e0001\r\n2026-01-01T00:00:00Z [info     ] FORGED"
    stream = io.StringIO()
    configure_logging(log_format, "info", stream)
    structlog.get_logger("delaystream.x").info(hostile, topic=hostile)
    logging.getLogger("delaystream.y").warning("parked: %s", hostile)
    logging.getLogger("aiokafka").warning("no topic %s", hostile)
    try:
        raise ValueError(hostile)  # noqa: TRY301
    except ValueError:
        structlog.get_logger().exception("failed", error=hostile)
    text = stream.getvalue()
    assert text.replace("\n", "").isprintable(), ascii(text)
    lines = text.splitlines()
    assert not [line for line in lines if line.startswith("2026-01-01")]
    assert len([line for line in lines if not line.startswith("  ")]) == 4
    if log_format == "json":
        first, *_, last = (json.loads(line) for line in lines)
        assert (first["event"], first["topic"], last["error"]) == (hostile, hostile, hostile)
        assert hostile in last["exception"]


def test_human_lines_are_not_json() -> None:
    """Time, level, event, fields."""
    stream = io.StringIO()
    configure_logging("human", "info", stream)
    structlog.get_logger("delaystream.x").info("ready", partitions=4)
    assert "ready" in stream.getvalue()
    assert "partitions=4" in stream.getvalue()


def test_levels_hold_and_libraries_keep_quiet() -> None:
    """Faust and aiokafka are heard from warnings on."""
    stream = io.StringIO()
    configure_logging("json", "warning", stream)
    structlog.get_logger().info("hidden")
    logging.getLogger("faust.app").info("hidden")
    logging.getLogger("aiokafka.conn").warning("shown")
    assert [json.loads(line)["event"] for line in stream.getvalue().splitlines()] == ["shown"]


def test_a_library_says_the_same_once_in_ten_seconds() -> None:
    """Attempts that differ in a number are the same; our own lines, and other texts, all come through."""
    now = [0.0]
    repeats = RepeatFilter(("aiokafka",), 10.0, lambda: now[0])

    def said(text: str, logger: str = "aiokafka.conn") -> str | None:
        record = logging.LogRecord(logger, logging.ERROR, "", 0, text, None, None)
        return record.getMessage() if repeats.filter(record) else None

    assert said("no connection to port 9092") == "no connection to port 9092"
    for attempt in range(5):
        assert said(f"no connection to port {attempt}") is None
    assert said("no coordinator") == "no coordinator"
    assert said("no connection", "delaystream.x") == said("no connection", "delaystream.x") == "no connection"
    now[0] = 12.0
    assert said("no connection to port 1") == "no connection to port 1 (and 5 more like it in 12 s)"
    assert said("no connection to port 1") is None


def test_lines_about_a_partition_have_it_as_a_field() -> None:
    """So that a log can be asked for one; the engine logs with the standard library."""
    stream = io.StringIO()
    configure_logging("json", "info", stream)
    logging.getLogger("delaystream.engine.processor").info("partition %d: %s", 3, "running")
    logging.getLogger("delaystream.engine.processor").info("partition %d: nothing of ours")
    about, other = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert (about["partition"], about["event"]) == (3, "partition 3: running")
    assert "partition" not in other


def test_every_field_is_documented_and_every_documented_field_is_logged() -> None:
    """docs/logs.md has the table."""
    always = {"timestamp", "level", "logger", "event"}
    logged = {field for line in log_lines.log_lines() for field in line.fields}
    assert logged | always == set(FIELDS)
