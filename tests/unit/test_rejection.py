"""Codes of refusals and the sentences that go with them."""

import re
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from delaystream.core.rejection import DESCRIPTIONS, USED_UP, Code, shown


def test_every_code_is_described_in_one_sentence() -> None:
    assert set(DESCRIPTIONS) == set(Code)
    for description in DESCRIPTIONS.values():
        assert description.endswith(".")


@pytest.mark.parametrize("code", Code)
def test_codes_are_kebab_case(code: Code) -> None:
    assert re.fullmatch(r"[a-z0-9]+(-[a-z0-9]+)*", code.value)


def test_a_bound_that_is_used_up_is_told_by_its_name() -> None:
    """The console answers these with 429, and asks again under the same key."""
    named = {code for code in Code if code.startswith("too-many-")}
    # A record that has too many headers has them the next time, too.
    assert (named | {Code.QUOTA_EXCEEDED}) - {Code.TOO_MANY_HEADERS} == USED_UP


def test_every_code_has_a_test() -> None:
    """By its name or its value, in another file of these."""
    files = [path for path in Path(__file__).parent.glob("*.py") if path != Path(__file__)]
    others = "\n".join(path.read_text("utf-8") for path in files)
    named = set(re.findall(r"\bCode\.([A-Z0-9_]+)", others))
    values = set(re.findall(r"[\"'](\w[\w-]*)[\"']", others))
    assert {code for code in Code if code.name not in named and code.value not in values} == set()


def test_a_value_is_quoted_and_cut_off() -> None:
    assert shown("5s") == "'5s'"
    assert shown(b"5s") == "'5s'"
    assert shown(b"\xff\x00\n") == "'\\\\xff\\x00\\n'"
    assert shown("x" * 61) == "'" + "x" * 60 + "'..."
    assert shown("x" * 60) == "'" + "x" * 60 + "'"


@given(st.text() | st.binary())
def test_what_is_shown_is_printable_short_and_utf_8(value: str | bytes) -> None:
    text = shown(value)
    assert text.isprintable()
    assert len(text) <= 700
    text.encode()
