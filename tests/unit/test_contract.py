"""The header contract's tables say what the code does: looked at from both sides."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from itertools import combinations
from pathlib import Path
from typing import Any, get_args

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.codec import outgoing
from delaystream.codec.outgoing import OUTGOING_HEADERS, Outcome
from delaystream.codec.requests.names import RESERVED, SUPPORTED
from delaystream.config import Settings
from delaystream.core.destinations import is_topic_name
from delaystream.core.durations import DurationError, parse_duration
from delaystream.core.identity import split_fire_id, split_schedule_id
from delaystream.core.instants import InstantError, parse_instant, parse_local
from delaystream.core.limits import Limits
from delaystream.core.rates import RateError, parse_count
from delaystream.core.recurrence import CronError
from delaystream.core.recurrence.expression import parse_cron
from delaystream.core.rejection import DESCRIPTIONS, Code, Rejection
from delaystream.core.request import Action, CatchUp, Coordinates, IfExists, Request, WantedStatus
from tests.unit.header_contract import CONTRACT, PREFIX, as_contract, asked, broken
from tests.unit.test_setup import ROOT, script

contract = script("contract")

HEADERS: dict[str, Any] = CONTRACT["headers"]
ACTIONS: dict[str, Any] = CONTRACT["actions"]
TYPES: dict[str, Any] = CONTRACT["types"]
LIMITS: dict[str, Any] = CONTRACT["limits"]
RECEIPT: dict[str, Any] = CONTRACT["receipt"]
EXAMPLES: dict[str, str] = {name: header["example"] for name, header in HEADERS.items()}
BOUNDS = (
    "least",
    "most",
    "least_bytes",
    "most_bytes",
    "least_characters",
    "most_characters",
    "least_items",
    "most_items",
)


# -- the files ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", contract.published(), ids=lambda path: str(path.relative_to(ROOT)))
def test_each_file_is_published_as_it_is_formed(path: Path) -> None:
    """`python -m scripts.contract` writes all of them."""
    assert path.read_text("utf-8") == contract.published()[path]


@pytest.mark.parametrize("name", ["headers", "vectors"])
def test_each_file_is_of_its_schema(name: str) -> None:
    """The types decode it, and the schema is made of the types; what neither knows is refused."""
    kind = contract.FILES[name]
    contract.read(name, kind)
    written = json.loads((contract.PACKAGE / f"{name}.json").read_text("utf-8"))
    with pytest.raises(msgspec.ValidationError):
        msgspec.json.decode(json.dumps(written | {"unheard-of": 1}), type=kind)
    assert contract.schema(name)["$defs"][kind.__name__]["required"]


def test_every_name_that_the_contract_uses_is_one_that_it_tells() -> None:
    """Types, codes, limits, actions, headers and fields."""
    for header in HEADERS.values():
        assert header["type"] in TYPES
        assert header["code"] is None or header["code"] in CONTRACT["codes"]
        assert {*header["on"], *header["ignored_on"], *header["cleared_on"]} <= ACTIONS.keys()
        assert {*header["cleared_on"]} <= header["on"].keys()
        assert not {*header["ignored_on"]} & header["on"].keys()
        for rule in header["on"].values():
            _look_at_rules([*rule.get("needs", ()), *rule.get("excludes", ())])
    for action in ACTIONS.values():
        _look_at_rules(action["needs"])
        assert {*action["outcomes"]} <= RECEIPT["outcomes"].keys()
        assert all(example.keys() <= HEADERS.keys() for example in action["examples"])
    for type in TYPES.values():
        assert {type[name] for name in ("base", "items", "or_items") if name in type} <= TYPES.keys()
        assert {limit for name, limit in type.items() if name.endswith("_limit")} <= LIMITS.keys()
        _look_at_pattern(type.get("pattern", ""))
    _look_at_pattern(CONTRACT["trimmed"])
    for written in CONTRACT["written"].values():
        assert {header["type"] for header in written.values()} <= TYPES.keys()
    assert {name for name in CONTRACT if name.endswith("_code")} == {
        "null_code", "repeated_code", "not_utf8_code", "not_taken_code", "unknown_code", "reserved_code"
    }  # fmt: skip
    assert {CONTRACT[name] for name in CONTRACT if name.endswith("_code")} <= CONTRACT["codes"].keys()


def _look_at_pattern(pattern: str) -> None:
    """Neither RE2 nor, with its flag `u`, ECMAScript reads what else Python does."""
    assert not re.search(r"\(\?|\\[^.\-tsS]", pattern), pattern
    re.compile(pattern, re.ASCII)


def _look_at_rules(rules: Iterable[Mapping[str, Any]]) -> None:
    for rule in rules:
        assert rule["code"] in CONTRACT["codes"]
        assert {*rule.get("any_of", ()), *rule.get("names", ()), *rule.get("beside", ())} <= HEADERS.keys()


# -- names, both ways --------------------------------------------------------------------------------


def test_the_headers_are_those_of_the_code() -> None:
    assert HEADERS.keys() == {*SUPPORTED}
    assert {*CONTRACT["reserved"]} == {*RESERVED}


def test_the_actions_are_those_of_the_code() -> None:
    assert list(ACTIONS) == list(Action)


def test_the_codes_are_those_of_the_code_and_mean_the_same() -> None:
    assert {code: told["about"] for code, told in CONTRACT["codes"].items()} == {
        code.value: about for code, about in DESCRIPTIONS.items()
    }


def test_the_limits_are_those_of_the_code_and_settings_of_the_worker() -> None:
    defaults = msgspec.to_builtins(Limits())
    assert {name: limit["value"] for name, limit in LIMITS.items()} == defaults
    for name, limit in LIMITS.items():
        assert Settings.model_fields[name].default == limit["value"], name
        assert name.endswith(f"_{limit['unit']}") or limit["unit"] in {"headers", "times"}
    for header in HEADERS.values():
        if "default_setting" in header:
            assert header["default_setting"] in Settings.model_fields


@pytest.mark.parametrize(
    ("type", "words"),
    [
        ("action", list(Action)),
        ("if_exists", list(IfExists)),
        ("catch_up", list(CatchUp)),
        ("status", list(get_args(WantedStatus))),
    ],
)
def test_the_words_are_those_of_the_code(type: str, words: list[str]) -> None:
    assert TYPES[type]["values"] == words


def test_the_headers_that_are_written_are_those_of_the_code() -> None:
    told = [name for record in CONTRACT["written"].values() for name in record]
    assert {name for name in told if name.startswith(PREFIX)} == OUTGOING_HEADERS
    assert len(told) == len({*told})


def test_the_outcomes_are_those_of_the_code() -> None:
    assert RECEIPT["outcomes"].keys() == {outcome.value for outcome in Outcome}
    assert {name for action in ACTIONS.values() for name in action["outcomes"]} == RECEIPT["outcomes"].keys()


def test_the_fields_of_a_request_are_those_that_the_code_reads() -> None:
    request = asked(ACTIONS["schedule"]["examples"][0])
    assert isinstance(request, Request)
    assert CONTRACT["request"].keys() == as_contract(request).keys()


# -- what headers need and exclude -------------------------------------------------------------------


def example_of(name: str, beside: Iterable[str]) -> str:
    """A valid value; of `at` a local time where there is a zone for it, and one with an offset elsewhere."""
    return "2030-01-31T09:00:00" if name == "at" and "timezone" in beside else EXAMPLES[name]


def _combinations(action: str) -> Iterator[set[str]]:
    """Each shortest request of an action, and one without any header, each with any two others."""
    others = sorted(HEADERS.keys() - {"action"})
    for base in [*ACTIONS[action]["examples"], {}]:
        for added in [(), *((name,) for name in others), *combinations(others, 2)]:
            yield {*base, *added}


@pytest.mark.parametrize("action", ACTIONS)
def test_headers_stand_together_as_the_contract_says(action: str) -> None:
    """Any two beside the shortest requests: refused exactly when a rule is broken, and by the code of one."""
    refused = accepted = 0
    for names in _combinations(action):
        answer = asked({"action": action} | {name: example_of(name, names) for name in sorted(names)})
        codes = broken(action, names)
        if isinstance(answer, Rejection):
            refused += 1
            assert answer.code.value in codes, (sorted(names), answer.detail)
        else:
            accepted += 1
            assert not codes, sorted(names)
    assert refused
    assert accepted


def requests_with(name: str, action: str) -> Iterator[dict[str, str]]:
    """The headers of requests of an action that may have another one: `action`, and what that needs."""
    for base in ACTIONS[action]["examples"]:
        for left_out in [(), *((other,) for other in base)]:
            for more in [(), *((other,) for other in HEADERS), *combinations(HEADERS, 2)]:
                names = ({*base, *more} - {*left_out}) | {name}
                if not broken(action, names):
                    yield {other: example_of(other, names) for other in names - {name}} | {"action": action}


def beside(name: str, action: str) -> dict[str, str]:
    """The first of them."""
    return next(requests_with(name, action))


#: none of the type, where the empty text is one
NOT_VALID = {"invalid-note": "x" * 1025, "invalid-tags": ",".join(["x"] * 101)}
#: Any text is one; what is not UTF-8 is in the vectors.
CAN_BE_WRONG = [name for name, header in HEADERS.items() if header["code"] not in {None, "not-utf8"}]


@pytest.mark.parametrize("name", CAN_BE_WRONG)
def test_a_value_is_looked_at_where_a_header_is_taken_and_nowhere_else(name: str) -> None:
    """What is no value is refused by the code of the header, or ignored."""
    header = HEADERS[name]
    wrong = {name: NOT_VALID.get(header["code"], "")}
    for action in header["on"]:
        refused = asked(beside(name, action) | wrong)
        assert isinstance(refused, Rejection), action
        assert refused.code.value == header["code"], refused
    for action in header["ignored_on"]:
        _accepted(asked(beside(name, action) | wrong))


def _accepted(answer: Request | Rejection) -> Request:
    assert isinstance(answer, Request), answer
    return answer


@pytest.mark.parametrize("name", [name for name, header in HEADERS.items() if header["default"] is not None])
def test_a_default_means_what_no_header_means(name: str) -> None:
    """Of a schedule, or of the first action that takes it: what a command leaves out, it has elsewhere."""
    header = HEADERS[name]
    action = next(iter(header["on"]))
    words = TYPES[header["type"]].get("values", ())
    others = [word for word in words if word != header["default"] and name != "action"]
    for without in requests_with(name, action):
        without.pop(name, None)
        given = as_contract(_accepted(asked({**without, name: header["default"]})))
        assert given == as_contract(_accepted(asked(without)))
        # Where the others mean something else, the default was looked at.
        if all(given != as_contract(_accepted(asked({**without, name: other}))) for other in others):
            return
    raise AssertionError("no request tells the default from another word")


FIELDS = {
    "start": "start_at_ms",
    "end": "end_at_ms",
    "jitter": "jitter_ms",
    "grace": "grace_ms",
    "every": "every_ms",
}
FIELDS |= {"until": "until_ms", "rate": "rate_per_second"}


@pytest.mark.parametrize("name", HEADERS)
def test_what_clears_is_what_the_contract_says(name: str) -> None:
    """There `none` is no value of the header's type, and elsewhere it is."""
    header = HEADERS[name]
    field = FIELDS.get(name, name.replace("-", "_"))
    for action in ("reschedule", "update", "pause", "rate"):
        # No receipt may be written to a topic of that name.
        if action not in header["on"] or name in {"action", "reply-to"}:
            continue
        answer = asked(beside(name, action) | {name: CONTRACT["cleared_by"]})
        told = as_contract(answer) if isinstance(answer, Request) else {}
        if isinstance(answer, Request) and action in {"reschedule", "update"}:
            told = (told["timing"] or {}) | (told["update"] or {})
        if action in header["cleared_on"]:
            assert field in told, answer
            assert told[field] is None
        elif field in told:
            assert told[field] == b"none"


