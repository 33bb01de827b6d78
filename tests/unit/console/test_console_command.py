"""`delaystream console`: what it refuses before it starts."""

import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import pytest

from delaystream.cli import main
from delaystream.cli.operate import console as command
from delaystream.config import ConfigurationError
from delaystream.console.loopback import listening_address, url_of
from delaystream.exit_codes import ExitCode

ROOT = Path(__file__).parents[3]


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.9.10", "::1"])
def test_an_address_of_loopback_is_listened_on(host: str) -> None:
    """As it is."""
    for authenticates in (False, True):
        assert listening_address(host, authenticates=authenticates) == host


def test_localhost_is_not_looked_up() -> None:
    """A file of hosts may say anything."""
    assert listening_address("localhost", authenticates=False) == "127.0.0.1"


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "192.168.1.5"])
def test_any_other_address_needs_tokens(host: str) -> None:
    """Nothing between: it asks nobody on loopback, or everybody."""
    with pytest.raises(ConfigurationError, match="set console_tokens_file"):
        listening_address(host, authenticates=False)
    assert listening_address(host, authenticates=True) == host


@pytest.mark.parametrize("host", ["example.org", "localhost.example.org", "127.1", "0", " "])
def test_a_name_is_no_address(host: str) -> None:
    """Whatever it means, it may mean something else at the next look."""
    for authenticates in (False, True):
        with pytest.raises(ConfigurationError, match="expected an address"):
            listening_address(host, authenticates=authenticates)


@pytest.mark.parametrize("given", ["flag", "variable"])
def test_a_console_that_others_reach_does_not_start(
    given: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """It ends with 78 and one sentence, however the address was given; nothing was made."""
    arguments = ["console", "--data-dir", str(tmp_path / "made")]
    if given == "flag":
        arguments += ["--http-host", "0.0.0.0"]
    else:
        monkeypatch.setenv("DELAYSTREAM_CONSOLE_HTTP_HOST", "0.0.0.0")
    assert main(arguments) == ExitCode.CONFIGURATION
    assert capsys.readouterr().err == (
        "delaystream: console_http_host is '0.0.0.0', which others reach, and the console would ask nobody "
        "who they are: set console_tokens_file (DELAYSTREAM_CONSOLE_TOKENS_FILE) to a file of tokens, or "
        "listen on loopback, for example on 127.0.0.1.\n"
    )
    assert not (tmp_path / "made").exists()


def test_a_broken_file_of_tokens_is_told_before_anything_is_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """With 78, and a sentence that names the setting and the file."""
    file = tmp_path / "tokens.toml"
    file.write_text('[[tokens]]\nname = "ops"\n')
    monkeypatch.setenv("DELAYSTREAM_CONSOLE_TOKENS_FILE", str(file))
    arguments = ["console", "--data-dir", str(tmp_path / "made"), "--http-host", "0.0.0.0"]
    assert main(arguments) == ExitCode.CONFIGURATION
    said = capsys.readouterr().err
    assert f"console_tokens_file is '{file}': token 1 (ops): hash is not 'sha256:'" in said
    assert not (tmp_path / "made").exists()


@pytest.mark.parametrize("absent", command.EXTRA)
def test_without_its_packages_it_says_what_to_install(
    absent: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Whichever of them is not there; with 78."""
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == absent else object())
    assert main(["console"]) == ExitCode.CONFIGURATION
    said = capsys.readouterr().err
    assert said == (
        f"delaystream: The console needs {absent}: install the extra, `pip install 'delaystream[console]'`.\n"
    )


def test_it_looks_for_every_package_of_its_extra() -> None:
    """A package that joins the extra joins the look."""
    extra = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"][
        "console"
    ]
    wanted = {re.split(r"[>\[]", requirement)[0] for requirement in extra}
    found = {name.lower() for module in command.EXTRA for name in packages_distributions()[module]}
    assert found == wanted


def test_an_address_with_colons_stands_in_brackets() -> None:
    """RFC 3986."""
    assert url_of("::1", 8643) == "http://[::1]:8643"
    assert url_of("127.0.0.1", 8643) == "http://127.0.0.1:8643"
