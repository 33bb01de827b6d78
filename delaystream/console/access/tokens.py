"""Bearer tokens: how they look, and the file that says what each may. Pure.

The file is TOML, as the settings are. It has hashes alone, so that whoever reads it cannot ask anything::

    [[tokens]]
    name = "ops"
    hash = "sha256:..."
    expires = 2031-01-01T00:00:00Z
    payload = true
    roles = { "*" = "viewer", "orders-*" = "operator" }

The hash is a plain SHA-256. A slow one (scrypt, Argon2) makes each guess at what a person has chosen dear;
a token is made of 256 random bits, and no guessing gets there however cheap a guess is. A slow hash would
only cost each request, also those of whoever wants to keep a console busy. So that nobody can put a password
in place of a token, nothing is taken for a token that does not look like one.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterator, Mapping
from datetime import datetime
from hashlib import sha256
from hmac import compare_digest
from secrets import token_urlsafe
from typing import Any, Final

import msgspec
from msgspec.structs import replace

from delaystream.config.errors import suggestion
from delaystream.console.access.caller import NONE, Caller, Exceptions, Grant, Role
from delaystream.core.globs import MOST_CHARACTERS

MOST_BYTES: Final = 1 << 20
"""Largest file."""
MOST_TOKENS: Final = 1_000
MOST_GRANTS: Final = 100
"""Of one token."""

_PREFIX: Final = "delaystream_"
_RANDOM_BYTES: Final = 32
_TOKEN: Final = re.compile(_PREFIX + r"[A-Za-z0-9_-]{43}", re.ASCII)
_HASH: Final = re.compile(r"sha256:([0-9a-f]{64})", re.ASCII)
_NAME: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._@-]{0,63}", re.ASCII)
_FIELDS: Final = ("name", "hash", "expires", "payload", "roles")
_TOLD: Final = 10


class TokensError(Exception):
    """A file of tokens is not as it should be; `problems` has a sentence for each fault, ten at most."""

    def __init__(self, problems: list[str]) -> None:
        self.problems = problems[:_TOLD]
        super().__init__(" ".join(self.problems))


class Entry(msgspec.Struct, frozen=True):
    """One token, by its hash."""

    digest: bytes
    caller: Caller
    #: from when on it is not taken any more, ms; None: never
    expires_ms: int | None = None

    def expired(self, now_ms: int) -> bool:
        """Whether its time is over."""
        return self.expires_ms is not None and now_ms >= self.expires_ms


class Tokens(msgspec.Struct, frozen=True):
    """Every token of a file."""

    entries: tuple[Entry, ...] = ()

    def find(self, token: str) -> Entry | None:
        """The entry of a token, expired or not; None where there is none.

        It takes the same time whichever entry it is, and whether there is one.
        """
        digest = digest_of(token)
        found = None
        for entry in self.entries:
            if compare_digest(entry.digest, digest):
                found = entry
        return found if _TOKEN.fullmatch(token) else None

    def stands(self, caller: Caller, now_ms: int) -> bool:
        """Whether a caller would still be let in, and be the same."""
        caller = replace(caller, address="", session="", expires_ms=None)
        return any(entry.caller == caller and not entry.expired(now_ms) for entry in self.entries)


def new_token() -> str:
    """A token that nobody has: 256 random bits. The prefix lets scanners of repositories find it."""
    return _PREFIX + token_urlsafe(_RANDOM_BYTES)


def digest_of(token: str) -> bytes:
    """The stored hash of a token."""
    return sha256(token.encode("utf-8", "surrogateescape")).digest()


def entry_text(
    token: str, name: str, roles: Mapping[str, Role], *, payload: bool, expires: datetime | None
) -> str:
    """The entry of a token, as it stands in the file. Raises TokensError."""
    granted = ", ".join(f"{_quoted(glob)} = {_quoted(role.value)}" for glob, role in roles.items())
    lines = [
        "[[tokens]]",
        f"name = {_quoted(name)}",
        f'hash = "sha256:{digest_of(token).hex()}"',
        *([] if expires is None else [f"expires = {expires.isoformat()}"]),
        f"payload = {'true' if payload else 'false'}",
        f"roles = {{ {granted} }}",
    ]
    text = "\n".join(lines) + "\n"
    parse(text.encode())
    return text


def _quoted(text: str) -> str:
    """A basic string of TOML: JSON's escapes are among its own."""
    return msgspec.json.encode(text).decode().replace("\x7f", "\\u007f")


