"""What serves people: where it listens, and what it keeps."""

from pathlib import Path
from typing import Literal

from pydantic import Field

from delaystream.config.values import KIB, MIB, NameList, OptionalSecret, OptionalText, OptionalToken, Section


class ConsoleSettings(Section):
    """The console, and how the command line finds it."""

    console_http_host: str = Field(
        "127.0.0.1",
        min_length=1,
        description="Where the console listens. Beyond loopback it needs console_tokens_file.",
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
    console_audit_days: int = Field(
        400, ge=1, le=36_500, description="How long the console's audit log is kept."
    )
    console_writes: bool = Field(
        True,
        description="Whether the console sends requests and commands to Kafka for callers. False: it only "
        "reads.",
    )
    console_reply_to: OptionalText = Field(
        None,
        description="Topic of the receipts that the console waits for; one that destinations_allow permits. "
        "None: receipts_topic.",
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
    console_tokens_file: OptionalText = Field(
        None,
        description="File of the tokens that the console takes, with what each may see: `delaystream console "
        "token` prints its entries. It is read again when it changes. None: the console asks nobody who they "
        "are, and listens on loopback alone.",
    )
    console_allowed_hosts: NameList = Field(
        (),
        description="Names that requests may say in `Host`, comma-separated, such as those of a proxy. On "
        "loopback its own names are allowed beside them; beyond loopback an empty list allows any.",
    )
    console_secret: OptionalSecret = Field(
        None,
        repr=False,
        description="What the console seals cursors with; the same for all consoles behind one address. "
        "None: a random one, so that cursors end with the process.",
    )
    console_requests_per_second: int = Field(
        500, ge=1, le=1_000_000, description="How often one caller may ask; twice as many at once."
    )
    console_failures_per_minute: int = Field(
        30,
        ge=1,
        le=1_000_000,
        description="How many requests without valid credentials are answered with 401 for one address; "
        "further ones get 429.",
    )
    console_streams_per_caller: int = Field(
        100, ge=1, le=200, description="How many streams of events one caller may have open."
    )
    console_max_body_bytes: int = Field(
        2 * MIB, ge=KIB, le=256 * MIB, description="Largest body of a request to the console."
    )
    console_max_url_bytes: int = Field(
        16 * KIB, ge=KIB, le=64 * KIB, description="Longest path and query of a request to the console."
    )
    console_max_header_bytes: int = Field(
        16 * KIB, ge=KIB, le=64 * KIB, description="Largest headers of a request to the console."
    )
    console_token: OptionalToken = Field(
        None,
        repr=False,
        description="The token that the command line shows the console.",
    )
    console_url: OptionalText = Field(
        None,
        description="Where the command line finds the console. None: http://<console-http-host>:<console-http-port>.",
    )
