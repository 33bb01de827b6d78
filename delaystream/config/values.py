"""The types of settings' values: units, topics, and lists in the form that a variable has."""

from collections.abc import Mapping
from typing import Annotated, Any, Final

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from delaystream.core.destinations import is_topic_name
from delaystream.core.rates import RateError, parse_rate
from delaystream.core.recurrence import zone_problem
from delaystream.dialects import by_name

SECOND_MS: Final = 1_000
MINUTE_MS: Final = 60 * SECOND_MS
HOUR_MS: Final = 60 * MINUTE_MS
DAY_MS: Final = 24 * HOUR_MS
KIB: Final = 1024
MIB: Final = 1024 * KIB


class Section(BaseModel):
    """Settings that change for one reason. Frozen; unknown settings are refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)


def split(value: Any) -> Any:
    """A comma-separated text as a list of its items; other values unchanged."""
    return [part.strip() for part in value.split(",") if part.strip()] if isinstance(value, str) else value


def _topic(value: Any) -> Any:
    if isinstance(value, str) and not is_topic_name(value):
        raise ValueError(f"{value!r} is not a topic name (1 to 249 of a-z, A-Z, 0-9, '.', '_', '-')")
    return value


def _name(value: Any) -> Any:
    """A name that is also one of a directory, in the directory of the data and nowhere else."""
    if value in {".", ".."}:
        raise ValueError(f"{value!r} is no name of a directory; expected one with a letter or a digit")
    return value


def _empty_as_none(value: Any) -> Any:
    return None if value == "" else value


def _rates(value: Any) -> Any:
    """`emails=50,sms-*=600/m`, a list of such items, or a table of them."""
    if isinstance(value, Mapping):
        value = [f"{glob}={rate}" for glob, rate in value.items()]
    rates = split(value)
    if isinstance(rates, list | tuple):
        for rate in rates:
            try:
                parse_rate(str(rate))
            except RateError as error:
                raise ValueError(f"{str(rate)!r} {error}") from None
    return rates


def _dialects(value: Any) -> Any:
    names = split(value)
    if isinstance(names, list | tuple):
        for name in names:
            by_name(str(name))
    return names


def _zone(value: Any) -> Any:
    if isinstance(value, str) and (problem := zone_problem(value)) is not None:
        raise ValueError(f"it {problem}")
    return value


DirectoryName = Annotated[str, BeforeValidator(_name)]
Topic = Annotated[str, BeforeValidator(_topic)]
OptionalTopic = Annotated[Topic | None, BeforeValidator(_empty_as_none)]
NameList = Annotated[tuple[str, ...], BeforeValidator(split)]
TopicList = Annotated[tuple[Topic, ...], BeforeValidator(split), Field(min_length=1)]
OptionalText = Annotated[str | None, BeforeValidator(_empty_as_none)]
OptionalSecret = Annotated[
    Annotated[str, Field(min_length=32, max_length=KIB)] | None, BeforeValidator(_empty_as_none)
]
OptionalToken = Annotated[
    Annotated[str, Field(pattern=r"^[\x21-\x7e]{1,4096}$")] | None, BeforeValidator(_empty_as_none)
]
Rates = Annotated[tuple[str, ...], BeforeValidator(_rates)]
Dialects = Annotated[tuple[str, ...], BeforeValidator(_dialects)]
OptionalZone = Annotated[str | None, BeforeValidator(_zone)]
