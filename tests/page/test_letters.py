"""Dead letters, in a real browser on a real broker: one and many are sent again, stopped, and set aside."""

from __future__ import annotations

from urllib.parse import urlencode

from playwright.sync_api import expect

from tests.integration.harness import wait
from tests.page.conftest import Look, Mode
from tests.page.serving import Served
from tests.page.shopping import Acted
from tests.page.test_doing import press


def test_a_letter_is_repaired_and_sent_again(look: Look, acting: Acted) -> None:
    """By keys alone, from the list to the delivery."""
    out = acting.app.destination("repaired")
    acting.refused(b"customer-31", b"pay", destination=out, delay="soon", id="letter/one")
    with look(acting) as looked:
        page = looked.open(f"/dead-letters?{urlencode({'id': 'letter/one'})}")
        page.keyboard.press("j")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text("invalid-delay")
        page.get_by_role("link", name="Repair…").focus()
        page.keyboard.press("Enter")
        headers = page.get_by_label("Headers", exact=True)
        expect(headers).to_have_value("delaystream-delay: soon\ndelaystream-id: letter/one")
        headers.fill("delaystream-delay: 0\ndelaystream-id: letter/one\nrepaired: yes")
        press(page, "Review")
        expect(page.locator(".diff tr", has_text="delaystream-delay").locator("ins")).to_have_text("0")
        expect(page.locator(".says")).to_contain_text("It is due at once")
        assert acting.commands(id="letter/one")[1:] == []
        assert looked.violations() == []
        # Whoever uses the keyboard is in the form: the note, and the button behind it.
        assert page.evaluate("document.activeElement.name") == "note"
        page.keyboard.type("a typo")
        page.keyboard.press("Tab")
        page.keyboard.press("Enter")
        expect(page.locator("#now .notice")).to_contain_text("and a worker took it", timeout=30_000)
        assert looked.violations() == []
        (delivered,) = acting.delivered(out, 1)
        assert (delivered.value, delivered.header("repaired")) == (b"pay", b"yes")
        (_, sent) = acting.commands(id="letter/one")
        assert (sent.header("delaystream-note"), sent.header("delaystream-actor")) == (b"a typo", b"console")
        looked.open(f"/dead-letters?{urlencode({'id': 'letter/one'})}")
        expect(page.locator(".empty")).to_contain_text("No dead letter matches")


def test_many_are_sent_again_stopped_and_discarded(look: Look, acting: Acted) -> None:
    out = acting.app.destination("letters")
    for number in range(3):
        acting.refused(b"k", b"v%d" % number, destination=out, delay="soon", id=f"letters/{number}")
    never = acting.refused(b"k", b"never", destination=out, cron="0 25 * * *", id="letters/never")
    with look(acting) as looked:
        page = looked.open(f"/dead-letters?{urlencode({'destination': out, 'code': 'invalid-delay'})}")
        assert looked.violations() == []
        page.get_by_label("all that are open and match").check()
        press(page, "Send again…")
        expect(page.locator(".says")).to_contain_text("3 would be refused: invalid-delay")
        page.get_by_label("Headers to set").fill("delaystream-delay: 0")
        page.get_by_label("Letters a second").fill("0.1")
        press(page, "Look again")
        expect(page.locator("h1")).to_have_text("Send 3 dead letters again?")
        assert looked.violations() == []
        press(page, "Send 3 again")
        expect(page.locator("h1")).to_contain_text("Send 3 dead letters again")
        assert looked.violations() == []
        # The first goes at once, the next one after ten seconds.
        (first,) = acting.delivered(out, 1)
        press(page, "Stop")
        expect(page.locator(".heading .state")).to_have_text("stopped")
        expect(page.locator("#now")).to_contain_text("those that are left are open still")
        looked.open(f"/dead-letters?{urlencode({'destination': out})}")
        expect(page.locator("[data-rows] tbody tr")).to_have_count(3)
        expect(page.locator("#runs ~ table")).to_contain_text("stopped")
        page.locator("tr", has_text="invalid-delay").get_by_role("checkbox").first.check()
        page.locator("tr", has_text="invalid-delay").get_by_role("checkbox").last.check()
        expect(page.locator("[data-picked]")).to_have_text("(2)")
        press(page, "Send again…")
        page.get_by_label("Headers to set").fill("delaystream-delay: 0")
        press(page, "Look again")
        press(page, "Send 2 again")
        expect(page.locator("#now .numbers div", has_text="taken").locator("dd")).to_have_text(
            "2", timeout=30_000
        )
        expect(page.locator(".heading .state")).to_have_text("done")
        delivered = acting.delivered(out, 3)
        assert {one.value for one in delivered} == {b"v0", b"v1", b"v2"}
        assert first.value in {b"v0", b"v1", b"v2"}
        looked.open(f"/dead-letters?{urlencode({'destination': out})}")
        page.get_by_label(f"Select {never}").check()
        press(page, "Discard…")
        page.get_by_label("Why").fill("a test")
        press(page, "Discard it")
        expect(page.locator("tr", has_text="invalid-cron").first).to_contain_text("discarded")
        page.get_by_role("link", name=f"invalid-cron, letter {never}").click()
        press(page, "Take up again")
        press(page, "Take it up")
        expect(page.locator(".heading .state")).to_have_text("open")
        # Nothing of it was sent.
        assert len(acting.commands(id="letters/never")) == 1
        wait(lambda: acting.states("letters/never") == {"rejected"}, "what is known of it")


def test_what_is_asked_back_is_for_a_phone_in_the_dark(look: Look, shop: Served) -> None:
    with look(shop, Mode("dark", 390)) as looked:
        page = looked.open("/dead-letters/0.0/redrive?payload=true")
        headers = page.get_by_label("Headers", exact=True)
        headers.fill(headers.input_value().replace("-5", "15m"))
        page.get_by_label("Value", exact=True).fill("line 1\nline 2")
        press(page, "Review")
        expect(page.locator("h1")).to_have_text("Send it again?")
        for action in ("", "Send again…", "Discard…"):
            if action:
                looked.open("/dead-letters")
                page.get_by_label("all that are open and match").check()
                press(page, action)
            assert looked.violations() == [], action
            assert looked.overflow() <= 0, action
