"""The versions of the client libraries that delaystream was tested with.

delaystream uses private parts of both (`aiokafka.py` and `faust.py` beside this module). In another version
these parts may mean something else without any error. Then users would be the first to find that records are
lost or delivered twice.
"""

from __future__ import annotations

from collections.abc import Mapping
from importlib import metadata
from typing import Final

from delaystream.config.errors import ConfigurationError

TESTED: Final[Mapping[str, str]] = {"aiokafka": "0.14.0", "faust-streaming": "0.15.3"}
"""Version by distribution name, as pyproject.toml pins them."""


def untested() -> dict[str, str]:
    """The libraries whose installed version is not the tested one, each with its installed version."""
    installed = {name: _installed(name) for name in TESTED}
    return {name: version for name, version in installed.items() if version != TESTED[name]}


def require_tested(*, allow_others: bool) -> None:
    """Raise ConfigurationError with a sentence for each library that has another version."""
    if (found := untested()) and not allow_others:
        raise ConfigurationError(
            f"{name} {version} is installed. delaystream uses private parts of it, and was tested "
            f"with {TESTED[name]} only: install {name}=={TESTED[name]}, or set "
            "DELAYSTREAM_ALLOW_UNTESTED_CLIENTS=true to run anyway."
            for name, version in found.items()
        )


def _installed(name: str) -> str:
    try:
        return metadata.version(name)
    except metadata.PackageNotFoundError:
        return "of an unknown version"
