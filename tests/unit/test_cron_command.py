"""`delaystream cron`: the next times of an expression, for people and for programs."""

import json
import os
import time
from datetime import UTC, datetime, timedelta

import pytest

from delaystream.cli import main
from delaystream.exit_codes import ExitCode


@pytest.fixture(autouse=True)
def _clean_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("DELAYSTREAM_")]:
        monkeypatch.delenv(name)


NEW_YORK = ["--timezone", "America/New_York"]


def test_the_table_has_local_time_utc_and_the_gap(capsys: pytest.CaptureFixture[str]) -> None:
    """One line for each fire."""
    arguments = ["cron", "30 2 * * *", *NEW_YORK, "--from", "2026-03-07T00:00:00-05:00", "--count", "3"]
    assert main(arguments) == ExitCode.OK
    assert capsys.readouterr().out == (
        "local time, America/New_York   UTC\n"
        "Sat 2026-03-07 02:30:00-05:00  2026-03-07 07:30:00\n"
        "Sun 2026-03-08 03:00:00-04:00  2026-03-08 07:00:00  gap: 02:30 does not exist, moved to 03:00\n"
        "Mon 2026-03-09 02:30:00-04:00  2026-03-09 06:30:00\n"
    )


def rows(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[dict[str, object]]:
    assert main(["cron", *arguments, "-o", "json"]) == ExitCode.OK
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, list)
    return found


def test_json_is_an_array_of_objects(capsys: pytest.CaptureFixture[str]) -> None:
    """Milliseconds, both times with their offset, and a note or null."""
    found = rows(
        capsys,
        "30 1 * * *",
        *NEW_YORK,
        "--from",
        "2026-11-01T00:00:00-04:00",
        "-n",
        "3",
        "--dst-overlap",
        "both",
    )
    assert found == [
        {
            "due_at_ms": 1793511000000,
            "local": "2026-11-01T01:30:00-04:00",
            "utc": "2026-11-01T05:30:00.000Z",
            "note": "fold: 01:30 comes twice, this is the first",
        },
        {
            "due_at_ms": 1793514600000,
            "local": "2026-11-01T01:30:00-05:00",
            "utc": "2026-11-01T06:30:00.000Z",
            "note": "fold: 01:30 comes twice, this is the second",
        },
        {
            "due_at_ms": 1793601000000,
            "local": "2026-11-02T01:30:00-05:00",
            "utc": "2026-11-02T06:30:00.000Z",
            "note": None,
        },
    ]


@pytest.mark.parametrize(
    ("cron", "options", "notes"),
    [
        (
            "30 2 * * *",
            ["--from", "2026-03-08T00:00:00-05:00", "--dst-gap", "skip"],
            ["gap: 2026-03-08 02:30 does not exist, left out", None],
        ),
        (
            "*/20 2 * * *",
            ["--from", "2026-03-08T00:00:00-05:00"],
            ["gap: 2026-03-08 02:00 and 2 more before 03:00 do not exist, left out", None],
        ),
        (
            "0 * * * *",
            ["--from", "2026-03-08T01:00:00-05:00"],
            [None, "gap: 02:00 does not exist, left out"],
        ),
        (
            "30 1 * * *",
            ["--from", "2026-11-01T00:00:00-04:00"],
            ["fold: 01:30 comes twice, this is the first, the other is left out", None],
        ),
        (
            "30 1 * * *",
            ["--from", "2026-11-01T00:00:00-04:00", "--dst-overlap", "second"],
            ["fold: 01:30 comes twice, this is the second, the other is left out", None],
        ),
        (
            "0 1,2 * * *",
            ["--from", "2026-11-01T00:00:00-04:00"],
            ["fold: 01:00 comes twice, this is the first, the other is left out", None],
        ),
        # Clocks changed, and no time of this pattern was touched.
        ("0 9 * * *", ["--from", "2026-03-07T12:00:00-05:00"], [None, None]),
        ("59 0 * * *", ["--from", "2026-11-01T00:00:00-04:00"], [None, None]),
        ("0 2 * * *", ["--from", "2026-11-01T00:00:00-04:00"], [None, None]),
    ],
)
def test_gaps_and_folds_are_noted(
    cron: str, options: list[str], notes: list[str | None], capsys: pytest.CaptureFixture[str]
) -> None:
    """Of fires that were moved, left out or doubled; nothing where nothing happened."""
    assert [row["note"] for row in rows(capsys, cron, *NEW_YORK, "-n", "2", *options)] == notes


