"""Destinations, sums, health, metrics, the description of the interface, and the words of other systems."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import httpx
import jsonschema_rs
import pytest
from prometheus_client.parser import text_string_to_metric_families

from delaystream.console.api.described.examples import EXAMPLES
from delaystream.console.api.reading import compat
from delaystream.console.history.database import DatabaseError
from delaystream.console.history.queries import History
from delaystream.console.vendored import RAPIDOC
from tests.unit.console.serving import served, told
from tests.unit.console.test_api_times import ask
from tests.unit.engine import Engine


async def much(engine: Engine) -> None:
    """Some of everything."""
    engine.request(destination="orders", every="10s", id="a/b", name="Ten", tags="x,y", actor="ops")
    engine.request(destination="emails", cron="0 9 * * *", timezone="Europe/Berlin", id="daily")
    engine.request(destination="emails", every="1h", id="paused")
    engine.request(action="pause", id="paused")
    engine.request(destination="orders", delay="1h")
    engine.request(action="rate", destination="orders", rate="50", note="slowly")
    engine.request(action="pause", match_destination="em*", note="maintenance", actor="ops")
    engine.request(destination="gone", delay="1s")
    await asyncio.sleep(65)


WORLD: dict[str, Any] = {"owner": "worker-0", "host": "host-7"}


async def got(client: httpx.AsyncClient, path: str, status: int = 200) -> Any:
    answer = await client.get(path)
    assert answer.status_code == status, (path, answer.text)
    return answer.json()


def test_a_destination_tells_what_waits_for_it_and_what_stands_in_the_way(tmp_path: Path) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        body = await got(client, "/v1/destinations")
        found = {one["destination"]: one for one in body["items"]}
        assert list(found) == sorted(found) == ["emails", "gone", "orders"]
        assert found["orders"]["schedules"] == {"pending": 1}
        assert found["orders"]["unnamed"] == 1
        (rate,) = found["orders"]["rates"]
        assert (rate["per_second"], rate["by"], rate["note"]) == (50.0, "command", "slowly")
        (hold,) = found["emails"]["holds"]
        assert (hold["actor"], hold["note"]) == ("ops", "maintenance")
        assert found["orders"]["holds"] == []
        (parked,) = found["gone"]["parked"]
        assert (parked["partition"], "gone" in parked["reason"] or bool(parked["reason"])) == (0, True)
        assert [
            one["destination"] for one in (await got(client, "/v1/destinations?destination=gone"))["items"]
        ] == ["gone"]
        paged: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            page = await got(client, f"/v1/destinations?limit=1{cursor}")
            paged += [one["destination"] for one in page["items"]]
            cursor = None if page["next_cursor"] is None else f"&cursor={page['next_cursor']}"
        assert paged == list(found)

    ask(told(much, **WORLD), tmp_path, question)


def test_the_summary_adds_up_what_happened(tmp_path: Path) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        body = await got(client, "/v1/analytics/summary")
        assert body["total"]["counts"]["fired"] == 6
        assert body["total"]["within"]["60000"] == 1.0
        by = {one["destination"]: one["counts"] for one in body["items"]}
        assert by["orders"]["fired"] == 6
        assert sum(one["counts"].get("fired", 0) for one in body["series"]) == 6
        assert body["span_s"] == 3_600
        fine = await got(client, "/v1/analytics/summary?start=2023-11-14T22:13:00Z&end=2023-11-14T22:14:00Z")
        assert fine["span_s"] == 60
        assert 0 < fine["total"]["counts"]["fired"] < 6
        assert (await got(client, "/v1/analytics/summary?request_topic=another"))["total"]["counts"].get(
            "fired"
        ) is None
        await got(client, "/v1/analytics/summary?start=2023-11-14T22:13:00Z&end=2023-11-14T22:13:00Z", 400)

    ask(told(much, **WORLD), tmp_path, question)


def test_metrics_can_be_read_and_have_no_ids_in_them(tmp_path: Path) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        await got(client, "/v1/schedules/a%2Fb")
        await got(client, "/v1/schedules/none", 404)
        text = (await client.get("/metrics")).text
        families = {family.name: family for family in text_string_to_metric_families(text)}
        samples = {
            (sample.name, sample.labels.get("route"), sample.labels.get("status")): sample.value
            for family in families.values()
            for sample in family.samples
        }
        # Rules and dashboards choose by it, whatever scrapes.
        exposed = [sample for family in families.values() for sample in family.samples]
        assert {sample.labels["app_id"] for sample in exposed} == {"app"}
        route = "/v1/schedules/{id}"
        assert samples["delaystream_console_requests_total", route, "200"] == 1
        assert samples["delaystream_console_requests_total", route, "404"] == 1
        assert samples["delaystream_console_request_seconds_count", route, None] == 2
        assert samples["delaystream_console_copy_lag_records", None, None] == 0
        assert samples["delaystream_console_unnamed", None, None] == 2
        assert "a/b" not in text

    ask(told(much, **WORLD), tmp_path, question)


def test_health_says_what_is_not_as_it_should_be(tmp_path: Path) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        body = await got(client, "/v1/health")
        assert (body["ready"], body["problems"], body["authentication"]) == (True, [], "none")

    ask(told(much, **WORLD), tmp_path, question)


def test_a_database_that_cannot_be_asked_is_a_problem_and_no_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: object) -> None:
        raise DatabaseError("The history cannot be asked: it is locked.")

    async def question(client: httpx.AsyncClient) -> None:
        monkeypatch.setattr(History, "of_schedule", fails)
        answer = await client.get("/v1/schedules/daily/fires")
        assert (answer.status_code, answer.json()["code"]) == (503, "history-unavailable")
        assert answer.headers["content-type"] == "application/problem+json"
        assert int(answer.headers["retry-after"]) > 0

    ask(told(much, **WORLD), tmp_path, question)


def test_the_page_of_the_interface_needs_nothing_from_elsewhere(tmp_path: Path) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        page = await client.get("/v1/docs")
        assert page.status_code == 200
        assert "http" not in page.text.lower().replace("http-equiv", "")
        assert "default-src 'none'" in page.headers["content-security-policy"]
        script = await client.get(f"/v1/docs/{RAPIDOC.name}")
        assert (script.status_code, script.content) == (200, RAPIDOC.read_bytes())

    ask(told(much, **WORLD), tmp_path, question)


def test_the_description_names_every_field_that_is_answered(tmp_path: Path) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        description = await got(client, "/v1/openapi.json")
        assert description["openapi"].startswith("3.1")
        for path, methods in description["paths"].items():
            for method, operation in methods.items():
                assert operation.get("description"), (method, path)
                assert operation["responses"].keys() & {"200", "201"}, (method, path)
                assert "4XX" in operation["responses"], (method, path)

    ask(told(much, **WORLD), tmp_path, question)


def test_the_examples_are_what_their_schemas_say(tmp_path: Path) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        schemas = (await got(client, "/v1/openapi.json"))["components"]["schemas"]
        assert all(schemas[name]["examples"] == [example] for name, example in EXAMPLES.items())
        for name, example in EXAMPLES.items():
            whole = {"$ref": f"#/components/schemas/{name}", "components": {"schemas": schemas}}
            jsonschema_rs.validator_for(whole).validate(example)

    ask(told(much, **WORLD), tmp_path, question)


@pytest.mark.parametrize("prefix", compat.PREFIXES)
def test_the_paths_of_other_systems_answer_in_their_words(prefix: str, tmp_path: Path) -> None:
    async def question(client: httpx.AsyncClient) -> None:
        base = f"/compat{prefix}/schedules"
        body = await got(client, base)
        assert [one["id"] for one in body["schedules"]] == ["a/b", "daily", "paused"]
        assert (body["total"], body["total_is_exact"]) == (3, True)
        assert [one["id"] for one in (await got(client, f"{base}?is_active=false"))["schedules"]] == [
            "daily",
            "paused",
        ]
        one = await got(client, f"{base}/a%2Fb")
        assert (one["is_active"], one["type"], one["interval_seconds"]) == (True, "interval", 10.0)
        assert (one["execution_count"], one["topic"], one["created_by"]) == (6, "orders", "ops")
        daily = await got(client, f"{base}/daily")
        assert (daily["cron_expression"], daily["timezone"]) == ("0 9 * * *", "Europe/Berlin")
        paused = await got(client, f"{base}/paused")
        assert (paused["is_active"], paused["next_execution_at"]) == (False, None)
        executions = await got(client, f"{base}/a%2Fb/executions?limit=4")
        assert [one["status"] for one in executions["executions"]] == ["success"] * 4
        rest = await got(client, f"{base}/a%2Fb/executions?cursor={executions['next_cursor']}")
        assert len(rest["executions"]) == 2
        await got(client, f"{base}/none", 404)
        assert (await got(client, f"{base}/monitoring/health"))["ready"] is True
        assert (await got(client, f"{base}/monitoring/stats"))["unnamed"] == 2
        assert (await got(client, f"{base}/monitoring/analytics/summary"))["total"]["counts"]["fired"] == 6
        assert (await got(client, f"{base}/monitoring/metrics"))["paused_schedules"] == 2

    ask(told(much, **WORLD), tmp_path, question)


def test_the_page_on_mapping_names_every_field(tmp_path: Path) -> None:
    text = (Path(__file__).parents[3] / "docs" / "api-compat.md").read_text()
    for model in (compat.CompatSchedule, compat.CompatExecution, compat.CompatList):
        for name in model.model_fields:
            assert f"`{name}`" in text, name


HOSTILE = [
    "a/b",
    "/",
    "//",
    "a/fires",
    "a/upcoming",
    "a",
    "a/fires/fires",
    "a/executions",
    "a%2Ffires",
    "/fires",
    "monitoring/stats",
    "\0",
    "😀",
    "é" * 128,
    "x" * 256,
    "?",
    "#",
    "%",
    "%2F",
    "..",
    "a\nb",
    "\n",
    "a\n",
    "<b>",
]


def test_an_id_is_whatever_its_producer_made_it(tmp_path: Path) -> None:
    async def story(engine: Engine) -> None:
        for id in HOSTILE:
            engine.request(destination="orders", every="1h", id=id)
        await asyncio.sleep(1)

    of = told(story)

    async def test() -> None:
        async with served(of, tmp_path) as client:
            listed = await got(client, "/v1/schedules?limit=500&sort=id")
            assert sorted(one["id"] for one in listed["items"]) == sorted(HOSTILE)
            for id in HOSTILE:
                quoted = "".join(f"%{byte:02X}" for byte in id.encode())
                assert (await got(client, f"/v1/schedules/{quoted}"))["id"] == id
                assert (await got(client, f"/v1/schedules/{quoted}/upcoming"))["id"] == id
                assert (await got(client, f"/v1/schedules/{quoted}/fires"))["items"] == []
                assert (await got(client, f"/compat/schedules/{quoted}"))["id"] == id
                assert (await got(client, f"/compat/admin/schedules/{quoted}/executions"))["executions"] == []
                assert (await client.get(f"/schedules/{quoted}")).status_code == 200
            # A slash that is not quoted is one between an id and the question about it.
            assert "clock_changes" in await got(client, "/v1/schedules/a/upcoming")
            assert (await got(client, "/v1/schedules/a/fires%2ffires"))["id"] == "a/fires/fires"
            assert (await got(client, "/v1/schedules/a/b"))["id"] == "a/b"
            # No text is what stands for a quoted slash in between.
            await got(client, "/v1/schedules/a%ed%b0%afb", 404)
            for wrong in ("%ff%fe", "x" * 512, "%ed%a0%80"):
                assert (await got(client, f"/v1/schedules/{wrong}", 404))["code"] == "unknown"
            for path in ("schedules", "pending", "agenda"):
                for key in ("é", "=", "a"):
                    body = await got(client, f"/v1/{path}?key_base64={key}", 400)
                    assert body["code"] == "invalid-key", (path, key)
                await got(client, f"/v1/{path}?tag={'x' * 1_025}", 400)
            for cursor in ("x", "%00", "AAAA", "😀", "=" * 9, "-_" * 600):
                for path in ("schedules", "pending", "dead-letters", "destinations", "schedules/%3F/fires"):
                    body = await got(client, f"/v1/{path}?cursor={cursor}", 400)
                    assert body["code"] == "invalid-cursor", (path, cursor)

    asyncio.run(test())
