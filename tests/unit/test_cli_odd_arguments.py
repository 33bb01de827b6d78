"""Whatever a shell may hand over, a command ends with a sentence and an exit code, never with a traceback."""

import io
import os
import shlex
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, get_type_hints

import pytest
import typer
from typer.core import TyperArgument

from delaystream.cli import application, main
from delaystream.cli.operate.topics import topics
from delaystream.exit_codes import ExitCode

APP = application.app
MADE: Any = typer.main.get_command(APP)

#: How Python hands over the bytes ff fe, which are no UTF-8 (PEP 383).
NO_TEXT = os.fsdecode(b"\xff\xfe")

#: What may be any bytes, because a record may hold them.
ANY_BYTES = {(command, name) for command in ("send", "update") for name in ("value", "key", "header")} | {
    ("watch", "key")
}


DRY = {"send", "cancel", "pause", "resume", "trigger", "reschedule", "update", "describe", "rate"}


def is_local(words: list[str]) -> bool:
    """Whether a command line, with --dry-run where there is that, needs no broker."""
    return words[0] in DRY | {"cron", "config"} or words[:2] == ["topics", "print"]


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DELAYSTREAM_")]:
        monkeypatch.delenv(name)
    # Made once: to make it takes longer than most commands do.
    monkeypatch.setattr(application, "app", MADE)


def commands() -> Iterator[tuple[list[str], Callable[..., None], Any]]:
    """Every command: the words that run it, its function, and what typer made of it."""
    made = MADE.commands
    for group, path, found in ((APP, [], made), (topics, ["topics"], made["topics"].commands)):
        for registered in group.registered_commands:
            assert registered.callback is not None
            name = registered.name or registered.callback.__name__.replace("_", "-")
            yield [*path, name], registered.callback, found[name]


def texts() -> Iterator[Any]:
    """Every argument and option of every command that is a text, and the command line up to it."""
    for path, function, command in commands():
        kinds = get_type_hints(function)
        arguments = [each for each in command.params if isinstance(each, TyperArgument)]
        for each in command.params:
            is_text = kinds.get(each.name) in (str, str | None, list[str] | None)
            if not is_text or (path[0], each.name) in ANY_BYTES:
                continue
            needed = ["x" for other in arguments if other.required and other is not each]
            before = [] if each in arguments else [each.opts[0]]
            needed += _whole(path[0], each.opts[0])
            yield pytest.param([*path, *before], needed, each.multiple, id=f"{' '.join(path)} {each.opts[0]}")


def _whole(command: str, option: str) -> list[str]:
    """What a request needs beside the option, so that it is looked at to its end."""
    needed = ["value"] if command == "send" else []
    if command == "send" and option != "--to":
        needed += ["--to", "t"]
    if command in {"send", "reschedule"} and option not in {"--delay", "--at", "--cron", "--every"}:
        repeats = option in {"--timezone", "--start", "--end", "--jitter", "--max-fires", "--catch-up"}
        needed += ["--cron", "0 9 * * *"] if repeats else ["--delay", "1s"]
    return needed


def test_all_commands_are_looked_at() -> None:
    found = {(" ".join(path), command.callback) for path, _, command in commands()}
    assert {"send", "rate", "cron", "worker", "dev", "topics print", "import"} <= {name for name, _ in found}
    assert len(list(texts())) > 150


@pytest.mark.parametrize(("before", "needed", "paired"), list(texts()))
def test_what_must_be_text_is_refused_by_its_name(
    before: list[str], needed: list[str], paired: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    """And nothing is sent or started."""
    odd = f"name={NO_TEXT}" if paired else NO_TEXT
    assert main([*before, odd, *needed]) == ExitCode.USAGE
    said = capsys.readouterr().err
    assert "is not UTF-8" in said
    assert before[-1] in said or before[-1].isalpha()


ODD = [
    "",
    " ",
    "=",
    "=x",
    "x=",
    "a=b=c",
    ",",
    "\n",
    "\x1b[2J",
    "٣",
    "-1",
    "nan",
    "1e400",
    "9" * 5_000,
    "[",
    "é" * 40_000,
]


@pytest.mark.parametrize(
    ("before", "needed", "paired"), [each for each in texts() if is_local(each.values[0])]
)
def test_odd_texts_are_taken_or_refused(before: list[str], needed: list[str], paired: bool) -> None:
    for odd in ODD:
        given = f"name={odd}" if paired else odd
        dry = ["--dry-run"] if before[0] in DRY else []
        arguments = [*before, given, *needed, *dry]
        assert main(arguments) in {
            ExitCode.OK,
            ExitCode.USAGE,
            ExitCode.REFUSED,
            ExitCode.CONFIGURATION,
        }, arguments


def test_what_records_hold_may_be_any_bytes(capsysbinary: pytest.CaptureFixture[bytes]) -> None:
    """As the user typed them."""
    for command in (["send", "--delay", "0", "--to", "t"], ["update", "id"]):
        arguments = [*command, NO_TEXT, "--key", f"k{NO_TEXT}", "-H", f"é={NO_TEXT}", "--dry-run"]
        assert main(arguments) == ExitCode.OK
        lines = [b" ".join(line.split()) for line in capsysbinary.readouterr().out.splitlines()]
        assert rb"key k\xff\xfe" in lines
        assert rb"value \xff\xfe" in lines
        assert "header é: ".encode() + rb"\xff\xfe" in lines


@pytest.mark.parametrize("command", [["send", "v", "--delay", "0", "--to", "t"], ["update", "id", "v"]])
def test_names_of_headers_are_text(command: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command, "-H", "a=b", "-H", f"{NO_TEXT}=v", "--dry-run"]) == ExitCode.USAGE
    assert "--header number 2: its name is not UTF-8" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words", [[NO_TEXT], [f"--{NO_TEXT}"], ["send", f"--{NO_TEXT}"], ["topics", NO_TEXT]]
)
def test_words_that_no_command_knows(words: list[str]) -> None:
    assert main(words) == ExitCode.USAGE


