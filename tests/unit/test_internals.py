"""Two modules reach into aiokafka and Faust, and nothing else does.

Reading the code finds most reaches; what a class inherits shows only once it is there, so the classes are
looked at as well.
"""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import pkgutil
import re
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType

import pytest
from aiokafka.conn import AIOKafkaConnection
from aiokafka.consumer.fetcher import Fetcher, FetchResult
from aiokafka.consumer.group_coordinator import GroupCoordinator
from aiokafka.consumer.subscription_state import Assignment, SubscriptionState, TopicPartitionState

import delaystream
from delaystream.adapters.internals import aiokafka as aiokafka_internals
from delaystream.adapters.internals import faust as faust_internals

ROOT = Path(__file__).resolve().parents[2]
OWNERS: dict[str, ModuleType] = {owner.__name__: owner for owner in (aiokafka_internals, faust_internals)}
LIBRARIES = frozenset({"aiokafka", "faust", "mode"})
#: What their own documentation offers to users.
DOCUMENTED = frozenset(
    {"aiokafka", "aiokafka.abc", "aiokafka.errors", "aiokafka.structs", "faust", "faust.types"}
)
#: Private names of others that are used all the same, none of them of these libraries: where, and what it is.
ELSEWHERE = {
    "delaystream/adapters/kafka/changelog.py": {"changelog._retrying", "changelog._find_leader"},  # its own
    "delaystream/adapters/operate/watchdog.py": {"os._exit"},
    "delaystream/app/process.py": {"os._exit"},
    "delaystream/app/worker.py": {"os._exit"},
    # librdkafka's own errors have such names in its documentation.
    "delaystream/client/consuming/blocking_consuming.py": {
        "KafkaError._ASSIGNMENT_LOST",
        "KafkaError._AUTHENTICATION",
        "KafkaError._NO_OFFSET",
        "KafkaError._UNKNOWN_TOPIC",
    },
    "delaystream/client/kafka/confluent_transport.py": {
        "KafkaError._MSG_TIMED_OUT",
        "KafkaError._UNKNOWN_TOPIC",
    },
    "delaystream/client/kafka/reading.py": {"KafkaError._UNKNOWN_TOPIC"},
    "delaystream/topics/cluster.py": {"KafkaError._AUTHENTICATION", "KafkaError._SSL"},
    "delaystream/transfer/sources.py": {"KafkaError._PARTITION_EOF"},
    "delaystream/core/recurrence/pattern.py": {"mirrored._next_time"},  # its own
    # A named tuple's.
    "delaystream/dialects/cron_fields.py": {"MONTH._replace", "WEEKDAY._replace"},
    "delaystream/testing/loop.py": {"task._log_destroy_pending"},  # asyncio's
    # What asyncio has for event loops: its documentation says so of the first two.
    "delaystream/testing/timeline.py": {
        "asyncio._get_running_loop",
        "asyncio._set_running_loop",
        "handle._cancelled",
        "handle._run",
    },
}
SOURCES = sorted([*(ROOT / "delaystream").rglob("*.py"), *(ROOT / "scripts").glob("*.py")])


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.endswith("__")


def library(module: str | None) -> bool:
    return (module or "").partition(".")[0] in LIBRARIES


@cache
def is_module(name: str) -> bool:
    try:
        return importlib.util.find_spec(name) is not None
    except ModuleNotFoundError:
        return False


def root_of(node: ast.expr) -> str | None:
    """The name that a chain of attributes, calls and items begins with."""
    while True:
        match node:
            case ast.Attribute() | ast.Subscript() | ast.Starred():
                node = node.value
            case ast.Call():
                node = node.func
            case ast.Name():
                return node.id
            case _:
                return None


