"""What pytest has of delaystream, wherever that is installed: fixtures that import nothing before their use.

`delaystream_env` is an `Environment`, `delaystream_async_env` an `AsyncEnvironment` for tests that run in an
event loop, by whatever plugin. Each test has one of its own, made as the fixture `delaystream_options` says:
override it, in a module or a conftest, to have other options of `delaystream.testing.environment`.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from delaystream.testing.environments import AsyncEnvironment, Environment


@pytest.fixture
def delaystream_options() -> dict[str, Any]:
    """Options of `delaystream.testing.environment` for this test's environments."""
    return {}


@pytest.fixture
def delaystream_env(delaystream_options: dict[str, Any]) -> Iterator[Environment]:
    """delaystream in memory, with time that the test moves: `delaystream.testing.environment()`."""
    from delaystream.testing.environments import environment  # noqa: PLC0415 - see above

    with environment(**delaystream_options) as env:
        yield env


@pytest.fixture
def delaystream_async_env(delaystream_options: dict[str, Any]) -> Iterator[AsyncEnvironment]:
    """The same for tests in an event loop: `async with delaystream.testing.environment()`."""
    from delaystream.testing.environments import async_environment  # noqa: PLC0415 - see above

    with async_environment(**delaystream_options) as env:
        yield env
