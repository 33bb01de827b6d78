"""What serves people: where it listens, and what it keeps."""

from pathlib import Path

from pydantic import Field

from delaystream.config.values import OptionalText, Section


class ConsoleSettings(Section):
    """The console, and how the command line finds it."""

    console_http_host: str = Field("127.0.0.1", min_length=1, description="Where the console listens.")
    console_http_port: int = Field(
        8643, ge=0, le=65_535, description="Port of the console. 0: a free one, logged."
    )
    console_data_dir: Path = Field(
        Path(".delaystream-console"),
        description="The console's copy of what is pending: <console-data-dir>/<app-id>/<partition>. May be "
        "lost: it is rebuilt from the changelog.",
    )
    console_url: OptionalText = Field(
        None, description="Where the command line finds the console. None: http://127.0.0.1:<console-port>."
    )
