"""Tokens, the file that says what they may, and what that comes to."""

from __future__ import annotations

import asyncio
import os
import threading
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path

import pytest

from delaystream.console.access import token_file, tokens
from delaystream.console.access.caller import ANYBODY, ITSELF, STRANGER, Caller, Exceptions, Grant, Role
from delaystream.console.access.token_file import TokenFile
from delaystream.console.access.tokens import TokensError, digest_of, entry_text, new_token, parse
from tests.unit.console.neighbours import entry, token

NOW_MS = 1_700_000_000_000


def test_a_token_is_found_by_its_hash_alone() -> None:
    made = new_token()
    text = entry_text(made, "ops", {"*": Role.ADMIN}, payload=True, expires=None)
    assert made not in text
    assert made.removeprefix("delaystream_") not in text
    found = parse(text.encode()).find(made)
    assert found is not None
    assert (found.caller.name, found.caller.payload) == ("ops", True)
    assert found.caller.may(Role.ADMIN, "orders")
    assert parse(text.encode()).find(new_token()) is None


def test_no_two_tokens_are_the_same_and_each_has_256_random_bits() -> None:
    made = {new_token() for _ in range(100)}
    assert len(made) == 100
    assert {len(one) for one in made} == {len("delaystream_") + 43}


@pytest.mark.parametrize(
    "chosen", ["", "password", "delaystream_short", "A" * 43, f"{token('a')}A", "\udcff"]
)
def test_what_a_person_chose_is_no_token(chosen: str) -> None:
    """Whatever hash somebody has put into the file: a fast hash is right for random tokens alone."""
    text = entry("a", {"*": "viewer"}).replace(digest_of(token("a")).hex(), digest_of(chosen).hex())
    assert parse(text.encode()).find(chosen) is None


def test_a_token_ends_when_it_expires() -> None:
    text = entry_text(
        token("a"),
        "a",
        {"*": Role.VIEWER},
        payload=False,
        expires=datetime.fromtimestamp(NOW_MS / 1_000, UTC),
    )
    read = parse(text.encode())
    (only,) = read.entries
    assert not only.expired(NOW_MS - 1)
    assert only.expired(NOW_MS)
    assert read.stands(only.caller, NOW_MS - 1)
    assert not read.stands(only.caller, NOW_MS)


def test_two_tokens_of_one_name_are_told_apart() -> None:
    """While one takes the place of the other both hold; what began with the first ends with it."""
    first, second = (
        entry("a", {"*": "viewer"}),
        entry("a", {"*": "viewer"}).replace(digest_of(token("a")).hex(), digest_of(token("b")).hex()),
    )
    both = parse((first + second).encode())
    found = both.find(token("a")), both.find(token("b"))
    assert found[0] is not None
    assert found[1] is not None
    assert found[0].caller.name == found[1].caller.name
    assert not parse(second.encode()).stands(found[0].caller, NOW_MS)


GOOD = entry("a", {"*": "viewer"})
WRONG = [
    ("[[tokens]", "is not TOML: a fault at line 1"),
    ("tokens = 1", "expected [[tokens]]"),
    ("tokens = [1]", "expected [[tokens]]"),
    ("[other]\n", "there is no 'other' in it"),
    (GOOD.replace('name = "a"\n', ""), "token 1 (without a name): name is None: expected 1 to 64"),
    (GOOD.replace('"a"', '"a b"'), "name is 'a b'"),
    (GOOD.replace('"a"', f'"{"a" * 65}"'), "expected 1 to 64"),
    (GOOD.replace("sha256:", ""), "hash is not 'sha256:'"),
    (GOOD.replace("payload = false", 'payload = "yes"'), "payload is 'yes': expected true or false"),
    (GOOD.replace("payload = false", "payloads = true"), "no field 'payloads'. Did you mean payload?"),
    (
        GOOD.replace("payload = false", "expires = 2030-01-01"),
        "expires is '2030-01-01': expected a time with",
    ),
    (GOOD.replace("payload = false", "expires = 2030-01-01T00:00:00"), "expected a time with an offset"),
    (GOOD.replace('"viewer"', '"root"'), "its role on '*' is 'root': expected viewer, operator, admin"),
    (GOOD.replace('"viewer"', "7"), "is 7: expected viewer"),
    (GOOD.replace('{ "*" = "viewer" }', "{}"), "it has no roles"),
    (GOOD.replace('"*" =', f'"{"*" * 250}" ='), "has 250 characters"),
    (GOOD.replace('"*" =', '"" ='), "has 0 characters"),
    (GOOD + GOOD, "token 2 (a): another entry has the same hash"),
]


