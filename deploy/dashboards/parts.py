"""The parts of dashboards: queries, panels and rows, as Grafana's dashboard JSON."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

Json = dict[str, Any]

#: Every query is about the applications that are chosen above, whatever scrapes them.
CHOSEN = 'app_id=~"$app_id"'
#: The data source that is chosen above.
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
_GREEN, _YELLOW, _RED = "green", "yellow", "red"


@dataclass(frozen=True)
class Query:
    """A PromQL expression; `legend` may use {{label}}. `instant`: its value now, not over time."""

    expression: str
    legend: str = ""
    instant: bool = False
    heatmap: bool = False

    def target(self, ref_id: str, *, table: bool) -> Json:
        """As a panel's target."""
        return {
            "refId": ref_id,
            "datasource": SOURCE,
            "editorMode": "code",
            "expr": self.expression,
            "legendFormat": self.legend or "__auto",
            "instant": self.instant,
            "range": not self.instant,
            "format": "heatmap" if self.heatmap else "table" if table else "time_series",
        }


@dataclass(frozen=True)
class Panel:
    """One panel. `limits`: from which value it is yellow, and from which red; falling ones mean "below"."""

    kind: str
    title: str
    description: str
    queries: Sequence[Query]
    unit: str
    width: int
    height: int
    limits: tuple[float, float] | None = None
    custom: Json = field(default_factory=dict)
    options: Json = field(default_factory=dict)
    transformations: Sequence[Json] = ()
    decimals: int | None = None
    least: float | None = 0

    def json(self, number: int, x: int, y: int) -> Json:
        """As the dashboard holds it."""
        defaults: Json = {
            "unit": self.unit,
            "color": {"mode": "thresholds" if self.limits and self.kind == "stat" else "palette-classic"},
            "thresholds": {"mode": "absolute", "steps": _steps(self.limits)},
            "custom": self.custom,
        }
        if self.decimals is not None:
            defaults["decimals"] = self.decimals
        if self.least is not None:
            defaults["min"] = self.least
        return {
            "id": number,
            "type": self.kind,
            "title": self.title,
            "description": self.description,
            "datasource": SOURCE,
            "gridPos": {"x": x, "y": y, "w": self.width, "h": self.height},
            "targets": [
                query.target(chr(ord("A") + place), table=self.kind == "table")
                for place, query in enumerate(self.queries)
            ],
            "fieldConfig": {"defaults": defaults, "overrides": []},
            "options": self.options,
            "transformations": list(self.transformations),
        }


@dataclass(frozen=True)
class Row:
    """A heading over the panels that follow."""

    title: str


def stat(
    title: str,
    description: str,
    expression: str,
    unit: str,
    *,
    limits: tuple[float, float] | None = None,
    width: int = 4,
    decimals: int | None = None,
    least: float | None = 0,
) -> Panel:
    """One number: its value now."""
    options = {
        "colorMode": "value" if limits else "none",
        "graphMode": "none",
        "justifyMode": "auto",
        "orientation": "auto",
        "percentChangeColorMode": "standard",
        "reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False},
        "showPercentChange": False,
        "textMode": "value",
        "wideLayout": True,
    }
    queries = [Query(expression, instant=True)]
    return Panel(
        "stat",
        title,
        description,
        queries,
        unit,
        width,
        4,
        limits,
        options=options,
        decimals=decimals,
        least=least,
    )


def graph(
    title: str,
    description: str,
    queries: Sequence[Query],
    unit: str,
    *,
    width: int = 12,
    stacked: bool = False,
    logarithmic: bool = False,
    limit: float | None = None,
    least: float | None = 0,
) -> Panel:
    """Lines over time. `limit` draws a red line."""
    custom: Json = {
        "drawStyle": "line",
        "lineWidth": 1,
        "fillOpacity": 25 if stacked else 5,
        "showPoints": "never",
        "spanNulls": False,
        "stacking": {"group": "A", "mode": "normal" if stacked else "none"},
        "scaleDistribution": {"type": "log", "log": 10} if logarithmic else {"type": "linear"},
        "thresholdsStyle": {"mode": "off" if limit is None else "line"},
    }
    options = {
        "legend": {
            "calcs": ["lastNotNull", "max"],
            "displayMode": "table",
            "placement": "bottom",
            "showLegend": True,
        },
        "tooltip": {"mode": "multi", "sort": "desc"},
    }
    return Panel(
        "timeseries",
        title,
        description,
        queries,
        unit,
        width,
        8,
        None if limit is None else (limit, limit),
        custom=custom,
        options=options,
        least=None if logarithmic else least,
    )


def heatmap(title: str, description: str, expression: str, unit: str, *, width: int = 12) -> Panel:
    """A histogram over time; the query returns its buckets by `le`."""
    options = {
        "calculate": False,
        "cellGap": 1,
        "color": {
            "exponent": 0.5,
            "fill": "dark-orange",
            "mode": "scheme",
            "reverse": False,
            "scale": "exponential",
            "scheme": "Oranges",
            "steps": 64,
        },
        "exemplars": {"color": "rgba(255,0,255,0.7)"},
        "filterValues": {"le": 1e-9},
        "legend": {"show": True},
        "rowsFrame": {"layout": "auto"},
        "showValue": "never",
        "tooltip": {"mode": "single", "showColorScale": True, "yHistogram": False},
        "yAxis": {"axisPlacement": "left", "reverse": False, "unit": unit},
    }
    queries = [Query(expression, "{{le}}", heatmap=True)]
    return Panel("heatmap", title, description, queries, "short", width, 8, options=options)


def table(
    title: str,
    description: str,
    expression: str,
    columns: dict[str, str],
    *,
    unit: str = "short",
    width: int = 12,
) -> Panel:
    """Label sets with a value, now; `columns` maps labels (and Value) to headings, all others are hidden."""
    order = {name: place for place, name in enumerate(columns)}
    transformations = [
        {"id": "filterFieldsByName", "options": {"include": {"names": list(columns)}}},
        {"id": "organize", "options": {"excludeByName": {}, "indexByName": order, "renameByName": columns}},
    ]
    options = {"cellHeight": "sm", "frameIndex": 0, "showHeader": True}
    queries = [Query(expression, instant=True)]
    return Panel(
        "table", title, description, queries, unit, width, 8, options=options, transformations=transformations
    )


def _steps(limits: tuple[float, float] | None) -> list[Json]:
    if limits is None:
        return [{"color": _GREEN, "value": None}]
    first, second = limits
    if first == second:
        return [{"color": _GREEN, "value": None}, {"color": _RED, "value": first}]
    if first < second:
        return [
            {"color": _GREEN, "value": None},
            {"color": _YELLOW, "value": first},
            {"color": _RED, "value": second},
        ]
    return [
        {"color": _RED, "value": None},
        {"color": _YELLOW, "value": second},
        {"color": _GREEN, "value": first},
    ]
