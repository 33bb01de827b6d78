"""A real browser, and consoles for it to look at."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Literal

import pytest
from playwright.sync_api import Browser, Page, sync_playwright

from tests.page import world
from tests.page.serving import Served, served
from tests.page.shopping import Acted, acted

ROOT = Path(__file__).resolve().parents[2]
sys.path.insert(0, str(ROOT / "scripts"))
AXE = ROOT / "tests" / "page" / "vendored" / "axe-core-4.14.1.min.js"
PICTURES = ROOT / "docs" / "screenshots"
#: The pictures of the docs are made by the tests that look at the pages, when they are asked to.
PICTURED = bool(os.environ.get("DELAYSTREAM_TEST_SCREENSHOTS"))
#: What the content security policy stopped, as the browser tells the page.
_WATCH = """
window.stopped = [];
document.addEventListener("securitypolicyviolation", (event) => {
  window.stopped.push(`${event.violatedDirective}: ${event.blockedURI} ${event.sample}`);
});
"""


Scheme = Literal["light", "dark"]
SCHEMES: tuple[Scheme, ...] = ("light", "dark")


@dataclass(frozen=True)
class Mode:
    """How somebody looks."""

    scheme: Scheme
    width: int
    scripted: bool = True

    @property
    def name(self) -> str:
        return f"{self.scheme}-{self.width}"


MODES = [Mode(scheme, width) for width in (1280, 390) for scheme in SCHEMES]


@dataclass
class Looked:
    """One page of a browser, and what went wrong while it was looked at."""

    page: Page
    console: Served | Acted
    troubles: list[str] = field(default_factory=list)

    def open(self, path: str, status: int = 200) -> Page:
        """Open a path of the console."""
        answer = self.page.goto(self.console.url + path)
        assert answer is not None
        assert answer.status == status, path
        return self.page

    def stopped(self) -> list[str]:
        """What the content security policy stopped."""
        found: list[str] = self.page.evaluate("window.stopped")
        return found

    def violations(self) -> list[str]:
        """Of the rules of axe, each with the first element that breaks it."""
        self.page.evaluate(AXE.read_text("utf-8"))
        found = self.page.evaluate("axe.run(document, {resultTypes: ['violations']})")
        return [
            f"{one['id']}: {json.dumps(one['nodes'][0]['target'])} {one['help']}"
            for one in found["violations"]
        ]

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        wider: int = self.page.evaluate("document.documentElement.scrollWidth - window.innerWidth")
        return wider


Look = Callable[..., Any]


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    from deploy_tools import ToolMissing, tool

    try:
        program = tool("chromium")
    except ToolMissing as missing:
        pytest.fail(str(missing))
    with sync_playwright() as playwright:
        # The sandbox needs rights that containers and CI do not give; the pages are our own.
        yield playwright.chromium.launch(executable_path=program, args=["--no-sandbox"])


@pytest.fixture(scope="session")
def shop(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(world.shop, tmp_path_factory.mktemp("shop"), world.APPEARANCE) as console:
        yield console


@pytest.fixture(scope="session")
def calm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(world.calm, tmp_path_factory.mktemp("calm"), world.APPEARANCE) as console:
        yield console


@pytest.fixture(scope="session")
def hostile(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(world.hostile, tmp_path_factory.mktemp("hostile"), world.APPEARANCE) as console:
        yield console


@pytest.fixture(scope="session")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    with served(world.empty, tmp_path_factory.mktemp("empty"), world.APPEARANCE) as console:
        yield console


@pytest.fixture(scope="session")
def watched(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Served]:
    """One on which tests have things happen."""
    with served(world.calm, tmp_path_factory.mktemp("watched"), world.APPEARANCE) as console:
        yield console


@pytest.fixture(scope="session")
def acting(kafka: str, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Acted]:
    """A console that acts on a real broker, with a real worker."""
    with acted(kafka, tmp_path_factory.mktemp("acting")) as console:
        yield console


@pytest.fixture
def look(browser: Browser) -> Look:
    """A window on a console. Whatever the browser complains of fails the test at the end."""

    @contextmanager
    def looking(
        console: Served | Acted, mode: Mode = MODES[0], *, may_miss: bool = False
    ) -> Iterator[Looked]:
        context = browser.new_context(
            viewport={"width": mode.width, "height": 800 if mode.width > 600 else 844},
            color_scheme=mode.scheme,
            timezone_id="Europe/Berlin",
            locale="en-GB",
            java_script_enabled=mode.scripted,
        )
        context.set_default_timeout(20_000)
        context.add_init_script(_WATCH)
        page = context.new_page()
        looked = Looked(page, console)

        def complained(text: str) -> None:
            if not (may_miss and "404" in text):
                looked.troubles.append(text)

        page.on(
            "console",
            lambda message: complained(message.text) if message.type in {"error", "warning"} else None,
        )
        page.on("pageerror", lambda error: looked.troubles.append(str(error)))
        page.on("dialog", lambda dialog: looked.troubles.append(f"a dialog: {dialog.message}"))
        if mode.scripted:
            # The console's time stands still where its story ended, so the reader's does.
            page.clock.set_fixed_time(datetime.fromtimestamp(console.of.clock.now_ms() / 1000, UTC))
        try:
            yield looked
            if mode.scripted:
                assert looked.stopped() == []
            assert looked.troubles == []
        finally:
            context.close()

    return looking