@pytest.mark.parametrize(("text", "sentence"), WRONG)
def test_a_fault_in_the_file_is_a_sentence(text: str, sentence: str) -> None:
    """With the entry and the field; and never with what may be a token."""
    with pytest.raises(TokensError) as refused:
        parse(text.encode())
    assert sentence in str(refused.value)
    assert digest_of(token("a")).hex() not in str(refused.value)


def test_a_token_in_place_of_its_hash_is_not_told() -> None:
    for text in (
        GOOD.replace(f"sha256:{digest_of(token('a')).hex()}", token("a")),
        f'[[tokens]]\nhash = "{token("a")}\n',
        f"{token('a')}\n",
    ):
        with pytest.raises(TokensError) as refused:
            parse(text.encode())
        assert token("a") not in str(refused.value)


def test_the_file_is_bounded() -> None:
    for content in (
        b"#" * (tokens.MOST_BYTES + 1),
        b"[[tokens]]\n" * (tokens.MOST_TOKENS + 1),
        b"\xff",
        b"a = " + b"[" * 100_000,
        entry("a", {f"t{number}": "viewer" for number in range(101)}).encode(),
    ):
        with pytest.raises(TokensError):
            parse(content)
    with pytest.raises(TokensError) as refused:
        parse(b"[[tokens]]\n" * tokens.MOST_TOKENS)
    assert len(refused.value.problems) == 10


# -- what a caller may -----------------------------------------------------------------------------


def caller(*grants: tuple[str, Role], **rights: object) -> Caller:
    return Caller(name="a", grants=tuple(Grant(*grant) for grant in grants), **rights)  # type: ignore[arg-type]


def test_each_role_includes_those_below_it() -> None:
    for held, may in (
        (Role.VIEWER, [True, False, False]),
        (Role.OPERATOR, [True, True, False]),
        (Role.ADMIN, [True, True, True]),
    ):
        assert [caller(("orders", held)).may(role, "orders") for role in Role] == may


def test_the_highest_grant_that_matches_counts_in_whatever_order() -> None:
    grants = [("*", Role.VIEWER), ("orders-*", Role.OPERATOR), ("orders-eu", Role.ADMIN)]
    for order in (grants, grants[::-1]):
        found = caller(*order)
        assert found.may(Role.ADMIN, "orders-eu")
        assert not found.may(Role.ADMIN, "orders-us")
        assert found.may(Role.OPERATOR, "orders-us")
        assert not found.may(Role.OPERATOR, "emails")
        assert found.may(Role.VIEWER, "emails")


def test_what_belongs_to_no_request_topic_is_for_who_has_all_of_them() -> None:
    """A glob that happens to match all topics of today is none for those of tomorrow."""
    assert caller(("*", Role.VIEWER)).sees(None)
    for glob in ("?*", "**", "orders"):
        assert not caller((glob, Role.VIEWER)).sees(None)
        assert caller((glob, Role.VIEWER)).sees("orders")
    assert not caller(("ORDERS", Role.VIEWER)).sees("orders")


def test_a_role_for_writing_is_no_right_to_all_topics() -> None:
    found = caller(("*", Role.VIEWER), ("orders", Role.OPERATOR))
    assert found.may_everywhere(Role.VIEWER)
    assert not found.may_everywhere(Role.OPERATOR)


