"""What people do on the pages: look for an event, move by keys, copy a request, watch."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime

from playwright.sync_api import expect

from delaystream.console.pages.rendering import visible
from delaystream.engine.ports import TopicPartition
from tests.page.conftest import Look, Mode
from tests.page.serving import Served
from tests.page.world import HOSTILE

EVENTS = TopicPartition("delay-events", 0)


def tell(console: Served, **event: object) -> None:
    """Have an event written, as a worker does."""
    now_ms = console.of.clock.now_ms()
    body = json.dumps(
        {"schema_version": 2, "at_ms": now_ms, "request_topic": "delay-requests", **event}
    ).encode()
    console.do(lambda: console.of.log.append(EVENTS, (b"key", body, [], now_ms)))


def test_where_is_this_customers_event(look: Look, shop: Served) -> None:
    """From anywhere: one key, the customer's number, enter."""
    with look(shop) as looked:
        page = looked.open("/partitions")
        page.keyboard.press("/")
        page.keyboard.type("customer-1004")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_contain_text("customer-1004")
        states = page.locator(".found .found-state .state").all_inner_texts()
        assert {"parked", "held", "pending", "fired"} <= set(states)
        parked = page.locator(".found li", has_text="parked")
        expect(parked).to_contain_text("crm-sync cannot be written to since")


def test_why_was_it_late(look: Look, shop: Served) -> None:
    """The search, and one click."""
    with look(shop) as looked:
        page = looked.open("/where?q=billing-retry/1003")
        page.get_by_role("link", name="billing-retry/1003", exact=True).click()
        expect(page.locator("#main")).to_contain_text("Why it was late: billing was parked from")
        expect(page.locator("#main")).to_contain_text("63 s")


def test_what_fires_in_the_next_hour(look: Look, shop: Served) -> None:
    """It is on the first page, as bars and as a list; one click has all of it."""
    with look(shop) as looked:
        page = looked.open("/")
        assert page.locator(".timeline figure").nth(1).locator("rect").count() > 20
        page.get_by_role("link", name="Agenda").last.click()
        expect(page.locator(".hour").first).to_contain_text("invoice-4228/reminder")


def test_what_is_wrong_is_one_click_from_the_verdict(look: Look, shop: Served) -> None:
    with look(shop) as looked:
        page = looked.open("/")
        verdict = page.locator(".verdict")
        expect(verdict.locator("h2")).to_have_text("2 events overdue")
        expect(verdict).to_contain_text("crm-sync cannot be written to: does not exist")
        runbook = verdict.get_by_role("link", name="Runbook").get_attribute("href")
        assert runbook == "https://docs.example.com/delaystream/runbooks/destination-parked/"
        verdict.get_by_role("link", name="Show them").click()
        expect(page.locator("tbody tr", has_text="crm-sync")).to_have_count(2)
        page.go_back()
        verdict.get_by_role("link", name="Look closer").click()
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody tr")).to_contain_text("parked")


def test_what_needs_a_person_says_who_and_until_when(look: Look, shop: Served) -> None:
    with look(shop) as looked:
        needs = looked.open("/").locator(".need")
        expect(needs.filter(has_text="newsletter is paused")).to_contain_text("by marco: “waits for legal")
        expect(needs.filter(has_text="newsletter is paused")).to_contain_text("until 2023-11-20 09:00:00")
        expect(needs.filter(has_text="Held: the destination carts")).to_contain_text("by ops-oncall")
        expect(needs.filter(has_text="Dead letters")).to_contain_text("invalid-delay (2), invalid-cron (1)")


def test_keys(look: Look, shop: Served) -> None:
    with look(shop) as looked:
        page = looked.open("/")
        page.keyboard.press("?")
        expect(page.locator("#keys")).to_be_visible()
        assert looked.violations() == []
        page.keyboard.press("Escape")
        page.keyboard.press("g")
        page.keyboard.press("s")
        expect(page.locator("h1")).to_have_text("Schedules")
        # Its heading is there before its script listens.
        page.wait_for_load_state()
        page.keyboard.press("j")
        page.keyboard.press("j")
        names = page.locator("tbody a.name").all_inner_texts()
        assert page.evaluate("document.activeElement.textContent") == names[1]
        page.keyboard.press("k")
        page.keyboard.press("Enter")
        expect(page.locator("h1")).to_have_text(names[0])


def test_keys_are_letters_where_one_writes(look: Look, shop: Served) -> None:
    with look(shop) as looked:
        page = looked.open("/schedules")
        page.get_by_label("Tag").fill("")
        page.get_by_label("Tag").press_sequentially("g?/t")
        assert page.get_by_label("Tag").input_value() == "g?/t"
        expect(page.locator("#keys")).to_be_hidden()


def test_the_chosen_theme_stays(look: Look, shop: Served) -> None:
    with look(shop) as looked:
        page = looked.open("/")
        light = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        page.get_by_role("button", name="Dark or light").click()
        dark = page.evaluate("getComputedStyle(document.documentElement).backgroundColor")
        assert dark != light
        looked.open("/schedules")
        assert page.evaluate("getComputedStyle(document.documentElement).backgroundColor") == dark


