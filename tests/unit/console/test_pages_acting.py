"""What is done on pages, without script and without a browser: what is asked back, sent, and told."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path
from typing import Any

import pytest

from delaystream.console.access.entrance import Shown
from delaystream.console.pages.acting.forms import stamp
from delaystream.testing.transport import AsyncMemoryTransport
from tests.unit.console.forms import Browser, PageForm
from tests.unit.console.test_writing_access import by, entrance
from tests.unit.console.writable import World, in_world

DAILY = {"destination": "invoices", "cron": "0 9 * * *", "value": "now", "key": "customer-7"}


async def made(world: World, id: str = "report", body: Any = None) -> None:
    answer = await world.ask.put(f"/v1/schedules/{id}", json=body or DAILY)
    assert answer.status_code == 201, answer.text


def sent(world: World, key: bytes, **headers: str) -> str:
    """A request as a producer sends it; its coordinates."""
    pairs = [(f"delaystream-{name}", text.encode()) for name, text in headers.items()]
    row = (key, b"v", pairs, world.worker.now_ms())
    partition, offset = world.worker.append("delay-requests", None, row)
    return f"delay-requests/{partition}/{offset}"


async def read(world: World, id: str = "report") -> Any:
    return (await world.ask.get(f"/v1/schedules/{id}")).json()


def test_a_pause_says_what_it_does_and_then_what_came_of_it(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await made(world)
        browser = Browser(world.ask)
        page = await browser.open("/schedules/report")
        asked = await browser.open(page.links["Pause"])
        assert "Pause report?" in asked.main
        assert "does not fire until somebody resumes it" in asked.main
        done = await browser.send(asked.form("/pause"), lasts="1h", note="incident 4711")
        assert (done.status, "Paused." in done.main) == (200, True), done.main
        assert "told=" in str(done.url)
        now = await read(world)
        assert (now["status"], now["note"], now["updated_by"]) == ("paused", "incident 4711", "console")
        assert now["until"] is not None
        resumed = await browser.send((await browser.open(done.links["Resume"])).form("/resume"))
        assert "Resumed. No fire is due at once." in resumed.main
        assert (await read(world))["status"] == "pending"

    in_world(tmp_path, story)


def test_a_form_that_is_sent_twice_asks_once(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await made(world)
        browser = Browser(world.ask)
        for deed, fields in (("trigger", {}), ("pause", {"lasts": "1h"})):
            form = (await browser.open(f"/schedules/report/{deed}")).form(deed)
            before = len(world.sent())
            await browser.send(form, **fields)
            world.advance(5)
            again = await browser.send(form, **fields)
            assert "This form had been sent before" in again.main
            assert len(world.sent()) == before + 1

    in_world(tmp_path, story)


def test_who_looked_at_an_older_version_is_told_what_changed_meanwhile(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await made(world)
        browser = Browser(world.ask)
        form = (await browser.open("/schedules/report/cancel")).form("/cancel")
        world.advance(2)
        await world.ask.post("/v1/schedules/report/pause", json={"note": "waits for legal"})
        refused = await browser.send(form, note="enough")
        assert refused.status == 412
        assert "What changed meanwhile" in refused.main
        assert re.search(r"paused by console .{1,20} “waits for legal”", refused.main), refused.main
        assert (await read(world))["status"] == "paused"
        # What was written is still there, and the form is about the schedule as it is now.
        again = refused.form("/cancel")
        assert again.fields["note"] == "enough"
        assert "Cancelled" in (await browser.send(again)).main
        assert (await read(world))["status"] == "cancelled"

    in_world(tmp_path, story)


def test_what_is_over_says_so_and_can_be_created_again(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await made(world)
        browser = Browser(world.ask)
        form = (await browser.open("/schedules/report/trigger")).form("/trigger")
        form.fields["version"] = ""
        await world.ask.delete("/v1/schedules/report")
        refused = await browser.send(form)
        assert (refused.status, "too-late" in refused.main) == (409, True)
        assert "create it again" in refused.main
        page = await browser.open("/schedules/report")
        assert {"Pause", "Send now", "Cancel", "Edit"}.isdisjoint(page.links)

    in_world(tmp_path, story)


def test_sent_now_beside_its_own_times_or_instead_of_the_next(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await made(world)
        await made(world, "once", {"destination": "invoices", "delay": "3h", "value": "1"})
        await made(
            world,
            "list",
            {"destination": "invoices", "at": ["2030-01-02T09:00:00Z", "2030-01-03T09:00:00Z"], "value": "l"},
        )
        browser = Browser(world.ask)
        before = await read(world)
        page = await browser.send((await browser.open("/schedules/report/trigger")).form("/trigger"))
        assert "Sent now, as fire" in page.main
        world.advance(1)
        assert len(world.sent("invoices")) == 1
        await world.caught_up()
        assert (await read(world))["next_at"] == before["next_at"]

        asked = await browser.open("/schedules/report/trigger")
        assert "instead: its next time does not come any more" in asked.main
        page = await browser.send(asked.form("/trigger"), how="instead")
        assert page.status == 200, page.main
        world.advance(1)
        await world.caught_up()
        assert len(world.sent("invoices")) == 2
        after = await read(world)
        assert after["next_at"] == before["upcoming"][1]
        assert after["upcoming"][:3] == before["upcoming"][1:4]

        await browser.send((await browser.open("/schedules/once/trigger")).form("/trigger"), how="instead")
        world.advance(1)
        await world.caught_up()
        assert len(world.sent("invoices")) == 3
        assert (await read(world, "once"))["status"] == "fired"
        await browser.send((await browser.open("/schedules/list/trigger")).form("/trigger"), how="instead")
        world.advance(1)
        await world.caught_up()
        assert len(world.sent("invoices")) == 4
        assert (await read(world, "list"))["upcoming"] == ["2030-01-03T09:00:00.000Z"]

    in_world(tmp_path, story)


def test_other_times_and_what_is_wrong_with_them_at_the_field(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await made(world)
        browser = Browser(world.ask)
        form = (await browser.open("/schedules/report/reschedule")).form("/reschedule")
        assert (form.fields["kind"], form.fields["cron"], form.fields["timezone"]) == (
            "cron",
            "0 9 * * *",
            "UTC",
        )
        wrong = await browser.send(form, cron="61 * * * *")
        assert wrong.status == 400
        assert wrong.main.count("invalid-cron") == 2
        assert wrong.form("/reschedule").fields["cron"] == "61 * * * *"
        moved = await browser.send(wrong.form("/reschedule"), kind="every", every="2h")
        assert "It has another time. The next fire is due at" in moved.main
        assert (await read(world))["definition"]["every"] == "2h"

    in_world(tmp_path, story)


class Moody(AsyncMemoryTransport):
    """Nobody is at work while it is deaf."""

    deaf = False

    async def wait(self, future: asyncio.Future[Any], timeout_s: float | None) -> Any:
        return await (asyncio.shield(future) if Moody.deaf else super().wait(future, timeout_s))


def test_what_no_worker_has_decided_on_is_told_as_sent(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def story(world: World) -> None:
        await made(world)
        monkeypatch.setattr(Moody, "deaf", True)
        monkeypatch.setattr("delaystream.console.api.changing.conditions.WAIT_S", 0.05)
        browser = Browser(world.ask)
        page = await browser.send((await browser.open("/schedules/report/pause")).form("/pause"))
        assert page.status == 200
        assert "no worker has decided on it yet" in page.main
        assert "do not send it again" in page.main
        # Where it stays when it is asked again, by script or by hand.
        again = await browser.open(page.links["Look again"])
        assert "no worker has decided on it yet" in again.main

    in_world(tmp_path, story, transport=Moody)


def test_a_form_of_another_or_of_nobody_changes_nothing(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        answer = await world.ask.put("/v1/schedules/report?request_topic=one", json=DAILY, headers=by("boss"))
        assert answer.status_code == 201
        clerk = Browser(world.ask, Authorization=by("clerk")["Authorization"])
        boss = Browser(world.ask, Authorization=by("boss")["Authorization"])
        form = (await boss.open("/schedules/report/cancel")).form("/cancel")
        before = len(world.sent("one"))
        for other in (form.fields["stamp"], "", "x", form.fields["stamp"][:-8] + "AAAAAAA=", "é"):
            form.fields["stamp"] = other
            refused = await clerk.send(form)
            assert (refused.status, "form-not-taken" in refused.main) == (403, True), other
        assert len(world.sent("one")) == before
        own = (await clerk.open("/schedules/report/cancel")).form("/cancel")
        assert (await clerk.send(own)).status == 200
        assert len(world.sent("one")) == before + 1

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


def test_a_form_is_old_after_twelve_hours(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await made(world)
        browser = Browser(world.ask)
        form = (await browser.open("/schedules/report/cancel")).form("/cancel")
        world.advance(12 * 3600 + 1)
        before = len(world.sent())
        assert "older than 12 hours" in (await browser.send(form)).main
        assert len(world.sent()) == before

    in_world(tmp_path, story)


def test_who_may_not_is_shown_nothing_and_refused(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.ask.put("/v1/schedules/report?request_topic=one", json=DAILY, headers=by("boss"))
        before = len(world.sent("one"))
        for name in ("guest", "mixed"):
            browser = Browser(world.ask, Authorization=by(name)["Authorization"])
            page = await browser.open("/schedules/report")
            assert page.status == 200
            assert {"Pause", "Send now", "Cancel", "Edit", "Copy"}.isdisjoint(page.links)
            for deed in ("pause", "trigger", "reschedule", "cancel"):
                assert (await browser.open(f"/schedules/report/{deed}")).status == 403
                # The stamp of the caller's own, as of a page that it may see.
                boss = Browser(world.ask, Authorization=by("boss")["Authorization"])
                form = (await boss.open(f"/schedules/report/{deed}")).form(deed)
                form.fields["stamp"] = await own_stamp(world, name)
                refused = await browser.send(form, kind="every", every="1h")
                assert (refused.status, "role-too-low" in refused.main) == (403, True)
        assert len(world.sent("one")) == before

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


async def own_stamp(world: World, name: str) -> str:
    """What a form has that somebody was shown."""
    kept = world.app.state.entrance
    caller = await kept.enter(Shown("10.0.0.1", [by(name)["Authorization"]]))
    return stamp(kept, caller, world.worker.now_ms())


def test_everything_of_a_customer_is_stopped_and_goes_on(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await made(world)
        for _ in range(3):
            sent(world, b"customer-7", destination="carts", delay="1h")
        world.advance(1)
        await world.caught_up()
        browser = Browser(world.ask)
        found = await browser.open("/where?q=customer-7")
        asked = await browser.open(found.links["Stop everything with this key"])
        assert "Hold everything with the key customer-7?" in asked.main
        assert "1 pending schedules match, and 3 events without an id" in asked.main
        held = await browser.send(asked.form("/holds/new"), lasts="4h", note="asked for by phone")
        assert "Held: 1 schedule, and 3 events without an id." in held.main
        assert "“asked for by phone”" in held.main
        first = await browser.open("/")
        assert "Held: the key customer-7 by console: “asked for by phone”" in first.main
        assert (await read(world))["status"] == "paused"
        world.advance(3700)
        await world.caught_up()
        assert world.sent("carts") == []
        page = await browser.send((await browser.open(held.links["Release"])).form("/holds/release"))
        assert "Released: 1 schedule. 3 fires are due at once." in page.main, page.main
        assert "Nothing is held." in page.main
        world.advance(1)
        assert len(world.sent("carts")) == 3

    in_world(tmp_path, story)


def test_a_request_without_id_is_sent_now_moved_and_cancelled(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        places = [sent(world, b"customer-8", destination="carts", delay="1h") for _ in range(3)]
        world.advance(1)
        await world.caught_up()
        browser = Browser(world.ask)
        page = await browser.open(f"/pending/{places[0]}")
        done = await browser.send((await browser.open(page.links["Send now"])).form("/trigger"))
        assert done.status == 200, done.main
        world.advance(1)
        assert len(world.sent("carts")) == 1
        form = (await browser.open(f"/pending/{places[1]}/reschedule")).form("/reschedule")
        wrong = await browser.send(form, delay="soon")
        assert (wrong.status, wrong.main.count("invalid-delay")) == (400, 2)
        moved = await browser.send(wrong.form("/reschedule"), delay="5s")
        assert "It has another time. The next fire is due at" in moved.main
        world.advance(6)
        assert len(world.sent("carts")) == 2
        gone = await browser.send((await browser.open(f"/pending/{places[2]}/cancel")).form("/cancel"))
        assert "Cancelled" in gone.main
        world.advance(4000)
        assert len(world.sent("carts")) == 2
        again = (await browser.open(f"/pending/{places[2]}/cancel")).forms
        late = await browser.send(next(form for form in again if form.method == "post"))
        assert (late.status, "too-late" in late.main) == (409, True)
        assert (await browser.open("/pending/delay-requests/0/999")).status in (200, 404)

    in_world(tmp_path, story)


def test_a_rate_is_set_and_taken_away(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await made(world)
        browser = Browser(world.ask)
        page = await browser.open("/destinations")
        asked = await browser.open(page.links["Rate"])
        assert "How fast does invoices get records?" in asked.main
        wrong = await browser.send(asked.form("/rate"), rate="fast")
        assert (wrong.status, wrong.main.count("invalid-rate")) == (400, 2)
        done = await browser.send(wrong.form("/rate"), rate="600/m", note="the provider's bound")
        assert "The rate is set on every partition." in done.main
        assert "10 a second" in done.main
        assert "“the provider's bound”" in done.main
        holds = await browser.open("/holds")
        assert re.search(r"Who did what .* rate .*console", holds.main), holds.main
        await browser.send(
            (await browser.open("/destinations/rate?destination=invoices")).form("/rate"), rate=""
        )
        rates = (await world.ask.get("/v1/destinations/invoices/rate")).json()["items"]
        assert [rate["per_second"] for rate in rates if rate["by"] == "command"] == [None]

    in_world(tmp_path, story)


def test_what_is_about_many_is_for_admins(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await world.ask.put("/v1/schedules/report?request_topic=one", json=DAILY, headers=by("boss"))
        boss = Browser(world.ask, Authorization=by("boss")["Authorization"])
        await boss.send(
            (await boss.open("/holds/new?key=customer-7")).form("/holds/new"), request_topic="one"
        )
        release = (await boss.open("/holds")).links["Release"]
        before = len(world.sent("one"))
        for name in ("clerk", "guest", "mixed"):
            browser = Browser(world.ask, Authorization=by(name)["Authorization"])
            assert {"Hold…", "Release"}.isdisjoint((await browser.open("/holds")).links)
            assert {"Rate", "Hold"}.isdisjoint((await browser.open("/destinations")).links)
            assert "Stop everything with this key" not in (await browser.open("/where?q=customer-7")).links
            for path in ("/holds/new", release, "/destinations/rate?destination=invoices"):
                assert (await browser.open(path)).status == 403
                form = PageForm(
                    path, "post", {"stamp": await own_stamp(world, name), "key": "k", "rate": "1"}
                )
                assert (await browser.send(form)).status == 403, (name, path)
                form.fields["request_topic"] = "one"
                assert (await browser.send(form)).status == 403, (name, path)
        assert len(world.sent("one")) == before

    in_world(tmp_path, story, topics=("one", "two"), entrance=entrance(tmp_path))


def test_a_schedule_is_made_after_a_look_at_what_it_will_be(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        browser = Browser(world.ask)
        new = (await browser.open("/new")).form("/new")
        empty = await browser.send(new, step="review")
        assert (empty.status, "missing-destination" in empty.main) == (400, True)
        filled: dict[str, str] = {
            "id": "stand-up",
            "destination": "reminders",
            "kind": "cron",
            "cron": "61 9 * * MON",
            "timezone": "Europe/Berlin",
            "name": "Stand-up <b>",
            "tags": "team, daily",
            "key": "customer-7",
            "value": "line one\r\nline two",
            "headers": "type: reminder\r\nempty:",
            # Of another kind of time: it is not asked for.
            "delay": "5m",
        }
        wrong = await browser.send(empty.form("/new"), step="review", **filled)
        assert (wrong.status, wrong.main.count("invalid-cron")) == (400, 2), wrong.main
        before = len(world.sent())
        review = await browser.send(wrong.form("/new"), step="review", cron="30 9 * * MON-FRI")
        assert "Create stand-up ?" in review.main
        assert "at 09:30, Monday to Friday, in Europe/Berlin" in review.main
        assert "09:30:00 +01:00" in review.main
        assert "-X POST" in review.main
        assert len(world.sent()) == before
        again = (await browser.send(review.form("/new"), step="edit")).form("/new")
        assert again.fields["value"] == "line one\nline two"
        done = await browser.send(review.form("/new"), step="save", note="asked for by the team")
        assert "Created. The next fire is due at" in done.main, done.main
        shown = (await world.ask.get("/v1/schedules/stand-up?payload=true")).json()
        assert shown["definition"] == {
            **shown["definition"],
            "destination": "reminders",
            "cron": "30 9 * * MON-FRI",
            "timezone": "Europe/Berlin",
            "name": "Stand-up <b>",
            "tags": ["team", "daily"],
        }
        assert shown["payload"]["value"] == "line one\nline two"
        assert shown["payload"]["key"] == "customer-7"
        assert shown["payload"]["headers"] == [["type", "reminder"], ["empty", ""]]
        taken = await browser.send(
            (await browser.open("/new")).form("/new"), step="save", **filled | {"cron": "0 9 * * *"}
        )
        assert (taken.status, "already-exists" in taken.main) == (409, True)

    in_world(tmp_path, story)


ODD = {
    "destination": "invoices",
    "every": "15m",
    "start": "2030-01-01T00:00:00Z",
    "description": "two\nlines \u202e <i>",
    "tags": ["a", "b"],
    "max_fires": 8,
    "key_base64": "//4=",
    "value": "with\r\nCRLF and \0 zero",
    "headers": [["plain", "x"], ["null", None], ["raw", {"base64": "/w=="}], ["a:b", " spaces "]],
}


def test_what_nobody_touched_stays_as_it_was_whatever_it_is(tmp_path: Path) -> None:
    """A form has texts in it, and browsers change some of them: none of that is a change."""

    async def story(world: World) -> None:
        await made(world, "odd", ODD)
        was = (await world.ask.get("/v1/schedules/odd?payload=true")).json()
        browser = Browser(world.ask)
        form = (await browser.open("/schedules/odd/edit?payload=true")).form("/edit")
        same = await browser.send(form, step="review")
        assert (same.status, "nothing-to-change" in same.main) == (400, True), same.main
        review = await browser.send(same.form("/edit"), step="review", name="New name", max_fires="")
        assert "New name" in review.main
        assert (await browser.send(review.form("/edit"), step="save")).status == 200
        now = (await world.ask.get("/v1/schedules/odd?payload=true")).json()
        assert now["payload"] == was["payload"]
        assert now["definition"] == {**was["definition"], "name": "New name", "max_fires": None}
        # A new value has the headers and the key that were there.
        form = (await browser.open("/schedules/odd/edit?payload=true")).form("/edit")
        review = await browser.send(form, step="review", value="other", value_kind="text")
        assert (await browser.send(review.form("/edit"), step="save")).status == 200
        now = (await world.ask.get("/v1/schedules/odd?payload=true")).json()
        assert now["payload"] == {**was["payload"], "value": "other"}

    in_world(tmp_path, story)


def test_another_kind_of_time_and_what_changed_meanwhile(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        await made(world)
        browser = Browser(world.ask)
        form = (await browser.open("/schedules/report/edit")).form("/edit")
        review = await browser.send(form, step="review", kind="every", every="2h", name="Report")
        assert {"Next times as it is", "Next times after it"} <= {
            line for line in ("Next times as it is", "Next times after it") if line in review.main
        }
        world.advance(2)
        await world.ask.post("/v1/schedules/report/pause", json={"note": "by the other shift"})
        refused = await browser.send(review.form("/edit"), step="save")
        assert (refused.status, "“by the other shift”" in refused.main) == (412, True), refused.main
        review = await browser.send(refused.form("/edit"), step="review")
        assert "It is paused, and stays so." in review.main
        assert (await browser.send(review.form("/edit"), step="save")).status == 200
        now = await read(world)
        assert (now["definition"]["every"], now["definition"]["cron"]) == ("2h", None)
        assert (now["definition"]["name"], now["status"]) == ("Report", "paused")

    in_world(tmp_path, story)


def test_the_preview_answers_while_one_writes(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        async def preview(**fields: str) -> str:
            answer = await world.ask.post("/preview", data=fields)
            assert answer.status_code == 200
            return " ".join(re.sub(r"<[^>]+>", " ", answer.text).split())

        assert "Say when" in await preview(kind="cron")
        assert "invalid-cron" in await preview(kind="cron", cron="61")
        spring = {"cron": "30 2 * * *", "timezone": "Europe/Berlin", "start": "2030-03-30T00:00:00Z"}
        assert "gap" in await preview(kind="cron", **spring)
        assert "every 15 minutes" in await preview(kind="every", every="15m", cron="not looked at")

    in_world(tmp_path, story)
