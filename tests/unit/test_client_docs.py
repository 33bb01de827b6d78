"""The page of the client says what can be run: its blocks of Python compile, and name what there is."""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

import delaystream.client
from delaystream.client.options import (
    CancelOptions,
    Changes,
    PauseOptions,
    RescheduleOptions,
    ResumeOptions,
    ScheduleOptions,
    Telling,
    TriggerOptions,
)

PAGE = Path(__file__).resolve().parents[2] / "docs" / "client.md"
BLOCKS = re.findall(r"```python\n(.*?)```", PAGE.read_text("utf-8"), re.DOTALL)
OPTIONS = {
    "schedule": ScheduleOptions,
    "schedule_request": ScheduleOptions,
    "update": Changes,
    "cancel": CancelOptions,
    "pause": PauseOptions,
    "resume": ResumeOptions,
    "trigger": TriggerOptions,
    "reschedule": RescheduleOptions,
    "rate": Telling,
}
EXPLICIT = {"wait", "key", "headers"}


@pytest.mark.parametrize("block", BLOCKS)
def test_every_block_names_what_there_is(block: str) -> None:
    compile(block, str(PAGE), "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "delaystream.client":
            assert {name.name for name in node.names} <= set(delaystream.client.__all__)
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if (options := OPTIONS.get(called)) is not None:
                given = {keyword.arg for keyword in node.keywords}
                assert given <= {*options.__annotations__, *EXPLICIT}, ast.unparse(node)


def test_the_page_has_blocks_and_an_example_that_is_there() -> None:
    assert len(BLOCKS) >= 8
    for name in re.findall(r"`((?:examples|tests)/[a-z_/]+\.py)`", PAGE.read_text("utf-8")):
        assert (PAGE.parents[1] / name).is_file()


def test_every_error_of_the_client_is_on_its_page() -> None:
    """Those of consumers on theirs."""
    text = PAGE.read_text("utf-8") + (PAGE.parent / "consuming.md").read_text("utf-8")
    for name in delaystream.client.__all__:
        found = getattr(delaystream.client, name)
        if isinstance(found, type) and issubclass(found, Exception):
            assert f"`{name}`" in text, name
