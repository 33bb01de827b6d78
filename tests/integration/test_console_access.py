"""A console with tokens, as a process over real topics: each caller sees its own request topic."""

from __future__ import annotations

import json
import re
import socket
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import quote

import httpx
import pytest

from tests.integration.harness import Deployment, command, wait
from tests.integration.harness_fixtures import Deploy

_URL = re.compile(r'"url":"(http://[^"]+)"')
_MARK = "zebra"
_HOSTILE = ["a/b", "..", "<b>", "a\nb", "%2F", "' OR 1=1 --", "é" * 100, "?x=1", "#"]
_FAR = {"delay": "1d"}


def made(*arguments: str) -> tuple[str, str]:
    """A token and its entry, as the command line makes them."""
    found = subprocess.run(
        command("console", "token", *arguments), capture_output=True, text=True, check=True, timeout=60
    )
    return found.stderr.strip(), found.stdout


@contextmanager
def served(app: Deployment, directory: Path, file: Path, **settings: str) -> Iterator[tuple[str, Path]]:
    """A console's address and log."""
    log = directory / "console.log"
    environment = app.environment() | {"DELAYSTREAM_CONSOLE_TOKENS_FILE": str(file), **settings}
    arguments = ["--http-port", "0", "--log-format", "json", "--data-dir", str(directory / "console")]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command("console", *arguments),
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
    try:
        wait(lambda: bool(_URL.search(log.read_text())) or process.poll() is not None, "the console", 60)
        found = _URL.search(log.read_text())
        assert found is not None, log.read_text()
        wait(lambda: httpx.get(f"{found[1]}/health/ready").status_code == 200, "its copies", 60)
        yield found[1], log
    finally:
        process.terminate()
        assert process.wait(30) == 0, log.read_text()


