"""The command line, up to where a broker would be needed."""

import io
import json
import os
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import datetime
from pathlib import Path

import pytest
import typer

from delaystream.cli import main
from delaystream.cli.dev.session import samples
from delaystream.cli.operate.export_table import Table
from delaystream.cli.operate.transfer import _new_file, _seekable
from delaystream.cli.rendering import delivery_fields, delivery_line, lateness, rendered
from delaystream.cli.requests.answers import description, event_line, receipt_line, record_line
from delaystream.client import Delivery, Receipt
from delaystream.codec.requests.headers import RequestParser
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.record import Record
from delaystream.core.request import Coordinates, Request
from delaystream.exit_codes import EXIT_CODES_HELP, ExitCode
from delaystream.transfer.checking import checked, numbered

COMMANDS = [
    "worker",
    "dev",
    "send",
    "watch",
    "cancel",
    "update",
    "describe",
    "rate",
    "cron",
    "config",
    "topics apply",
    "topics check",
    "topics print",
]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DELAYSTREAM_")]:
        monkeypatch.delenv(name)


@pytest.mark.parametrize("command", ["", *COMMANDS])
def test_every_command_explains_itself(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    """With exit code 0."""
    assert main([*command.split(), "--help"]) == ExitCode.OK
    assert "Usage: delaystream" in capsys.readouterr().out


def test_help_names_the_exit_codes(capsys: pytest.CaptureFixture[str]) -> None:
    """Scripts rely on them."""
    main(["--help"])
    shown = " ".join(capsys.readouterr().out.split())
    assert " ".join(EXIT_CODES_HELP.split()) in shown
    assert all(f"{code.value} " in EXIT_CODES_HELP for code in ExitCode)


def test_help_imports_no_client() -> None:
    """Faust, RocksDB and librdkafka cost a second that nobody waits for gladly."""
    script = (
        "import sys; from delaystream.cli import main; main(['send', '--help']);"
        "print([name for name in ('faust', 'rocksdict', 'confluent_kafka') if name in sys.modules])"
    )
    run = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert run.stdout.splitlines()[-1] == "[]"


@pytest.mark.parametrize(
    "arguments", ["nonsense", "send --nonsense", "send x -H novalue --to a --delay 0", "cancel"]
)
def test_wrong_usage_ends_with_2(arguments: str) -> None:
    """As every command line does."""
    assert main(arguments.split()) == ExitCode.USAGE


def test_a_dry_run_prints_the_record_and_when_it_is_due(capsys: pytest.CaptureFixture[str]) -> None:
    """Every option is the header that a Kafka client would set."""
    arguments = "--to reminders --delay 5s -k 42 -H a=b=c --id o --if-exists keep --grace 1m --dry-run hello"
    assert main(["send", *arguments.split()]) == ExitCode.OK
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines[:-1] == [
        "topic delay-requests",
        "key 42",
        "value hello",
        "header delaystream-destination: reminders",
        "header delaystream-delay: 5s",
        "header delaystream-id: o",
        "header delaystream-if-exists: keep",
        "header delaystream-grace: 1m",
        "header a: b=c",
    ]
    assert lines[-1].startswith("due 20")


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        ("--to reminders --delay 30", "invalid-delay"),
        ("--to reminders", "no-schedule"),
        ("--delay 1s", "missing-destination"),
        ("--to delay-events --delay 1s", "destination-denied"),
        ("--to reminders --delay 1s -H delaystream-dealy=1s", "unknown-header"),
    ],
)
def test_what_a_worker_would_refuse_is_not_sent(
    arguments: str, code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The sentence is the worker's own."""
    assert main(["send", "x", *arguments.split()]) == ExitCode.REFUSED
    assert code in capsys.readouterr().err


def test_the_value_comes_from_argument_file_or_standard_input(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Bytes as they are; given twice they are refused."""
    file = tmp_path / "value"
    file.write_bytes(b"\xff\x00")
    options = ["--to", "reminders", "--delay", "1s", "--dry-run"]
    assert main(["send", *options, "--file", str(file)]) == ExitCode.OK
    assert main(["send", *options, "--null"]) == ExitCode.OK
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(b"piped")))
    assert main(["send", *options]) == ExitCode.OK
    values = [line.split(maxsplit=1)[1] for line in capsys.readouterr().out.splitlines() if "value" in line]
    assert values == [r"\xff\x00", "(null)", "piped"]
    assert main(["send", *options, "argument", "--file", str(file)]) == ExitCode.USAGE


def test_empty_standard_input_is_a_value_only_when_it_is_asked_for(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A program that starts the command may leave its own standard input to it."""
    options = ["send", "--to", "reminders", "--delay", "1s", "--dry-run"]
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert main(options) == ExitCode.USAGE
    assert "standard input is empty" in capsys.readouterr().err
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO()))
    assert main([*options, "--file", "-"]) == ExitCode.OK


