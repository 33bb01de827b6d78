"""Whatever producers wrote into ids, keys, names, notes, headers and values is text, and nothing else."""

from __future__ import annotations

from urllib.parse import quote, urlsplit

import pytest

from delaystream.console.pages.rendering import visible
from tests.page.conftest import Look
from tests.page.serving import Served
from tests.page.world import HOSTILE

ID = HOSTILE.replace("\x00", "")
PATHS = {
    "overview": "/",
    "schedules": "/schedules?status=all",
    "schedule": f"/schedules/{quote(ID, safe='')}?payload=true",
    "paused": f"/schedules/-{'long' * 60}",
    "binary": "/schedules/-binary?payload=true",
    "pending": "/pending",
    "agenda": "/agenda",
    "events": "/live",
    "dead-letters": "/dead-letters",
    "letter": "/dead-letters/0.0?payload=true",
    "repair": "/dead-letters/0.0/redrive?payload=true",
    "destinations": "/destinations",
    "holds": "/holds",
    "pause": f"/schedules/{quote(ID, safe='')}/pause",
    "edit": f"/schedules/{quote(ID, safe='')}/edit?payload=true",
    "rate": f"/destinations/rate?destination={quote(ID)}",
    "hold": f"/holds/new?key={quote(ID)}",
    "partitions": "/partitions",
    "where-id": f"/where?q={quote(ID)}",
    "where-key": f"/where?q={quote(HOSTILE)}",
    "filters": "/schedules?"
    + "&".join(f"{name}={quote(ID)}" for name in ("q", "tag", "key", "destination", "id_prefix")),
    "live-filters": f"/live?id={quote(ID)}&destination={quote(ID)}&type={quote(ID)}",
    "settings": f"/settings?q={quote(ID)}",
}
#: Pages that have the hostile text on them.
TOLD = {
    "overview",
    "schedules",
    "schedule",
    "paused",
    "pending",
    "events",
    "dead-letters",
    "letter",
    "repair",
    "destinations",
    "holds",
    "pause",
    "edit",
    "rate",
    "hold",
    "where-id",
    "where-key",
}
#: Attributes that would act, whatever they hold.
ACTING = """
[...document.querySelectorAll("*")].flatMap((element) => [...element.attributes].map((one) => one.name))
  .filter((name) => /^(on|style|hx-on|hx-vals|srcdoc)/.test(name))
"""
#: Where links and forms lead to; a button named `action` hides the property of its form.
LINKS = """
[...document.querySelectorAll("a[href], form[action]")]
  .map((element) => new URL(element.getAttribute("href") ?? element.getAttribute("action"), location).href)
"""
#: What is read on a page, but for what is there to be copied or edited, as it is.
READ = """
[...document.querySelectorAll("body *")].filter((element) => !element.closest("pre, textarea"))
  .flatMap((element) => [...element.childNodes]).filter((node) => node.nodeType === 3)
  .map((node) => node.textContent).join("")
"""
#: The first segments of what links may lead to.
OWN = {
    "",
    "schedules",
    "pending",
    "agenda",
    "live",
    "dead-letters",
    "destinations",
    "holds",
    "new",
    "operations",
    "partitions",
    "requests",
    "settings",
    "audit",
    "where",
    "v1",
}


@pytest.mark.parametrize("name", PATHS)
def test_it_is_text(look: Look, hostile: Served, name: str) -> None:
    with look(hostile) as looked:
        page = looked.open(PATHS[name])
        if name in TOLD:
            assert "<img src=x onerror=alert(1)>" in page.locator("main").evaluate("main => main.textContent")
            assert "{{7*7}}" in page.locator("main").evaluate("main => main.textContent")
        assert page.locator("main img, main script, main iframe, main b[onclick], main style").count() == 0
        # Nothing turns the direction in which the rest is read; what is there to copy is as it is.
        assert "\u202e" not in page.evaluate(READ)
        assert page.evaluate(ACTING) == []
        for link in page.evaluate(LINKS):
            parts = urlsplit(link)
            if parts.netloc == "docs.example.com":
                assert parts.path.startswith("/delaystream/runbooks/")
                continue
            assert f"{parts.scheme}://{parts.netloc}" == hostile.url, link
            assert parts.path.split("/")[1] in OWN, link
        assert looked.overflow() <= 0
        assert looked.violations() == []


def test_a_link_to_a_schedule_leads_to_it_whatever_its_id_is(look: Look, hostile: Served) -> None:
    with look(hostile) as looked:
        page = looked.open("/schedules?status=all")
        page.locator("tbody a.name").filter(has_text="<img").click()
        assert page.locator("h1").evaluate("heading => heading.textContent") == visible(ID)
