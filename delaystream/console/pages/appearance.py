"""What the pages show of the process that serves them: the environment's name, settings, addresses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from delaystream.config.layers import Loaded
from delaystream.config.listing import Listed, listed


@dataclass(frozen=True)
class Appearance:
    """Made once, when the process starts."""

    environment: str | None = None
    #: one of the palette of `console_environment_color`
    color: str = "grey"
    #: where the docs are published; None: nowhere
    docs_url: str | None = None
    #: for snippets that people copy
    bootstrap_servers: str = "localhost:9092"
    request_topic: str = "delay-requests"
    settings: Sequence[Listed] = ()

    @classmethod
    def of(cls, loaded: Loaded) -> Appearance:
        """What the settings say."""
        settings = loaded.settings
        return cls(
            settings.console_environment,
            settings.console_environment_color,
            settings.console_docs_url,
            settings.kafka.get("bootstrap.servers", "localhost:9092"),
            settings.request_topics[0],
            listed(loaded),
        )
