"""Somebody signs in with a provider of identities that runs on its own, by nothing but HTTP."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from delaystream.console.access.caller import Kind
from delaystream.console.access.claims import Claims, parse_grant
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.hosts import Hosts
from delaystream.console.access.sessions import Cookies
from delaystream.console.audit.acts import EntryFilter
from delaystream.console.signing.provider import Provider, Registration
from delaystream.console.signing.service import Identities, Signing
from delaystream.console.signing.sessions import StoredSessions
from tests.integration.harness_provider import identities
from tests.unit.console.writable import HOST, World, in_world

USER = {"sub": "mia@example.com", "preferred_username": "mia", "groups": ["support"]}


@pytest.fixture
def provider() -> Iterator[str]:
    """Where it answers."""
    with identities(USER) as url:
        yield url


def test_the_whole_way(provider: str, tmp_path: Path) -> None:
    """To the provider, through its form, back, and in; and while it is gone."""
    now_ms = round(time.time() * 1_000)
    through = Entrance(lambda: now_ms, hosts=Hosts())
    through.cookies = Cookies(secure=False)
    through.claims = Claims(issuer=provider, grants=(parse_grant("operator:*=support"),))

    async def story(world: World) -> None:
        audit = world.console.audit
        assert audit is not None
        assert through.claims is not None
        known = Registration(issuer=provider, client_id="console", client_secret="of the client")
        identities = Identities(Provider(known, time.time), through.claims)
        through.sessions = StoredSessions(audit.database, lambda: now_ms)
        world.console.signing = Signing(through.sessions, audit, through, identities)
        sent = await world.ask.get("/schedules", headers={"Accept": "text/html"})
        assert "Sign in with" in (await world.ask.get(sent.headers["location"])).text
        there = await world.ask.get("/sign-in/provider", params={"to": "/schedules"})
        assert there.headers["location"].startswith(f"{provider}/oauth2/authorize?")
        async with httpx.AsyncClient() as browser:
            assert "Authorize" in (await browser.get(there.headers["location"])).text
            allowed = await browser.post(there.headers["location"], data={"sub": USER["sub"]})
            assert allowed.headers["location"].startswith(f"{HOST}/sign-in/callback?code=")
            back = await world.ask.get(allowed.headers["location"])
            assert (back.status_code, back.headers["location"]) == (303, "/schedules"), back.text
            assert "You are mia" in (await world.ask.get("/schedules")).text
            body = {"destination": "out", "cron": "0 9 * * *", "value": "x"}
            headers = {"Content-Type": "application/json", "Origin": HOST, "Prefer": "wait=60"}
            made = await world.ask.put("/v1/schedules/x", json=body, headers=headers)
            assert (made.status_code, made.json()["schedule"]["created_by"]) == (201, "mia"), made.text
            entries = audit.page(EntryFilter(name="mia"), 9)
            assert [one.act.action for one in entries] == ["schedule", "sign-in"]
            who = entries[0].act.who
            assert (who.kind, who.subject, who.issuer) == (Kind.OIDC, USER["sub"], provider)
            # This provider forgets the state when it refuses somebody: nothing without it is believed.
            there = await world.ask.get("/sign-in/provider")
            denied = await browser.post(there.headers["location"], data={"action": "deny"})
            refused = await world.ask.get(denied.headers["location"])
            assert refused.status_code == 401
            assert "unknown-sign-in" in refused.text
        identities.close()

    in_world(tmp_path, story, entrance=through)
