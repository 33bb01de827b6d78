"""Whether anybody carries out what a command waits for: the members of the workers' group."""

from __future__ import annotations

from threading import Timer
from types import TracebackType
from typing import TYPE_CHECKING, Final, Self

from delaystream.cli.output import complain

if TYPE_CHECKING:
    from delaystream.config import Settings

#: Into a wait. With a worker, most answers are there long before.
LOOK_AFTER_S: Final = 2.0


def no_worker(settings: Settings) -> str | None:
    """That no worker is running, as a sentence; None when one is, or when that cannot be known.

    A member that was killed counts until its session times out. Whoever may not describe the group (an ACL)
    learns nothing.
    """
    from delaystream.adapters.security.client_config import ClientConfig
    from delaystream.client.kafka.reading import members_of

    if members_of(ClientConfig.parse(settings.kafka).confluent(), settings.app_id) != 0:
        return None
    return (
        f"no worker is running: the group {settings.app_id} has no members. Start one with `delaystream "
        "worker`, or name the application whose workers read the topic (DELAYSTREAM_APP_ID, --set app_id=...)"
    )


class Lookout:
    """While it is open, and some seconds have gone by, says once that no worker is running."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._over = False
        self._timer = Timer(LOOK_AFTER_S, self._look)
        self._timer.daemon = True

    def __enter__(self) -> Self:
        self._timer.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.end()

    def end(self) -> None:
        """What was waited for is there: say nothing any more."""
        self._over = True
        self._timer.cancel()

    def _look(self) -> None:
        nobody = no_worker(self._settings)
        if nobody is not None and not self._over:
            complain(f"{nobody}; waiting anyway")
