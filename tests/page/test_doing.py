"""What people do on the pages, in a real browser on a real broker: each action, and its effect on Kafka."""

from __future__ import annotations

from playwright.sync_api import Page, expect

from tests.integration.harness import wait
from tests.page.conftest import MODES, Look, Mode
from tests.page.shopping import Acted

FAR = "0 9 1 1 *"
UNSCRIPTED = Mode("light", 1280, scripted=False)


def press(page: Page, name: str) -> None:
    """A button or a link, by its whole name."""
    page.get_by_role("button", name=name, exact=True).or_(
        page.get_by_role("link", name=name, exact=True)
    ).first.click()


def told(page: Page, text: str) -> None:
    expect(page.locator("#told")).to_contain_text(text)


def test_pause_and_resume_in_place(look: Look, acting: Acted) -> None:
    out = acting.app.destination("paused")
    acting.make("page/paused", destination=out, cron=FAR, value="v")
    with look(acting) as looked:
        page = looked.open("/schedules/page%2Fpaused")
        address = page.url
        press(page, "Pause")
        expect(page.locator("#act")).to_have_text("Pause page/paused?")
        # Whoever uses the keyboard is in the form, without a look for it.
        assert page.evaluate("document.activeElement.name") == "lasts"
        expect(page.get_by_label("Until", exact=True)).to_be_hidden()
        page.get_by_label("How long").select_option("at")
        expect(page.get_by_label("Until", exact=True)).to_be_visible()
        page.get_by_label("Until", exact=True).fill("soon")
        page.get_by_label("Why").fill("waits for legal")
        press(page, "Pause it")
        expect(page.locator(".wrong")).to_contain_text("invalid-until")
        expect(page.get_by_label("Until", exact=True)).to_have_attribute("aria-invalid", "true")
        assert looked.violations() == []
        # The browser tells of the answer 400.
        looked.troubles.clear()
        page.get_by_label("How long").select_option("4h")
        press(page, "Pause it")
        told(page, "Paused.")
        assert page.url == address
        assert acting.read("page/paused")["status"] == "paused"
        (sent,) = acting.commands(action="pause", id="page/paused")
        assert (sent.header("delaystream-note"), sent.header("delaystream-actor")) == (
            b"waits for legal",
            b"console",
        )
        press(page, "Resume")
        press(page, "Resume it")
        told(page, "Resumed.")
        assert acting.read("page/paused")["status"] == "pending"
        assert looked.violations() == []


def test_send_now_also_and_instead(look: Look, acting: Acted) -> None:
    out = acting.app.destination("now")
    acting.make("page/now", destination=out, cron=FAR, value="v")
    acting.make("page/once", destination=out, delay="9h", value="once")
    with look(acting) as looked:
        page = looked.open("/schedules/page%2Fnow")
        press(page, "Send now")
        press(page, "Send it now")
        told(page, "Sent now, as fire")
        assert [one.value for one in acting.delivered(out, 1)] == [b"v"]
        looked.open("/schedules/page%2Fonce")
        press(page, "Send now")
        page.get_by_label("instead").check()
        press(page, "Send it now")
        told(page, "It has another time.")
        assert [one.value for one in acting.delivered(out, 2)] == [b"v", b"once"]
        wait(lambda: acting.read("page/once")["status"] == "fired", "its end")


def test_everything_without_script(look: Look, acting: Acted) -> None:
    out = acting.app.destination("plain")
    acting.make("page/plain", destination=out, cron=FAR, value="v")
    with look(acting, UNSCRIPTED) as looked:
        page = looked.open("/schedules/page%2Fplain")
        press(page, "Reschedule")
        page.get_by_label("again and again").check()
        page.get_by_label("Every", exact=True).fill("7h")
        press(page, "Give it these times")
        told(page, "It has another time.")
        assert acting.read("page/plain")["definition"]["every"] == "7h"
        press(page, "Cancel")
        press(page, "Cancel the schedule")
        told(page, "Cancelled")
        assert acting.read("page/plain")["status"] == "cancelled"
        assert len(acting.commands(action="cancel", id="page/plain")) == 1
        press(page, "Create it again")
        expect(page.locator("h1")).to_have_text("New schedule")


def test_by_the_keyboard_alone(look: Look, acting: Acted) -> None:
    out = acting.app.destination("keys")
    acting.make("page/keys", destination=out, cron=FAR, value="v")
    with look(acting) as looked:
        page = looked.open("/")
        page.keyboard.press("/")
        page.keyboard.type("page/keys")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text("page/keys")
        page.get_by_role("link", name="Cancel page/keys").focus()
        page.keyboard.press("Enter")
        expect(page.locator("#act")).to_have_text("Cancel page/keys?")
        assert page.evaluate("document.activeElement.name") == "note"
        page.keyboard.type("enough")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        told(page, "Cancelled")
        assert acting.read("page/keys")["note"] == "enough"


def test_who_was_slower_sees_what_changed_meanwhile(look: Look, acting: Acted) -> None:
    out = acting.app.destination("slow")
    acting.make("page/slow", destination=out, cron=FAR, value="v")
    with look(acting) as first, look(acting) as second:
        one, other = first.open("/schedules/page%2Fslow"), second.open("/schedules/page%2Fslow")
        press(one, "Cancel")
        press(other, "Pause")
        other.get_by_label("Why").fill("the other shift")
        press(other, "Pause it")
        told(other, "Paused.")
        press(one, "Cancel the schedule")
        expect(one.get_by_role("alert")).to_contain_text("version-changed")
        wait(lambda: "the other shift" in one.get_by_role("alert").inner_text(), "who did what", 5)
        assert first.violations() == []
        # The browser tells of the answer 412.
        first.troubles.clear()
        press(one, "Cancel the schedule")
        told(one, "Cancelled")


