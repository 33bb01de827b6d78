"""A console as a process, beside the workers, that asks for a token."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from hashlib import sha256
from pathlib import Path
from secrets import token_urlsafe

from delaystream.dev.ports import choose_port
from tests.integration.harness import Worker, command


def token() -> tuple[str, str]:
    """A token of somebody who may see everything, and a file that knows it."""
    made = f"delaystream_{token_urlsafe(32)}"
    digest = sha256(made.encode()).hexdigest()
    return made, f'[[tokens]]\nname = "ops"\nhash = "sha256:{digest}"\nroles = {{ "*" = "viewer" }}\n'


class Console(Worker):
    """One process; it lets in whom the file `tokens` knows."""

    def __init__(self, environment: Mapping[str, str], directory: Path, name: str, tokens: Path) -> None:
        self.name = name
        self.port = choose_port()
        own = {
            "DELAYSTREAM_CONSOLE_HTTP_PORT": str(self.port),
            "DELAYSTREAM_CONSOLE_DATA_DIR": str(directory / name),
            "DELAYSTREAM_CONSOLE_TOKENS_FILE": str(tokens),
        }
        super().__init__({**environment, **own}, directory / f"{name}.log")

    def command(self, arguments: Sequence[str]) -> list[str]:
        """The other service."""
        return command("console", *arguments)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self.port}"
