"""The documentation says what is there, all of it, and nothing else."""

import re
import shlex
import sys
import tomllib
from itertools import pairwise
from pathlib import Path
from types import ModuleType
from typing import Any, get_args

import pytest

from delaystream.codec.command import COMMAND_HEADER
from delaystream.codec.event import UNFIRED, Unfired, WhyPassed, json_schema
from delaystream.codec.outgoing import OUTGOING_HEADERS
from delaystream.codec.requests.headers import RequestParser
from delaystream.codec.requests.names import PREFIX, SUPPORTED
from delaystream.config import Settings, environment_name, tenant_settings
from delaystream.config.kafka import variable_names
from delaystream.config.settings import TABLES
from delaystream.core.destinations import DestinationFilter
from delaystream.core.limits import Limits
from delaystream.core.record import Record
from delaystream.core.request import Coordinates, Request
from delaystream.testing import plugin
from tests.unit.test_setup import ROOT, script

documentation = script("documentation")

PAGES = documentation.documents()
README = (ROOT / "README.md").read_text("utf-8")
NAMES = [str(page.relative_to(ROOT)) for page in PAGES]

#: Variables that are documented and are no settings.
OTHER_VARIABLES = {
    "DELAYSTREAM_EXAMPLES",
    "DELAYSTREAM_CONFIG",
    "DELAYSTREAM_CACHE_DIR",
    # a secret, from a file
    "DELAYSTREAM_CONSOLE_OIDC_CLIENT_SECRET_FILE",
}
NOW_MS = 1_800_000_000_000


def text(page: Path) -> str:
    return page.read_text("utf-8")


def everything() -> str:
    return "\n".join(map(text, PAGES))


def fenced(page_text: str, language: str) -> list[str]:
    return re.findall(rf"```{language}\n(.*?)```", page_text, re.DOTALL)


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_tables_are_those_of_the_code(page: Path) -> None:
    """Of codes, settings, metrics and exit codes: `python -m scripts.documentation` writes them."""
    assert text(page) == documentation.filled(text(page))


def test_every_reason_for_which_a_due_time_does_not_fire_is_in_all_that_tells_of_it() -> None:
    """Those of events in their schema and on their page; each that is counted in the help of the metric, and
    either left out of the alert, as what was asked for, or explained in its runbook."""
    of_events, of_types = get_args(Unfired)
    assert set(UNFIRED) == {*of_events, *get_args(of_types)}
    described = json_schema()["$defs"]["Event"]["properties"]["reason"]["description"]
    (paragraph,) = re.findall(r"and a `reason`: .*", text(ROOT / "docs" / "events.md"))
    page = text(ROOT / "docs" / "events.md")
    told = page[page.index(paragraph) :].partition("\n- ")[0]
    for reason in WhyPassed:
        assert re.search(rf"\b{reason}\b", described.partition(". ")[0]), reason
        assert f"`{reason}`" in told, reason
    (help,) = re.findall(r"\| `delaystream_missed_total` .*", text(ROOT / "docs" / "operations.md"))
    for counted in UNFIRED:
        assert re.search(rf"[:,] {counted}\b", help), counted
    rules = text(ROOT / "helm" / "delaystream" / "files" / "rules" / "alerts.yml")
    runbook = text(ROOT / "docs" / "runbooks" / "fires-missed.md")
    excluded = set(re.findall(r"delaystream_missed_total\{[^~]*reason!~\"([a-z|]+)\"\}", rules))
    assert len(excluded) == 1, "the same in each part of the expression"
    left_out = set(excluded.pop().split("|"))
    explained = set(re.findall(r"^\| `([a-z-]+)` \|", runbook, re.MULTILINE))
    assert left_out | explained == set(UNFIRED)
    assert not left_out & explained
    for asked_for in left_out:
        assert f"`{asked_for}` (" in runbook, asked_for


def test_every_table_has_its_place() -> None:
    """A table that is generated and shown nowhere would be missed by nobody."""
    assert set(re.findall(r"<!-- table: ([a-z0-9-]+) -->", everything())) == set(documentation.tables())