def is_own(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id in {"self", "cls"}


@cache
def methods_of_the_machinery() -> frozenset[str]:
    """Names of methods that somebody could replace on an object that a consumer works with."""
    machinery = (AIOKafkaConnection, Fetcher, FetchResult, GroupCoordinator, SubscriptionState)
    return frozenset(
        name
        for each in (*machinery, Assignment, TopicPartitionState)
        for base in each.__mro__[:-1]
        for name, value in vars(base).items()
        if inspect.isroutine(value)
    )


class Reaches(ast.NodeVisitor):
    """Finds, in one module's code, what only the owners may do."""

    def __init__(self, tree: ast.AST, allowed: frozenset[str]) -> None:
        self.found: list[tuple[int, str]] = []
        self._allowed = allowed
        #: names that stand for something of a library or of an owner, and for which module
        self._modules: dict[str, str] = {}
        self._things: set[str] = set()
        self.visit(tree)

    def _say(self, node: ast.AST, what: str) -> None:
        self.found.append((getattr(node, "lineno", 0), what))

    def visit_Import(self, node: ast.Import) -> None:
        for alias in node.names:
            if library(alias.name):
                self._modules[alias.asname or alias.name.partition(".")[0]] = (
                    alias.name if alias.asname else alias.name.partition(".")[0]
                )
                if alias.name not in DOCUMENTED:
                    self._say(node, f"imports {alias.name}")
            elif alias.name in OWNERS:
                self._modules[alias.asname or alias.name] = alias.name

    def visit_ImportFrom(self, node: ast.ImportFrom) -> None:
        module = node.module or ""
        for alias in node.names:
            whole, name = f"{module}.{alias.name}", alias.asname or alias.name
            if whole in OWNERS:
                self._modules[name] = whole
            elif library(module) or module in OWNERS:
                self._things.add(name)
                if module in OWNERS:
                    if alias.name not in OWNERS[module].__all__:
                        self._say(node, f"imports {whole}, which is not handed out")
                elif module not in DOCUMENTED or is_private(alias.name):
                    self._say(node, f"imports {whole}")
                elif is_module(whole):
                    self._modules[name] = whole
                    if whole not in DOCUMENTED:
                        self._say(node, f"imports {whole}")

    def visit_Attribute(self, node: ast.Attribute) -> None:
        written = ast.unparse(node)
        own = is_own(node.value) or (isinstance(node.value, ast.Call) and root_of(node.value) == "super")
        if is_private(node.attr) and not own and written not in self._allowed:
            self._say(node, f"touches {written}")
        module = self._modules.get(ast.unparse(node.value))
        if module is not None:
            whole = f"{module}.{node.attr}"
            if module in OWNERS:
                if node.attr not in OWNERS[module].__all__:
                    self._say(node, f"touches {written}, which is not handed out")
            elif is_module(whole) and whole not in DOCUMENTED:
                self._say(node, f"touches {written}")
        self.generic_visit(node)

    def visit_Call(self, node: ast.Call) -> None:
        called = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
        constants = [each.value for each in node.args if isinstance(each, ast.Constant)]
        texts = [value for value in constants if isinstance(value, str)]
        if called in {"import_module", "__import__", "find_spec"}:
            for text in texts:
                if library(text) and text not in DOCUMENTED:
                    self._say(node, f"imports {text}")
        if called in {"getattr", "setattr", "delattr", "hasattr", "attrgetter", "methodcaller"}:
            for text in texts:
                if any(is_private(part) for part in text.split(".")):
                    self._say(node, f"touches {text} by its name")
        if called in {"setattr", "delattr"} and node.args and not is_own(node.args[0]):
            self._patched(node, node.args[0], texts[0] if texts else "something")
        self.generic_visit(node)

    def visit_Assign(self, node: ast.Assign) -> None:
        self._targets(node.targets)
        self.generic_visit(node)

    def visit_AugAssign(self, node: ast.AugAssign) -> None:
        self._targets([node.target])
        self.generic_visit(node)

    def visit_AnnAssign(self, node: ast.AnnAssign) -> None:
        self._targets([node.target])
        self.generic_visit(node)

    def visit_Delete(self, node: ast.Delete) -> None:
        self._targets(node.targets)
        self.generic_visit(node)

    def _targets(self, targets: list[ast.expr]) -> None:
        for target in targets:
            if isinstance(target, ast.Tuple | ast.List):
                self._targets(target.elts)
            elif isinstance(target, ast.Attribute) and not is_own(target.value):
                self._patched(target, target.value, target.attr)
            elif isinstance(target, ast.Subscript) and root_of(target) in {*self._modules, *self._things}:
                self._say(target, f"patches {ast.unparse(target)}")

    def _patched(self, node: ast.AST, target: ast.expr, name: str) -> None:
        if root_of(target) in {*self._modules, *self._things} or name in methods_of_the_machinery():
            self._say(node, f"patches {name} of {ast.unparse(target)}")


def reaches(code: str, path: str = "") -> list[str]:
    """What a module's code does that only the owners may do, a line for each."""
    found = Reaches(ast.parse(code), frozenset(ELSEWHERE.get(path, ())))
    return [f"{path}:{line} {what}" for line, what in sorted(set(found.found))]


@cache
def private_names(cls: type) -> frozenset[str]:
    """Private names of a library's class: of its methods, and of what its methods keep in an object."""
    try:
        kept = set(re.findall(r"\b(?:self|cls)\.(_\w+)", inspect.getsource(cls)))
    except (OSError, TypeError):  # compiled
        kept = set()
    return frozenset(filter(is_private, kept | set(vars(cls))))


def inherited_reaches(cls: type) -> Iterator[str]:
    """Private names that a class of ours shares with a class of a library that it inherits from."""
    theirs: set[str] = set()
    for base in cls.__mro__:
        if library(base.__module__):
            theirs |= private_names(base)
    [node] = [each for each in ast.walk(ast.parse(_source(cls))) if isinstance(each, ast.ClassDef)][:1]
    for each in ast.walk(node):
        name = None
        if isinstance(each, ast.Attribute):
            supers = isinstance(each.value, ast.Call) and root_of(each.value) == "super"
            name = each.attr if is_own(each.value) or supers else None
        elif isinstance(each, ast.FunctionDef | ast.AsyncFunctionDef):
            name = each.name
        elif isinstance(each, ast.Name) and isinstance(each.ctx, ast.Store):
            name = each.id
        if name is not None and name in theirs:
            yield f"{cls.__module__}.{cls.__qualname__} has {name} of what it inherits"


def _source(cls: type) -> str:
    return inspect.cleandoc("\n" + inspect.getsource(cls))


def classes() -> list[type]:
    """Every class of the package that inherits from a class of a library, but for the owners'."""
    found = []
    for module in pkgutil.walk_packages(delaystream.__path__, "delaystream."):
        # Of these two kinds nothing is imported: a program, and what alembic runs.
        if module.name.endswith(("__main__", ".migrations.env")) or module.name in OWNERS:
            continue
        for each in vars(importlib.import_module(module.name)).values():
            if not (inspect.isclass(each) and each.__module__ == module.name):
                continue
            if any(library(base.__module__) for base in each.__mro__):
                found.append(each)
    return found


# -- the code --------------------------------------------------------------------------------------------


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_only_the_owners_reach_into_the_libraries(path: Path) -> None:
    name = str(path.relative_to(ROOT))
    if f"{path.relative_to(ROOT).with_suffix('')}".replace("/", ".") in OWNERS:
        assert reaches(path.read_text("utf-8"), name), "an owner without a reach"
    else:
        assert reaches(path.read_text("utf-8"), name) == []


@pytest.mark.parametrize("cls", classes(), ids=lambda cls: cls.__qualname__)
def test_only_the_owners_share_private_names_with_what_they_inherit(cls: type) -> None:
    assert list(inherited_reaches(cls)) == []


def test_classes_that_inherit_are_found() -> None:
    names = {cls.__name__ for cls in classes()}
    assert {"StickyAssignor", "ConsumerThread", "Consumer", "DelayApp", "TokenLogin", "Produce"} <= names


def test_nothing_is_excused_that_is_not_there() -> None:
    """Of a reach that is gone, or of a file."""
    for name, written in ELSEWHERE.items():
        tree = ast.parse((ROOT / name).read_text("utf-8"))
        there = {ast.unparse(node) for node in ast.walk(tree) if isinstance(node, ast.Attribute)}
        assert written <= there, name


@pytest.mark.parametrize("owner", OWNERS.values(), ids=lambda owner: owner.__name__)
def test_what_is_handed_out_is_used(owner: ModuleType) -> None:
    """What nobody needs any more goes: each part costs at every upgrade."""
    used = set()
    file = ROOT / f"{owner.__name__.replace('.', '/')}.py"
    for path in SOURCES:
        text = path.read_text("utf-8")
        if path == file or (owner.__package__ or "") not in text:
            continue
        used |= {node.attr for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Attribute)}
        used |= {
            alias.name
            for node in ast.walk(ast.parse(text))
            if isinstance(node, ast.ImportFrom) and node.module == owner.__name__
            for alias in node.names
        }
    own = file.read_text("utf-8")
    # One that stands in another's place is used by that.
    unused = {name for name in owner.__all__ if name not in used}
    assert {name for name in unused if len(re.findall(rf"\b{name}\b", own)) < 3} == set()


