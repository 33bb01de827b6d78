"""What serves people: where it listens, and what it keeps."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from delaystream.config.values import OptionalText, Section


class ConsoleSettings(Section):
    """The console, and how the command line finds it."""

    console_http_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Where the console listens: an address of loopback, because it asks nobody who they are.",
    )
    console_http_port: int = Field(
        8643, ge=0, le=65_535, description="Port of the console. 0: a free one, logged."
    )
    console_data_dir: Path = Field(
        Path(".delaystream/console"),
        description="The console's copy of what is pending: <console-data-dir>/<app-id>/<partition>. May be "
        "lost: it is rebuilt from the changelog.",
    )
    console_database: OptionalText = Field(
        None,
        repr=False,
        description="SQLAlchemy URL of the console's history: postgresql+psycopg://… for several consoles "
        "that share one. None: a file of SQLite in the console's data directory.",
    )
    console_history_days: int = Field(
        90, ge=1, le=36_500, description="How long single events are kept in the history."
    )
    console_history_events: int = Field(
        50_000_000, ge=1_000, le=10**12, description="How many single events are kept at most."
    )
    console_environment: OptionalText = Field(
        None,
        max_length=40,
        description="Name of the environment, such as production: the console's pages show it in its colour.",
    )
    console_environment_color: Literal["grey", "blue", "green", "amber", "red", "violet"] = Field(
        "grey", description="Colour of that name."
    )
    console_docs_url: OptionalText = Field(
        None,
        pattern=r"^https?://[^\s\"'<>]+$",
        description="Where these docs are published: the console's pages link to runbooks there. None: they "
        "name the files.",
    )
    console_url: OptionalText = Field(
        None,
        description="Where the command line finds the console. None: http://<console-http-host>:<console-http-port>.",
    )
