"""Every page in a real browser: for all eyes, on all screens, without a complaint of the browser."""

from __future__ import annotations

from typing import get_args

import pytest

from delaystream.config.console_settings import ConsoleSettings
from tests.page.conftest import MODES, PICTURED, PICTURES, SCHEMES, Look, Mode, Scheme
from tests.page.serving import Served

SHOP = {
    "overview": "/",
    "schedules": "/schedules",
    "schedule": "/schedules/daily-order-report?payload=true",
    "late-schedule": "/schedules/billing-retry%2F1003",
    "paused-schedule": "/schedules/newsletter",
    "one-time-schedule": "/schedules/welcome-1004",
    "filtered": "/schedules?tag=dunning&status=all&sort=last",
    "no-match": "/schedules?q=nothing-of-this-name",
    "pending": "/pending",
    "agenda": "/agenda",
    "events": "/live",
    "dead-letters": "/dead-letters",
    "letter": "/dead-letters/0.0?payload=true",
    "repair": "/dead-letters/0.0/redrive?payload=true",
    "discard": "/dead-letters/0.0/discard",
    "destinations": "/destinations",
    "holds": "/holds",
    "send-now": "/schedules/daily-order-report/trigger",
    "new": "/new?like=daily-order-report",
    "hold": "/holds/new?key=customer-1004",
    "partitions": "/partitions",
    "settings": "/settings",
    "audit": "/audit",
    "where": "/where?q=customer-1004",
    "where-nothing": "/where?q=customer-9999",
    "where-how": "/where",
}
PROBLEMS = {
    "unknown": ("/schedules/nope", 404),
    "bad-time": ("/agenda?from=tomorrow", 400),
    "bad-cursor": ("/pending?cursor=x", 400),
}
#: Pages of which the docs show a picture, and how it was looked at.
SHOWN = {
    ("overview", "light-1280"),
    ("overview", "dark-1280"),
    ("overview", "light-390"),
    ("late-schedule", "light-1280"),
    ("agenda", "dark-1280"),
    ("where", "light-1280"),
    ("dead-letters", "light-1280"),
}


def check(look: Look, console: Served, name: str, path: str, status: int = 200) -> None:
    for mode in MODES:
        with look(console, mode, may_miss=status == 404) as looked:
            looked.open(path, status)
            if name == "new":
                # It comes by script.
                looked.page.locator("#preview tbody tr").first.wait_for()
            assert looked.violations() == [], mode.name
            assert looked.overflow() <= 0, mode.name
            if PICTURED and (name, mode.name) in SHOWN:
                PICTURES.mkdir(exist_ok=True)
                looked.page.screenshot(path=str(PICTURES / f"{name}-{mode.name}.png"))


@pytest.mark.parametrize(("name", "path"), SHOP.items(), ids=SHOP)
def test_a_page_of_a_shop(look: Look, shop: Served, name: str, path: str) -> None:
    check(look, shop, name, path)


@pytest.mark.parametrize("name", PROBLEMS)
def test_a_problem_is_a_page_that_says_what_to_try(look: Look, shop: Served, name: str) -> None:
    path, status = PROBLEMS[name]
    if status == 400:
        # The browser tells of it as of any file that it could not load.
        with look(shop) as looked:
            answer = looked.page.goto(shop.url + path)
            assert answer is not None
            assert answer.status == status
            assert looked.page.locator(".problem").is_visible()
            assert looked.violations() == []
            looked.troubles.clear()
        return
    check(look, shop, name, path, status)


def test_when_all_is_well_it_says_so(look: Look, calm: Served) -> None:
    check(look, calm, "calm", "/")
    with look(calm) as looked:
        verdict = looked.open("/").locator(".verdict")
        assert verdict.locator("h2").inner_text() == "On time"
        assert "100 % of" in verdict.inner_text()
        assert "Nothing does" in looked.page.locator("#main").inner_text()


def test_the_first_page_of_all_shows_how_to_begin(look: Look, empty: Served) -> None:
    check(look, empty, "empty", "/")
    with look(empty) as looked:
        page = looked.open("/")
        assert page.locator(".snippet").count() == 3
        assert "kafka-1.example.com:9092" in page.locator(".snippet code").first.inner_text()


@pytest.mark.parametrize(("name", "path"), SHOP.items(), ids=SHOP)
def test_everything_can_be_read_without_script(look: Look, shop: Served, name: str, path: str) -> None:
    with look(shop, Mode("light", 1280, scripted=False)) as looked:
        page = looked.open(path)
        assert page.locator("h1").count() == 1
        assert page.locator("[data-action]:visible").count() == 0
        for text in page.locator("time").all_inner_texts():
            assert text, name


@pytest.mark.parametrize("scheme", SCHEMES)
def test_every_colour_of_an_environment_can_be_read(look: Look, calm: Served, scheme: Scheme) -> None:
    with look(calm, Mode(scheme, 1280)) as looked:
        page = looked.open("/partitions")
        for color in get_args(ConsoleSettings.model_fields["console_environment_color"].annotation):
            page.evaluate("color => { document.body.className = `environment-${color}`; }", color)
            assert looked.violations() == [], color


def test_pictures_of_the_docs_are_small() -> None:
    pictures = list(PICTURES.glob("*.png"))
    assert len(pictures) == len(SHOWN)
    for picture in pictures:
        assert picture.stat().st_size < 250_000, picture.name