# -- the reaches that stood all over the adapters, put back ----------------------------------------------

PUT_BACK = [
    "from aiokafka.consumer.fetcher import Fetcher",
    "from aiokafka.consumer import fetcher as aiokafka_fetcher",
    "from aiokafka import conn",
    "import aiokafka.conn",
    "import aiokafka\naiokafka.conn.create_conn",
    "import aiokafka as a\na.consumer",
    "from aiokafka.errors import _private",
    "from faust.transport.drivers import aiokafka as driver",
    "from faust.app.base import BootStrategy",
    "import faust\nfaust.app.base.BootStrategy",
    "from faust import tables",
    "import mode",
    "from mode import Service",
    "from importlib import import_module\nimport_module('aiokafka.conn')",
    "__import__('faust.app.base')",
    "consumer._subscription.seek(tp, 0)",
    "consumer._closed",
    "self.consumer._closed",
    "self._consumer._coordinator",
    "coordinator._rejoin_needed_fut.done()",
    "await_ = self._app._crashed.wait()",
    "connection._writer.transport.abort()",
    "getattr(connection, '_writer')",
    "hasattr(fetcher, '_records')",
    "from operator import attrgetter\nattrgetter('_fetcher._records')",
    "coordinator._do_heartbeat = heartbeat",
    "coordinator.reset_generation = reset",
    "setattr(coordinator, 'reset_generation', reset)",
    "subscription.fetch_context = None",
    "import aiokafka\naiokafka.AIOKafkaConsumer.start = None",
    "import aiokafka\ndel aiokafka.AIOKafkaConsumer.start",
    "from aiokafka import AIOKafkaConsumer\nAIOKafkaConsumer.anything = None",
    "from delaystream.adapters.internals.aiokafka import FetchResult\nFetchResult.check_assignment = None",
    "from delaystream.adapters.internals import aiokafka as a\na.aiokafka_fetcher.MemoryRecords = x",
    "from delaystream.adapters.internals import faust\nfaust.TRANSPORTS.aliases['x'] = 'y'",
    "from delaystream.adapters.internals.faust import driver",
    "from delaystream.adapters.internals.aiokafka import _ForgivingBuffer",
    "import delaystream.adapters.internals.faust as f\nf.driver",
    "(one, coordinator.reset_generation) = 1, 2",
    "coordinator.request_rejoin: int = 1",
]


