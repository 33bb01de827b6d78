"""Writes plain values as YAML, without a YAML library.

Strings are written as in JSON, which every YAML 1.2 reader accepts.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from typing import Any


def yaml_document(value: Mapping[str, Any]) -> str:
    """Return one document, from its `---` on, without a newline at the end."""
    return "\n".join(["---", *_lines(value)])


def _lines(value: Any) -> Iterator[str]:
    if isinstance(value, Mapping):
        for name, content in value.items():
            if _is_nested(content):
                yield f"{name}:"
                yield from (f"  {line}" for line in _lines(content))
            else:
                yield f"{name}: {_scalar(content)}"
    else:
        for content in value:
            first, *rest = _lines(content) if _is_nested(content) else [_scalar(content)]
            yield f"- {first}"
            yield from (f"  {line}" for line in rest)


def _is_nested(value: Any) -> bool:
    return isinstance(value, Mapping | Sequence) and not isinstance(value, str) and len(value) > 0


def _scalar(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