@pytest.mark.parametrize(
    ("timing", "says"),
    [
        (["--at", "2020-01-01T00:00:00Z"], "which is over: it fires at once"),
        (["--at", "2020-01-01T00:00:00Z", "--grace", "1m"], "which is over: the rule for late fires decides"),
        (["--at", "2020-01-01T00:00:00Z,2030-01-01T00:00:00Z"], "2030-01-01T00:00:00Z\n"),
        (["--delay", "0"], "Z\n"),
    ],
)
def test_a_time_that_is_over_is_said_to_be(
    timing: list[str], says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["send", "--to", "reminders", *timing, "--dry-run", "v"]) == ExitCode.OK
    said = capsys.readouterr().out
    assert says in said
    assert ("over" in said) is ("over" in says)


def test_cancel_is_a_request_too(capsys: pytest.CaptureFixture[str]) -> None:
    """With the id as its key."""
    assert main(["cancel", "order-42", "--dry-run", "--reply-to", "receipts"]) == ExitCode.OK
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "topic delay-requests",
        "key order-42",
        "value (null)",
        "header delaystream-action: cancel",
        "header delaystream-id: order-42",
        "header delaystream-reply-to: receipts",
    ]


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ("cancel a", {"action": "cancel", "id": "a", "reply-to": "delay-receipts"}),
        ("cancel a --no-wait", {"action": "cancel", "id": "a"}),
        ("cancel a --no-wait --reply-to r", {"action": "cancel", "id": "a", "reply-to": "r"}),
        ("cancel a --set receipts_topic=mine", {"action": "cancel", "id": "a", "reply-to": "mine"}),
    ],
)
def test_control_waits_unless_told_not_to(
    arguments: str, headers: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """The receipt goes where the settings say, or where the command does."""
    assert main([*arguments.split(), "--dry-run"]) == ExitCode.OK
    assert shown_headers(capsys.readouterr().out) == headers


@pytest.mark.parametrize("command", ["cancel", "pause", "resume"])
def test_control_is_about_one_or_about_many(command: str) -> None:
    """Neither is no command, both are two."""
    assert main([command, "--dry-run"]) == ExitCode.USAGE
    assert main([command, "a", "--match-tags", "b", "--dry-run"]) == ExitCode.USAGE


@pytest.mark.parametrize("command", ["cancel", "trigger", "reschedule --delay 1s"])
def test_control_is_about_an_id_or_about_coordinates(command: str) -> None:
    """As far as one of the two is required and the other refused."""
    there = ["--coordinates", "delay-requests/0/7"]
    assert main([*command.split(), "--dry-run"]) == ExitCode.USAGE
    assert main([*command.split(), "a", *there, "--dry-run"]) == ExitCode.USAGE
    assert main([*command.split(), *there, "--dry-run"]) == ExitCode.OK


def test_an_update_replaces_key_and_headers_with_the_value_only() -> None:
    """Else they would be left out in silence."""
    assert main(["update", "a", "--key", "k", "--dry-run"]) == ExitCode.USAGE
    assert main(["update", "a", "-H", "a=b", "--dry-run"]) == ExitCode.USAGE


def test_an_update_with_a_value_is_a_record_with_it(capsys: pytest.CaptureFixture[str]) -> None:
    """The key is what is delivered, and no longer the id."""
    assert main(["update", "a", "new", "--key", "k", "-H", "b=c", "--no-wait", "--dry-run"]) == ExitCode.OK
    lines = [" ".join(line.split()) for line in capsys.readouterr().out.splitlines()]
    assert lines == [
        "topic delay-requests",
        "key k",
        "value new",
        "header delaystream-action: update",
        "header delaystream-id: a",
        "header delaystream-payload: replace",
        "header b: c",
    ]


def shown_headers(printed: str) -> dict[str, str]:
    pairs = [line.split(None, 1)[1] for line in printed.splitlines() if line.startswith("header")]
    return {
        name.removeprefix("delaystream-"): value for name, value in (pair.split(": ", 1) for pair in pairs)
    }


def test_every_timing_option_is_a_header(capsys: pytest.CaptureFixture[str]) -> None:
    """And all of them together are a request that a worker takes."""
    options = {
        "cron": "0 9 * * MON-FRI",
        "timezone": "Europe/Paris",
        "start": "2030-01-01T00:00:00Z",
        "end": "2031-01-01T00:00:00Z",
        "max-fires": "5",
        "jitter": "30s",
        "dst-gap": "skip",
        "dst-overlap": "both",
        "catch-up": "all",
        "grace": "1h",
        "id": "daily",
        "if-exists": "reject",
        "name": "a name",
        "description": "what for",
        "tags": "a,b",
        "status": "paused",
        "note": "why",
        "if-version": "0",
        "request-id": "r",
        "declared-by": "billing",
        "deploy": "7",
        "reply-to": "receipts",
        "actor": "me",
    }
    arguments = [part for name, value in options.items() for part in (f"--{name}", value)]
    assert main(["send", "--to", "reports", *arguments, "--dry-run", "go"]) == ExitCode.OK
    printed = capsys.readouterr().out
    assert shown_headers(printed) == {"destination": "reports", **options}
    assert "due 2030-01-01T08:00:00.000Z, and again" in " ".join(printed.split())


@pytest.mark.parametrize(
    ("arguments", "headers"),
    [
        ("trigger a --actor me", {"action": "trigger", "id": "a", "actor": "me"}),
        ("reschedule a --every 5m", {"action": "reschedule", "id": "a", "every": "5m"}),
        ("pause --match-tags x,y", {"action": "pause", "match-tags": "x,y"}),
        ("resume --match-destination out", {"action": "resume", "match-destination": "out"}),
        (
            "cancel --match-id-prefix o --match-tags x",
            {"action": "cancel", "match-id-prefix": "o", "match-tags": "x"},
        ),
        (
            "cancel a --declared-by d --deploy 2 --note n --if-version 3 --request-id r",
            {
                "action": "cancel",
                "id": "a",
                "note": "n",
                "if-version": "3",
                "request-id": "r",
                "declared-by": "d",
                "deploy": "2",
            },
        ),
        (
            "cancel --match-key k --match-anonymous",
            {"action": "cancel", "match-key": "k", "match-anonymous": "true"},
        ),
        (
            "pause --match-key k --match-new",
            {"action": "pause", "match-key": "k", "match-new": "true"},
        ),
        (
            "resume a --catch-up none --grace 1h",
            {"action": "resume", "id": "a", "catch-up": "none", "grace": "1h"},
        ),
        (
            "trigger --coordinates delay-requests/0/7",
            {"action": "trigger", "coordinates": "delay-requests/0/7"},
        ),
        (
            "update a --to orders --tags none --delay 1h",
            {"action": "update", "id": "a", "destination": "orders", "delay": "1h", "tags": "none"},
        ),
        (
            "update a --cron @daily --max-fires none --note n",
            {"action": "update", "id": "a", "cron": "@daily", "max-fires": "none", "note": "n"},
        ),
        ("update a --null", {"action": "update", "id": "a", "payload": "replace"}),
        ("rate orders 600/m", {"action": "rate", "destination": "orders", "rate": "600/m"}),
    ],
)
def test_control_is_headers(
    arguments: str, headers: dict[str, str], capsys: pytest.CaptureFixture[str]
) -> None:
    """As any client could send them."""
    assert main([*arguments.split(), "--no-wait", "--dry-run"]) == ExitCode.OK
    assert shown_headers(capsys.readouterr().out) == headers


def test_a_description_is_always_waited_for(capsys: pytest.CaptureFixture[str]) -> None:
    """It is all that the command is for."""
    assert main(["describe", "a", "--no-wait", "--dry-run"]) == ExitCode.USAGE
    assert main(["describe", "a", "--reply-to", "r", "--dry-run"]) == ExitCode.OK
    assert shown_headers(capsys.readouterr().out) == {"action": "describe", "id": "a", "reply-to": "r"}
    assert main(["describe", "--dry-run"]) == ExitCode.USAGE
    assert main(["describe", "a", "--coordinates", "delay-requests/0/7", "--dry-run"]) == ExitCode.USAGE
    capsys.readouterr()
    assert (
        main(["describe", "--coordinates", "delay-requests/0/7", "--reply-to", "r", "--dry-run"])
        == ExitCode.OK
    )
    assert shown_headers(capsys.readouterr().out) == {
        "action": "describe",
        "coordinates": "delay-requests/0/7",
        "reply-to": "r",
    }


@pytest.mark.parametrize(
    ("one", "other"),
    [
        ("pause --match-key k --match-tags a --match-new", "resume --match-tags a --match-key k"),
        ("cancel --coordinates delay-requests/0/7", "trigger --coordinates delay-requests/0/7"),
        ("rate emails 5/s", "rate emails none"),
    ],
)
def test_commands_about_the_same_have_the_same_key(
    one: str, other: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """So that they meet on one partition, in their order."""

    def key(arguments: str) -> str:
        assert main([*arguments.split(), "--no-wait", "--dry-run"]) == ExitCode.OK
        (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("key ")]
        return line

    assert key(one) == key(other)
    assert "(null)" not in key(one)
    assert key("pause --match-key k") != key("pause --match-tags k")


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("send x --to r", "None of --delay, --at, --every and --cron is given"),
        ("send x --delay 1s", "--to"),
        ("send x --to r --delay 1s --timezone UTC", "beside cron, or beside at with local times"),
        ("send x --to r --delay 1s --if-exists keep", "but --id is missing"),
        ("send x --to r --every 1h", "but --id is missing"),
        ("send x --to r --delay 1s -H delaystream-dealy=1s", "'delaystream-dealy' is not a known header; "),
        ("send x --to r --delay 1s -H delaystream-dealy=1s", "did you mean --delay?"),
        ("send x --to r --id a --cron 'TZ=UTC_0_9_*_*_*'", "write the zone in --timezone"),
        ("send x --to r --id a --every P1M", "or 'PT15M'."),
        ("reschedule a", "--max-fires, --start and --timezone is given"),
        ("update a", "nothing to change"),
        ("update a --note n", "--destination-key"),
        ("rate a.b! 5", "TOPIC is 'a.b!'"),
        ("rate a often", "RATE: 'often'"),
        ("cancel --coordinates x", "--coordinates is 'x'"),
    ],
)
def test_a_refusal_speaks_of_options(arguments: str, says: str, capsys: pytest.CaptureFixture[str]) -> None:
    """Who typed them has written no header."""
    words = [word.replace("_", " ").strip("'") for word in arguments.split()]
    assert main([*words, "--dry-run"]) == ExitCode.REFUSED
    told = capsys.readouterr().err
    assert says in told
    assert "delaystream-" not in told.replace("'delaystream-dealy'", "")


