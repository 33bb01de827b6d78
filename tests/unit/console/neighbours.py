"""Two request topics on one console, and callers who see one of them, or both."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import httpx

from delaystream.console.access.caller import Kind, Who
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.limits import Bounds
from delaystream.console.access.token_file import TokenFile
from delaystream.console.access.tokens import digest_of
from delaystream.console.api.application import application
from delaystream.console.audit.acts import DONE, Act, Outcome
from delaystream.console.service import Console
from delaystream.core.identity import split_schedule_id
from delaystream.testing import VirtualTimeLoop
from tests.unit.console.serving import Told, console
from tests.unit.engine import REQUESTS, Engine, carried_out
from tests.unit.tenants import OTHER, other_request, start, tenants

MINE, THEIRS = REQUESTS, OTHER
SECRET = b"s" * 32
MARK = "zebra"
"""Stands in everything that the other topic has: ids, keys, values, destinations, notes."""


def token(name: str) -> str:
    """A token of the right form that is always the same."""
    return f"delaystream_{name:A<43}"


def entry(name: str, roles: dict[str, str], *, payload: bool = False, expires: str = "") -> str:
    """An entry of the file of tokens."""
    granted = ", ".join(f'"{glob}" = "{role}"' for glob, role in roles.items())
    expiry = f"expires = {expires}\n" if expires else ""
    return (
        f'[[tokens]]\nname = "{name}"\nhash = "sha256:{digest_of(token(name)).hex()}"\n{expiry}'
        f"payload = {'true' if payload else 'false'}\nroles = {{ {granted} }}\n"
    )


FILE = "".join(
    [
        entry("all", {"*": "admin"}, payload=True),
        entry("mine", {MINE: "viewer"}, payload=True),
        entry("blind", {MINE: "viewer"}),
        entry("theirs", {"other-*": "viewer"}, payload=True),
        entry("nothing", {"no-such-topic": "admin"}, payload=True),
        entry("late", {"*": "viewer"}, expires="2001-01-01T00:00:00Z"),
    ]
)


async def _theirs(engine: Engine) -> None:
    """Everything that a request topic may have, marked."""
    other_request(
        engine, key=f"{MARK}-key".encode(), id=f"{MARK}-1", destination=f"{MARK}-out", every="10s",
        name=f"{MARK} name", tags=f"shared,{MARK}", actor=f"{MARK}-actor",
    )  # fmt: skip
    other_request(engine, key=b"shared", id="shared", destination="orders", every="10s", tags="shared")
    other_request(engine, key=f"{MARK}-key".encode(), destination=f"{MARK}-out", delay="1h", tags="shared")
    other_request(engine, key=b"shared", destination="orders", delay="2h")
    other_request(engine, id=f"{MARK}-2", destination=f"gone-{MARK}", delay="1s")
    other_request(engine, id=f"{MARK}-3", destination=f"{MARK}-out", delay=f"{MARK}")
    other_request(engine, action="rate", destination=f"{MARK}-out", rate="50", note=f"{MARK}-note")
    other_request(engine, action="pause", match_destination=f"{MARK}*", note=f"{MARK}-hold", match_new="true")


async def _mine(engine: Engine) -> None:
    """The same, without a mark."""
    engine.request(
        b"the value", id="one/two", destination="orders", every="10s", tags="shared", name="of mine",
        foreign=[("correlation-id", b"order-17"), ("secret", b"of a header")],
    )  # fmt: skip
    engine.request(b"the value", key=b"shared", id="shared", destination="orders", cron="0 9 * * *")
    engine.request(b"the value", key=b"shared", destination="orders", delay="1h", tags="shared")
    engine.request(id="three", destination="orders", delay="soon", foreign=[("secret", b"of a header")])
    engine.request(action="rate", destination="orders", rate="500", note="quickly")
    engine.request(action="pause", match_destination="em*", note="maintenance")


def neighbours(*, alone: bool = False) -> Told:
    """What two request topics left behind; ``alone``: nobody asked for anything on the other one."""
    with VirtualTimeLoop() as loop:
        engine = Engine(loop, owner="worker-0", host="host-7")
        for topic in (THEIRS, f"{MARK}-out"):
            engine.log.create_topic(topic, 1)

        async def story() -> None:
            await _mine(engine)
            if not alone:
                await _theirs(engine)
            await asyncio.sleep(65)

        async def happen() -> None:
            start(engine, tenants())
            await carried_out(engine, story())

        loop.run_until_complete(happen())
        return Told(engine.log, engine.clock.now_ms(), 1)


def entrance(of: Told, directory: Path, file: str = FILE, **bounds: Any) -> Entrance:
    """Who is let in."""
    path = directory / "tokens.toml"
    path.write_text(file)
    return Entrance(
        of.clock.now_ms,
        tokens=TokenFile(path),
        bounds=Bounds(**({"failures_per_minute": 1_000} | bounds)),
        secret=SECRET,
        now_s=lambda: of.clock.now_ms() / 1_000,
    )


class Clients:
    """Clients of one console, by the name of their token."""

    def __init__(self, app: Any) -> None:
        self._transport = httpx.ASGITransport(app)

    def __call__(self, name: str | None) -> httpx.AsyncClient:
        """None: without one."""
        headers = {} if name is None else {"Authorization": f"Bearer {token(name)}"}
        return httpx.AsyncClient(transport=self._transport, base_url="http://console", headers=headers)


@asynccontextmanager
async def asked(of: Told, directory: Path, through: Entrance | None = None) -> AsyncIterator[Clients]:
    """A console with tokens, served in the process."""
    through = through or entrance(of, directory)
    async with console(of, directory) as made:
        _audited(made)
        yield Clients(application(made, through))


def _audited(made: Console) -> None:
    """What was done on the other request topic, in the audit log."""
    assert made.audit is not None
    who = Who(name=f"{MARK}-operator", kind=Kind.TOKEN)
    act = Act(who=who, action="cancel", request_topic=THEIRS, about=f"{MARK}-1", note=f"{MARK}-why")
    made.audit.record(act, Outcome(DONE, source=coordinates_of(THEIRS, 0)))


def coordinates_of(topic: str, offset: int) -> str:
    """Of a request on the first partition."""
    found = f"{topic}/0/{offset}"
    assert split_schedule_id(found) is not None
    return found