def test_keys_that_a_tenant_hides_need_the_right_to_payloads() -> None:
    hidden = Exceptions(but=frozenset({"orders"}))
    everywhere = Exceptions(by_default=True, but=frozenset({"emails"}))
    for rights, topic, reads in (
        ({}, "orders", True),
        ({"hidden_keys": hidden}, "orders", False),
        ({"hidden_keys": hidden}, "emails", True),
        ({"hidden_keys": everywhere}, "orders", False),
        ({"hidden_keys": everywhere}, "emails", True),
        ({"hidden_keys": everywhere, "payload": True}, "orders", True),
    ):
        assert caller(("*", Role.VIEWER), **rights).reads_key(topic) is reads, (rights, topic)
    assert not caller(payload=True).reads_key("orders")
    assert not caller(payload=True).reads_payload("orders")


def test_a_stranger_may_nothing_and_anybody_everything() -> None:
    assert not any(STRANGER.may(role, topic) for role in Role for topic in (None, "orders"))
    assert all(
        one.may(role, topic) for one in (ANYBODY, ITSELF) for role in Role for topic in (None, "orders")
    )
    assert not ANYBODY.authenticated


# -- the file, read again --------------------------------------------------------------------------


def _in_place(path: Path, text: str) -> None:
    path.write_text(text)


def _replaced(path: Path, text: str) -> None:
    beside = path.with_suffix(".new")
    beside.write_text(text)
    beside.replace(path)


def _mounted(path: Path, text: str) -> None:
    """As Kubernetes does it: a link to a link to a directory that is replaced at once."""
    directory = path.parent
    generation = directory / f"..{len(list(directory.iterdir()))}"
    generation.mkdir()
    (generation / path.name).write_text(text)
    link = directory / "..data_tmp"
    link.symlink_to(generation.name)
    link.replace(directory / "..data")
    if not path.is_symlink():
        path.unlink(missing_ok=True)
        path.symlink_to(f"..data/{path.name}")


WAYS: list[Callable[[Path, str], None]] = [_in_place, _replaced, _mounted]


@pytest.mark.parametrize("write", WAYS)
def test_a_file_that_changes_is_in_force_whichever_way_it_does(
    write: Callable[[Path, str], None], tmp_path: Path
) -> None:
    """Also one of the same length, within the same tick of the file system's clock."""
    path = tmp_path / "tokens.toml"
    write(path, entry("a", {"*": "viewer"}))
    found = TokenFile(path)
    times = os.stat(path)
    write(path, entry("b", {"*": "viewer"}))
    os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert found.tokens.find(token("a")) is not None
    found.look()
    assert found.tokens.find(token("a")) is None
    assert found.tokens.find(token("b")) is not None
    assert found.problem is None


@pytest.mark.parametrize("broken", ["[[tokens]", "x" * (tokens.MOST_BYTES + 2), None])
def test_a_broken_file_leaves_the_tokens_before_in_force_and_is_told_once(
    broken: str | None, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "tokens.toml"
    path.write_text(entry("a", {"*": "viewer"}))
    found = TokenFile(path)
    path.unlink() if broken is None else path.write_text(broken)
    for _ in range(3):
        found.look()
    assert found.tokens.find(token("a")) is not None
    assert found.problem is not None
    assert len(caplog.records) == 1
    assert "the previous tokens stay in force" in caplog.text
    path.write_text(entry("a", {"*": "viewer"}))
    found.look()
    assert found.problem is None
    path.write_text("")
    found.look()
    # Nobody has a token any more: that is no fault.
    assert (found.tokens.entries, found.problem) == ((), None)


def test_a_file_that_is_broken_at_the_start_is_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "none", tmp_path, tmp_path / "\0", tmp_path / "wrong"):
        if path.name == "wrong":
            path.write_text("x")
        with pytest.raises(TokensError):
            TokenFile(path)


def test_the_file_is_looked_at_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(token_file, "LOOK_EVERY_S", 0.0)
    path = tmp_path / "tokens.toml"
    path.write_text(entry("a", {"*": "viewer"}))
    found = TokenFile(path)
    looked = threading.Event()
    monkeypatch.setattr(found, "look", looked.set)

    async def running() -> None:
        looking = asyncio.create_task(found.run())
        assert await asyncio.to_thread(looked.wait, 30)
        looking.cancel()

    asyncio.run(running())