@pytest.mark.parametrize("code", PUT_BACK)
def test_a_reach_that_is_put_back_is_found(code: str) -> None:
    assert reaches(code)


@pytest.mark.parametrize(
    "code",
    [
        "import aiokafka\naiokafka.AIOKafkaConsumer()",
        "from aiokafka.errors import KafkaError",
        "import faust\nfaust.App",
        "from faust.types import TP",
        "self._consumer = consumer\nself._consumer.seek(tp, 0)",
        "super()._anything()",
        "reader.position = 1",
        "self.__class__.__name__",
        "from delaystream.adapters.internals.aiokafka import Membership\nMembership(consumer).generation",
        "import modern",
    ],
)
def test_what_is_documented_or_our_own_is_let_pass(code: str) -> None:
    assert reaches(code) == []


class Overriding(faust_internals.ConsumerThread):
    """What Faust calls is overridden in its own name."""

    def _create_worker_consumer(self, transport: object) -> object:
        return None


class Reading(faust_internals.ConsumerThread):
    """What Faust keeps in its object is read."""

    def read(self) -> object:
        return self._rebalance_listener


class Writing(faust_internals.App):
    """What Faust keeps in its object is set, as if it were our own."""

    def write(self) -> None:
        self._producer = None


class Calling(faust_internals.Consumer):
    """A private method of Faust's is called through super()."""

    async def call(self) -> None:
        await super()._commit({})


class Harmless(faust_internals.ConsumerThread):
    """Private names of its own."""

    def note(self) -> None:
        self._noted_by_us = True


@pytest.mark.parametrize("cls", [Overriding, Reading, Writing, Calling])
def test_a_private_name_of_what_is_inherited_is_found(cls: type) -> None:
    assert list(inherited_reaches(cls))


def test_private_names_of_ones_own_are_let_pass() -> None:
    assert list(inherited_reaches(Harmless)) == []