@pytest.mark.parametrize("page", PAGES, ids=NAMES)
def test_links_lead_somewhere(page: Path) -> None:
    """To files of the repository, and to headings that are there."""
    inline = re.findall(r"\]\(([^)#\s]*#?[^)\s]*)\)", text(page))
    for target in [*inline, *re.findall(r"^\[[^\]]+\]: *(\S+)", text(page), re.MULTILINE)]:
        if target.startswith("http"):
            continue
        path, _, anchor = target.partition("#")
        linked = (page.parent / path) if path else page
        assert linked.exists(), f"{page.name} links to {target}"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", text(linked), re.MULTILINE)
            anchors = {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}
            assert anchor in anchors, f"{page.name} links to {target}"


def test_every_header_is_documented() -> None:
    """In the README by its short name or in the page of headers; none that is not there."""
    contract = text(ROOT / "docs" / "headers.md")
    for name in SUPPORTED:
        assert f"`{name}`" in contract
        assert f"`{name}`" in README
    for name in OUTGOING_HEADERS:
        assert f"`{name}`" in contract


def test_no_other_header_is_documented() -> None:
    """Every `delaystream-…` in the documentation is a header, or the start of a table's names."""
    known = {PREFIX + name for name in SUPPORTED} | OUTGOING_HEADERS | {COMMAND_HEADER}
    # A cut name stands for those that begin with it: `delaystream-error…`.
    found = set(re.findall(r"delaystream-[a-z][a-z-]*[a-z](?![\w./…-])", everything()))
    assert found - known == set()


def test_no_other_variable_is_documented() -> None:
    """Every `DELAYSTREAM_…` in the documentation is a setting."""
    settings = {environment_name(name) for name in Settings.model_fields if name not in TABLES}
    settings |= {"DELAYSTREAM_TENANTS", *tenant_settings.variables(["orders", "billing"])}
    settings |= {f"DELAYSTREAM_{name}" for name in variable_names()} | OTHER_VARIABLES
    assert set(re.findall(r"DELAYSTREAM_[A-Z0-9_]*[A-Z0-9]", everything())) - settings == set()


def test_no_other_metric_is_documented() -> None:
    """Every `delaystream_…` in the documentation is a metric, or one of pytest's fixtures."""
    tables = documentation.tables()
    shown = tables["metrics"] + tables["console-metrics"]
    metrics = set(re.findall(r"^\| `(\w+)`", shown, re.MULTILINE))
    named = set(re.findall(r"\bdelaystream_[a-z_]*[a-z]", everything()))
    assert {
        name for name in named - vars(plugin).keys() if name.removesuffix("_bucket") not in metrics
    } == set()


def test_every_command_is_documented_in_the_readme() -> None:
    """By its full name."""
    for command in documentation.commands():
        assert f"`delaystream {command}`" in README


def _invocations() -> list[tuple[str, list[str]]]:
    """Every `delaystream …` in code, with its words."""
    blocks = [block.replace("\\\n", " ") for page in PAGES for block in fenced(text(page), "sh")]
    lines = [line for block in blocks for line in block.splitlines()]
    lines += re.findall(r"`(delaystream [^`]+)`", everything())
    found = []
    for line in lines:
        words = shlex.split(line, comments=True) if "delaystream " in line else []
        if "delaystream" in words:
            found.append((line, words[words.index("delaystream") + 1 :]))
    return found


def test_commands_and_their_options_are_there() -> None:
    """What is to be typed can be typed."""
    commands = documentation.commands()
    invocations = _invocations()
    assert len(invocations) > 10
    for line, words in invocations:
        name = " ".join(words[:2]) if " ".join(words[:2]) in commands else words[0]
        assert name in commands, line
        options = [word.partition("=")[0] for word in words if re.match(r"--?[a-zA-Z]", word)]
        assert set(options) <= set(commands[name]), line