# -- types -------------------------------------------------------------------------------------------


def whole(type: str) -> re.Pattern[str]:
    """What matches the whole of a type's values, and what may stand around them."""
    told = TYPES[type]
    around = CONTRACT["trimmed"] if told.get("trimmed") else ""
    return re.compile(f"{around}(?:{told['pattern']}){around}", re.ASCII)


def bound(type: Mapping[str, Any], name: str) -> int | None:
    """A bound of a type, its own or that of a limit."""
    found: int | None = type.get(name)
    return LIMITS[type[f"{name}_limit"]]["value"] if f"{name}_limit" in type else found


def _sized(type: Mapping[str, Any], name: str, size: int) -> str:
    """A value that is so large in what a bound is of."""
    if name.endswith("_items"):
        return ",".join([{"duration": "5s", "instant": "1800000000001"}.get(type["items"], "x")] * size)
    if name in {"least", "most"}:
        return f"{size}ms" if type["unit"] == "ms" else str(size)
    return "x" * size


def _values_at_bounds() -> Iterator[tuple[str, str, str, bool]]:
    for name, header in HEADERS.items():
        type = TYPES[header["type"]]
        type = {"unit": "", **TYPES.get(type.get("base", ""), {}), **type}
        for which in BOUNDS:
            if (size := bound(type, which)) is None:
                continue
            step = 1 if which.startswith("most") else -1
            yield name, which, _sized(type, which, size), True
            if size + step >= 0:
                yield name, which, _sized(type, which, size + step), False


