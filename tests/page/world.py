"""What the pages are tested on: an afternoon of a shop, a hostile one, and one in which nothing happened."""

from __future__ import annotations

import asyncio
from typing import Any

from delaystream.config import load
from delaystream.console.pages.appearance import Appearance
from delaystream.engine.ports import TopicPartition
from tests.unit.console.serving import Told, told
from tests.unit.engine import Engine

OWNER: dict[str, Any] = {"owner": "worker-2", "host": "delaystream-2.delaystream"}
HOSTILE = "<img src=x onerror=alert(1)>\"'><script>alert(2)</script>{{7*7}}${7*7}\u202e\u0000%2F../"
APPEARANCE = Appearance.of(
    load(
        environ={
            "DELAYSTREAM_CONSOLE_ENVIRONMENT": "production",
            "DELAYSTREAM_CONSOLE_ENVIRONMENT_COLOR": "red",
            "DELAYSTREAM_CONSOLE_DOCS_URL": "https://docs.example.com/delaystream",
            "DELAYSTREAM_KAFKA_BOOTSTRAP_SERVERS": "kafka-1.example.com:9092",
            "DELAYSTREAM_CONSOLE_DATABASE": "postgresql+psycopg://console:secret@db.example.com/console",
        }
    )
)


async def _shop(engine: Engine) -> None:
    for topic in ("invoices", "reminders", "reports", "carts", "billing-retries"):
        engine.log.create_topic(topic, 1)
    ask = engine.request
    ask(
        b'{"report": "orders", "for": "finance"}',
        b"finance",
        (("content-type", b"application/json"), ("correlation-id", b"c-4711")),
        destination="reports",
        cron="30 9 * * MON-FRI",
        timezone="Europe/Berlin",
        id="daily-order-report",
        name="Daily order report",
        description="Orders of the last business day, for the finance team.",
        tags="finance,reports",
        actor="lena@example.com",
    )
    ask(
        b"go",
        destination="reports",
        cron="0 0 L * *",
        timezone="America/New_York",
        id="month-end-close",
        name="Month end",
        tags="finance",
        grace="2h",
        actor="declared by billing",
    )
    ask(b"{}", b"kpi", destination="reports", every="1m", id="kpi-refresh", tags="kpi", jitter="5s")
    ask(b"{}", destination="carts", every="5m", id="abandoned-carts/sweep", tags="carts", catch_up="latest")
    ask(b"{}", destination="orders", cron="*/15 8-18 * * *", id="stock-sync", timezone="Europe/Paris")
    ask(destination="emails", cron="0 8 * * MON", id="newsletter", tags="marketing", actor="marco")
    for number in range(1, 31):
        ask(
            b'{"invoice": %d}' % number,
            b"customer-%d" % (1000 + number % 9),
            destination="invoices",
            delay=f"{number * 140}s",
            id=f"invoice-{4200 + number}/reminder",
            name=f"Payment reminder {number}",
            tags="dunning",
        )
    for number in range(40):
        ask(b"cart", b"customer-%d" % (1000 + number % 9), destination="carts", delay=f"{60 + number * 170}s")
    ask(
        b"hello",
        b"customer-1004",
        destination="emails",
        delay="3h",
        id="welcome-1004",
        actor="signup-service",
    )
    ask(b"x", b"customer-1004", destination="crm-sync", delay="50m", tags="crm")
    ask(b"x", b"customer-1007", destination="crm-sync", delay="52m", tags="crm")
    ask(destination="emails", delay="-5", id="broken")
    ask(destination="emails", cron="0 25 * * *", id="nightly-mail")
    await asyncio.sleep(20 * 60)
    # The topic was missing for a while, and what was due meanwhile came late.
    ask(b"{}", b"customer-1003", destination="billing", every="2m", id="billing-retry/1003", tags="billing")
    await asyncio.sleep(11 * 60)
    engine.log.create_topic("billing", 1)
    await asyncio.sleep(14 * 60)
    ask(destination="emails", delay="tomorrow", key=b"customer-1001")
    ask(
        action="pause",
        id="newsletter",
        note="waits for legal to approve the text",
        actor="marco",
        until="2023-11-20T08:00:00Z",
    )
    ask(
        action="pause",
        id="month-end-close",
        note="books are closed by hand this month",
        actor="lena@example.com",
    )
    ask(action="trigger", id="daily-order-report", actor="lena@example.com", note="finance asked for it")
    ask(action="pause", match_destination="carts", note="carts service is being moved", actor="ops-oncall")
    ask(
        action="rate", destination="invoices", rate="50", note="the mail provider's bound", actor="ops-oncall"
    )
    ask(action="cancel", id="invoice-4230/reminder", actor="customer-care", note="paid by phone")
    await asyncio.sleep(18 * 60 + 7.3)


async def _calm(engine: Engine) -> None:
    for topic in ("reports",):
        engine.log.create_topic(topic, 1)
    engine.request(b"{}", destination="reports", every="1m", id="kpi-refresh", tags="kpi")
    engine.request(b"{}", destination="orders", cron="*/5 * * * *", id="stock-sync")
    await asyncio.sleep(62 * 60)


async def _hostile(engine: Engine) -> None:
    text = HOSTILE
    plain = text.replace("\u0000", "")
    engine.request(
        text.encode(),
        text.encode(),
        ((plain, text.encode()), ("binary", b"\xff\xfe")),
        destination="orders",
        every="10s",
        id=plain,
        name=plain,
        description=plain,
        tags="<b>tag</b>",
        actor=plain,
        note=plain,
    )
    engine.request(b"\xff\x00", b"\xfe", destination="orders", delay="1d", id="-binary")
    engine.request(b"x", text.encode(), destination="orders", delay="1d", tags="<i>x</i>")
    engine.request(destination=plain, delay="1d", id=plain)
    engine.request(destination="orders", cron=plain, id=plain)
    engine.request(destination="gone", delay="1s", key=text.encode())
    engine.request(b"x", destination="orders", every="1h", id="-" + "long" * 60)
    engine.request(action="pause", id="-" + "long" * 60, note=plain, actor=plain)
    engine.request(action="pause", match_destination="em*", note=plain, actor=plain)
    engine.request(action="rate", destination="orders", rate="50", note=plain)
    await asyncio.sleep(65)


async def _nothing(_: Engine) -> None:
    """Nobody asks for anything."""
    await asyncio.sleep(2)


def shop() -> Told:
    """A shop: most is well, some things need a person, and an incident is an hour old."""
    return told(_shop, partitions=1, **OWNER)


def calm() -> Told:
    """All is well."""
    return told(_calm, **OWNER)


def hostile() -> Told:
    """Every field that a producer may fill has markup, expressions and odd characters in it."""
    return told(_hostile, **OWNER)


def empty() -> Told:
    """A worker runs, and nobody has sent anything."""
    return told(_nothing, **OWNER)


def unread(topic: str, of: Told) -> None:
    """A request that no worker has read."""
    of.log.append(TopicPartition(topic, 0), (None, b"late", [], of.clock.now_ms()))
