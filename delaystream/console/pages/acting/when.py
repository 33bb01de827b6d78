"""The part of a form that says when something fires: one of four kinds of time, each with its fields."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

from delaystream.console.api.models import DefinitionBody
from delaystream.console.pages.acting.panels import Input
from delaystream.core.instants import format_instant

KINDS: Final = ("delay", "at", "every", "cron")
RECURRING: Final = frozenset({"every", "cron"})
_SAY: Final = {
    "delay": "once, after a while",
    "at": "at one time or several",
    "every": "again and again, at an interval",
    "cron": "by a cron expression",
}


def kind_of(texts: Mapping[str, str]) -> str:
    """Which kind of time a form says; the first one that is filled in where it does not say it."""
    if texts.get("kind") in KINDS:
        return texts["kind"]
    return next((kind for kind in reversed(KINDS) if texts.get(kind)), "delay")


def when_texts(definition: DefinitionBody) -> dict[str, str]:
    """What a definition says of its times, as a form has it."""
    texts = {
        "at": ",".join(map(format_instant, definition.at or ())),
        "every": definition.every or "",
        "cron": definition.cron or "",
        "timezone": definition.timezone or "",
    }
    return {**texts, "kind": kind_of(texts)}


def when_inputs(texts: Mapping[str, str]) -> list[Input]:
    """The fields; the style sheet shows those of the kind that is chosen."""
    return [
        Input("kind", "When", kind_of(texts), "radio", options=list(_SAY.items())),
        Input(
            "delay",
            "After",
            texts.get("delay", ""),
            hint="15m",
            help="Such as 90s, 15m, 1h30m, 2d.",
            shown="of-delay",
        ),
        Input(
            "at",
            "At",
            texts.get("at", ""),
            hint="2030-01-31T09:00:00Z",
            help="A time with its offset from UTC, or of the zone below; several with commas between.",
            shown="of-at",
        ),
        Input(
            "every",
            "Every",
            texts.get("every", ""),
            hint="15m",
            help="Such as 30s, 15m, 1h, 1d.",
            shown="of-every",
        ),
        Input(
            "cron",
            "Cron expression",
            texts.get("cron", ""),
            hint="30 9 * * MON-FRI",
            help="Minute, hour, day, month, weekday; a sixth field in front is the second.",
            shown="of-cron",
        ),
        Input(
            "timezone", "Time zone", texts.get("timezone", ""), hint="Europe/Berlin", shown="of-cron of-at"
        ),
    ]


def once_inputs() -> list[Input]:
    """The fields of a single time."""
    texts = {"kind": "delay"}
    fields = [one for one in when_inputs(texts) if one.name in {"delay", "at"}]
    options = [(kind, say) for kind, say in _SAY.items() if kind in {"delay", "at"}]
    return [Input("kind", "When", "delay", "radio", options=options), *fields]
