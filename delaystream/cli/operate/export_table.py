"""An export as a table for people: a line for each fire, hold and rate, by partition."""

import base64
from typing import IO, Any

from delaystream.cli.rendering import rendered
from delaystream.core.instants import format_instant
from delaystream.transfer import lines

_HEAD = f"{'due':<24}  {'status':<9}  {'destination':<24}  {'schedule':<32}  {'key':<16}  value\n"


class Table:
    """Turns the lines of an export into the lines of the table."""

    def __init__(self, out: IO[bytes]) -> None:
        self._out = out
        #: all partitions have the same ones
        self._told: set[tuple[str, ...]] = set()
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
            case lines.Holding(hold=hold, until_ms=until_ms):
                self._hold(hold, until_ms)
            case lines.Rate(tenant=tenant, destination=destination, rate=rate):
                said = "as the settings say" if rate is None else f"{rate:g}/s"
                self._once(("rate", tenant, destination), "-", destination, tenant, "", said)
            case _:
                pass
        return len(text)

    def _hold(self, hold: dict[str, Any], until_ms: int | None) -> None:
        match = hold.get("match") or {}
        prefix = "" if match.get("id_prefix") is None else f"{match['id_prefix']}…"
        tags = " ".join(f"#{tag}" for tag in match.get("tags") or ())
        schedule = " ".join(filter(None, (prefix, tags))) or "all"
        key = "" if match.get("key") is None else rendered(_bytes(match["key"]))
        end = "-" if until_ms is None else format_instant(until_ms)
        note = rendered((hold.get("note") or "").encode())
        place = (str(hold.get("tenant", "")), str(hold.get("name", "")))
        self._once(("hold", *place), end, match.get("destination") or "*", schedule, key, note)

    def _once(self, what: tuple[str, ...], *row: str) -> None:
        if what not in self._told:
            self._told.add(what)
            due, destination, schedule, key, value = row
            self._line(due, what[0], destination, schedule, key, value)

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
        self._line(due, status, destination, schedule, rendered(key), rendered(value))

    def _line(self, due: str, status: str, destination: str, schedule: str, key: str, value: str) -> None:
        of = rendered(schedule.encode())
        row = f"{due:<24}  {status:<9}  {destination:<24}  {of:<32}  {key:<16}  {value}"
        self._out.write(row.rstrip().encode() + b"\n")


def _bytes(text: str | None) -> bytes | None:
    return None if text is None else base64.b64decode(text)


def _base64(content: bytes | None) -> str | None:
    return None if content is None else base64.b64encode(content).decode()