@pytest.mark.parametrize(
    "arguments",
    [
        ["config", "--config", NO_TEXT],
        ["worker", "--config", NO_TEXT],
        ["send", "--to", "t", "--delay", "0", "--file", NO_TEXT],
        ["import", NO_TEXT],
        ["export", "--file", f"/dev/null/{NO_TEXT}"],
    ],
    ids=" ".join,
)
def test_files_may_have_any_name(arguments: list[str]) -> None:
    """These are not there, or cannot be."""
    assert main([*arguments, *([] if arguments[0] == "worker" else ["-b", "127.0.0.1:1"])]) in {
        ExitCode.USAGE,
        ExitCode.CONFIGURATION,
        ExitCode.UNAVAILABLE,
    }


@pytest.mark.parametrize("more", [[], ["--json"]], ids=["table", "json"])
def test_a_file_of_any_name_is_shown_as_an_origin(
    more: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / f"{NO_TEXT}.toml"
    file.write_text("max_list = 5\n")
    monkeypatch.setenv("DELAYSTREAM_DATA_DIR", NO_TEXT)
    # The test's own output is strict, where a process's is made not to be.
    written = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(written, "utf-8", errors="strict"))
    assert main(["config", "--config", str(file), *more]) == ExitCode.OK
    sys.stdout.flush()
    shown = written.getvalue()
    assert shown.count(rb"\udcff" if not more else rb"\\udcff") == 2


def test_a_setting_from_the_environment_is_text(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("DELAYSTREAM_APP_ID", NO_TEXT)
    assert main(["config"]) == ExitCode.CONFIGURATION
    assert "DELAYSTREAM_APP_ID" in capsys.readouterr().err


def test_output_that_cannot_hold_what_is_shown() -> None:
    """It is escaped, as on standard error."""
    run = subprocess.run(
        [sys.executable, "-m", "delaystream", "send", "é", "--to", "t", "--delay", "0", "--dry-run"],
        env={**os.environ, "PYTHONIOENCODING": "ascii"},
        capture_output=True,
        check=False,
    )
    assert (run.returncode, run.stderr) == (0, b"")
    assert rb"\xe9" in run.stdout


def shell(redirected: str, *arguments: str) -> tuple[int, str]:
    """Run a command with its streams as a shell may set them; exit code and standard error."""
    line = shlex.join([sys.executable, "-m", "delaystream", *arguments])
    run = subprocess.run(
        ["bash", "-c", f"{line} {redirected}"], capture_output=True, text=True, check=False, timeout=60
    )
    return run.returncode, run.stderr


DRY_RUN = ("send", "v", "--to", "t", "--delay", "0", "-n")


@pytest.mark.parametrize("arguments", [("config", "--json"), ("cron", "@daily"), DRY_RUN, ("--help",)])
def test_a_closed_output_is_written_to_in_vain(arguments: tuple[str, ...]) -> None:
    assert shell(">&-", *arguments) == (ExitCode.OK, "")
    assert shell("2>&-", *arguments) == (ExitCode.OK, "")


def test_a_closed_input_has_no_value() -> None:
    code, said = shell("<&-", "send", "--to", "t", "--delay", "0", "-n")
    assert (code, "no value" in said) == (ExitCode.USAGE, True), said


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="a device of Linux")
@pytest.mark.parametrize("arguments", [("config", "--json"), ("cron", "@daily"), DRY_RUN, ("--help",)])
def test_an_output_without_room_is_told(arguments: tuple[str, ...]) -> None:
    code, said = shell("> /dev/full", *arguments)
    assert code == ExitCode.NO_STORAGE
    assert said == "delaystream: there is no room for the output: No space left on device\n"


def test_an_output_that_nobody_reads_on_is_no_news() -> None:
    code, said = shell("| true; exit ${PIPESTATUS[0]}", "cron", "* * * * *", "-n", "10000")
    assert (code, said) == (ExitCode.CRASH, "")