@pytest.mark.parametrize(
    "name",
    re.findall(r"`((?:core|codec|engine|adapters|app|cli|dev|testing|tests|topics)/[\w/.]*)`", everything()),
)
def test_files_that_are_named_exist(name: str) -> None:
    """In the package, or from the root of the repository."""
    assert (ROOT / "delaystream" / name).exists() or (ROOT / name).exists()


def test_every_dependency_has_its_reason() -> None:
    """One line each in the architecture; and none for what is not used any more."""
    section = (
        text(ROOT / "docs" / "architecture.md").partition("\n## Dependencies\n")[2].partition("\n## ")[0]
    )
    explained = {
        name for line in re.findall(r"^\| (`.*?) \|", section, re.MULTILINE) for name in _names(line)
    }
    project = tomllib.loads(text(ROOT / "pyproject.toml"))
    wanted = {_bare(requirement) for requirement in project["project"]["dependencies"]}
    assert explained == wanted


def _names(cell: str) -> list[str]:
    return re.findall(r"`([\w-]+)`", cell)


def _bare(requirement: str) -> str:
    return re.split(r"[\[=<>~!; ]", requirement)[0]


# -- the examples of the README are requests that a worker accepts -----------------------------------


def accepted(topic: str, key: bytes, value: bytes, headers: dict[str, str]) -> Request:
    parser = RequestParser(DestinationFilter(["*"]), Limits())
    pairs = [(name, content.encode()) for name, content in headers.items()]
    request = parser.parse(Record(Coordinates(topic, 0, 0), NOW_MS, key, value, pairs), NOW_MS)
    assert isinstance(request, Request), request
    return request


def is_the_example(request: Request) -> None:
    assert request.source.topic == "delay-requests"
    assert request.destination == "reminders"
    assert request.due_ms == (NOW_MS + 5_000,)
    assert request.headers == []


class _Producer:
    """Takes what the example produces, as confluent-kafka's does."""

    produced: list[tuple[str, dict[str, Any]]]

    def __init__(self, configuration: dict[str, Any]) -> None:
        self.produced = []
        _Producer.produced = self.produced

    def produce(self, topic: str, **record: Any) -> None:
        self.produced.append((topic, record))

    def flush(self) -> None:
        """Nothing is buffered."""


def test_the_example_in_python(monkeypatch: pytest.MonkeyPatch) -> None:
    client = ModuleType("confluent_kafka")
    client.Producer = _Producer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "confluent_kafka", client)
    (example,) = fenced(README, "python")
    exec(compile(example, "README.md", "exec"), {})
    [(topic, record)] = _Producer.produced
    is_the_example(accepted(topic, record["key"].encode(), record["value"].encode(), record["headers"]))


def test_the_example_for_kcat() -> None:
    (example,) = [block for block in fenced(README, "sh") if "kcat" in block]
    words = shlex.split(example.replace("\\\n", " "))
    pairs = [after for word, after in pairwise(words) if word == "-H"]
    headers = dict(pair.split("=", 1) for pair in pairs)
    is_the_example(accepted(words[words.index("-t") + 1], b"42", b"call back", headers))


def test_the_example_for_the_console_producer() -> None:
    (example,) = [block for block in fenced(README, "sh") if "kafka-console-producer" in block]
    line = shlex.split(example)[1]
    headers = dict(pair.split(":", 1) for pair in line.partition(r"\t")[0].split(","))
    is_the_example(accepted("delay-requests", b"42", b"call back", headers))


@pytest.mark.parametrize(("language", "pattern"), [
    ("java", r'\.add\("(.*?)", "(.*?)"\.getBytes'),
    ("go", r'Key: "(.*?)", Value: \[\]byte\("(.*?)"\)'),
])  # fmt: skip
def test_the_other_examples_have_the_same_headers(language: str, pattern: str) -> None:
    (example,) = fenced(README, language)
    assert '"delay-requests"' in example
    is_the_example(accepted("delay-requests", b"42", b"call back", dict(re.findall(pattern, example))))
