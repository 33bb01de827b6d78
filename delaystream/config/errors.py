"""Errors of the settings."""

import difflib
import re
from collections.abc import Iterable

_PARTS = re.compile(r"[A-Za-z0-9]+")


class ConfigurationError(Exception):
    """One or more settings are unknown, missing or out of bounds; `problems` has one sentence for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def suggestion(name: str, known: Iterable[str], prefix: str = "") -> str:
    """' Did you mean X?' with the known name nearest to `name`, or ''.

    The nearest name is the shortest one that has all words of `name`, otherwise the one with the most similar
    spelling. `prefix` is the common beginning of all names; it does not count as similarity.
    """
    names = [other.removeprefix(prefix) for other in known if other.startswith(prefix)]
    name = name.removeprefix(prefix)
    words = set(_PARTS.findall(name))
    whole = sorted((other for other in names if words <= set(_PARTS.findall(other))), key=len)
    nearest = whole or difflib.get_close_matches(name, names, n=1, cutoff=0.6)
    return f" Did you mean {prefix}{nearest[0]}?" if nearest and words else ""
