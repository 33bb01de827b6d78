"""The origin of a setting's value."""

from dataclasses import dataclass
from typing import Literal

Layer = Literal["flag", "environment", "file", "default"]


@dataclass(frozen=True)
class Origin:
    """The layer of a value, and the name of the flag, variable or file."""

    layer: Layer
    name: str = ""

    def __str__(self) -> str:
        return f"{self.layer} {self.name}".strip()