def test_times_are_the_readers_and_utc_is_behind_them(look: Look, shop: Served) -> None:
    with look(shop) as looked:
        row = looked.open("/schedules/daily-order-report").locator(".upcoming tbody tr").nth(1)
        expect(row).to_contain_text("2023-11-16 09:30:00 +01:00")
        here = row.locator("time[data-at]")
        expect(here).to_have_text("2023-11-16 09:30:00")
        assert here.get_attribute("title") == "2023-11-16 08:30:00 UTC"
        expect(looked.page.locator("[data-zone]")).to_contain_text("Europe/Berlin")
    with look(shop, Mode("light", 1280, scripted=False)) as looked:
        row = looked.open("/schedules/daily-order-report").locator(".upcoming tbody tr").nth(1)
        expect(row).to_contain_text("2023-11-16 08:30:00")


def test_a_filter_is_in_the_address(look: Look, shop: Served) -> None:
    with look(shop) as looked:
        page = looked.open("/schedules")
        page.get_by_label("Tag").fill("finance")
        page.get_by_role("button", name="Show").click()
        expect(page.locator("tbody tr")).to_have_count(2)
        assert "tag=finance" in page.url
        page.get_by_role("link", name="paused").first.click()
        assert "tag=finance" in page.url
        expect(page.locator("tbody tr")).to_have_count(1)
        page.get_by_role("link", name="Clear").click()
        expect(page.locator("tbody tr")).to_have_count(3)


def test_a_request_is_copied(look: Look, shop: Served) -> None:
    with look(shop) as looked:
        looked.page.context.grant_permissions(["clipboard-read", "clipboard-write"], origin=shop.url)
        page = looked.open("/schedules/daily-order-report?payload=true")
        snippet = page.locator("#copy ~ details").nth(1)
        snippet.locator("summary").click()
        snippet.get_by_role("button", name="Copy").click()
        expect(snippet.get_by_role("button")).to_have_text("Copied")
        words = shlex.split(page.evaluate("navigator.clipboard.readText()").replace("\\\n", ""))
        assert words[:2] == ["delaystream", "send"]
        assert words[-1] == '{"report": "orders", "for": "finance"}'


def test_the_payload_is_shown_to_who_asks(look: Look, shop: Served) -> None:
    with look(shop) as looked:
        page = looked.open("/schedules/daily-order-report")
        assert '"report"' not in page.content()
        page.get_by_role("link", name="Show the payload").click()
        expect(page.locator("#payload ~ .code-block")).to_contain_text(
            '{"report": "orders", "for": "finance"}'
        )


def test_events_come_while_one_watches(look: Look, watched: Served) -> None:
    with look(watched) as looked:
        page = looked.open("/live?destination=watched")
        expect(page.locator("[data-live-state]")).to_have_text("Live")
        expect(page.locator("tbody tr")).to_have_count(0)
        fired = {"type": "fired", "destination": "watched", "lateness_ms": 4_200}
        tell(watched, **fired, id="seen", schedule_id="seen")
        expect(page.locator("tbody tr")).to_have_count(1)
        expect(page.locator("tbody tr").first).to_contain_text("seen")
        expect(page.locator("tbody tr").first).to_contain_text("4.2 s")
        tell(watched, **{**fired, "destination": "other"}, id="hidden", schedule_id="hidden")
        page.get_by_role("button", name="Pause").click()
        tell(watched, **fired, id=HOSTILE, schedule_id=HOSTILE, actor=HOSTILE, note=HOSTILE, detail=HOSTILE)
        expect(page.locator("[data-live-state]")).to_contain_text("1 came meanwhile")
        expect(page.locator("tbody tr")).to_have_count(1)
        page.get_by_role("button", name="Go on").click()
        expect(page.locator("tbody tr")).to_have_count(2)
        assert visible(HOSTILE) in page.locator("tbody tr").first.evaluate("row => row.textContent")
        assert page.locator("main img, main script").count() == 0
        assert looked.violations() == []


def test_a_console_that_no_longer_answers_is_told_of(look: Look, calm: Served) -> None:
    with look(calm) as looked:
        page = looked.page
        page.clock.install(time=datetime.fromtimestamp(calm.of.clock.now_ms() / 1000, UTC))
        looked.open("/")
        silent = page.locator("[data-silent]")
        page.clock.run_for(20_000)
        page.wait_for_load_state("networkidle")
        page.clock.run_for(6_000)
        expect(silent).to_be_hidden()
        page.route(f"{calm.url}/", lambda route: route.abort())
        for _ in range(5):
            page.clock.run_for(5_000)
        expect(silent).to_contain_text("does not answer")
        page.unroute(f"{calm.url}/")
        for _ in range(3):
            with page.expect_response(f"{calm.url}/"):
                page.clock.run_for(5_000)
        expect(silent).to_be_hidden()
        # The browser tells of requests that failed, as it should.
        looked.troubles.clear()


def test_the_first_page_renews_itself_and_keeps_what_is_open(look: Look, empty: Served) -> None:
    with look(empty) as looked:
        page = looked.open("/")
        page.locator(".snippet summary").nth(2).click()
        with page.expect_response(lambda answer: answer.url == f"{empty.url}/"):
            pass
        expect(page.locator(".snippet code").nth(2)).to_be_visible()
        expect(page.locator(".snippet").nth(2).get_by_role("button", name="Copy")).to_be_visible()
        assert page.locator("#now").count() == 1
        assert page.locator(".top").count() == 1
