"""Run the service: KAFKA says where the brokers are."""

from __future__ import annotations

import asyncio
import os
from datetime import timedelta

import uvicorn

from delaystream.client import AsyncClient
from examples.signup.service import create_app


async def main() -> None:
    """Serve until interrupted."""
    after = timedelta(seconds=float(os.environ.get("REMINDER_AFTER_SECONDS", "86400")))
    async with AsyncClient(os.environ.get("KAFKA", "localhost:9092")) as client:
        app = create_app(client, reminder_after=after)
        await uvicorn.Server(uvicorn.Config(app, host="127.0.0.1", port=8000)).serve()


asyncio.run(main())
