"""What is vendored is what its digests, names and licences say."""

from __future__ import annotations

import hashlib
import sys
from pathlib import Path

import pytest

from delaystream.console.vendored import HTMX, RAPIDOC

sys.path.insert(0, str(Path(__file__).parents[3] / "scripts"))

from vendored import ASSETS, DIGESTS, Asset


@pytest.mark.parametrize("asset", ASSETS, ids=lambda asset: asset.package)
def test_a_file_is_what_its_digest_says(asset: Asset) -> None:
    content = (asset.directory / asset.name).read_bytes()
    told = dict(
        line.split("  ")[::-1] for line in (asset.directory / DIGESTS).read_text("utf-8").splitlines()
    )
    assert told[asset.name] == hashlib.sha256(content).hexdigest()
    assert len((asset.directory / asset.license).read_text("utf-8")) > 500


def test_what_is_served_is_what_is_vendored() -> None:
    served = {asset.directory / asset.name for asset in ASSETS if asset.package != "axe-core"}
    assert {HTMX, RAPIDOC} == served
    for directory in {asset.directory for asset in ASSETS}:
        known = (
            {asset.name for asset in ASSETS} | {asset.license for asset in ASSETS} | {DIGESTS, "__init__.py"}
        )
        assert {path.name for path in directory.iterdir() if path.is_file()} <= known