def test_a_time_zone_in_a_cron_expression_is_refused_in_options_too(
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert main(["cron", "TZ=UTC 0 9 * * *"]) == ExitCode.REFUSED
    assert "EXPRESSION is 'TZ=UTC 0 9 * * *'" in (told := capsys.readouterr().err)
    assert "write the zone in --timezone" in told


@pytest.mark.parametrize("arguments", ["reschedule a", "reschedule a --delay 30", "reschedule a --cron 'x'"])
def test_control_that_a_worker_would_refuse_is_not_sent(
    arguments: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As with send."""
    assert main([*arguments.split(), "--dry-run"]) == ExitCode.REFUSED
    assert "a worker would refuse it" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        "export --final",
        "export --final -f a -o table",
        "export --reopen --final",
        "import",
        "import /nowhere -b x:1",
    ],
)
def test_wrong_exports_and_imports_are_refused(arguments: str) -> None:
    """Before anything is connected to, or touched."""
    assert main(arguments.split()) == ExitCode.USAGE


def test_an_export_as_a_table_has_holds_and_rates(tmp_path: Path) -> None:
    """Once, although every partition has them; what pauses a customer is no less to be seen than a fire."""
    out = io.BytesIO()
    table = Table(out)
    exported = (Path(__file__).parent / "golden" / "export-2.jsonl").read_bytes().splitlines(keepends=True)
    for line in [*exported, *exported]:
        table.write(line)
    rows = [line.split() for line in out.getvalue().decode().splitlines()]
    assert [row for row in rows if "rate" in row] == [["-", "rate", "out", "requests", "2.5/s"]]
    (hold,) = [row for row in rows if "hold" in row]
    # What would be due then is its end.
    assert hold[:5] == ["2023-11-14T22:13:20.000Z", "hold", "o*", "#a", "k"]
    assert " ".join(hold[5:]) == "the provider is down"


def test_an_import_from_a_pipe_is_read_as_often_as_a_file(tmp_path: Path) -> None:
    """It is checked to its end before anything is done with it."""
    exported = Path(__file__).parent / "golden" / "export-2.jsonl"
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    writer = threading.Thread(target=lambda: pipe.write_bytes(exported.read_bytes()))
    writer.start()
    with _seekable(pipe) as piped, _seekable(exported) as file:
        writer.join()
        assert checked(piped) == checked(file)
        assert [line for _, line, _ in numbered(piped)] == [line for _, line, _ in numbered(file)]


def test_an_export_is_there_whole_or_not_at_all(tmp_path: Path) -> None:
    """Under its name or any other; what is there already is not written over."""
    file = tmp_path / "export.jsonl"

    def interrupted() -> None:
        with _new_file(file, as_table=False) as out:
            out.write(b"half")
            raise RuntimeError

    with pytest.raises(RuntimeError):
        interrupted()
    assert list(tmp_path.iterdir()) == []
    with _new_file(file, as_table=False) as out:
        out.write(b"whole")
    assert file.read_bytes() == b"whole"
    with pytest.raises(typer.BadParameter, match="is there already"), _new_file(file, as_table=False):
        pass
    assert file.read_bytes() == b"whole"


def test_a_receipt_is_one_line() -> None:
    """Whatever it tells: the outcome first, times as people read them, nothing left out."""
    body = {
        "outcome": "too-late",
        "schedule_id": "a",
        "source": "t/0/1",
        "decided_at_ms": 1,
        "fire_id": "f",
        "last_fired_at_ms": 1_893_456_000_000,
        "detail": None,
    }
    line = receipt_line(Receipt.parse(json.dumps(body).encode()))
    assert line == "too-late  a  fire-id f  last-fired-at 2030-01-01T00:00:00.000Z"


@pytest.mark.parametrize(
    "fires", [7, "x", [1], [{}], [{"due_at_ms": "soon"}], {"due_at_ms": 1}, [{"due_at_ms": 1}]]
)
def test_a_receipt_that_somebody_made_up_is_one_line_too(fires: object) -> None:
    body = {"outcome": 7, "source": "t/0/1", "fires": fires}
    line = receipt_line(Receipt.parse(json.dumps(body).encode()))
    assert line.count("due") == (fires == [{"due_at_ms": 1}])


def test_a_receipt_obeys_no_terminal_and_names_options() -> None:
    """Anybody may write an id; a worker's sentence names headers."""
    body = {
        "outcome": "rejected",
        "schedule_id": "\x1b[31m",
        "code": "c",
        "detail": "delaystream-id is empty.",
    }
    assert receipt_line(Receipt.parse(json.dumps(body).encode())) == (
        "rejected  \\x1b[31m  c  --id is empty."
    )


def test_a_receipt_of_a_rate_says_which() -> None:
    body = {"outcome": "rate-set", "schedule_id": "t/0/1"}
    assert receipt_line(Receipt.parse(json.dumps(body).encode()), "emails 5/s") == "rate-set  emails 5/s"


def test_what_is_true_is_named_and_what_is_not_is_left_out() -> None:
    body = {"outcome": "paused", "schedule_id": "a", "repeated": True, "shortened": False}
    assert receipt_line(Receipt.parse(json.dumps(body).encode())) == "paused  a  repeated"


def test_a_description_is_lines_for_people() -> None:
    """Times and lengths of time as people read them, nothing twice."""
    body = {
        "outcome": "described",
        "schedule_id": "job",
        "status": "paused",
        "version": 7,
        "until_ms": 1_893_456_000_000,
        "schedule": {
            "definition": {"destination": "orders", "every_ms": 900_000, "tags": ["a", "b"]},
            "fire_count": 1,
            "until_ms": 1_893_456_000_000,
            "next_at_ms": 1_893_456_000_000,
            "upcoming_at_ms": [1_893_456_000_000, 1_893_456_900_000],
            "history": [
                {"due_at_ms": 1_893_455_100_000, "fired_at_ms": 1_893_455_100_001, "fire_id": "f"},
                {"kind": "fired", "due_at_ms": 1_893_455_160_000, "fire_id": "g"},
                {
                    "kind": "skipped",
                    "from_ms": 1_893_455_220_000,
                    "to_ms": 1_893_455_460_000,
                    "count": 5,
                    "decided_at_ms": 1_893_455_520_000,
                },
            ],
            "payload": {"key_base64": "aw==", "value_base64": None},
        },
    }
    assert description(Receipt.parse(json.dumps(body).encode())) == [
        "described  job",
        "  status              paused",
        "  version             7",
        "  until               2030-01-01T00:00:00.000Z",
        "  destination         orders",
        "  every               15m",
        "  tags                a, b",
        "  fire-count          1",
        "  upcoming            2030-01-01T00:00:00.000Z",
        "                      2030-01-01T00:15:00.000Z",
        "  history             due-at 2029-12-31T23:45:00.000Z  fired-at 2029-12-31T23:45:00.001Z  fire-id f",
        "                      fired      due-at 2029-12-31T23:46:00.000Z  fire-id g",
        "                      skipped    from 2029-12-31T23:47:00.000Z  to 2029-12-31T23:51:00.000Z  count 5"
        "  decided-at 2029-12-31T23:52:00.000Z",
        "  key-base64          aw==",
    ]


@pytest.mark.parametrize(
    "schedule", [None, 7, [], {"history": [1, {"kind": [2]}], "upcoming_at_ms": [None], "definition": 1}]
)
def test_a_description_that_somebody_made_up_is_shown_too(schedule: object) -> None:
    body = {"outcome": "described", "schedule_id": "job", "schedule": schedule}
    assert description(Receipt.parse(json.dumps(body).encode()))[0].startswith("described  job")


EVENT = {
    "schema_version": 2,
    "type": "fired",
    "at_ms": 1_893_456_000_012,
    "request_topic": "delay-requests",
    "schedule_id": "job",
    "id": "job",
    "lateness_ms": 12,
    "definition": {"destination": "orders"},
    "note": "x" * 300,
}


def test_an_event_is_one_line_that_is_not_cut() -> None:
    """When, what, of which schedule; the definition is left to JSON."""
    event = replace(delivered(value=json.dumps(EVENT).encode()), topic="delay-events", headers=[])
    line = record_line(event, "delay-events")
    assert line == event_line(event)
    assert line.partition("  ")[2] == f"fired        job  lateness 12ms  note {'x' * 300}"
    assert record_line(event, "other-events") == delivery_line(event)


@pytest.mark.parametrize("value", [None, b"\xff", b"[1]", b"{}", b'{"type": 7, "at_ms": 1}'])
def test_what_is_no_event_is_shown_as_it_is(value: bytes | None) -> None:
    """Whoever may write to the topic may write anything."""
    record = replace(delivered(value=value), topic="delay-events")
    assert record_line(record, "delay-events") == delivery_line(record)


def test_names_of_headers_are_no_commands_to_a_terminal() -> None:
    record = delivered(headers=[("\x1b[2J", b"v")], due_ms=None)
    assert "[\\x1b[2J=v]" in delivery_line(record)


@pytest.mark.parametrize(
    ("name", "known"),
    [
        ("DELAYSTREAM_BOOTSTRAP", "DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS"),
        ("DELAYSTREAM_ALLOW", "DELAYSTREAM_DESTINATIONS_ALLOW"),
        ("DELAYSTREAM_HTTP_PRT", "DELAYSTREAM_HTTP_PORT"),
    ],
)
def test_a_setting_that_is_not_there_is_told_which_was_meant(
    name: str, known: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv(name, "x")
    assert main(["config"]) == ExitCode.CONFIGURATION
    assert f"There is no setting {name}. Did you mean {known}?" in capsys.readouterr().err


def test_wrong_settings_are_told_in_our_own_words(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Not in those of a library, nor of the operating system."""
    pairs = ["http_port=abc", "max_list=-1", "app_id=x y", "events=maybe"]
    assert main(["config", *(f"--set={pair}" for pair in pairs)]) == ExitCode.CONFIGURATION
    told = capsys.readouterr().err
    for end in (
        "expected a whole number.",
        "expected at least 1.",
        "expected text of the form",
        "true or false.",
    ):
        assert end in told
    assert main(["config", "-c", str(tmp_path / "absent")]) == ExitCode.CONFIGURATION
    assert "absent cannot be read: No such file" in (told := capsys.readouterr().err)
    assert "Errno" not in told


def test_a_worker_without_an_allow_list_does_not_start(capsys: pytest.CaptureFixture[str]) -> None:
    """And says what to set."""
    assert main(["worker"]) == ExitCode.CONFIGURATION
    assert "DELAYSTREAM_DESTINATIONS_ALLOW" in capsys.readouterr().err


def test_config_prints_every_setting_with_its_origin_and_no_secret(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Defaults included."""
    monkeypatch.setenv("DELAYSTREAM_HTTP_PORT", "1234")
    login = "-X security.protocol=SASL_SSL -X sasl.mechanism=PLAIN -X sasl.username=u -X sasl.password=s3cret"
    assert main(["config", "--json", *login.split(), "--set", "max_list=5"]) == ExitCode.OK
    text = capsys.readouterr().out
    rows = {row["name"]: (row["value"], row["origin"]) for row in json.loads(text)}
    assert rows["http_port"] == (1234, "environment DELAYSTREAM_HTTP_PORT")
    assert rows["max_list"] == (5, "flag --set max_list")
    assert rows["app_id"] == ("delaystream", "default")
    assert rows["kafka.sasl.password"] == ("********", "flag -X sasl.password")
    assert "s3cret" not in text
    assert main(["config", "--describe", *login.split()]) == ExitCode.OK
    assert "s3cret" not in capsys.readouterr().out


def test_wrong_settings_end_with_78_and_a_sentence_each(capsys: pytest.CaptureFixture[str]) -> None:
    """Whatever the command."""
    assert main(["config", "--set", "nope=1", "-X", "acks=1"]) == ExitCode.CONFIGURATION
    assert len(capsys.readouterr().err.splitlines()) == 2


def test_topics_are_printed_without_a_cluster(capsys: pytest.CaptureFixture[str]) -> None:
    """For those who create them by other means; settings decide their names."""
    arguments = ["topics", "print", "-o", "json", "--partitions", "3", "--set", "commands_topic=my-commands"]
    assert main(arguments) == ExitCode.OK
    printed = capsys.readouterr().out
    assert "my-commands" in printed
    json.loads(printed)


def test_nobody_there_ends_with_69(capsys: pytest.CaptureFixture[str]) -> None:
    """With a sentence, no traceback."""
    assert main(["watch", "reminders", "-b", "127.0.0.1:1", "--timeout", "0.5"]) == ExitCode.UNAVAILABLE
    assert "Kafka does not answer" in capsys.readouterr().err


def test_the_samples_of_dev_are_requests_that_a_worker_takes() -> None:
    """Each for one delivery within seconds."""
    now_ms = time.time_ns() // 1_000_000
    parser = RequestParser(DestinationFilter(["*"]), Limits())
    for _, record in samples("delay-requests", now_ms):
        request = parser.parse(
            Record(Coordinates(record.topic, 0, 0), now_ms, record.key, record.value, list(record.headers)),
            now_ms,
        )
        assert isinstance(request, Request)
        assert len(request.due_ms) == 1
        assert request.due_ms[0] <= now_ms + 10_000


def delivered(**changes: object) -> Delivery:
    fields: dict[str, object] = {
        "topic": "reminders",
        "partition": 1,
        "offset": 7,
        "timestamp_ms": 1_700_000_000_012,
        "key": b"k",
        "value": b"\xff",
        "headers": [("delaystream-due-at", b"1700000000000"), ("a", None), ("a", b"2")],
        "schedule_id": "delay-requests/0/0",
        "fire_id": "f",
        "due_ms": 1_700_000_000_000,
        "fired_ms": 1_700_000_000_012,
    }
    return Delivery(**{**fields, **changes})  # type: ignore[arg-type]


def test_a_delivery_is_shown_with_its_lateness_on_one_line() -> None:
    """Our own headers are told by the lateness, the others are shown."""
    line = delivery_line(delivered(value=b"two\nlines"))
    assert "+12 ms  reminders/1/7  k: two\\nlines  [a=(null), a=2]" in line
    assert "delaystream-due-at" not in line


def test_a_record_that_is_no_delivery_is_shown_with_all_its_headers() -> None:
    """The error of a dead letter, the outcome of a receipt."""
    letter = replace(delivered(value=b"v"), due_ms=None, headers=[("delaystream-error", b"invalid-delay")])
    assert "-  reminders/1/7  k: v  [delaystream-error=invalid-delay]" in delivery_line(letter)
    quarantined = replace(delivered(value=b"v"), headers=letter.headers)
    assert "[delaystream-error=invalid-delay]" in delivery_line(quarantined)


def test_a_time_of_a_record_has_its_date_and_zone() -> None:
    line = delivery_line(replace(delivered(), timestamp_ms=1_700_000_000_123))
    assert datetime.fromisoformat(line[:29]).timestamp() == 1_700_000_000.123


@pytest.mark.parametrize("timestamp_ms", [1_700_000_000_000_000, 2**63 - 1, -(2**63)])
def test_a_record_with_an_impossible_timestamp_is_shown_all_the_same(timestamp_ms: int) -> None:
    assert delivery_line(replace(delivered(), timestamp_ms=timestamp_ms)).startswith(f"{timestamp_ms}  ")


def test_json_of_a_delivery_loses_nothing() -> None:
    """Bytes that are no text, nulls, and names that repeat."""
    fields = delivery_fields(delivered())
    assert fields["value"] == {"base64": "/w=="}
    assert fields["headers"][1:] == [["a", None], ["a", "2"]]
    assert fields["lateness_ms"] == 12


def test_what_is_shown_of_bytes_is_printable_and_short() -> None:
    """A terminal is no place for control characters."""
    assert rendered(b"\x1b[31m") == r"\x1b[31m"
    assert rendered(b"x" * 1_000_000).endswith("... (1000000 bytes)")
    assert lateness(None) == "-"
    assert lateness(12_345) == "+12.3 s"