@pytest.mark.parametrize(
    ("name", "which", "value", "accepted"),
    list(_values_at_bounds()),
    ids=lambda value: value if isinstance(value, str) and len(value) < 30 else "",
)
def test_bounds_are_where_the_contract_says(name: str, which: str, value: str, accepted: bool) -> None:
    """The last value that is accepted, and the first that is not."""
    action = next(iter(HEADERS[name]["on"]))
    answer = asked(beside(name, action) | {name: value})
    # What is a value may still not do here: too short an interval, a time in 1971.
    others = {
        "too-frequent",
        "jitter-too-long",
        "delay-too-long",
        "never-fires",
        "invalid-until",
        "invalid-start",
    }
    if accepted:
        assert isinstance(answer, Request) or answer.code.value in others, answer
    else:
        codes = {
            HEADERS[name]["code"],
            "id-too-long",
            "at-not-milliseconds",
            "list-too-long",
            "delay-too-long",
        }
        assert isinstance(answer, Rejection)
        assert answer.code.value in codes, answer


def _is_read(kind: str, text: str) -> bool:
    readers: dict[str, tuple[Callable[[str], object], type[Exception]]] = {
        "duration": (parse_duration, DurationError),
        "instant": (parse_instant, InstantError),
        "local_time": (parse_local, InstantError),
        "cron": (parse_cron, CronError),
        "rate": (parse_count, RateError),
    }
    if kind in readers:
        read, refused = readers[kind]
        try:
            read(text)
        except refused:
            return False
        return True
    if kind == "coordinates":
        return isinstance(asked({"action": "cancel", "coordinates": text}), Request)
    return is_topic_name(text)


