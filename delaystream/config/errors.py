"""What is wrong with the settings."""

import difflib
from collections.abc import Iterable


class ConfigurationError(Exception):
    """One or more settings are unknown, missing or out of bounds; `problems` has one sentence for each."""

    def __init__(self, problems: Iterable[str]) -> None:
        self.problems = tuple(problems)
        super().__init__("\n".join(self.problems))


def suggestion(name: str, known: Iterable[str]) -> str:
    """' Did you mean X?' with the known name nearest to `name`, or ''."""
    nearest = difflib.get_close_matches(name, list(known), n=1, cutoff=0.6)
    return f" Did you mean {nearest[0]}?" if nearest else ""
