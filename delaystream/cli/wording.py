"""Rewrites workers' sentences about headers, for users who typed options."""

import re
from typing import Final

from delaystream.codec.requests.names import PREFIX, SUPPORTED

#: Quoted text is the user's own, and stays as it is.
_HEADER: Final = re.compile(
    rf"(?:the headers? )?(?<!['\w-]){PREFIX}({'|'.join(sorted(SUPPORTED, reverse=True))})(?![\w-])"
)

_ANY: Final = {"destination": "--to"}
_COMMAND: Final = {"id": "ID", "action": "the command"}
_PLACES: Final[dict[str, dict[str, str]]] = {
    "schedule": _ANY,
    "update": {**_COMMAND, **_ANY, "payload": "VALUE"},
    "rate": {**_COMMAND, "destination": "TOPIC", "rate": "RATE"},
    "cron": {"cron": "EXPRESSION"},
}
"""For each command, the headers that have no option of the same name."""


def in_options(sentence: str, command: str = "schedule") -> str:
    """The sentence with options in place of headers: `--delay` for `delaystream-delay`.

    `command` is the action of the request, or `cron`.
    """
    places = _PLACES.get(command, _COMMAND)
    return _HEADER.sub(lambda header: places.get(header[1], f"--{header[1]}"), sentence)