def test_seconds_and_missing_days_are_shown(capsys: pytest.CaptureFixture[str]) -> None:
    """In full, where the short form would mislead."""
    apia = ["--timezone", "Pacific/Apia", "--from", "2011-12-29T12:00:00-10:00"]
    [row] = rows(capsys, "5 30 9,17 * * FRI", *apia, "-n", "1")
    assert row["local"] == "2011-12-31T00:00:00+14:00"
    assert row["note"] == "gap: 2011-12-30 09:30:05 and 1 more before 00:00 do not exist, moved to 00:00"


def test_it_begins_now(capsys: pytest.CaptureFixture[str]) -> None:
    """Ten fires, unless told otherwise; a time that is `--from` itself is one of them."""
    found = rows(capsys, "* * * * * *")
    assert len(found) == 10
    first_ms = found[0]["due_at_ms"]
    assert isinstance(first_ms, int)
    assert 0 <= first_ms - time.time() * 1000 + 10_000 <= 11_000
    [row] = rows(capsys, "@daily", "--from", "1767225600000", "-n", "1")
    assert row["due_at_ms"] == 1767225600000


def test_fewer_times_than_asked_for_are_said_to_be_all(capsys: pytest.CaptureFixture[str]) -> None:
    """It looks a century ahead, and not beyond the calendar."""
    start = datetime(9980, 1, 1, tzinfo=UTC) - datetime(1970, 1, 1, tzinfo=UTC)
    milliseconds = str(start // timedelta(milliseconds=1))
    assert main(["cron", "0 0 29 2 *", "--from", milliseconds]) == ExitCode.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[-1] == "No further time before the year 9999."
    assert len(lines) == 7
    assert main(["cron", "0 9 * * *", "--from", "9998-12-31T00:00:00Z"]) == ExitCode.OK
    assert capsys.readouterr().out.splitlines()[-1] == "No further time before the year 9999."
    assert main(["cron", "0 9 * * *", "--from", "9998-12-31T10:00:00Z"]) == ExitCode.REFUSED
    assert "none is worked out from the year 9999 on" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code"),
    [
        (["0 0 30 2 *"], "never-fires"),
        (["60 * * * *"], "invalid-cron"),
        (["H * * * *"], "unsupported-cron"),
        (["0 0 * * *", "-z", "Mars/Olympus"], "invalid-timezone"),
        (["* * * * * *", "--set", "min_interval_ms=60000"], "too-frequent"),
        (["0,1,2,3,4 * * * *", "--set", "max_cron_characters=10"], "cron-too-long"),
    ],
)
def test_what_a_worker_would_refuse_ends_with_65(
    arguments: list[str], code: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the worker's code and sentence, under the settings in force."""
    assert main(["cron", *arguments]) == ExitCode.REFUSED
    captured = capsys.readouterr()
    assert f"a worker would refuse it as {code}: " in captured.err
    assert "EXPRESSION" in captured.err or "--timezone" in captured.err
    assert "delaystream-" not in captured.err
    assert captured.out == ""


@pytest.mark.parametrize(
    "arguments", [[], ["@daily", "--from", "yesterday"], ["@daily", "-n", "0"], ["@daily", "--dst-gap", "no"]]
)
def test_wrong_usage_ends_with_2(arguments: list[str]) -> None:
    """As every command line does."""
    assert main(["cron", *arguments]) == ExitCode.USAGE