def parse(content: bytes, hidden_keys: Exceptions = NONE) -> Tokens:
    """The tokens of a file. Raises TokensError.

    ``hidden_keys`` are the request topics whose keys need the right to payloads. No sentence of an error has
    a hash in it, nor what stands in its place: that may be a token.
    """
    if len(content) > MOST_BYTES:
        raise TokensError([f"it has {len(content)} bytes: expected {MOST_BYTES} at most."])
    try:
        read = tomllib.loads(content.decode())
    except UnicodeDecodeError:
        raise TokensError(["it is not UTF-8."]) from None
    except (tomllib.TOMLDecodeError, RecursionError, ValueError) as error:
        # The sentence quotes positions of the content, and at most single characters.
        raise TokensError([f"it is not TOML: {_where(error)}."]) from None
    tables = read.pop("tokens", [])
    problems = [f"there is no {name!r} in it: expected [[tokens]] alone." for name in read]
    if not isinstance(tables, list) or not all(isinstance(table, dict) for table in tables):
        raise TokensError(["tokens is not a list of tables: expected [[tokens]] before each."])
    if len(tables) > MOST_TOKENS:
        raise TokensError([f"it has {len(tables)} tokens: expected {MOST_TOKENS} at most."])
    entries: list[Entry] = []
    known: set[bytes] = set()
    for number, table in enumerate(tables, 1):
        wrong = list(_wrong(table))
        if not wrong:
            entry = _entry(table, hidden_keys)
            if entry.digest in known:
                wrong.append("another entry has the same hash: each token has one entry.")
            known.add(entry.digest)
            entries.append(entry)
        problems += [f"token {number} ({_shown(table)}): {sentence}" for sentence in wrong]
    if problems:
        raise TokensError(problems)
    return Tokens(tuple(entries))


def _where(error: Exception) -> str:
    found = re.search(r"line \d+, column \d+", str(error))
    return f"a fault at {found[0]}" if found else "it cannot be read"


def _shown(table: Mapping[str, Any]) -> str:
    name = table.get("name")
    return name if isinstance(name, str) and _NAME.fullmatch(name) else "without a name"


def _wrong(table: Mapping[str, Any]) -> Iterator[str]:
    """The faults of an entry, as sentences."""
    for field in table:
        if field not in _FIELDS:
            yield f"it has no field {field!r}.{suggestion(field, _FIELDS)}"
    name = table.get("name")
    if not isinstance(name, str) or _NAME.fullmatch(name) is None:
        yield f"name is {name!r}: expected 1 to 64 letters, digits, '.', '_', '@' or '-'."
    digest = table.get("hash")
    if not isinstance(digest, str) or _HASH.fullmatch(digest) is None:
        yield "hash is not 'sha256:' and 64 hexadecimal digits: `delaystream console token` prints it."
    expires = table.get("expires")
    if expires is not None and (not isinstance(expires, datetime) or expires.tzinfo is None):
        yield f"expires is {str(expires)!r}: expected a time with an offset, such as 2031-01-01T00:00:00Z."
    if not isinstance(table.get("payload", False), bool):
        yield f"payload is {table['payload']!r}: expected true or false."
    yield from _wrong_roles(table.get("roles"))


def _wrong_roles(roles: object) -> Iterator[str]:
    if not isinstance(roles, dict) or not roles:
        yield 'it has no roles: expected for example roles = { "*" = "viewer" }.'
        return
    if len(roles) > MOST_GRANTS:
        yield f"it has roles on {len(roles)} globs: expected {MOST_GRANTS} at most."
    for glob, role in roles.items():
        if not 0 < len(glob) <= MOST_CHARACTERS:
            yield f"a glob of request topics has {len(glob)} characters: expected 1 to {MOST_CHARACTERS}."
        if role not in list(Role):
            yield f"its role on {glob!r} is {role!r}: expected {', '.join(Role)}."


def _entry(table: Mapping[str, Any], hidden_keys: Exceptions) -> Entry:
    digest = bytes.fromhex(table["hash"].removeprefix("sha256:"))
    expires = table.get("expires")
    return Entry(
        digest,
        Caller(
            name=table["name"],
            grants=tuple(Grant(glob, Role(role)) for glob, role in table["roles"].items()),
            payload=table.get("payload", False),
            credential=digest[:4].hex(),
            hidden_keys=hidden_keys,
        ),
        None if expires is None else int(expires.timestamp() * 1_000),
    )