@st.composite
def _nearly(draw: st.DrawFn, pattern: str) -> str:
    """What a pattern matches, or that with one character more, less or another."""
    text = draw(st.from_regex(re.compile(pattern, re.ASCII), fullmatch=True))
    at = draw(st.integers(0, len(text)))
    put = draw(
        st.sampled_from(
            ["", " ", "\n", "0", "5", ".", "d", "ms", "T", "Z", "+", "-", "/", "@", "r", "*", "\u0665"]
        )
    )
    return draw(st.sampled_from([text, text[:at] + put + text[at:], text[:at] + put + text[at + 1 :]]))


@pytest.mark.parametrize(
    "type", ["duration", "instant", "local_time", "cron", "rate", "topic", "coordinates"]
)
@given(data=st.data())
def test_what_is_read_matches_its_pattern(type: str, data: st.DataObject) -> None:
    """And where that is the whole grammar, what matches is read."""
    told = TYPES[type]
    text = data.draw(_nearly(whole(type).pattern))
    matches = whole(type).fullmatch(text) is not None and text not in told.get("but", ())
    if _is_read(type, text):
        assert matches
    elif told["exact"]:
        assert not matches


@given(st.data())
def test_what_matches_the_pattern_of_fire_ids_and_coordinates_is_taken_apart(data: st.DataObject) -> None:
    """What the contract says of them is what the code makes of them."""
    text = data.draw(st.from_regex(whole("fire_id"), fullmatch=True))
    assert split_fire_id(text) is not None
    text = data.draw(st.from_regex(whole("coordinates"), fullmatch=True))
    assert split_schedule_id(text) is not None


