"""The pages of operations on many, by a browser without script: each step is a form or a link."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

from delaystream.console.access.caller import NONE
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.token_file import TokenFile
from delaystream.console.pages.acting.operations import pick_of
from tests.unit.console.forms import Browser, Page
from tests.unit.console.neighbours import entry, token
from tests.unit.console.writable import World, in_world

CRON = {"destination": "invoices", "cron": "0 9 * * *", "value": "now"}
HOSTILE = "<b>x</b>\"'\u202e/%2F"


async def created(world: World, id: str, **said: Any) -> None:
    answer = await world.ask.post("/v1/schedules", json={**CRON, "id": id, **said})
    assert answer.status_code == 201, answer.text


async def ended(browser: Browser, page: Page) -> Page:
    async with asyncio.timeout(60):
        while "Commands are being sent" in page.main:
            await asyncio.sleep(0.05)
            page = await browser.open(str(page.url))
    return page


def test_select_cancel_undo(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for id in ("a-1", "a-2", HOSTILE):
            await created(world, id)
        before = len(world.sent())
        browser = Browser(world.ask)
        page = await browser.open("/schedules")
        form = page.form("/operations")
        picks = [pick_of("delay-requests", id) for id in ("a-1", HOSTILE)]
        page = await browser.send(form, pick=picks, action="cancel", note="by mistake")
        assert (page.status, len(world.sent())) == (200, before), page.main
        assert "Cancel 2 schedules" in page.main
        assert "“by mistake”" in page.main
        assert "each was selected by itself" in page.main
        page = await ended(browser, await browser.send(page.form("/start")))
        assert "cancelled 2" in page.main, page.main
        assert len(world.sent()) == before + 2
        gone = (await world.ask.get("/v1/schedules/a-1")).json()
        assert (gone["status"], gone["note"]) == ("cancelled", "by mistake")
        here = str(page.url)
        page = await ended(browser, await browser.send(page.form("/undo")))
        assert "Bring back 2 schedules" in page.main
        assert "brought back 2" in page.main
        assert (await world.ask.get("/v1/schedules/a-1")).json()["status"] == "pending"
        page = await browser.open(here)
        assert "It was undone" in page.main
        assert not [form for form in page.forms if "/operations/" in form.action]
        listed = await browser.open("/operations")
        assert listed.main.count("Bring back 2") == 1
        assert listed.main.count("undone") == 1

    in_world(tmp_path, story)


def test_all_that_match_is_the_filter_of_the_list(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for id in ("a-1", "a-2", "b-1"):
            await created(world, id, key="customer" if id < "b" else "other", cron=None, every="1m")
        browser = Browser(world.ask)
        page = await browser.open("/schedules?key=customer")
        page = await browser.send(page.form("/operations"), which="all", action="pause", until="")
        assert "Pause 2 schedules" in page.main, page.main
        assert "key customer" in page.main
        await ended(browser, await browser.send(page.form("/start"), rate="500"))
        world.advance(180)
        await world.caught_up()
        page = await browser.open("/schedules?key=customer")
        page = await browser.send(page.form("/operations"), which="all", action="resume")
        assert "2 fires go out at once" in page.main
        # Nothing of what was asked for is left to be sent from a form that was shown to nobody.
        form = page.form("/start")
        form.fields["stamp"] = "forged"
        refused = await browser.send(form)
        assert refused.status == 403
        nothing = await browser.open("/schedules?key=customer")
        refused = await browser.send(nothing.form("/operations"), action="cancel")
        assert (refused.status, "Nothing is selected" in refused.main) == (400, True)
        odd = await browser.send(nothing.form("/operations"), action="delete", which="all")
        assert odd.status == 400
        for pick in ("[1, 2]", "{", "[" * 9_999, '["delay-requests"]'):
            odd = await browser.send(nothing.form("/operations"), action="cancel", pick=pick)
            assert odd.status == 400, pick[:20]
        odd = await browser.send(nothing.form("/operations"), action="cancel", which="all", q="x" * 2_000)
        assert odd.status == 400

    in_world(tmp_path, story)


def test_whoever_may_not_change_sees_no_way_to(tmp_path: Path) -> None:
    file = tmp_path / "tokens.toml"
    file.write_text(entry("boss", {"*": "admin"}) + entry("guest", {"delay-requests": "viewer"}))
    made = Entrance(lambda: 0, tokens=TokenFile(file, NONE))

    async def story(world: World) -> None:
        boss = {"Authorization": f"Bearer {token('boss')}"}
        guest = {"Authorization": f"Bearer {token('guest')}"}
        await world.ask.post("/v1/schedules", json={**CRON, "id": "a"}, headers=boss)
        browser = Browser(world.ask, **boss)
        page = await browser.open("/schedules")
        page = await browser.send(page.form("/operations"), which="all", action="cancel")
        start = page.form("/start")
        seen = await Browser(world.ask, **guest).open("/schedules")
        assert not [form for form in seen.forms if form.method == "post"]
        seen = await Browser(world.ask, **guest).open(str(page.url))
        assert "You may not start it" in seen.main
        # Somebody else's form is none of theirs.
        refused = await Browser(world.ask, **guest).send(start)
        assert refused.status == 403
        assert (await world.ask.get("/v1/schedules/a", headers=boss)).json()["status"] == "pending"

    in_world(tmp_path, story, entrance=made)
