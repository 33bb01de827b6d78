"""The bill of materials of a release holds what is locked, and is one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import audit
import pytest

from delaystream import __version__
from delaystream.dev.jars import kafka_lock, locked_versions
from tests.deploy.conftest import ROOT


@pytest.mark.timeout(400)  # its tools are installed once
def test_the_bill_holds_every_locked_package_and_jar_and_is_reproducible(tmp_path: Path) -> None:
    """The script validates it against CycloneDX's schema; the same commit makes the same file."""
    texts = []
    for name in ("a.json", "b.json"):
        command = [sys.executable, str(ROOT / "scripts" / "sbom.py"), str(tmp_path / name)]
        done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        texts.append((tmp_path / name).read_text())
    assert texts[0] == texts[1]
    bill = json.loads(texts[0])
    assert (bill["bomFormat"], bill["specVersion"]) == ("CycloneDX", "1.6")
    assert bill["metadata"]["component"]["purl"] == f"pkg:pypi/delaystream@{__version__}"
    packages = {
        c["name"].lower().replace("_", "-"): c["scope"]
        for c in bill["components"]
        if c["purl"].startswith("pkg:pypi/")
    }
    dockerfile = (ROOT / "Dockerfile").read_text()
    [lock] = re.findall(r"--require-hashes .* -r /tmp/(\w+\.txt)", dockerfile)
    assert audit.locked(ROOT / "requirements" / lock) <= packages.keys()
    # What the image leaves out is said to be optional, and nothing else is.
    [taken_out] = re.findall(r"uninstall --yes (.+)", dockerfile)
    assert {name for name, scope in packages.items() if scope != "required"} == set(taken_out.split())
    jars = {c["hashes"][0]["content"] for c in bill["components"] if c["purl"].startswith("pkg:maven/")}
    assert jars == {jar.sha256 for version in locked_versions() for jar in kafka_lock(version).jars}
    assert str(ROOT) not in texts[0]
