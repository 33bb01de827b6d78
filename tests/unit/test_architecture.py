"""The architecture page leads a new maintainer to files and functions that are there."""

import ast
import re
import tomllib
from collections.abc import Iterator
from functools import cache
from pathlib import Path

import pytest

from tests.unit.test_setup import ROOT

PACKAGE = ROOT / "delaystream"
PAGE = (ROOT / "docs" / "architecture.md").read_text("utf-8")
#: in backticks: a path, or a name that Python could have
TOKEN = re.compile(r"(?<!aiokafka's )`([\w/]+\.py|[A-Za-z_]\w*(?:\.\w+)?)`")


def section(title: str) -> str:
    return PAGE.partition(f"\n## {title}\n")[2].partition("\n## ")[0]


def rows(text: str) -> Iterator[list[str]]:
    """The cells of each row of the tables in a text."""
    for line in text.splitlines():
        if line.startswith("|") and not line.startswith("|--"):
            yield [cell.strip() for cell in line.strip("|").split("|")]


def names_in(file: Path) -> set[str]:
    """What a module defines: classes, functions, and methods under their class and alone."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(file.read_text("utf-8"))):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            found.add(node.name)
        elif isinstance(node, ast.ClassDef):
            found.add(node.name)
            found.update(
                f"{node.name}.{method.name}"
                for method in node.body
                if isinstance(method, ast.FunctionDef | ast.AsyncFunctionDef)
            )
    return found


@cache
def defined() -> dict[Path, set[str]]:
    return {file: names_in(file) for file in PACKAGE.rglob("*.py")}


def missing(text: str) -> list[str]:
    """The files and functions that a table's last column names and that are not there.

    A file without a folder stands beside the one named before it. A function is in the file that is named
    before it, or in that of the class.
    """
    lost: list[str] = []
    file = PACKAGE / "__init__.py"
    for row in rows(text):
        for name in TOKEN.findall(row[-1]):
            if name.endswith(".py"):
                file = PACKAGE / name if "/" in name else file.parent / name
                if file not in defined():
                    lost.append(f"{row[0]}: {name}")
            elif name[0].isupper():
                if not (files := [file for file, names in defined().items() if name in names]):
                    lost.append(f"{row[0]}: {name}")
                elif file not in files:
                    file = files[0]
            elif name not in defined().get(file, ()):
                lost.append(f"{row[0]}: {name} in {file.relative_to(PACKAGE)}")
    return lost


def test_every_hop_of_a_record_is_where_the_page_says() -> None:
    assert len([*rows(section("The way of one record"))]) > 20
    assert missing(section("The way of one record")) == []


@pytest.mark.parametrize(
    ("cell", "lost"),
    [
        ("`engine/processor.py` `PartitionProcessor.deliver`, `_serve`", []),
        ("`engine/schedules/definitions.py`, `commands.py`; aiokafka's `GroupCoordinator`", []),
        ("`engine/prozessor.py`", ["a hop: engine/prozessor.py"]),
        ("`engine/processor.py`, `intake.py`", ["a hop: intake.py"]),
        ("`PartitionProcessor.settle`", ["a hop: PartitionProcessor.settle"]),
        ("`engine/processor.py` `settle`", ["a hop: settle in engine/processor.py"]),
    ],
)
def test_what_is_not_there_is_found(cell: str, lost: list[str]) -> None:
    assert missing(f"| a hop | {cell} |") == lost


def test_every_room_has_its_row_and_every_row_its_room() -> None:
    packages = {str(file.parent.relative_to(PACKAGE)) for file in PACKAGE.rglob("__init__.py")} - {"."}
    described: set[str] = set()
    for cell, holds in list(rows(section("Rooms and topics")))[1:]:
        for room in re.findall(r"`([\w/]+)/`", cell):
            assert room in packages
            described.add(room)
            # A row may describe small rooms together with the one that they are in.
            described.update(f"{room}/{inner}" for inner in re.findall(r"`([\w/]+)/`", holds))
    # `adapters` holds nothing of its own but its rooms.
    described |= {room.rpartition("/")[0] for room in described}
    assert packages - described == set()


def test_the_order_of_imports_is_the_one_that_is_checked() -> None:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    (layers,) = [contract["layers"] for contract in contracts if contract["id"] == "layers"]
    chain = " ← ".join(f"`{layer.strip('()')}`" for layer in reversed(layers))
    assert f"Imports point one way: {chain}." in PAGE
    assert f"Imports point one way: {chain}." in (ROOT / "CONTRIBUTING.md").read_text("utf-8")


def test_every_kind_of_key_is_in_the_table_of_the_state() -> None:
    """Those of the changelog are listed beside the code that writes them."""
    kinds = set(re.findall(r"^``(\w)`` ", (PACKAGE / "codec" / "keys.py").read_text("utf-8"), re.MULTILINE))
    assert len(kinds) > 10
    described = {kind for key, *_ in rows(section("State")) for kind in re.findall(r"`(\w)`", key)}
    assert kinds - described == set()


def test_the_five_files_to_begin_with_exist() -> None:
    (line,) = [line for line in PAGE.splitlines() if line.startswith("Five files in reading order:")]
    files = re.findall(r"`([\w/]+\.py)`", line)
    assert len(files) == 5
    assert [file for file in files if not (PACKAGE / file).is_file()] == []


#: Their parameters are the options of a command, or the query of a route: the framework reads them there.
DECLARED = ("cli/", "console/api/", "console/pages/")
#: Each of these parameters is optional, and independent of the others.
OPTIONAL = {
    "AiokafkaTransactionalProducer.__init__",
    "EmbeddedBroker.__init__",
    "EmbeddedCluster.__init__",
    "MemoryLog.create_topic",
    # The contract of another project's client.
    "Verbs.publish_with_delay",
}


def parameters(function: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    arguments = function.args
    names = [each.arg for each in (*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs)]
    return [name for name in names if name not in ("self", "cls")]


def crowded(file: Path) -> Iterator[str]:
    """The functions of a module that take more than six parameters."""

    def visit(node: ast.AST, within: str) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.ClassDef):
                yield from visit(child, f"{within}{child.name}.")
            elif isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef):
                if len(parameters(child)) > 6:
                    yield within + child.name
                yield from visit(child, within)
            else:
                yield from visit(child, within)

    return visit(ast.parse(file.read_text("utf-8")), "")


def test_what_travels_together_is_a_value() -> None:
    """No function takes more than six parameters, unless each is an option of its own."""
    found = {
        name
        for file in PACKAGE.rglob("*.py")
        if not str(file.relative_to(PACKAGE)).startswith(DECLARED)
        for name in crowded(file)
    }
    assert found == OPTIONAL
