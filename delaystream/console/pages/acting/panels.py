"""What is asked back before something is changed: what will happen, what else can be said, and a button.

A panel is a value. `act.html` shows each of them alike: as a page without script, in place with it.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from http import HTTPStatus
from typing import Any, Final

from markupsafe import Markup

from delaystream.console.api.models import EventBody
from delaystream.console.api.problems import ProblemError
from delaystream.console.pages.acting.told import Notice

#: Codes of which the name of the field does not follow, and the field that they are about.
_ABOUT: Final = {
    "missing-destination": "destination",
    "destination-denied": "destination",
    "destination-partition-out-of-range": "destination_partition",
    "no-schedule": "delay",
    "delay-and-at": "delay",
    "delay-too-long": "delay",
    "at-not-milliseconds": "at",
    "list-too-long": "at",
    "unsupported-cron": "cron",
    "cron-too-long": "cron",
    "too-frequent": "cron",
    "never-fires": "cron",
    "jitter-too-long": "jitter",
    "invalid-dst": "dst_gap",
    "id-required": "id",
    "id-too-long": "id",
    "already-exists": "id",
    "cancelled-earlier": "id",
    "invalid-payload": "value",
    "value-too-large": "value",
    "key-too-large": "key",
    "invalid-key": "key",
    "too-many-headers": "headers",
    "headers-too-large": "headers",
    "request-topic-required": "request_topic",
    "unknown-request-topic": "request_topic",
    "invalid-match": "key",
}


@dataclass(frozen=True)
class Input:
    """One field of a form."""

    name: str
    label: str
    value: str = ""
    #: `text`, `area`, `select` or `radio`
    kind: str = "text"
    #: what stands in it while it is empty
    hint: str = ""
    #: a sentence below
    help: str = ""
    #: of a choice: (value, what it says)
    options: Sequence[tuple[str, str]] = ()
    #: classes of the style sheet, which show it for some choices only
    shown: str = ""
    #: what is wrong with it: (code, sentence)
    problem: tuple[str, str] | None = None


@dataclass(frozen=True)
class Trouble:
    """Why something was not carried out."""

    code: str
    detail: str
    #: what else happened since the form was shown, the latest first
    meanwhile: Sequence[EventBody] = ()


@dataclass(frozen=True)
class Panel:
    """What is asked back."""

    #: a question
    title: str
    #: sentences about what will happen
    says: Sequence[str | Markup]
    inputs: Sequence[Input]
    #: what the button says
    button: str
    #: where the form goes to
    address: str
    #: where one goes who does not want it
    back: str
    #: fields that are not shown
    hidden: Sequence[tuple[str, str]] = ()
    danger: bool = False
    trouble: Trouble | None = None

    def filled(self, texts: Mapping[str, str]) -> Panel:
        """The same with what was filled in."""
        inputs = [replace(one, value=texts.get(one.name, one.value)) for one in self.inputs]
        return replace(self, inputs=inputs)

    def refused(self, problem: ProblemError, meanwhile: Sequence[EventBody] = ()) -> Panel:
        """The same with why it was not carried out, where it can be at the field that it is about."""
        inputs = with_problem(self.inputs, problem.code, problem.detail)
        return replace(self, inputs=inputs, trouble=Trouble(problem.code, problem.detail, meanwhile))


@dataclass(frozen=True)
class Around:
    """What stands on a page beside what it shows anyway."""

    panel: Panel | None = None
    #: what a form has led to
    notice: Notice | None = None
    #: what the panel's form has as its stamp
    stamp: str = ""
    #: of the answer
    status: HTTPStatus = HTTPStatus.OK

    @property
    def values(self) -> dict[str, Any]:
        """For a template."""
        return {"panel": self.panel, "notice": self.notice, "stamp": self.stamp}


def with_problem(inputs: Sequence[Input], code: str, detail: str) -> list[Input]:
    """Inputs with a problem at the one that it is about, if it is about one of them."""
    name = field_of(code)
    return [replace(one, problem=(code, detail)) if one.name == name else one for one in inputs]


def field_of(code: str) -> str:
    """The field that a code of the contract is about."""
    return _ABOUT.get(code, code.removeprefix("invalid-").replace("-", "_"))


def note() -> Input:
    """Why, for whoever looks later."""
    return Input("note", "Why (a note for others)", hint="incident 4711, asked for by…")
