"""A dashboard around its panels: variables, links, layout; Grafana's dashboard JSON, schema version 41.

Panels are laid out in the order in which they are given, in rows of 24 units, Grafana's grid.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from deploy.dashboards.parts import CHOSEN, SOURCE, Json, Panel, Row

_GRID_WIDTH = 24


def dashboard(
    uid: str, title: str, description: str, parts: Iterable[Panel | Row], variables: Sequence[Json] = ()
) -> Json:
    """A whole dashboard."""
    return {
        "uid": uid,
        "title": title,
        "description": description,
        "tags": ["delaystream"],
        "schemaVersion": 41,
        "editable": True,
        "graphTooltip": 1,
        "refresh": "30s",
        "time": {"from": "now-1h", "to": "now"},
        "timezone": "browser",
        "links": [
            {
                "title": "delaystream",
                "type": "dashboards",
                "tags": ["delaystream"],
                "icon": "external link",
                "tooltip": "",
                "asDropdown": False,
                "includeVars": True,
                "keepTime": True,
                "targetBlank": False,
            }
        ],
        "annotations": {"list": []},
        "templating": {"list": [*_base_variables(), *variables]},
        "panels": _laid_out(parts),
    }


def chooser(name: str, metric: str, label: str, title: str) -> Json:
    """A variable with the values of a label, all by default."""
    return _chooser(name, CHOSEN, metric=metric, label=label, title=title)


def _base_variables() -> list[Json]:
    return [_datasource(), _chooser("app_id", "", title="application")]


def _datasource() -> Json:
    return {
        "name": "datasource",
        "label": "Data source",
        "type": "datasource",
        "query": "prometheus",
        "hide": 0,
    }


def _chooser(
    name: str,
    matchers: str,
    *,
    metric: str = "delaystream_ready",
    label: str | None = None,
    title: str | None = None,
) -> Json:
    query = f"label_values({metric}{{{matchers}}}, {label or name})"
    return {
        "name": name,
        "label": title or name,
        "type": "query",
        "datasource": SOURCE,
        "query": {"qryType": 1, "query": query, "refId": "StandardVariableQuery"},
        "refresh": 2,
        "sort": 1,
        "multi": True,
        "includeAll": True,
        # Not the list of all values, because series without the label must match, too.
        "allValue": ".*",
        "current": {"selected": True, "text": "All", "value": "$__all"},
        "hide": 0,
    }


def _laid_out(parts: Iterable[Panel | Row]) -> list[Json]:
    made: list[Json] = []
    x = y = height = 0
    for number, part in enumerate(parts, start=1):
        if isinstance(part, Row):
            y, x, height = y + height, 0, 0
            place = {"x": 0, "y": y, "w": _GRID_WIDTH, "h": 1}
            made.append(
                {
                    "id": number,
                    "type": "row",
                    "title": part.title,
                    "collapsed": False,
                    "gridPos": place,
                    "panels": [],
                }
            )
            y += 1
            continue
        if x + part.width > _GRID_WIDTH:
            y, x, height = y + height, 0, 0
        made.append(part.json(number, x, y))
        x, height = x + part.width, max(height, part.height)
    return made
