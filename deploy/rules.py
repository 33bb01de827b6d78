"""The chart's rules without Helm: ``python -m deploy.rules`` writes them to deploy/prometheus/rules.

One source, `helm/delaystream/files/rules`, has `${name}` in place of the application's id and of each
threshold of the chart's values. ``--app-id`` renders them for another application, ``--set`` with other
thresholds.
"""

from __future__ import annotations

import argparse
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, Final

import yaml

ROOT: Final = Path(__file__).resolve().parent.parent
CHART: Final = ROOT / "helm" / "delaystream"
RENDERED: Final = ROOT / "deploy" / "prometheus" / "rules"
APP_ID: Final = "delaystream"
_HEAD: Final = "# The rules of the application {app_id}: `python -m deploy.rules` writes this file.\n"

Rules = dict[str, Any]


def thresholds() -> dict[str, Any]:
    """Those of the chart's values. Nobody says here how many workers there are, so none is missed: 0."""
    values = yaml.safe_load((CHART / "values.yaml").read_text("utf-8"))["metrics"]["rules"]["thresholds"]
    return {name: 0 if value is None else value for name, value in values.items()}


def rules(
    app_id: str = APP_ID, changed: Mapping[str, Any] | None = None, runbook_url: str = ""
) -> dict[str, Rules]:
    """Each file's groups by the file's name. Raises ValueError for a threshold that there is not."""
    values = thresholds()
    if unknown := sorted(set(changed or {}) - set(values)):
        raise ValueError(f"{', '.join(unknown)}: there is no such threshold; there are {', '.join(values)}")
    names = {"appId": app_id, **values, **(changed or {})}
    return {
        path.name: _finished(yaml.safe_load(_filled(path.read_text("utf-8"), names)), runbook_url)
        for path in sorted((CHART / "files" / "rules").glob("*.yml"))
    }


def _filled(text: str, names: Mapping[str, Any]) -> str:
    for name, value in names.items():
        text = text.replace(f"${{{name}}}", str(value))
    if left := re.findall(r"[$][{](\w+)[}]", text):
        raise ValueError(f"the rules name {', '.join(left)}, and the values have no such threshold")
    return text


def _finished(found: Rules, runbook_url: str) -> Rules:
    for rule in _each(found):
        if "alert" in rule:
            page = rule["annotations"]["runbook"]
            rule["annotations"]["runbook"] = f"docs/runbooks/{page}.md"
            if runbook_url:
                rule["annotations"]["runbook_url"] = runbook_url.replace("{page}", page)
    return found


def _each(found: Rules) -> Iterable[dict[str, Any]]:
    return (rule for group in found["groups"] for rule in group["rules"])


def files(app_id: str = APP_ID, **rest: Any) -> dict[str, str]:
    """Each file's text by its name."""
    head = _HEAD.format(app_id=app_id)
    return {
        name: head + yaml.safe_dump(found, sort_keys=False, width=120, allow_unicode=True)
        for name, found in rules(app_id, **rest).items()
    }


def _threshold(text: str) -> tuple[str, Any]:
    name, equals, value = text.partition("=")
    if not equals or not value:
        raise argparse.ArgumentTypeError(f"{text!r} is no threshold; expected NAME=VALUE")
    return name, value


def main() -> None:
    """Write the files, as asked on the command line."""
    parser = argparse.ArgumentParser(description="Render the alert and recording rules for Prometheus.")
    parser.add_argument("--app-id", default=APP_ID, help="the application's id, DELAYSTREAM_APP_ID")
    parser.add_argument("--output", type=Path, default=RENDERED, help="the directory to write to")
    parser.add_argument("--runbook-url", default="", help="where the runbooks are served, with {page}")
    parser.add_argument(
        "--set", dest="changed", type=_threshold, action="append", default=[], metavar="NAME=VALUE",
        help=f"another threshold: {', '.join(thresholds())}",
    )  # fmt: skip
    asked = parser.parse_args()
    try:
        made = files(asked.app_id, changed=dict(asked.changed), runbook_url=asked.runbook_url)
    except ValueError as error:
        parser.error(str(error))
    asked.output.mkdir(parents=True, exist_ok=True)
    for name, text in made.items():
        (asked.output / name).write_text(text, "utf-8")
        print(asked.output / name)


if __name__ == "__main__":
    main()
