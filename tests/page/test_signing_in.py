"""Somebody signs in with a provider of identities, in a real browser; what they did is theirs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from playwright.sync_api import Route, expect

from tests.integration.harness_console import ConsoleProcess
from tests.integration.harness_provider import identities
from tests.page.conftest import MODES, Look
from tests.page.shopping import Acted
from tests.page.test_doing import FAR, press, told

SUBJECT = "mia@example.com"
MIA = {"sub": SUBJECT, "preferred_username": "mia", "groups": ["platform"]}


LONGER = "link => { link.textContent += '/realms/of-a-company-with-a-very-long-name'; }"


@pytest.fixture
def guarded(acting: Acted, tmp_path: Path) -> Iterator[Acted]:
    """A second console of the same application, which asks people who they are."""
    tokens = tmp_path / "tokens.toml"
    tokens.write_text("")
    with identities(MIA) as issuer:
        console = ConsoleProcess(
            acting.app,
            tmp_path / "console",
            DELAYSTREAM_CONSOLE_TOKENS_FILE=str(tokens),
            DELAYSTREAM_CONSOLE_OIDC_ISSUER=issuer,
            DELAYSTREAM_CONSOLE_OIDC_CLIENT_ID="console",
            DELAYSTREAM_CONSOLE_OIDC_CLIENT_SECRET="of-the-client",
            DELAYSTREAM_CONSOLE_OIDC_ROLES="admin:*=platform",
        )
        try:
            yield replace(acting, url=console.wait_ready())
        finally:
            assert console.terminate() == 0, console.output


def away(route: Route) -> None:
    """Nothing is fetched from the internet: the provider's page would like to."""
    route.abort()


def test_somebody_signs_in_acts_and_signs_out(look: Look, acting: Acted, guarded: Acted) -> None:
    acting.make("page/signed", destination=acting.app.destination("signed"), cron=FAR, value="v")
    for mode in MODES:
        with look(guarded, mode) as looked:
            page = looked.open("/schedules")
            expect(page.locator("h1")).to_have_text("Sign in")
            assert looked.violations() == [], mode.name
            # Providers have longer names than that of this test.
            page.get_by_role("link", name="Sign in with").evaluate(LONGER)
            assert looked.overflow() <= 0, mode.name
    with look(guarded) as looked:
        page = looked.open("/schedules/page%2Fsigned")
        page.context.route(lambda url: "127.0.0.1" not in url, away)
        page.get_by_label("Token").fill("delaystream_nobody")
        page.get_by_role("button", name="Sign in").click()
        expect(page.get_by_role("alert")).to_be_visible()
        assert looked.violations() == []
        page.get_by_role("link", name="Sign in with").click()
        page.get_by_placeholder("sub").fill(SUBJECT)
        page.get_by_role("button", name="Authorize").click()
        # To where they wanted to go.
        expect(page.locator("h1")).to_contain_text("page/signed")
        expect(page.locator(".bottom")).to_contain_text("You are mia")
        # What the provider's page asked for in vain, and the answer 401.
        looked.troubles.clear()
        press(page, "Pause")
        page.get_by_label("Why").fill("a test")
        press(page, "Pause it")
        told(page, "Paused.")
        (sent,) = acting.commands(action="pause", id="page/signed")
        assert sent.header("delaystream-actor") == b"mia"
        looked.open("/audit?name=mia")
        row = page.locator("tbody tr", has_text="pause").first
        expect(row).to_contain_text("paused")
        expect(row).to_contain_text(SUBJECT)
        press(page, "Sign out")
        expect(page.locator("h1")).to_have_text("Sign in")
        expect(looked.open("/audit").locator("h1")).to_have_text("Sign in")
    for mode in MODES:
        with look(acting, mode) as looked:
            looked.open("/audit")
            assert looked.violations() == [], mode.name
            assert looked.overflow() <= 0, mode.name
