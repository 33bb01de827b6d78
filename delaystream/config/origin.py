"""Where a setting's value came from."""

from dataclasses import dataclass
from typing import Literal

Layer = Literal["flag", "environment", "file", "default"]


@dataclass(frozen=True)
class Origin:
    """Where a value came from: the layer, and the flag, variable or file by name."""

    layer: Layer
    name: str = ""

    def __str__(self) -> str:
        return f"{self.layer} {self.name}".strip()