@pytest.mark.timeout(240)
def test_each_caller_sees_its_own_request_topic(deploy: Deploy, tmp_path: Path) -> None:
    """By id, filter, cursor, search, stream, calendar, numbers, and in the words of other systems."""
    app = deploy(partitions=2)
    other = app.topic(f"{_MARK}-requests")
    out, theirs = app.destination(), app.destination(f"{_MARK}-out")
    app.settings |= {"DELAYSTREAM_REQUEST_TOPICS": f"{app.requests},{other}"}
    worker = app.apply_topics().worker().wait_ready()
    places = {}
    for topic, mark, to in ((app.requests, "mine", out), (other, _MARK, theirs)):
        for number in range(3):
            app.request(mark.encode(), {"destination": to, "id": f"{mark}-{number}", **_FAR}, topic=topic)
        app.request(mark.encode(), {"destination": to, "id": f"{mark}-fired", "delay": "0"}, topic=topic)
        app.request(mark.encode(), {"destination": to, "delay": f"{mark}-soon"}, topic=topic)
        partition, offset = app.request(
            mark.encode(), {"destination": to, **_FAR}, key=f"{mark}-key".encode(), topic=topic
        )
        places[mark] = f"{topic}/{partition}/{offset}"
    for id in _HOSTILE:
        app.request(b"value", {"destination": out, "id": id, **_FAR})

    file = tmp_path / "tokens.toml"
    everything, for_all = made("--name", "all", "--role", "admin", "--payload")
    mine, for_mine = made("--name", "mine", "--topics", app.requests)
    soon = datetime.now(UTC) + timedelta(seconds=3_600)
    later, for_later = made("--name", "later", "--topics", app.requests, "--expires", soon.isoformat())
    file.write_text(for_all + for_mine)
    # New tokens are waited for with requests that fail.
    often = {"DELAYSTREAM_CONSOLE_FAILURES_PER_MINUTE": "10000"}
    with served(app, tmp_path, file, **often) as (url, log):

        def asks(token: str) -> httpx.Client:
            return httpx.Client(base_url=url, headers={"Authorization": f"Bearer {token}"}, timeout=30)

        with asks(everything) as all_, asks(mine) as me, httpx.Client(base_url=url) as nobody:
            wait(lambda: _count(all_, "/v1/schedules?id_prefix=zebra") == 3, "their schedules")
            wait(lambda: _count(all_, "/v1/dead-letters?") == 2, "the dead letters")
            wait(lambda: "fired" in all_.get(f"/v1/schedules/{_MARK}-fired/fires").text, "the history")
            probes = [
                "/v1/schedules?limit=500&status=pending&status=fired",
                "/v1/schedules?limit=500&sort=id",
                f"/v1/schedules?id_prefix={_MARK}",
                f"/v1/schedules?request_topic={other}",
                f"/v1/schedules?destination={theirs}",
                "/v1/pending?limit=500",
                f"/v1/pending?key={_MARK}-key",
                "/v1/agenda?to=2100-01-01T00:00:00Z",
                "/v1/agenda.ics?to=2100-01-01T00:00:00Z",
                "/v1/stats",
                "/v1/destinations",
                "/v1/analytics/summary",
                "/v1/analytics/summary?by=request_topic",
                "/v1/dead-letters",
                "/compat/schedules",
                "/compat/api/v1/admin/schedules/monitoring/stats",
                f"/v1/where?q={quote(places[_MARK], safe='')}",
                f"/v1/where?q={_MARK}-key",
                f"/v1/where?q={_MARK}-1",
                "/",
            ]
            for path in probes:
                assert nobody.get(path).status_code == 401, path
                assert _MARK in all_.get(path).text, path
                answer = me.get(path)
                assert answer.status_code == 200, (path, answer.text)
                assert _MARK not in answer.text.replace(f"{_MARK}-key", "").replace(f"{_MARK}-1", ""), path
                assert other not in answer.text, path
            for path in (
                f"/v1/schedules/{_MARK}-1",
                f"/v1/schedules/{_MARK}-1/upcoming",
                f"/v1/schedules/{_MARK}-fired/fires",
                f"/compat/schedules/{_MARK}-1/executions",
            ):
                assert all_.get(path).status_code == 200, path
                missing = me.get(path.replace(_MARK, "zebru"))
                assert me.get(path).status_code == missing.status_code == 404, path
            assert me.get("/v1/schedules?limit=500").json()["total"]["count"] == 3 + len(_HOSTILE)
            for id in _HOSTILE:
                # All of it: a client takes `..` for a step up, and no console sees it.
                quoted = "".join(f"%{byte:02X}" for byte in id.encode())
                assert me.get(f"/v1/schedules/{quoted}").json()["id"] == id

            cursor = me.get("/v1/schedules?limit=1").json()["next_cursor"]
            assert me.get(f"/v1/schedules?limit=1&cursor={cursor}").status_code == 200
            assert all_.get(f"/v1/schedules?limit=1&cursor={cursor}").status_code == 400
            assert me.get("/v1/schedules/mine-1?payload=true").status_code == 403
            assert all_.get("/v1/schedules/mine-1?payload=true").json()["payload"]["value"] == "mine"
            assert me.get("/metrics").status_code == 403
            assert "delaystream_console_refused_total" in all_.get("/metrics").text

            beginning = "-".join(f"{partition}.0" for partition in range(50))
            with me.stream("GET", f"/v1/events?after={beginning}") as stream:
                text = ""
                for line in stream.iter_lines():
                    text += f"{line}\n"
                    if '"fired"' in line:
                        break
            assert "mine-fired" in text
            assert _MARK not in text

            # A file that takes its place is in force, and a broken one is not.
            with asks(later) as third:
                assert third.get("/v1/stats").status_code == 401
                beside = tmp_path / "new"
                beside.write_text(for_all + for_later)
                beside.replace(file)
                wait(lambda: third.get("/v1/stats").status_code == 200, "the new tokens")
                assert me.get("/v1/stats").status_code == 401
                file.write_text("[[tokens]")
                wait(
                    lambda: "file of tokens is rejected" in all_.get("/v1/health").text,
                    "the broken file",
                )
                assert third.get("/v1/stats").status_code == 200

        run = app.run("get", "mine-1", "--console-url", url, "-o", "json")
        assert run.returncode == 65, run.stderr
        assert b"Say who you are" in run.stderr
        token_file = tmp_path / "token"
        token_file.write_text(f"{later}\n")
        shown = app.run(
            "list",
            "--console-url",
            url,
            "--console-token-file",
            str(token_file),
            "-o",
            "jsonl",
            "--limit",
            "500",
        )
        assert shown.returncode == 0, shown.stderr
        assert {json.loads(line)["request_topic"] for line in shown.stdout.splitlines()} == {app.requests}

        # A head that never ends is cut off, and nobody waits for it.
        host, port = url.removeprefix("http://").split(":")
        with socket.create_connection((host, int(port)), timeout=60) as slow:
            slow.sendall(b"GET /v1/stats HTTP/1.1\r\nHost: localhost\r\nX: ")
            assert httpx.get(f"{url}/health/live").status_code == 200
            assert slow.recv(100) == b""
        said = log.read_text()
        for token in (everything, mine, later):
            assert token not in said
            assert token.encode() not in shown.stdout + shown.stderr + run.stderr
        assert '"authentication":"tokens"' in said
    assert worker.alive


def _count(client: httpx.Client, path: str) -> int:
    return len(client.get(path).json()["items"])