def test_make_one_and_change_it(look: Look, acting: Acted) -> None:
    out = acting.app.destination("made")
    with look(acting) as looked:
        page = looked.open("/schedules")
        press(page, "New schedule")
        page.get_by_label("Id", exact=True).fill("page/made")
        page.get_by_label("Destination", exact=True).fill(out)
        page.get_by_label("by a cron expression").check()
        expect(page.get_by_label("Every", exact=True)).to_be_hidden()
        page.get_by_label("Cron expression", exact=True).press_sequentially("30 9 * * MON-FRI")
        page.get_by_label("Time zone").fill("Europe/Berlin")
        preview = page.locator("#preview")
        expect(preview).to_contain_text("at 09:30, Monday to Friday, in Europe/Berlin")
        expect(preview.locator("tbody tr").first).to_contain_text("09:30:00")
        page.get_by_label("Value", exact=True).fill('{"run": "daily"}')
        assert looked.violations() == []
        press(page, "Review")
        expect(page.locator("h1")).to_contain_text("Create page/made")
        expect(page.locator("#copy ~ details code").first).to_contain_text("-X POST")
        assert looked.violations() == []
        press(page, "Create it")
        told(page, "Created.")
        (sent,) = acting.commands(id="page/made")
        assert sent.value == b'{"run": "daily"}'
        assert sent.header("delaystream-cron") == b"30 9 * * MON-FRI"

        press(page, "Edit")
        page.get_by_label("Name", exact=True).fill("Daily run")
        press(page, "Review")
        expect(page.locator(".diff tbody tr")).to_have_count(1)
        expect(page.locator(".diff ins")).to_have_text("Daily run")
        assert looked.violations() == []
        press(page, "Save the change")
        told(page, "Changed.")
        (changed,) = acting.commands(action="update", id="page/made")
        assert changed.header("delaystream-name") == b"Daily run"
        definition = acting.read("page/made")["definition"]
        assert (definition["name"], definition["timezone"]) == ("Daily run", "Europe/Berlin")


def test_stop_everything_of_a_customer_and_let_it_go_on(look: Look, acting: Acted) -> None:
    out = acting.app.destination("customer")
    acting.make("page/customer", destination=out, cron=FAR, value="v", key="customer-17")
    acting.send(b"customer-17", b"later", destination=out, delay="9h")
    with look(acting) as looked:
        page = looked.open("/where?q=customer-17")
        press(page, "Stop everything with this key")
        page.get_by_label("Why").fill("asked for by phone")
        press(page, "Hold it")
        told(page, "Held: 1 schedule, and 1 event without an id.")
        assert looked.violations() == []
        assert acting.read("page/customer")["status"] == "paused"
        acting.app.request(b"new", {"destination": out, "delay": "0"}, key=b"customer-17")
        (sent,) = acting.commands(**{"action": "pause", "match-key": "customer-17"})
        assert sent.header("delaystream-note") == b"asked for by phone"
        wait(lambda: "held" in acting.states("customer-17"), "what is held")
        looked.open("/where?q=customer-17")
        press(page, "Release the hold of this key")
        press(page, "Release it")
        told(page, "Released: 1 schedule.")
        assert [one.value for one in acting.delivered(out, 1)] == [b"new"]
        assert acting.read("page/customer")["status"] == "pending"


def test_a_rate(look: Look, acting: Acted) -> None:
    out = acting.app.destination("rated")
    acting.make("page/rated", destination=out, cron=FAR, value="v")
    with look(acting) as looked:
        page = looked.open(f"/destinations?destination={out}")
        press(page, "Rate")
        page.get_by_label("Records", exact=True).fill("600/m")
        press(page, "Set the rate")
        told(page, "The rate is set on every partition.")
        expect(page.locator("tbody tr").first).to_contain_text("10 a second")
        (sent,) = acting.commands(action="rate", destination=out)
        assert sent.header("delaystream-rate") == b"600/m"
        assert looked.violations() == []


def test_a_request_without_id(look: Look, acting: Acted) -> None:
    out = acting.app.destination("unnamed")
    sent = acting.send(b"customer-18", b"now", destination=out, delay="9h")
    gone = acting.send(b"customer-18", b"gone", destination=out, delay="9h")
    with look(acting) as looked:
        page = looked.open("/where?q=customer-18")
        page.get_by_role("link", name=sent, exact=True).click()
        press(page, "Send now")
        press(page, "Send it now")
        told(page, "Sent now")
        assert [one.value for one in acting.delivered(out, 1)] == [b"now"]
        looked.open(f"/pending/{gone}/cancel")
        press(page, "Cancel it")
        told(page, "Cancelled")
        assert "pending" not in acting.states(gone)
        assert looked.violations() == []


def test_what_is_asked_back_is_for_all_eyes(look: Look, acting: Acted) -> None:
    out = acting.app.destination("eyes")
    acting.make("page/eyes", destination=out, cron=FAR, value="v")
    paths = [
        "/schedules/page%2Feyes/trigger",
        "/schedules/page%2Feyes/reschedule",
        "/schedules/page%2Feyes/edit?payload=true",
        "/holds/new?key=customer-1",
    ]
    for mode in MODES:
        with look(acting, mode) as looked:
            for path in paths:
                looked.open(path)
                looked.page.wait_for_load_state("networkidle")
                assert looked.violations() == [], (mode.name, path)
                assert looked.overflow() <= 0, (mode.name, path)
