"""Globs of topic names: `*`, `?`, `[...]` and `[!...]`, as in Python's `fnmatch`, case-sensitive."""

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache
from typing import Final

MOST_CHARACTERS: Final = 249
"""Longest glob in a request: the length of the longest topic name."""

#: `fnmatch` keeps tens of thousands of compiled globs of kilobytes each, and anybody may send globs
_KEPT: Final = 512


@lru_cache(_KEPT)
def _compiled(glob: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(translate(glob)).match


def matches_glob(name: str, glob: str) -> bool:
    """Whether a whole topic name matches a glob."""
    return _compiled(glob)(name) is not None
