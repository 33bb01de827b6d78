"""Renew what the console serves of others, and what its tests bring: `vendored.py [--check]`.

Each file comes from a package of npm, by npm's own client, which verifies what it fetches. It stands in the
repository with version, licence and digest, so that neither a build nor a page fetches anything. With
`--check` nothing is written: it exits with 1 when a file is not what its package has.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from environment import ROOT

DIGESTS: Final = "SHA256SUMS"
SERVED: Final = ROOT / "delaystream" / "console" / "vendored"
TESTED: Final = ROOT / "tests" / "page" / "vendored"


@dataclass(frozen=True)
class Asset:
    """One file of one package, and the texts of its licence."""

    package: str
    version: str
    file: str
    licenses: tuple[str, ...]
    directory: Path

    @property
    def name(self) -> str:
        """Of the file as it stands here."""
        return f"{self.package}-{self.version}.min.js"

    @property
    def license(self) -> str:
        """Of the file that holds its licence."""
        return f"LICENSE.{self.package}.txt"


ASSETS: Final = (
    Asset(
        "rapidoc",
        "9.3.8",
        "dist/rapidoc-min.js",
        ("LICENSE.txt", "dist/rapidoc-min.js.LICENSE.txt"),
        SERVED,
    ),
    Asset("htmx.org", "4.0.1", "dist/htmx.min.js", ("LICENSE",), SERVED),
    # Of tests alone: no wheel has it.
    Asset("axe-core", "4.14.1", "axe.min.js", ("LICENSE", "LICENSE-3RD-PARTY.txt"), TESTED),
)


def content(asset: Asset) -> dict[str, bytes]:
    """The file and its licence, by their names here. Raises CalledProcessError where npm fails."""
    with tempfile.TemporaryDirectory() as directory:
        command = ["npm", "pack", "--silent", f"{asset.package}@{asset.version}"]
        printed = subprocess.run(command, cwd=directory, check=True, capture_output=True, text=True).stdout
        with tarfile.open(Path(directory) / printed.split()[-1]) as package:

            def read(name: str) -> bytes:
                member = package.extractfile(f"package/{name}")
                assert member is not None, name
                return member.read()

            licenses = b"\n----\n\n".join(read(name) for name in asset.licenses)
            return {asset.name: read(asset.file), asset.license: licenses}


def digests(directory: Path) -> str:
    """What `DIGESTS` of a directory has to say."""
    names = sorted(asset.name for asset in ASSETS if asset.directory == directory)
    return "".join(
        f"{hashlib.sha256((directory / name).read_bytes()).hexdigest()}  {name}\n" for name in names
    )


def main(arguments: list[str]) -> int:
    """Write all of them, or compare."""
    if shutil.which("npm") is None:
        print("vendored: there is no npm on PATH, and the packages come from it.", file=sys.stderr)
        return 1
    code = 0
    for asset in ASSETS:
        for name, wanted in content(asset).items():
            path = asset.directory / name
            if "--check" in arguments:
                if not path.exists() or path.read_bytes() != wanted:
                    print(f"vendored: {path.relative_to(ROOT)} is not what {asset.package} has.")
                    code = 1
                continue
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(wanted)
    if "--check" not in arguments:
        for directory in (SERVED, TESTED):
            (directory / DIGESTS).write_text(digests(directory))
    return code


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
