"""A page of another site that is open on the same machine changes nothing."""

from __future__ import annotations

from pathlib import Path
from typing import get_args

import pytest
from fastapi.dependencies.models import Dependant
from fastapi.routing import iter_route_contexts

from delaystream.console.api.changing.guard import guard
from delaystream.console.pages.acting.forms import Posted
from tests.unit.console.writable import HOST, World, in_world

GUARDS = {guard, get_args(Posted)[1].dependency}
BODY = {"destination": "out", "delay": "1h", "value": "x"}
READS = {"/v1/preview", "/preview", "/sign-in", "/sign-out"}
"""Asked by POST, and changes nothing that is on Kafka; the gate holds signing in and out to own pages."""


@pytest.mark.parametrize(
    ("headers", "status"),
    [
        ({}, 201),
        ({"Origin": HOST, "Sec-Fetch-Site": "same-origin"}, 201),
        ({"Sec-Fetch-Site": "none"}, 201),
        ({"Host": "localhost:8643"}, 201),
        ({"Host": "[::1]:8643"}, 201),
        ({"Content-Type": "text/plain"}, 415),
        ({"Content-Type": "application/x-www-form-urlencoded"}, 415),
        ({"Content-Type": ""}, 415),
        ({"Origin": "https://evil.example"}, 403),
        ({"Origin": "null"}, 403),
        ({"Origin": "http://127.0.0.1:8000"}, 403),
        ({"Sec-Fetch-Site": "cross-site"}, 403),
        ({"Sec-Fetch-Site": "same-site"}, 403),
        # A name of the attacker's, resolved anew to this machine: of one origin with it.
        ({"Host": "evil.example:8643", "Origin": "http://evil.example:8643"}, 421),
        ({"Host": "127.0.0.1.evil.example"}, 421),
        ({"Host": "10.0.0.1"}, 421),
        ({"Host": "["}, 421),
        ({"Host": ""}, 421),
    ],
    ids=str,
)
def test_what_a_foreign_page_can_send_is_refused(
    headers: dict[str, str], status: int, tmp_path: Path
) -> None:
    async def story(world: World) -> None:
        answer = await world.ask.post("/v1/schedules", json=BODY, headers=headers)
        assert answer.status_code == status, answer.text
        assert len(world.sent()) == (status == 201)
        if status != 201:
            assert (
                answer.json()["code"]
                == {403: "cross-site", 415: "unsupported-media-type", 421: "unknown-host"}[status]
            )

    in_world(tmp_path, story)


def guarded(dependant: Dependant | None) -> bool:
    """By what is asked of JSON, or by the stamp of a form."""
    if dependant is None:
        return False
    return dependant.call in GUARDS or any(map(guarded, dependant.dependencies))


def test_no_route_that_changes_anything_is_without_the_guard(tmp_path: Path) -> None:
    async def story(world: World) -> None:
        writing = [
            route
            for route in iter_route_contexts(world.app.routes)
            if set(route.methods or ()) - {"GET", "HEAD"} and route.path not in READS
        ]
        assert len(writing) > 30
        assert [route.path for route in writing if not guarded(route.dependant)] == []

    in_world(tmp_path, story)
