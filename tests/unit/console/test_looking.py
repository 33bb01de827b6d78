"""The command line asks a console: over real HTTP, of a server with answers that this file gives."""

import json
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import orjson
import pytest

from delaystream.cli import main
from delaystream.cli.looking import commands as looking
from delaystream.cli.looking import console_output
from delaystream.cli.looking.console_client import ConsoleAt, url_of_console
from delaystream.config import ConfigurationError, Settings
from delaystream.exit_codes import ExitCode

HOSTILE = "x\x1b[2J\u202e\U000e0001\nnew"
FRESH: dict[str, Any] = {"as_of": None, "lag_ms": None, "complete": True, "missing_partitions": []}


def schedule(id: str) -> dict[str, Any]:
    return {
        "id": id,
        "status": "pending",
        "request_topic": "delay-requests",
        "definition": {"destination": "emails", "tags": ["a", "b"]},
        "next_at": "2030-01-01T00:00:00.000Z",
        "last_fired_at": None,
        "fired": 3,
    }


class Asked:
    """What was asked, in order, and what is answered: by path, status and body."""

    def __init__(self) -> None:
        self.questions: list[tuple[str, dict[str, list[str]]]] = []
        self.answers: list[tuple[int, bytes]] = []
        #: of each question
        self.authorizations: list[str | None] = []
        #: of each that has something changed
        self.bodies: list[dict[str, Any]] = []
        self.content_types: list[str | None] = []
        #: where it is sent on to; None: nowhere
        self.location: str | None = None

    def answer(self, body: object, status: int = 200) -> None:
        self.answers.append((status, orjson.dumps(body)))