# -- what is written ---------------------------------------------------------------------------------


def _written(record: str, headers: Iterable[tuple[str, bytes | None]], *, all_of_them: bool) -> None:
    """Look at a record's own headers: their names, and their values by type."""
    told = CONTRACT["written"][record]
    found = {name: (content or b"").decode() for name, content in headers}
    if all_of_them:
        assert found.keys() == told.keys()
    assert found.keys() >= {name for name, header in told.items() if header["always"]}
    for name, text in found.items():
        type = told[name]["type"]
        if "pattern" in TYPES[type]:
            assert whole(type).fullmatch(text), (name, text)


def test_deliveries_have_the_headers_that_the_contract_tells() -> None:
    fired_at = (outgoing.FIRED_AT, b"1800000000000")
    name, source = "delay-requests/r7/0/1800000000000/x/y", "delay-requests@origin/3/17"
    full = outgoing.delivery_headers([], outgoing.Delivery("x/y", name, 1, source, 2, 3, 4, 5), fired_at)
    _written("deliveries", full, all_of_them=True)
    least = outgoing.delivery_headers([], outgoing.Delivery("x/y", name, 1, source, 2), fired_at)
    _written("deliveries", least, all_of_them=False)
    anonymous = outgoing.anonymous_delivery_headers([], b"delay-requests/3/17", 1, 5, fired_at)
    _written("deliveries", anonymous, all_of_them=False)
    assert {name for name, _ in least} == {name for name, _ in anonymous}
    always = {name for name, header in CONTRACT["written"]["deliveries"].items() if header["always"]}
    assert always == {name for name, _ in least}


def test_dead_letters_have_the_headers_that_the_contract_tells() -> None:
    for code in Code:
        letter = outgoing.dead_letter_headers(
            [], Coordinates("delay-requests", 3, 17), -1, Rejection(code, "No.")
        )
        _written("dead_letters", letter, all_of_them=True)


def test_receipts_have_the_headers_and_the_fields_that_the_contract_tells() -> None:
    source = Coordinates("delay-requests", 3, 17)
    counted = dict.fromkeys(("count", "matched", "anonymous", "holds"), 1)
    told = RECEIPT["fields"]
    for outcome in Outcome:
        answer = outgoing.Answer(
            outcome,
            [(2, "f")],
            Rejection(Code.INVALID_AT, "No."),
            outgoing.ScheduleStatus("pending", 3, 9),
            "w",
            repeated=True,
            at_once=1,
            described={},
            counted=counted,
        )
        key, value, headers = outgoing.receipt(source, "x", answer, 1)
        _written("receipts", headers, all_of_them=True)
        body = json.loads(value)
        assert body.keys() == told.keys()
        assert key.decode() == body["schedule_id"]
        json_types = {str: "string", int: "integer", bool: "boolean", list: "array", dict: "object"}
        assert {name: json_types[type(body[name])] for name in body} == {
            name: field["type"] for name, field in told.items()
        }
        least = json.loads(outgoing.receipt(source, None, outgoing.Answer(outcome), 1)[1])
        assert {*least} == {*RECEIPT["always"]}
