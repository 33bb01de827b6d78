"""The pages of dead letters, by a browser without script: each step is a form or a link."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

import pytest

from delaystream.console.access.caller import NONE
from delaystream.console.access.entrance import Entrance
from delaystream.console.access.token_file import TokenFile
from delaystream.console.api.problems import ProblemError
from delaystream.console.letters.latest import letter_of
from delaystream.console.letters.originals import Original
from delaystream.console.pages.acting.repairs import odd_names, repair_body, texts_of
from delaystream.engine.ports import TopicRecord
from tests.unit.console.forms import Browser, Page
from tests.unit.console.neighbours import token
from tests.unit.console.test_redriving import open_letters, put, redriven
from tests.unit.console.test_redriving_access import FILE, SECRET, refused
from tests.unit.console.writable import World, in_world

HOSTILE = "<b>x</b>\"'\u202e/%2F"


async def settled(browser: Browser, page: Page) -> Page:
    """The page, once nothing is under way on it."""
    async with asyncio.timeout(60):
        while any(words in page.main for words in ("being sent…", "are deciding…", "no worker has decided")):
            await asyncio.sleep(0.02)
            page = await browser.open(str(page.url))
    return page


def header(record: Any, name: str) -> bytes | None:
    found = [content for one, content in record.headers if one == f"delaystream-{name}"]
    return found[0] if found else None


def test_a_letter_is_repaired_looked_at_and_sent_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        put(
            world, b"line 1\r\nline 2", destination="invoices", delay="soon", id=HOSTILE.replace("\u202e", "")
        )
        await open_letters(world)
        browser = Browser(world.ask)
        page = await browser.open("/dead-letters")
        page = await browser.open("/dead-letters/0.0")
        assert "expected a duration" in page.main
        assert "line 1" not in page.main
        assert "line 1" in (await browser.open("/dead-letters/0.0?payload=true")).main
        page = await browser.open("/dead-letters/0.0/redrive")
        form = page.form("/redrive")
        # As it is it would be refused again: that is said before anything is sent.
        wrong = await browser.send(form, step="review")
        assert (wrong.status, "Correct what is said above" in wrong.main) == (400, True)
        assert redriven(world) == []
        assert "No text: trace." in wrong.main
        written = form.fields["headers"].replace("soon", "1h") + "\nadded: yes"
        page = await browser.send(form, step="review", headers=written, destination="others")
        assert (page.status, "Send it again?" in page.main) == (200, True), page.main
        assert "delaystream-delay soon 1h" in page.main
        assert "added nothing yes" in page.main
        assert redriven(world) == []
        send = page.form("/redrive")
        page = await settled(browser, await browser.send(send, step="send", note="typo"))
        assert "and a worker took it: scheduled" in page.main, page.main
        assert (
            "sent again, with set delaystream-delay, set added, destination by console: “typo”" in page.main
        )
        (sent,) = redriven(world)
        assert sent.value == b"line 1\r\nline 2"
        assert (header(sent, "delay"), header(sent, "destination")) == (b"1h", b"others")
        assert ("trace", b"\xff\x00") in sent.headers
        # The same form again is the same request.
        await browser.send(send, step="send", note="typo")
        assert len(redriven(world)) == 1
        # Once more is asked for by name.
        again = await browser.open("/dead-letters/0.0/redrive?repair=true")
        page = await browser.send(again.form("/redrive"), step="review", headers=written)
        assert "It is accepted by console: this sends it once more" in page.main
        page = await settled(browser, await browser.send(page.form("/redrive"), step="send"))
        assert "nothing was changed: kept" in page.main, page.main
        assert len(redriven(world)) == 2

    in_world(tmp_path, story)


def test_what_could_be_taken_as_it_is_needs_no_form(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        put(world, destination="invoices", delay="1h", id="a")
        put(world, destination="invoices", delay="1h", id="a", if_exists="reject")
        (letter,) = await open_letters(world)
        browser = Browser(world.ask)
        page = await browser.open(f"/dead-letters/{letter['place']}")
        assert "As it is, a worker would take it now." in page.main
        page = await browser.open(page.links["Send again…"])
        assert "delaystream-if-exists reject keep" in page.main, page.main
        assert redriven(world) == []
        page = await settled(browser, await browser.send(page.form("/redrive"), step="send"))
        assert "nothing was changed: kept" in page.main

    in_world(tmp_path, story)


def test_a_letter_is_discarded_and_taken_up_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        put(world, destination="invoices", cron="0 25 * * *", id="never")
        await open_letters(world)
        browser = Browser(world.ask)
        page = await browser.open("/dead-letters/0.0")
        assert "Send again…" not in page.links
        page = await browser.send((await browser.open(page.links["Discard"])).form("/discard"), note="a test")
        assert "Discarded by console" in page.main
        assert "“a test”" in page.main
        assert "/dead-letters/0.0" not in (await browser.open("/dead-letters")).links.values()
        listed = await browser.open("/dead-letters?standing=discarded")
        assert "discarded by console" in listed.main
        page = await browser.send((await browser.open(page.links["Take up again"])).form("/reopen"))
        assert "taken up again" in page.main
        assert "Discarded by" not in page.main
        assert redriven(world) == []

    in_world(tmp_path, story)


def test_many_are_looked_at_sent_at_a_rate_and_followed(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(3):
            put(world, destination="invoices", delay="soon", id=f"a-{number}")
        put(world, destination="invoices", cron="0 25 * * *", id="b")
        await open_letters(world)
        browser = Browser(world.ask)
        page = await browser.open("/dead-letters")
        nothing = await browser.send(page.form("/many"), action="redrive")
        assert (nothing.status, "Nothing is selected" in nothing.main) == (400, True)
        picked = await browser.send(page.form("/many"), action="redrive", pick=["0.0"])
        assert "Send 1 dead letter again?" in picked.main
        page = await browser.send(page.form("/many"), action="redrive", which="all")
        assert "Send 4 dead letters again?" in page.main, page.main
        assert "3 would be refused: invalid-delay" in page.main
        # What comes after the list was shown is not meant by it.
        world.advance(1)
        put(world, destination="invoices", delay="soon", id="a-9")
        await open_letters(world)
        form = page.form("/many")
        odd = await browser.send(form, step="look", rate="many")
        assert (odd.status, "'many'; expected letters a second" in odd.main) == (400, True)
        odd = await browser.send(form, step="send", headers="delaystream-delay: 1h", rate="9999")
        assert odd.status == 400
        page = await browser.send(form, step="look", headers="delaystream-delay: 1h", rate="200")
        assert "Send 4 dead letters again?" in page.main
        assert "1 would be refused: delay-and-at" in page.main, page.main
        assert redriven(world) == []
        send = page.form("/many")
        page = await settled(browser, await browser.send(send, step="send", note="release 4.2"))
        assert "“release 4.2”" in page.main
        assert "taken 3 left as they are 1 left 0" in page.main, page.main
        assert "delay-and-at 1" in page.main
        assert {header(one, "id") for one in redriven(world)} == {b"a-0", b"a-1", b"a-2"}
        run = str(page.url)
        # The same form again is the same run.
        assert str((await browser.send(send, step="send", note="release 4.2")).url) == run
        assert len(redriven(world)) == 3
        page = await browser.open("/dead-letters")
        assert "Send 4 again" in page.main
        assert run.endswith(page.links["Send 4 again"])
        assert (await world.ask.get("/v1/dead-letters/runs")).json()["items"][0]["standing"] == {
            "accepted": 3
        }
        page = await browser.send(page.form("/many"), action="discard", which="all")
        assert "Discard 2 dead letters?" in page.main
        page = await browser.send(page.form("/many"), step="send", note="done")
        assert page.main.count("discarded by console") == 2
        assert "No dead letters" in (await browser.open("/dead-letters")).main

    in_world(tmp_path, story)


def test_a_run_is_stopped(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        for number in range(9):
            put(world, destination="invoices", delay="soon", id=f"a-{number}")
        await open_letters(world)
        browser = Browser(world.ask)
        page = await browser.send(
            (await browser.open("/dead-letters")).form("/many"), action="redrive", which="all"
        )
        repair = {"headers": "delaystream-delay: 1h", "rate": "1"}
        page = await browser.send(page.form("/many"), step="look", **repair)
        page = await browser.send(page.form("/many"), step="send")
        stopped = await settled(browser, await browser.send(page.form("/stop")))
        assert "It was stopped" in stopped.main, stopped.main
        assert 1 <= len(redriven(world)) < 9
        assert not [form for form in stopped.forms if "/stop" in form.action]

    in_world(tmp_path, story)


def as_neighbours(directory: Path, story: Callable[[World], Coroutine[Any, Any, None]]) -> None:
    file = directory / "tokens.toml"
    file.write_text(FILE)

    async def begun(world: World) -> None:
        await refused(world)
        await refused(world)
        await story(world)

    entrance = Entrance(lambda: 0, tokens=TokenFile(file, NONE))
    in_world(directory, begun, topics=("one", "two"), entrance=entrance)


def by(world: World, name: str) -> Browser:
    return Browser(world.ask, Authorization=f"Bearer {token(name)}")


def test_pages_show_what_a_role_may(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        guest, clerk, other = by(world, "guest"), by(world, "clerk"), by(world, "other")
        seen = await guest.open("/dead-letters")
        assert "invalid-delay" in seen.main
        assert [form.action for form in seen.forms if form.method == "post"] == []
        seen = await guest.open("/dead-letters/0.0")
        assert [form.action for form in seen.forms if form.method == "post"] == []
        assert not {"Repair…", "Discard"} & seen.links.keys()
        for path in ("redrive", "discard", "reopen"):
            told = await guest.open(f"/dead-letters/0.0/{path}")
            assert (told.status, "role-too-low" in told.main) == (403, True), path
            assert (await other.open(f"/dead-letters/0.0/{path}")).status == 404
        assert (await other.open("/dead-letters/0.0")).status == 404
        # An operator acts on one, an admin on many.
        seen = await clerk.open("/dead-letters")
        assert [form.action for form in seen.forms if form.method == "post"] == []
        repaired = await clerk.open("/dead-letters/0.0/redrive")
        form = repaired.form("/redrive")
        # Somebody else's form is none of theirs.
        assert (await guest.send(form, step="send")).status == 403
        form.fields["headers"] = form.fields["headers"].replace("soon", "1h")
        done = await settled(clerk, await clerk.send(form, step="send"))
        assert "and a worker took it" in done.main, done.main
        chief = by(world, "chief")
        listed = await chief.open("/dead-letters")
        assert (await clerk.send(listed.form("/many"), action="discard", which="all")).status == 403
        forged = listed.form("/many")
        forged.fields["stamp"] = "forged"
        assert (await chief.send(forged, action="discard", which="all", step="send")).status == 403

    as_neighbours(tmp_path, story)


def test_what_may_not_be_seen_is_on_no_page_and_stays_in_the_letter(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        blind = by(world, "blind")
        texts = [
            (await blind.open(path)).text
            for path in ("/dead-letters", "/dead-letters/0.0", "/dead-letters/0.0?payload=true")
        ]
        page = await blind.open("/dead-letters/0.0/redrive?repair=true&payload=true")
        form = page.form("/redrive")
        assert "private" not in form.fields["headers"]
        texts += [page.text, *form.fields.values()]
        page = await blind.send(form, step="review", headers=form.fields["headers"].replace("soon", "1h"))
        texts.append(page.text)
        many = (await blind.open("/dead-letters")).form("/many")
        texts.append((await blind.send(many, action="redrive", which="all")).text)
        assert all(SECRET not in text for text in texts)
        await settled(blind, await blind.send(page.form("/redrive"), step="send"))
        assert ("private", SECRET.encode()) in world.sent("one")[-1].headers
        assert world.sent("one")[-1].value == SECRET.encode()

    as_neighbours(tmp_path, story)


def original(value: bytes | None = b"v", *headers: tuple[str, bytes | None]) -> Original:
    told = [
        ("delaystream-destination", b"out"),
        ("delaystream-delay", b"soon"),
        *headers,
        ("delaystream-error", b"invalid-delay"),
        ("delaystream-error-topic", b"one"),
        ("delaystream-error-partition", b"0"),
        ("delaystream-error-offset", b"7"),
        ("delaystream-error-timestamp", b"1"),
    ]
    record = TopicRecord(3, 1, b"k", value, told)
    return Original(letter_of(0, record), record.key, value, told)


@pytest.mark.parametrize("value", [b"v", b"a\nb", b"a\r\nb", b"\xff", b"", None, b"x" * 70_000])
@pytest.mark.parametrize("payload", [True, False])
def test_what_nobody_touches_is_no_repair(value: bytes | None, payload: bool) -> None:
    odd = [("h", b"\xff"), ("h", b"2"), ("null", None), ("lines", b"a\nb"), ("nul", b"\0"), (" s ", b" ")]
    for headers in ([], odd, [("h", b"1"), ("h", b"1")]):
        for every_header in (True, False):
            texts = texts_of(original(value, *headers), every_header=every_header, payload=payload)
            assert repair_body(texts, dict(texts)) == {}


def test_a_repair_says_what_differs() -> None:
    before = texts_of(
        original(b"v", ("h", b"1"), ("h", b"2"), ("gone", b"x")), every_header=True, payload=True
    )
    after = {**before, "headers": "Delaystream-Delay: 1h\nh: 1", "value_kind": "none", "key": ""}
    assert repair_body(before, after) == {
        "set": [["Delaystream-Delay", "1h"], ["h", "1"]],
        "remove": ["gone"],
        "value": None,
        "key": None,
    }
    odd = original(b"v", ("h", b"\xff"), ("h", b"2"), ("plain", b"1"))
    before = texts_of(odd, every_header=True, payload=False)
    assert before["headers"] == "delaystream-delay: soon\nplain: 1"
    assert odd_names(odd, every_header=True) == ["h"]
    assert repair_body(before, {**before, "remove": "h, "}) == {"remove": ["h"]}
    hidden = texts_of(original(), every_header=True, payload=False)
    for wrong in (
        {"headers": "no colon"},
        {"headers": '[["a"]]'},
        {"headers": "[1]"},
        {"headers": "h: 1\nh: 3"},
        {"headers": "{"},
        {"value": "written, and kept"},
        {"destination": " "},
    ):
        with pytest.raises(ProblemError):
            repair_body(hidden, {**hidden, **wrong})
