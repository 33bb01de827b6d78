"""Many at once, in a real browser on a real broker: selected, looked at, changed, undone."""

from __future__ import annotations

import pytest
from playwright.sync_api import Page, expect

from tests.integration.harness import wait
from tests.page.conftest import MODES, Look, Mode
from tests.page.shopping import Acted

FAR = "0 9 1 1 *"
CUSTOMER = "customer-4711"


def press(page: Page, name: str) -> None:
    page.get_by_role("button", name=name, exact=True).click()


def figure(page: Page, name: str) -> str:
    """A number of the progress."""
    told: str = page.locator("#now .numbers div", has_text=name).locator("dd").inner_text()
    return told.strip()


def test_what_was_selected_is_cancelled_and_brought_back(look: Look, acting: Acted) -> None:
    """By keys alone, from the list to the undo."""
    out = acting.app.destination("many")
    ids = [f"many/{number}" for number in range(3)]
    for id in ids:
        acting.make(id, destination=out, cron=FAR, value="v", note="kept")
    with look(acting) as looked:
        page = looked.open(f"/schedules?destination={out}&sort=id")
        for id in ids[:2]:
            page.get_by_label(f"Select {id}").focus()
            page.keyboard.press("Space")
        expect(page.locator("[data-picked]")).to_have_text("(2)")
        assert looked.violations() == []
        page.get_by_label("Why").fill("by mistake")
        page.get_by_role("button", name="Cancel…").focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Cancel 2 schedules")
        expect(page.locator(".says")).to_contain_text("Nothing was sent yet")
        assert acting.commands(action="cancel", id=ids[0]) == []
        assert looked.violations() == []
        press(page, "Cancel them")
        # It renews itself.
        expect(page.locator(".heading .state")).to_have_text("done", timeout=60_000)
        assert figure(page, "cancelled") == "2"
        assert looked.violations() == []
        for id in ids[:2]:
            (sent,) = acting.commands(action="cancel", id=id)
            assert sent.header("delaystream-note") == b"by mistake"
            assert int(sent.header("delaystream-if-version") or b"0") > 0
            assert acting.read(id)["status"] == "cancelled"
        assert acting.read(ids[2])["status"] == "pending"
        page.get_by_role("button", name="Undo: bring back 2").focus()
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("Bring back 2 schedules")
        expect(page.locator(".heading .state")).to_have_text("done", timeout=60_000)
        for id in ids[:2]:
            assert (acting.read(id)["status"], acting.read(id)["note"]) == ("pending", "kept")
        page.keyboard.press("g")
        page.keyboard.press("n")
        expect(page.locator("h1")).to_have_text("Operations")
        expect(page.locator("tbody tr").first).to_contain_text("Bring back 2")
        assert looked.violations() == []


def test_stop_everything_of_a_customer(look: Look, acting: Acted) -> None:
    """What has no id, too; then what is new meanwhile is left alone, and what failed says why."""
    out = acting.app.destination("customer")
    for number in range(2):
        acting.make(f"customer/{number}", destination=out, cron=FAR, value="v", key=CUSTOMER)
    source = acting.send(CUSTOMER.encode(), b"once", destination=out, delay="9h")
    with look(acting) as looked:
        page = looked.open(f"/schedules?key={CUSTOMER}")
        page.get_by_label("all 2 that match").check()
        page.get_by_label("events without an id, too").check()
        press(page, "Cancel…")
        expect(page.locator("h1")).to_have_text("Cancel 3 schedules")
        expect(page.locator("#main")).to_contain_text(source)
        acting.make("customer/2", destination=out, cron=FAR, value="v", key=CUSTOMER)
        press(page, "Cancel them")
        expect(page.locator(".heading .state")).to_have_text("done", timeout=60_000)
        assert figure(page, "cancelled") == "3"
        assert "pending" not in acting.states(source)
        assert acting.read("customer/2")["status"] == "pending"
        press(page, "Undo: bring back 3")
        expect(page.locator(".heading .state")).to_have_text("done", timeout=60_000)
        wait(lambda: acting.read(f"restored/{source}")["status"] == "pending", "what had no id")
        # What is there again is kept: the same undo has nothing more to do.
        assert acting.read("customer/0")["status"] == "pending"


def test_a_resume_warns_of_what_goes_out_at_once(look: Look, acting: Acted) -> None:
    out = acting.app.destination("at-once")
    acting.make("at-once/1", destination=out, delay="1s", value="v", status="paused")
    wait(lambda: bool(acting.read("at-once/1")["upcoming"]), "the schedule")
    with look(acting, Mode("light", 1280, scripted=False)) as looked:
        page = looked.open(f"/schedules?destination={out}")
        page.wait_for_timeout(1_500)
        page.get_by_label("Select at-once/1").check()
        press(page, "Resume…")
        expect(page.locator(".says .bad")).to_have_text("1 fire goes out at once")
        press(page, "Resume them")
        assert [one.value for one in acting.delivered(out, 1)] == [b"v"]


@pytest.mark.parametrize("mode", MODES, ids=lambda mode: mode.name)
def test_for_all_eyes(look: Look, acting: Acted, mode: Mode) -> None:
    out = acting.app.destination(f"eyes-{mode.name}")
    id = f"<b>eyes</b>-{mode.name}-{'long' * 12}"
    acting.make(id, destination=out, cron=FAR, value="v")
    with look(acting, mode) as looked:
        page = looked.open(f"/schedules?destination={out}")
        assert looked.violations() == []
        assert looked.overflow() <= 0
        page.get_by_label("all 1 that match").check()
        page.get_by_label("Why").fill("<i>why</i>")
        press(page, "Cancel…")
        for button in ("Cancel them", "Undo: bring back 1"):
            assert looked.violations() == []
            assert looked.overflow() <= 0
            press(page, button)
            expect(page.locator(".heading .state")).to_have_text("done", timeout=60_000)
        assert looked.violations() == []
        assert looked.overflow() <= 0
        looked.open("/operations")
        assert looked.violations() == []
        assert looked.overflow() <= 0
        assert page.locator("b, i").count() == 0