@pytest.fixture
def console(monkeypatch: pytest.MonkeyPatch) -> Iterator[Asked]:
    asked = Asked()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            parts = urlsplit(self.path)
            asked.questions.append((parts.path, parse_qs(parts.query)))
            asked.authorizations.append(self.headers["Authorization"])
            status, body = asked.answers.pop(0)
            self.send_response(status)
            if asked.location is not None:
                self.send_header("location", asked.location)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def do_POST(self) -> None:
            asked.bodies.append(orjson.loads(self.rfile.read(int(self.headers["content-length"]))))
            asked.content_types.append(self.headers["content-type"])
            self.do_GET()

        def log_message(self, *_: object) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    monkeypatch.setenv("DELAYSTREAM_CONSOLE_URL", f"http://127.0.0.1:{server.server_port}/")
    yield asked
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_list_is_a_table_of_all_pages(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    """As many as are wanted, with the filters as parameters."""
    console.answer({"items": [schedule("one")], "next_cursor": "abc", **FRESH})
    console.answer({"items": [schedule("two")], "next_cursor": "def", **FRESH})
    assert main(["list", "--to", "emails", "--status", "paused", "--limit", "2"]) == ExitCode.OK
    head, first, second = capsys.readouterr().out.splitlines()
    assert head.split() == ["ID", "STATUS", "DESTINATION", "NEXT", "LAST", "FIRED"]
    assert first.split() == ["one", "pending", "emails", "2030-01-01T00:00:00.000Z", "3"]
    assert second.startswith("two ")
    (path, asked), (_, again) = console.questions
    assert path == "/v1/schedules"
    assert asked == {"destination": ["emails"], "status": ["paused"], "sort": ["next"], "limit": ["2"]}
    assert again == {**asked, "cursor": ["abc"], "limit": ["1"]}


@pytest.mark.parametrize("form", ["table", "wide", "json", "yaml", "jsonl"])
def test_a_terminal_obeys_nothing_that_is_shown(
    form: str, console: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whatever the form, nothing unprintable is written; programs still read what it was."""
    console.answer({"items": [schedule(HOSTILE)], "next_cursor": None, **FRESH})
    assert main(["list", "-o", form]) == ExitCode.OK
    out = capsys.readouterr().out
    assert all(character.isprintable() or character == "\n" for character in out)
    if form == "json":
        assert json.loads(out)["items"][0]["id"] == HOSTILE
    if form == "jsonl":
        (line,) = out.splitlines()
        assert json.loads(line)["id"] == HOSTILE
    if form in {"table", "wide"}:
        assert len(out.splitlines()) == 2


def test_yaml_is_yaml() -> None:
    """Nested, with empty parts, and texts that look like something else."""
    body = {
        "items": [{"a": "no", "b": []}, {"a": None, "b": ["x", {"c": True}]}],
        "next: cursor": {},
        "n": -1,
    }
    assert console_output.yaml(body) == (
        '"items":\n  -\n    "a": "no"\n    "b": []\n  -\n    "a": null\n    "b":\n      - "x"\n      -\n'
        '        "c": true\n"next: cursor": {}\n"n": -1'
    )


def test_an_id_may_hold_anything(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    """It is one segment of the path."""
    console.answer(schedule("a/b?c#d"))
    assert main(["get", "a/b?c#d", "--payload", "--topic", "orders"]) == ExitCode.OK
    assert console.questions == [
        ("/v1/schedules/a%2Fb%3Fc%23d", {"request_topic": ["orders"], "payload": ["true"]})
    ]
    assert "definition.destination   emails" in capsys.readouterr().out


def test_a_problem_is_a_sentence_and_65(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    """Escaped as everything else; no worker is asked what a console has answered."""
    console.answer({"code": "unknown", "detail": "No schedule 'x\x1b[2J' is known."}, 404)
    assert main(["get", "x"]) == ExitCode.REFUSED
    assert capsys.readouterr().err == "delaystream: No schedule 'x\\x1b[2J' is known.\n"


def test_what_is_not_known_is_65(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    """Of `where`: a script need not count lines."""
    console.answer({"items": [], **FRESH})
    assert main(["where", "nobody"]) == ExitCode.REFUSED
    assert "nothing is known of it" in capsys.readouterr().err


def test_what_an_answer_lacks_is_said(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    """On standard error, so that programs are not disturbed."""
    console.answer(
        {"by_destination": [], **FRESH, "missing_partitions": [{"partition": 3}, {"partition": 5}]}
    )
    assert main(["stats"]) == ExitCode.OK
    assert "partitions 3, 5" in capsys.readouterr().err


def test_what_is_ahead_is_listed_with_what_the_clocks_do(
    console: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """Of any id, as many as are wanted."""
    time = {"at": "2030-03-31T01:00:00.000Z", "local": "2030-03-31T03:00:00.000+02:00", "offset": "+02:00"}
    body = {"items": [{**time, "note": "gap: 02:30 does not exist"}], "clock_changes": [], **FRESH}
    console.answer(body)
    assert main(["upcoming", "a/fires", "--count", "1", "--topic", "orders"]) == ExitCode.OK
    assert console.questions == [
        ("/v1/schedules/a%2Ffires/upcoming", {"request_topic": ["orders"], "count": ["1"]})
    ]
    head, row = capsys.readouterr().out.splitlines()
    assert head.split() == ["AT", "LOCAL", "TIME", "NOTE"]
    assert row.split()[:2] == [time["at"], time["local"]]
    assert row.endswith("gap: 02:30 does not exist")


@pytest.mark.parametrize("form", ["table", "wide", "json", "yaml", "jsonl"])
def test_dead_letters_are_listed_with_all_that_is_left_out(
    form: str, console: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """By their filters; what strangers wrote is escaped."""
    letter: dict[str, Any] = {
        "at": "2030-01-31T08:12:04.120Z",
        "code": "invalid-delay",
        "detail": HOSTILE,
        "id": None,
    }
    letter |= {"source": "delay-requests/3/1040", "destination": "reminders", "offset": 12}
    console.answer({"items": [letter], "next_cursor": None, "reading": [{"skipped": 3}, {"skipped": 0}]})
    arguments = ["--code", "invalid-delay", "--id", "x", "--at-from", "2030-01-01T00:00:00Z", "-o", form]
    assert main(["dead-letters", *arguments]) == ExitCode.OK
    ((path, asked),) = console.questions
    assert path == "/v1/dead-letters"
    assert asked == {
        "code": ["invalid-delay"],
        "id": ["x"],
        "at_from": ["2030-01-01T00:00:00Z"],
        "limit": ["50"],
    }
    said = capsys.readouterr()
    assert "3 letters or fewer are in batches that cannot be read" in said.err
    assert "delay-requests/3/1040" in said.out
    assert all(character.isprintable() or character == "\n" for character in said.out)


EVENT: dict[str, Any] = {
    "schema_version": 2,
    "type": "fired",
    "at_ms": 1_893_456_000_000,
    "schedule_id": HOSTILE,
    "destination": "emails",
    "lateness_ms": 4,
}


END: dict[str, Any] = {}


def stream(*blocks: tuple[str, dict[str, Any] | None]) -> bytes:
    """A stream of events, by place and event; `END` where it is at the end of what has happened."""
    body = b"retry: 2000\n"
    for place, event in blocks:
        body += f"id: {place}\n".encode()
        if event:
            body += b"event: %b\ndata: %b\n\n" % (event["type"].encode(), orjson.dumps(event))
        else:
            body += b":\n\n" if event is None else b": end\n\n"
    return body


@pytest.mark.parametrize("form", ["table", "wide", "json", "yaml", "jsonl"])
def test_events_are_shown_up_to_now_and_where_to_go_on(
    form: str, console: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """In every form, and nothing in them is obeyed; what comes later is not waited for."""
    later = stream(("0.5-1.3", {**EVENT, "schedule_id": "later"}))
    blocks = stream(("0.204-1.0", None), ("0.1203-1.0", EVENT), ("0.1204-1.3", END))
    console.answers.append((200, blocks + later))
    arguments = ["--type", "fired", "--to", "emails", "--id", "x", "--correlation-id", "o-1", "-o", form]
    assert main(["events", *arguments]) == ExitCode.OK
    ((path, asked),) = console.questions
    assert path == "/v1/events"
    assert asked == {
        "type": ["fired"],
        "destination": ["emails"],
        "id": ["x"],
        "correlation_id": ["o-1"],
        "last": ["1000"],
        "until": ["now"],
    }
    said = capsys.readouterr()
    assert said.err == "delaystream: go on with --after 0.1204-1.3\n"
    assert "later" not in said.out
    assert all(character.isprintable() or character == "\n" for character in said.out)
    if form == "json":
        assert json.loads(said.out) == {"place": "0.1203-1.0", **EVENT}
    if form == "jsonl":
        assert [json.loads(line) for line in said.out.splitlines()] == [{"place": "0.1203-1.0", **EVENT}]
    if form == "table":
        head, row = said.out.splitlines()
        assert head.split()[:4] == ["WHEN", "WHAT", "OF", "DESTINATION"]
        assert row.split()[:2] == ["2030-01-01T00:00:00.000Z", "fired"]


def test_events_behind_a_place_come_in_parts(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    """As many as are wanted, and the place of the last of them is where it goes on."""
    blocks = [(f"0.{number}", {**EVENT, "schedule_id": f"id-{number}"}) for number in range(1, 6)]
    for limit, ids, place in ((2, ["id-1", "id-2"], "0.2"), (9, [f"id-{n}" for n in range(1, 6)], "0.5")):
        console.answers.append((200, stream(("0.0", None), *blocks, ("0.5", END))))
        assert main(["events", "--after", "0.0", "--limit", str(limit), "-o", "jsonl"]) == ExitCode.OK
        said = capsys.readouterr()
        assert [json.loads(line)["schedule_id"] for line in said.out.splitlines()] == ids
        assert said.err.endswith(f"--after {place}\n")
    # Without a place it is the last ones.
    assert console.questions[-1][1] == {"after": ["0.0"], "until": ["now"]}
    console.answers.append((200, stream(("0.0", None), *blocks, ("0.5", END))))
    assert main(["events", "--limit", "2", "-o", "jsonl"]) == ExitCode.OK
    said = capsys.readouterr()
    assert [json.loads(line)["schedule_id"] for line in said.out.splitlines()] == ["id-4", "id-5"]


def test_a_watched_stream_is_begun_again_from_where_it_was(
    console: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whether it ended, was refused, or nobody answered; until Ctrl-C, which is no failure."""
    waits: list[float] = []

    def wait(seconds: float) -> None:
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr("delaystream.cli.looking.event_stream.time.sleep", wait)
    console.answers.append((200, stream(("0.5", END))))
    console.answers.append((200, stream(("0.5", None), ("0.6", {**EVENT, "schedule_id": "one"}))))
    console.answers.append(
        (429, orjson.dumps({"code": "too-many-streams", "detail": "200 streams are open."}))
    )
    console.answers.append((200, stream(("0.6", None), ("0.9", {**EVENT, "schedule_id": "two"}))))
    assert main(["events", "--watch", "-o", "jsonl"]) == ExitCode.OK
    said = capsys.readouterr()
    assert [json.loads(line)["schedule_id"] for line in said.out.splitlines()] == ["one", "two"]
    assert [asked.get("after") for _, asked in console.questions[1:]] == [["0.5"], ["0.6"], ["0.6"]]
    assert "The stream has ended. Trying again." in said.err
    assert "200 streams are open. Trying again." in said.err
    assert said.err.endswith("delaystream: go on with --after 0.9\n")


def test_a_place_that_is_none_is_refused_by_the_console(
    console: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    """With its sentence, and 65."""
    console.answer({"code": "invalid-event-id", "detail": "Last-Event-ID is not an id of this stream."}, 400)
    assert main(["events", "--after", "x"]) == ExitCode.REFUSED
    assert "not an id of this stream" in capsys.readouterr().err


@pytest.mark.parametrize("body", [b"", b"<html>", b"id: x\n\n", stream(("0.1", None))])
def test_a_stream_that_is_none_is_told(body: bytes, console: Asked) -> None:
    """Or one that ends before it has told everything: not everything was shown."""
    console.answers.append((200, body))
    assert main(["events"]) == ExitCode.UNAVAILABLE


@pytest.mark.parametrize(
    "arguments",
    ["list", "pending", "stats", "fires x", "upcoming x", "dead-letters", "events", "events --watch"],
)
def test_without_a_console_it_is_69(
    arguments: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With a sentence that says where it was looked for."""
    monkeypatch.setenv("DELAYSTREAM_CONSOLE_URL", "http://127.0.0.1:1")
    assert main(arguments.split()) == ExitCode.UNAVAILABLE
    assert "No console answers at http://127.0.0.1:1: " in capsys.readouterr().err


@pytest.mark.parametrize("command", ["get", "where"])
def test_without_a_console_a_worker_is_asked(
    command: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """And that is said; here no Kafka answers either."""
    monkeypatch.setenv("DELAYSTREAM_CONSOLE_URL", "http://127.0.0.1:1")
    monkeypatch.setenv("DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS", "127.0.0.1:1")
    described: list[str] = []
    monkeypatch.setattr(looking, "_describe", lambda _settings, _asking, id: described.append(id))
    assert main([command, "x"]) == ExitCode.OK
    assert described == ["x"]
    assert "A worker is asked, over Kafka." in capsys.readouterr().err


@pytest.mark.parametrize("body", [b"", b"<html>", b"[]"])
def test_what_is_no_console_is_told(body: bytes, console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    """Something else may listen on the port."""
    console.answers.append((200, body))
    assert main(["stats"]) == ExitCode.UNAVAILABLE
    assert "onsole" in capsys.readouterr().err


TOKEN = f"delaystream_{'t' * 43}"


@pytest.mark.parametrize("given", ["variable", "variable of a file", "option"])
def test_a_token_is_shown_to_the_console_and_to_nobody_else(
    given: str,
    console: Asked,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Whichever way it is given; it is not printed, also where the console refuses it."""
    file = tmp_path / "token"
    file.write_text(f"{TOKEN}\n")
    arguments = ["stats"]
    if given == "variable":
        monkeypatch.setenv("DELAYSTREAM_CONSOLE_TOKEN", TOKEN)
    elif given == "variable of a file":
        monkeypatch.setenv("DELAYSTREAM_CONSOLE_TOKEN_FILE", str(file))
    else:
        arguments += ["--console-token-file", str(file)]
    console.answer({"by_destination": [], **FRESH})
    assert main(arguments) == ExitCode.OK
    console.answer({"code": "expired-token", "detail": "The token has expired."}, 401)
    assert main(arguments) == ExitCode.REFUSED
    assert console.authorizations == [f"Bearer {TOKEN}"] * 2
    said = capsys.readouterr()
    assert TOKEN not in said.out + said.err
    assert "The token has expired." in said.err


def test_whoever_redirects_is_not_followed(
    console: Asked, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It would be shown the token."""
    monkeypatch.setenv("DELAYSTREAM_CONSOLE_TOKEN", TOKEN)
    console.location = "/v1/elsewhere"
    console.answer({}, 302)
    assert main(["stats"]) == ExitCode.UNAVAILABLE
    assert len(console.questions) == 1
    assert TOKEN not in capsys.readouterr().err


def test_a_token_that_is_none_is_not_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """A value that is no good may still be a secret: another one, or with a line too many."""
    monkeypatch.setenv("DELAYSTREAM_CONSOLE_TOKEN", f"{TOKEN}\nX-Header: x")
    assert main(["stats"]) == ExitCode.CONFIGURATION
    said = capsys.readouterr().err
    assert "console_token" in said
    assert "delaystream_t" not in said
    monkeypatch.delenv("DELAYSTREAM_CONSOLE_TOKEN")
    assert main(["stats", "--console-token-file", str(tmp_path / "none")]) == ExitCode.CONFIGURATION
    assert "cannot be read: No such file" in capsys.readouterr().err
    assert TOKEN not in repr(ConsoleAt("http://x", TOKEN))


def test_an_unknown_form_is_wrong_usage(console: Asked) -> None:
    """Before anything is asked."""
    assert main(["list", "-o", "xml"]) == ExitCode.USAGE
    assert console.questions == []


def test_the_console_is_where_the_settings_say() -> None:
    """Else where it listens by default; nothing but HTTP is spoken."""
    assert url_of_console(Settings()) == "http://127.0.0.1:8643"
    assert url_of_console(Settings(console_http_host="::1", console_http_port=1)) == "http://[::1]:1"
    assert url_of_console(Settings(console_url="https://x/y/")) == "https://x/y"
    for wrong in ("file:///etc/passwd", "ftp://x", "x"):
        with pytest.raises(ConfigurationError):
            url_of_console(Settings(console_url=wrong))


# -- dead letters are sent again ---------------------------------------------------------------------

ACT = {"act": "redrive", "actor": "lena", "outcome": "scheduled", "code": None}


def test_a_letter_is_sent_again_with_a_repair(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    console.answer({"standing": "accepted", "last_act": ACT})
    arguments = ["0.12", "--set-header", "delay=15m", "--set-header", "x-own=a=b"]
    arguments += ["--remove", "on-late", "--note", "typo"]
    assert main(["redrive", *arguments, "--destination", "mails", "--again"]) == ExitCode.OK
    assert console.questions == [("/v1/dead-letters/0.12/redrive", {})]
    assert console.bodies == [
        {
            "set": [["delaystream-delay", "15m"], ["x-own", "a=b"]],
            "remove": ["delaystream-on-late"],
            "destination": "mails",
            "note": "typo",
            "again": True,
        }
    ]
    assert console.content_types == ["application/json"]
    assert "scheduled" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("standing", "code"), [("rejected", ExitCode.REFUSED), ("sending", ExitCode.TIMEOUT)]
)
def test_the_exit_code_tells_what_came_of_a_letter(console: Asked, standing: str, code: ExitCode) -> None:
    console.answer({"standing": standing, "last_act": ACT})
    assert main(["redrive", "0.12"]) == code


def test_what_a_letter_would_be_is_asked_without_sending(
    console: Asked, capsys: pytest.CaptureFixture[str]
) -> None:
    console.answer({"sendable": False, "code": "invalid-delay", "detail": HOSTILE})
    assert main(["redrive", "0.12", "--dry-run"]) == ExitCode.REFUSED
    assert console.questions == [("/v1/dead-letters/0.12/check", {})]
    assert "\x1b" not in capsys.readouterr().out
    console.answer({"total": 9, "refused": {"invalid-delay": 2}, "samples": []})
    assert main(["redrive", "--code", "invalid-delay", "--dry-run"]) == ExitCode.OK
    assert console.bodies[-1] == {"code": "invalid-delay", "rate": 10, "dry_run": True}
    assert capsys.readouterr().out == "7 of 9 would be sent\n2 would be refused: invalid-delay\n"


def test_many_letters_are_followed_to_the_end(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    run = {"run": "r", "stage": "running", "standing": {}, "refused": {}}
    console.answer(run)
    console.answer({**run, "stage": "done", "standing": {"accepted": 2}})
    arguments = ["--id", "report", "--destination", "mails", "--rate", "50"]
    assert main(["redrive", *arguments]) == ExitCode.OK
    assert [path for path, _ in console.questions] == ["/v1/dead-letters/redrive", "/v1/dead-letters/runs/r"]
    assert console.bodies == [{"id": "report", "new_destination": "mails", "rate": 50, "dry_run": False}]
    assert "accepted" in capsys.readouterr().out


def test_letters_are_discarded_and_taken_up_again(console: Asked, capsys: pytest.CaptureFixture[str]) -> None:
    console.answer({"standing": "discarded"})
    assert main(["discard", "0.3", "--note", "of a test"]) == ExitCode.OK
    console.answer({"standing": "open"})
    assert main(["discard", "0.3", "--undo"]) == ExitCode.OK
    console.answer({"count": 4})
    assert main(["discard", "--code", "invalid-at"]) == ExitCode.OK
    assert [path for path, _ in console.questions] == [
        "/v1/dead-letters/0.3/discard",
        "/v1/dead-letters/0.3/reopen",
        "/v1/dead-letters/discard",
    ]
    assert console.bodies == [{"note": "of a test"}, {}, {"code": "invalid-at"}]
    assert capsys.readouterr().out == "discarded\nopen\n4 discarded\n"


@pytest.mark.parametrize("arguments", [["--again"], ["--value-file", "x"], ["0.1", "--set-header", "delay"]])
def test_what_is_of_one_letter_needs_it(console: Asked, arguments: list[str]) -> None:
    assert main(["redrive", *arguments]) == ExitCode.USAGE
    assert console.questions == []
