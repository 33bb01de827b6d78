"""`delaystream console`: what it refuses before it starts."""

import asyncio
import re
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path
from typing import Any

import pytest

from delaystream.cli import main
from delaystream.cli.operate import console as command
from delaystream.config import ConfigurationError, Settings, load
from delaystream.console.access.caller import Role
from delaystream.console.access.entrance import Shown
from delaystream.console.access.tokens import parse
from delaystream.console.loopback import listening_address, url_of
from delaystream.console.process import entrance_of
from delaystream.exit_codes import ExitCode
from tests.unit.console.neighbours import entry, token

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
        "delaystream: console_http_host is '0.0.0.0', which other machines reach, and the console would "
        "not authenticate them: set console_tokens_file (DELAYSTREAM_CONSOLE_TOKENS_FILE) to a file of "
        "tokens, or "
        "console_oidc_issuer to a provider of identities, or listen on loopback, for example on 127.0.0.1.\n"
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


def test_a_token_and_its_entry_go_to_different_places(capsys: pytest.CaptureFixture[str]) -> None:
    """So that the entry is appended to a file, and the token is not."""
    globs = ["--topics", "orders-*", "--topics", "emails"]
    assert (
        main(["console", "token", "--name", "ops", "--role", "operator", "--payload", *globs]) == ExitCode.OK
    )
    said = capsys.readouterr()
    (made,) = said.err.splitlines()
    assert made not in said.out
    found = parse(said.out.encode()).find(made)
    assert found is not None
    assert (found.caller.name, found.caller.payload, found.expires_ms) == ("ops", True, None)
    assert found.caller.may(Role.OPERATOR, "orders-eu")
    assert found.caller.may(Role.OPERATOR, "emails")
    assert not found.caller.sees("other")


def test_a_token_sees_unless_it_is_said_otherwise(capsys: pytest.CaptureFixture[str]) -> None:
    """Every request topic, without payloads; until it expires, if it does."""
    assert main(["console", "token", "--name", "ops", "--expires", "90d"]) == ExitCode.OK
    (made,) = parse(capsys.readouterr().out.encode()).entries
    assert made.caller.may_everywhere(Role.VIEWER)
    assert not made.caller.may(Role.OPERATOR, "orders")
    assert not made.caller.payload
    assert made.expires_ms is not None
    assert main(["console", "token", "--name", "ops", "--expires", "2100-01-01T00:00:00Z"]) == ExitCode.OK
    (made,) = parse(capsys.readouterr().out.encode()).entries
    assert made.expires_ms == 4_102_444_800_000


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--name", "a b"], "name is 'a b'"),
        (["--name", "a", "--role", "root"], "--role is 'root': expected viewer, operator, admin"),
        (["--name", "a", "--topics", "x" * 250], "has 250 characters"),
        (["--name", "a", "--expires", "soon"], "--expires is 'soon'"),
        (["--name", "a", "--expires", "2001-01-01T00:00:00Z"], "that time has passed"),
        ([], "--name"),
    ],
)
def test_a_wrong_entry_is_wrong_usage(
    arguments: list[str], sentence: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """And no token is made."""
    assert main(["console", "token", *arguments]) == ExitCode.USAGE
    said = capsys.readouterr()
    assert sentence in " ".join(said.err.split())
    assert said.out == ""


def test_secrets_of_the_console_are_masked(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """As printed, and in errors about them."""
    secret = "planted-" * 8
    monkeypatch.setenv("DELAYSTREAM_CONSOLE_SECRET", secret)
    monkeypatch.setenv("DELAYSTREAM_CONSOLE_TOKEN", secret)
    monkeypatch.setenv("DELAYSTREAM_CONSOLE_DATABASE", f"postgresql://console:{secret}@db/console")
    for form in ([], ["--json"], ["--describe"]):
        assert main(["config", *form]) == ExitCode.OK
        shown = capsys.readouterr().out
        assert "planted" not in shown
        assert "********" in shown
    monkeypatch.setenv("DELAYSTREAM_CONSOLE_SECRET", "planted")
    assert main(["config"]) == ExitCode.CONFIGURATION
    said = capsys.readouterr().err
    assert "planted" not in said
    assert "console_secret" in said
    assert "at least 32 characters" in said


def test_the_settings_say_who_is_let_in(tmp_path: Path) -> None:
    """Hosts are checked on loopback, and beyond it where some are named; keys are hidden by topic."""
    file = tmp_path / "tokens.toml"
    file.write_text(entry("a", {"*": "viewer"}))
    on_loopback = entrance_of(Settings())
    assert on_loopback.authentication == "none"
    assert on_loopback.hosts is not None
    assert on_loopback.limits.bounds.requests_per_second == 500
    beyond: dict[str, Any] = {"console_http_host": "10.0.0.1", "console_tokens_file": str(file)}
    assert entrance_of(Settings(**beyond)).hosts is None
    named = entrance_of(Settings(**beyond, console_allowed_hosts=("console.example",)))
    assert named.hosts is not None
    assert named.hosts.allows("console.example")
    assert not named.hosts.allows("localhost")
    assert on_loopback.proxies.address("10.0.0.1", ["192.0.2.1"]) == "10.0.0.1"
    behind = entrance_of(Settings(console_trusted_proxies=("10.0.0.0/8",)))
    assert behind.proxies.address("10.0.0.1", ["192.0.2.1"]) == "192.0.2.1"
    with pytest.raises(ConfigurationError, match=r"console_trusted_proxies: '10\.0\.0\.1/8' is no address"):
        entrance_of(Settings(console_trusted_proxies=("10.0.0.1/8",)))
    loaded = load(
        pairs={
            "request_topics": "orders,emails",
            "tenants.orders.events_key": "false",
            "console_tokens_file": str(file),
        },
        environ={},
    )
    found = entrance_of(loaded.settings)
    caller = asyncio.run(found.enter(Shown("10.0.0.1", [f"Bearer {token('a')}"])))
    assert not caller.reads_key("orders")
    assert caller.reads_key("emails")
    assert found.authentication == "tokens"
    fixed = [entrance_of(Settings(console_secret="s" * 32)).secret for _ in range(2)]
    assert fixed[0] == fixed[1]
    assert entrance_of(Settings()).secret != entrance_of(Settings()).secret
