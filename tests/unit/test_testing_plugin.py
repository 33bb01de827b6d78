"""What pytest has of delaystream where that is installed: fixtures, and nothing that costs anything."""

from __future__ import annotations

import os
import subprocess
import sys
import tomllib
from pathlib import Path
from textwrap import dedent

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture
def installed(tmp_path: Path) -> Path:
    """A directory in which delaystream is installed, as far as pytest's discovery of plugins goes."""
    groups = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["entry-points"]
    lines = [f"[{group}]\n{name} = {value}\n" for group, of in groups.items() for name, value in of.items()]
    metadata = tmp_path / "installed" / "delaystream-0.dist-info"
    metadata.mkdir(parents=True)
    (metadata / "METADATA").write_text("Metadata-Version: 2.1\nName: delaystream\nVersion: 0\n", "utf-8")
    (metadata / "entry_points.txt").write_text("".join(lines), "utf-8")
    return metadata.parent


def run(installed: Path, tests: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Run tests as somebody's project does."""
    project = installed.parent / "project"
    project.mkdir()
    (project / "test_reminders.py").write_text(dedent(tests), "utf-8")
    return subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", ".", *options],
        cwd=project,
        env={**os.environ, "PYTHONPATH": f"{installed}{os.pathsep}{ROOT}"},
        capture_output=True,
        text=True,
        timeout=100,
        check=False,
    )


def test_a_project_has_the_fixtures_without_asking_for_them(installed: Path) -> None:
    done = run(
        installed,
        """
        from datetime import UTC, datetime, timedelta
        import pytest

        DAY = timedelta(days=1)

        def test_a_reminder(delaystream_env):
            delaystream_env.client.schedule("reminders", b"", id="a", delay=DAY)
            delaystream_env.advance(DAY)
            delaystream_env.assert_delivered("reminders", count=1)

        def test_another_one_knows_nothing_of_it(delaystream_env):
            delaystream_env.refute_scheduled(id="a")
            assert delaystream_env.now == datetime(2030, 1, 1, tzinfo=UTC)

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_a_reminder_in_a_loop(delaystream_async_env, anyio_backend):
            seen = []

            async def handle(delivery):
                seen.append(delivery.schedule_id)

            delaystream_async_env.consume("reminders", handle)
            await delaystream_async_env.client.schedule("reminders", b"", id="a", delay=DAY)
            await delaystream_async_env.advance(DAY)
            assert seen == ["a"]

        class TestElsewhere:
            @pytest.fixture
            def delaystream_options(self):
                return {"start": datetime(2031, 5, 1, tzinfo=UTC), "request_topics": ["mails"]}

            def test_it_has_other_options(self, delaystream_env):
                assert delaystream_env.now.year == 2031
                delaystream_env.client.schedule("reminders", b"", id="a", delay=DAY)
                delaystream_env.assert_scheduled(id="a", request_topic="mails")
        """,
        "-n",
        "2",
    )
    assert "4 passed" in done.stdout, done.stdout + done.stderr


def test_a_project_that_does_not_use_it_does_not_import_it(installed: Path) -> None:
    done = run(
        installed,
        """
        import sys

        def test_what_is_imported():
            found = {name for name in sys.modules if name.partition(".")[0] == "delaystream"}
            assert found == {"delaystream", "delaystream.testing", "delaystream.testing.plugin"}
        """,
    )
    assert "1 passed" in done.stdout, done.stdout + done.stderr


def test_a_test_in_a_loop_that_leaves_deliveries_to_its_handlers_has_failed(installed: Path) -> None:
    done = run(
        installed,
        """
        from datetime import timedelta
        import pytest

        @pytest.mark.anyio
        @pytest.mark.parametrize("anyio_backend", ["asyncio"])
        async def test_it(delaystream_async_env, anyio_backend):
            async def handle(delivery):
                raise LookupError

            delaystream_async_env.consume("reminders", handle)
            await delaystream_async_env.client.schedule("reminders", b"", delay=timedelta())
        """,
    )
    assert "1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "before its handlers were given all that was delivered: 1 of 'reminders'" in done.stdout


def test_a_handler_that_fails_at_the_end_fails_the_test(installed: Path) -> None:
    done = run(
        installed,
        """
        from datetime import timedelta

        def test_it(delaystream_env):
            def handle(delivery):
                raise LookupError("no such user")

            delaystream_env.consume("reminders", handle)
            delaystream_env.client.schedule("reminders", b"", delay=timedelta())
        """,
    )
    assert "1 passed, 1 error" in done.stdout, done.stdout + done.stderr
    assert "no such user" in done.stdout
