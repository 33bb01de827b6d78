"""`python -m deploy.dashboards` writes the dashboards; tests see to it that they are current."""

from __future__ import annotations

import json
from pathlib import Path

from deploy.dashboards.operation import operation
from deploy.dashboards.overview import overview
from deploy.dashboards.tenants import tenants

DIRECTORY = Path(__file__).resolve().parents[2] / "helm" / "delaystream" / "files" / "dashboards"


def files() -> dict[Path, str]:
    """Each dashboard's file and content."""
    made = {"overview": overview(), "operation": operation(), "tenants": tenants()}
    return {DIRECTORY / f"{name}.json": json.dumps(value, indent=2) + "\n" for name, value in made.items()}


if __name__ == "__main__":
    for path, text in files().items():
        path.write_text(text)
        print(path.relative_to(DIRECTORY.parents[3]))
