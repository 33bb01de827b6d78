"""Checks the file of an export to its end, before anything is done with it."""

import hashlib
from collections.abc import Iterator, Mapping
from typing import BinaryIO, Final

import msgspec

from delaystream.transfer import lines
from delaystream.transfer.kafka import TransferError

_NO_EXPORT: Final = "The file is not an export, as `delaystream export` writes it"


class Checked(msgspec.Struct, frozen=True):
    """A file that was read to its end and checked."""

    header: lines.Header
    end: lines.End
    topic_ids: Mapping[tuple[str, int], str]
    """The topic ids of its source partitions at the time of the export."""

    @property
    def name(self) -> str:
        """The name of the transfer, which the state of an importing application keeps.

        A final export of one transfer always has the same entries, because its application is closed. Two
        other exports are never the same.
        """
        return self.header.transfer if self.header.final else f"copy {self.end.digest}"


def checked(file: BinaryIO) -> Checked:
    """Read a file to its end. Raises TransferError, with the number of the line that is wrong."""
    digest = hashlib.sha256()
    header: lines.Header | None = None
    counts: dict[type, int] = {lines.Anonymous: 0, lines.Named: 0, lines.InFlight: 0, lines.Holding: 0}
    topic_ids: dict[tuple[str, int], str] = {}
    number = 0
    for number, line, text in numbered(file):
        if isinstance(line, lines.Header) != (number == 1):
            raise TransferError(f"Line {number}: an export begins with its header, and has only one.")
        if isinstance(line, lines.End):
            assert header is not None
            found = lines.End(
                counts[lines.Anonymous],
                counts[lines.Named],
                counts[lines.InFlight],
                f"sha256:{digest.hexdigest()}",
                counts[lines.Holding],
            )
            if line != found:
                raise TransferError(
                    f"Line {number}: the file was changed or damaged: it holds {found.anonymous} fires, "
                    f"{found.schedules} schedules, {found.commands} commands with digest {found.digest}, and "
                    f"its end says {line.anonymous}, {line.schedules}, {line.commands}, {line.digest}."
                )
            if file.read(1):
                raise TransferError(f"Line {number + 1}: an export ends with its end.")
            return Checked(header, line, topic_ids)
        digest.update(text)
        if isinstance(line, lines.Header):
            if line.format != lines.FORMAT:
                raise TransferError(_of_another_format(line))
            header = line
        elif isinstance(line, lines.Position):
            topic_ids[line.topic, line.partition] = line.topic_id
        elif type(line) in counts:
            counts[type(line)] += 1
    if not number:
        raise TransferError(f"{_NO_EXPORT}: it is empty.")
    raise TransferError(f"The file ends at line {number} without its end: it was cut off.")


def _of_another_format(header: lines.Header) -> str:
    """The advice for a file that this version does not read."""
    advice = "import it with that version"
    if header.format < lines.FORMAT:
        advice += (
            ", or take it back in the old application (`delaystream export --reopen` with that version, if "
            "it was a final export)"
        )
    return (
        f"The file has format {header.format}, written by delaystream {header.version}, and this version "
        f"reads format {lines.FORMAT}: {advice}."
    )


def numbered(file: BinaryIO) -> Iterator[tuple[int, lines.Line, bytes]]:
    """The lines of a file from its beginning, unchanged, with their numbers. Raises TransferError."""
    file.seek(0)
    # Not `for text in file`, because the position after the end is needed.
    for number, text in enumerate(iter(file.readline, b""), 1):
        try:
            yield number, lines.decoded(text), text
        except lines.LineError as error:
            if number == 1:
                raise TransferError(f"{_NO_EXPORT}: its first line is not the header of one.") from None
            raise TransferError(f"Line {number}: {error}.") from None
