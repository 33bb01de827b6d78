"""The chart's schema and topics are those of the code."""

import json
from pathlib import Path
from typing import Any

import pytest

from delaystream.config import Settings
from delaystream.config.kafka import SECRET
from tests.unit.test_setup import script

chart = script("chart")


@pytest.mark.parametrize("path", chart.files(), ids=lambda path: path.name)
def test_the_file_is_as_the_code_has_it(path: Path) -> None:
    """`python -m scripts.documentation` renews it."""
    assert path.read_text("utf-8") == chart.files()[path]


def test_every_setting_is_taken_or_decided_by_the_chart() -> None:
    assert set(chart.settings()) | chart.CHARTS_OWN_SETTINGS == set(Settings.model_fields)


def test_no_secret_has_a_place_in_the_values() -> None:
    assert not SECRET & set(chart.kafka_properties())
    secrets = {name for name, field in Settings.model_fields.items() if not field.repr}
    assert "console_database" in secrets
    assert not secrets & set(chart.settings())


def test_nothing_unknown_is_taken_anywhere() -> None:
    """Every object names its properties and refuses others, or is a map whose values have a type."""
    open_objects = list(_open_objects(chart.schema(), "values"))
    # Helm's own, and the sets of `In` and `NotIn`, are not ours to close.
    assert open_objects == ["values.properties.global"]


def _open_objects(node: Any, path: str) -> Any:
    if isinstance(node, list):
        for number, each in enumerate(node):
            yield from _open_objects(each, f"{path}[{number}]")
    elif isinstance(node, dict):
        kind = node.get("type")
        if (kind == "object" or (isinstance(kind, list) and "object" in kind)) and not path.endswith(
            ".properties"
        ):
            extra = node.get("additionalProperties")
            if extra is None or extra is True:
                yield path
        for key, each in node.items():
            yield from _open_objects(each, f"{path}.{key}")


def test_the_schema_is_json() -> None:
    assert json.loads(json.dumps(chart.schema()))["additionalProperties"] is False
