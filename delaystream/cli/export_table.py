"""An export as a table for people: one line for each fire, by partition."""

import base64
from typing import IO, Any

from delaystream.cli.rendering import rendered
from delaystream.core.instants import format_instant
from delaystream.transfer import lines

_HEAD = f"{'due':<24}  {'status':<9}  {'destination':<24}  {'schedule':<32}  {'key':<16}  value\n"


class Table:
    """Takes the lines of an export, and writes those of the table."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        out.write(_HEAD.encode())

    def write(self, text: bytes) -> int:
        """One line of the export."""
        match lines.decoded(text.rstrip(b"\n")):
            case lines.Anonymous(fire=fire, payload=payload):
                self._row(fire.due_at, "pending", fire.destination, fire.source, payload)
            case lines.Named() as named:
                self._named(named)
            case lines.InFlight(partition=partition, offset=offset, key=key, value=value):
                place = f"command {partition}/{offset}"
                self._row("-", "on its way", "", place, {"key": _base64(key), "value": _base64(value)})
            case _:
                pass
        return len(text)

    def _named(self, named: lines.Named) -> None:
        payload, schedule = named.payload or {}, named.schedule
        destination = str(schedule.get("destination", ""))
        rows = [(fire.due_at, named.status, fire.destination) for fire in named.fires]
        rows += [
            (triggered.fire.due_at, "triggered", triggered.fire.destination) for triggered in named.triggers
        ]
        rows += [
            (format_instant(due_ms), named.status, destination) for due_ms, _ in schedule.get("held", ())
        ]
        for due, status, where in rows or [(named.next_at or "-", named.status, destination)]:
            self._row(due, status, where, named.id, payload)

    def _row(self, due: str, status: str, destination: str, schedule: str, payload: dict[str, Any]) -> None:
        key, value = _bytes(payload.get("key")), _bytes(payload.get("value"))
        row = (
            f"{due:<24}  {status:<9}  {destination:<24}  {rendered(schedule.encode()):<32}  "
            f"{rendered(key):<16}  {rendered(value)}\n"
        )
        self._out.write(row.encode())


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
