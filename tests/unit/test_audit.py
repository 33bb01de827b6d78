"""The verdict of `make audit`: green only when something was really looked up."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

sys.path.insert(0, str(Path(__file__).parents[2] / "scripts"))

import audit

SOUND = {"name": "aiokafka", "version": "1", "vulns": []}
BAD = {
    "name": "Jinja2",
    "version": "2.4.1",
    "vulns": [{"id": "PYSEC-1", "aliases": ["CVE-1"], "fix_versions": ["2.7"]}],
}
SKIPPED = {"name": "jinja2", "skip_reason": "not found"}


def report(*packages: dict[str, Any]) -> dict[str, Any]:
    return {"dependencies": list(packages), "fixes": []}


def verdict(canary: dict[str, Any], found: dict[str, Any], wanted: set[str]) -> tuple[int, str]:
    code, said = audit.verdict(audit.read(canary, {"jinja2"}), {"run.txt": audit.read(found, wanted)})
    return code, "\n".join(said)


def test_all_looked_up_and_sound_is_clean() -> None:
    """The only way to 0."""
    code, said = verdict(report(BAD), report(SOUND), {"aiokafka"})
    assert (code, said) == (0, "run.txt: 1 packages were looked up.")


def test_a_vulnerability_is_named_with_where_it_is_fixed() -> None:
    """And fails."""
    code, said = verdict(report(BAD), report(SOUND, BAD), {"aiokafka", "jinja2"})
    assert code == 1
    assert "Jinja2 2.4.1: PYSEC-1, fixed in 2.7" in said


@pytest.mark.parametrize(
    "canary",
    [{}, report(), report(SKIPPED), report({"name": "jinja2", "version": "2.4.1", "vulns": []})],
)
def test_a_service_that_knows_nothing_is_no_clean_bill(canary: dict[str, Any]) -> None:
    """pip-audit exits with 0 then, and says that no vulnerabilities are known."""
    code, said = verdict(canary, report(SOUND), {"aiokafka"})
    assert code == 2
    assert "NOTHING WAS CHECKED" in said


@pytest.mark.parametrize("found", [{}, report(), report(SKIPPED), report(SOUND)])
def test_what_was_skipped_or_left_out_was_not_checked(found: dict[str, Any]) -> None:
    """Also when all the rest was, and also when something else is vulnerable."""
    code, said = verdict(report(BAD), found, {"aiokafka", "jinja2"})
    assert code == 2
    assert "NOT CHECKED" in said


def test_an_accepted_advisory_is_passed_over_by_any_of_its_names(monkeypatch: pytest.MonkeyPatch) -> None:
    """Reasons stand in the script."""
    monkeypatch.setitem(audit.ACCEPTED, "CVE-1", "not used here")
    assert audit.read(report(BAD), {"jinja2"}).vulnerable == []


def test_the_lock_is_read_as_pip_reads_it_here() -> None:
    """Every package without a marker; names as PyPI normalises them."""
    names = audit.locked(audit.LOCKS / audit.AUDITED[0])
    assert {"aiokafka", "confluent-kafka", "opentelemetry-sdk", "typing-extensions"} <= names
    assert len(names) > 50
