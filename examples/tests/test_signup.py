"""A week of the service, in virtual time."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import httpx
import pytest

from delaystream.client import Delivery
from delaystream.testing import AsyncEnvironment, environment
from examples.signup.service import Reminder, create_app

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@asynccontextmanager
async def service(env: AsyncEnvironment) -> AsyncIterator[httpx.AsyncClient]:
    app = create_app(env.client)
    async with (
        app.router.lifespan_context(app),
        httpx.AsyncClient(transport=httpx.ASGITransport(app), base_url="http://service") as http,
    ):
        yield http


async def test_who_does_not_confirm_is_reminded_after_a_day() -> None:
    async with environment() as env, service(env) as http:
        reminded: list[Reminder] = []

        def mail(delivery: Delivery) -> None:
            reminded.append(Reminder.model_validate_json(delivery.value or b""))

        env.consume("reminders", mail)
        for email in ("ada@example.org", "bob@example.org"):
            answer = await http.post("/sign-ups", json={"email": email})
            assert (answer.status_code, answer.json()["outcome"]) == (202, "scheduled")
        await env.advance(timedelta(hours=23))
        answer = await http.post(f"/confirmations/{answer.json()['token']}")
        assert answer.json() == {"reminder_was_pending": True}
        await env.advance(timedelta(hours=2))
        assert [reminder.email for reminder in reminded] == ["ada@example.org"]


async def test_who_signs_up_twice_is_reminded_once_and_no_later() -> None:
    async with environment() as env, service(env) as http:
        await http.post("/sign-ups", json={"email": "ada@example.org"})
        await env.advance(timedelta(hours=12))
        answer = await http.post("/sign-ups", json={"email": "Ada@Example.org"})
        assert answer.json()["outcome"] == "kept"
        await env.advance(timedelta(hours=12))
        assert len(env.assert_delivered("reminders", count=1)) == 1


async def test_a_confirmation_that_comes_late_says_so() -> None:
    async with environment() as env, service(env) as http:
        token = (await http.post("/sign-ups", json={"email": "ada@example.org"})).json()["token"]
        await env.advance(timedelta(days=2))
        answer = await http.post(f"/confirmations/{token}")
        assert answer.json() == {"reminder_was_pending": False}


async def test_the_report_is_on_mondays_at_nine_in_berlin_also_after_a_restart() -> None:
    async with environment(start=datetime(2030, 3, 27, tzinfo=UTC)) as env:
        async with service(env):
            await env.advance(timedelta(days=2))
        # Clocks change on the 31st. A deploy in between moves nothing.
        async with service(env):
            await env.advance(timedelta(days=12))
        assert [delivery.due_at for delivery in env.deliveries("reports")] == [
            datetime(2030, 4, 1, 7, tzinfo=UTC),
            datetime(2030, 4, 8, 7, tzinfo=UTC),
        ]
