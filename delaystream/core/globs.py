"""Globs of topic names: `*`, `?`, `[...]` and `[!...]`, as in Python's `fnmatch`, case-sensitive."""

import re
from collections.abc import Callable
from fnmatch import translate
from functools import lru_cache
from typing import Final

MOST_CHARACTERS: Final = 249
"""Of a glob that a request gives: the longest topic name."""

#: `fnmatch` keeps tens of thousands of compiled globs, which anybody may send, of kilobytes each
_KEPT: Final = 512


@lru_cache(_KEPT)
def _compiled(glob: str) -> Callable[[str], re.Match[str] | None]:
    return re.compile(translate(glob)).match


def matches_glob(name: str, glob: str) -> bool:
    """Whether a topic name matches a glob, whole."""
    return _compiled(glob)(name) is not None
