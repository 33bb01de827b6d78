"""The example service as its users run it: real clients, a real worker, a real broker."""

from __future__ import annotations

import asyncio
from datetime import timedelta

import httpx

from delaystream.client import AsyncClient
from examples.signup.service import Reminder, create_app
from tests.integration.harness import Deployment


def test_the_service_reminds_whoever_does_not_confirm(app: Deployment) -> None:
    reminders, reports = app.destination("reminders"), app.destination("reports")

    async def story() -> None:
        async with AsyncClient(
            app.kafka.bootstrap, request_topic=app.requests, reply_to=app.receipts
        ) as client:
            service = create_app(
                client, reminder_after=timedelta(seconds=3), reminders=reminders, reports=reports
            )
            async with (
                service.router.lifespan_context(service),
                httpx.AsyncClient(transport=httpx.ASGITransport(service), base_url="http://service") as http,
            ):
                answers = [
                    (await http.post("/sign-ups", json={"email": f"{name}@example.org"})).json()
                    for name in ("ada", "bob", "cleo")
                ]
                assert [answer["outcome"] for answer in answers] == ["scheduled"] * 3
                confirmed = await http.post(f"/confirmations/{answers[1]['token']}")
                assert confirmed.json() == {"reminder_was_pending": True}
                report = await client.describe("weekly-report")
                assert report is not None
                assert report.definition.cron == "0 9 * * MON"
            await client.cancel("weekly-report")

    asyncio.run(story())
    delivered = app.kafka.read(reminders, 2)
    reminded = [Reminder.model_validate_json(delivery.value or b"") for delivery in delivered]
    assert [reminder.email for reminder in reminded] == ["ada@example.org", "cleo@example.org"]
