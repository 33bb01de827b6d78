"""The pages of the client say what can be run: their Python names what there is, and has its types."""

from __future__ import annotations

import ast
import re
import textwrap
from pathlib import Path

import pytest

import delaystream.client
from delaystream.client.requests.options import (
    CancelOptions,
    Changes,
    PauseOptions,
    RescheduleOptions,
    ResumeOptions,
    ScheduleOptions,
    Telling,
    TriggerOptions,
)

ROOT = Path(__file__).resolve().parents[2]
PAGE = ROOT / "docs" / "client.md"
PAGES = ("client", "consuming")
BLOCKS = [
    pytest.param(page, block, id=f"{page} {number}")
    for page in PAGES
    for number, block in enumerate(
        re.findall(r"```python\n(.*?)```", (ROOT / "docs" / f"{page}.md").read_text("utf-8"), re.DOTALL)
    )
]
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


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_every_block_names_what_there_is(page: str, block: str) -> None:
    compile(block, f"{page}.md", "exec", ast.PyCF_ALLOW_TOP_LEVEL_AWAIT)
    for node in ast.walk(ast.parse(block)):
        if isinstance(node, ast.ImportFrom) and node.module == "delaystream.client":
            assert {name.name for name in node.names} <= set(delaystream.client.__all__)
        if isinstance(node, ast.Call):
            called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if (options := OPTIONS.get(called)) is not None:
                given = {keyword.arg for keyword in node.keywords}
                assert given <= {*options.__annotations__, *EXPLICIT}, ast.unparse(node)


@pytest.mark.parametrize(("page", "block"), BLOCKS)
def test_every_block_is_among_what_mypy_reads(page: str, block: str) -> None:
    """`tests/typing` has the page's blocks, each in a function; `make lint` checks their types."""
    module = (ROOT / "tests" / "typing" / f"{page}_page.py").read_text("utf-8")
    assert f":\n{textwrap.indent(block, '    ')}" in module


def test_the_page_has_blocks_and_an_example_that_is_there() -> None:
    assert len(BLOCKS) >= 12
    for name in re.findall(r"`((?:examples|tests)/[a-z_/]+\.py)`", PAGE.read_text("utf-8")):
        assert (ROOT / name).is_file()


def test_every_error_of_the_client_is_on_its_page() -> None:
    """Those of consumers on theirs."""
    text = PAGE.read_text("utf-8") + (PAGE.parent / "consuming.md").read_text("utf-8")
    for name in delaystream.client.__all__:
        found = getattr(delaystream.client, name)
        if isinstance(found, type) and issubclass(found, Exception):
            assert f"`{name}`" in text, name
