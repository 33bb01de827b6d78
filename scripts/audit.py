"""Looks up known vulnerabilities of the locked packages, with pip-audit; for releases: it needs the network.

Exits 0 when every package was looked up and none is known to be vulnerable; 1 when one is; 2 when any could
not be checked. pip-audit itself exits 0 when it learned nothing, for instance behind a mirror without
advisories. So every skipped package counts as a failure here. A package that is known to be vulnerable is
looked up first, to prove that the service has any data.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, NamedTuple

from environment import ROOT, prepare

LOCKS = ROOT / "requirements"
AUDITED = ("tracing.txt", "console.txt")
"""All of run.txt, and the extras."""
CANARY = "jinja2==2.4.1"
"""Vulnerable since 2014 (CVE-2014-0012, among others)."""

ACCEPTED: dict[str, str] = {}
"""Advisories that do not concern delaystream, by id: the reason, and the date of the next review."""

CLEAN, VULNERABLE, UNKNOWN = 0, 1, 2
TIMEOUT_S = 600


class Finding(NamedTuple):
    """The content of a report, as sentences; `checked` packages were looked up."""

    checked: int
    vulnerable: list[str]
    unchecked: list[str]


def read(report: dict[str, Any], wanted: set[str]) -> Finding:
    """Judge a report of pip-audit on the packages `wanted`; one that it does not mention was not checked."""
    vulnerable, unchecked, seen = [], [], set()
    for package in report.get("dependencies", []):
        name = package["name"]
        if "skip_reason" in package:
            unchecked.append(f"{name}: {package['skip_reason']}")
            continue
        seen.add(_normal(name))
        for advisory in package["vulns"]:
            names = {advisory["id"], *advisory.get("aliases", [])}
            if not names & ACCEPTED.keys():
                fixed = ", ".join(advisory.get("fix_versions", [])) or "no version yet"
                vulnerable.append(f"{name} {package['version']}: {advisory['id']}, fixed in {fixed}")
    skipped = {_normal(line.partition(":")[0]) for line in unchecked}
    unchecked += [f"{name}: the report does not mention it" for name in sorted(wanted - seen - skipped)]
    return Finding(len(seen), vulnerable, unchecked)


def locked(lock: Path) -> set[str]:
    """The packages of a lock that this interpreter and platform install."""
    names = set()
    for line in lock.read_text("utf-8").splitlines():
        if (found := re.match(r"([A-Za-z0-9._-]+)==[^ ;]+ *(;.*?)? *\\?$", line)) and not found[2]:
            names.add(_normal(found[1]))
    return names


def _normal(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()


def verdict(canary: Finding, findings: dict[str, Finding]) -> tuple[int, list[str]]:
    """The exit code, and the sentences to print."""
    said = []
    if not canary.vulnerable:
        reason = "; ".join(canary.unchecked) or "it says that nothing is wrong with it"
        said.append(f"NOTHING WAS CHECKED: the service does not know that {CANARY} is vulnerable ({reason}).")
        return UNKNOWN, said
    code = CLEAN
    for lock, finding in findings.items():
        said += [f"VULNERABLE ({lock}): {line}" for line in finding.vulnerable]
        said += [f"NOT CHECKED ({lock}): {line}" for line in finding.unchecked]
        said.append(f"{lock}: {finding.checked} packages were looked up.")
        if finding.unchecked or not finding.checked:
            code = UNKNOWN
        elif finding.vulnerable and code == CLEAN:
            code = VULNERABLE
    return code, said


def audit(tools: Path, requirements: Path, *, hashes: bool) -> dict[str, Any]:
    """Run pip-audit. An answer that is no report is an empty one: nothing was checked."""
    options = ["--disable-pip", "--format", "json", "--progress-spinner", "off", "--aliases", "on"]
    options.append("--require-hashes" if hashes else "--no-deps")
    done = subprocess.run(
        [tools / "pip-audit", "--requirement", requirements, *options],
        stdout=subprocess.PIPE, text=True, check=False, timeout=TIMEOUT_S,
    )  # fmt: skip
    try:
        report: dict[str, Any] = json.loads(done.stdout)
    except ValueError:
        return {}
    return report


def main() -> int:
    """Look up the canary, then every lock."""
    tools = prepare(ROOT / ".venv-audit", Path(sys.executable), [LOCKS / "audit.txt"], project=False).parent
    with tempfile.TemporaryDirectory() as directory:
        file = Path(directory) / "canary.txt"
        file.write_text(CANARY + "\n", "utf-8")
        canary = read(audit(tools, file, hashes=False), {"jinja2"})
    findings = {}
    if canary.vulnerable:
        for name in AUDITED:
            lock = LOCKS / name
            findings[name] = read(audit(tools, lock, hashes=True), locked(lock))
    code, said = verdict(canary, findings)
    print("\n".join(f"audit: {line}" for line in said))
    return code


if __name__ == "__main__":
    sys.exit(main())
