"""Sign-ups over HTTP. Who does not confirm is reminded; once a week there is a report.

The service keeps nothing: a sign-up that waits for its confirmation is a schedule, and its id is all that has
to be known to take it back.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta
from hashlib import sha256
from http import HTTPStatus

from fastapi import FastAPI, HTTPException
from pydantic import BaseModel

from delaystream.client import AsyncClient, RejectedError

WAIT = timedelta(seconds=10)
"""How long an answer is waited for."""


class SignUp(BaseModel):
    """Who signs up."""

    email: str


class Reminder(BaseModel):
    """What is delivered."""

    email: str
    token: str


def token_of(email: str) -> str:
    """What the confirmation's link carries; a real one would be signed."""
    return sha256(email.lower().encode()).hexdigest()[:16]


def reminder_id(token: str) -> str:
    """The id of the schedule of one sign-up."""
    return f"sign-up-{token}"


def create_app(
    client: AsyncClient,
    *,
    reminder_after: timedelta = timedelta(days=1),
    reminders: str = "reminders",
    reports: str = "reports",
) -> FastAPI:
    """The application, with the topics that it delivers to; whoever makes the client closes it."""

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        # Every start says the same: what is there already stays as it is, with its next time.
        await client.schedule(
            reports,
            {"report": "sign-ups"},
            id="weekly-report",
            cron="0 9 * * MON",
            timezone="Europe/Berlin",
            description="How many signed up last week",
        )
        yield

    app = FastAPI(title="Sign-ups", lifespan=lifespan)

    @app.post("/sign-ups", status_code=HTTPStatus.ACCEPTED)
    async def sign_up(who: SignUp) -> dict[str, str]:
        token = token_of(who.email)
        try:
            # Who signs up twice is not reminded twice, nor later.
            accepted = await client.schedule(
                reminders,
                Reminder(email=who.email, token=token),
                key=who.email,
                id=reminder_id(token),
                delay=reminder_after,
                if_exists="keep",
                tags=["sign-up"],
                wait=WAIT,
            )
        except RejectedError as rejected:
            raise HTTPException(HTTPStatus.BAD_REQUEST, rejected.detail) from None
        return {"token": token, "outcome": accepted.outcome or ""}

    @app.post("/confirmations/{token}")
    async def confirm(token: str) -> dict[str, bool]:
        accepted = await client.cancel(reminder_id(token), wait=WAIT)
        return {"reminder_was_pending": accepted.outcome == "cancelled"}

    return app
