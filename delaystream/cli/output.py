"""All that commands print: the one place where text leaves for a terminal.

Ids, header names, keys, topics, reasons and the answers of a console come from records, so anybody may have
written them. A terminal obeys none of it: every character that is not printable is escaped here, and a line
stays one line. `print` is used nowhere else under `cli` (ruff sees to it).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Literal

Output = Literal["human", "json"]
"""For people, or for programs."""

_CLEAR_LINE = "\r\x1b[K"


def printable(text: str) -> str:
    """The text on one line; control characters and unprintable characters are escaped."""
    if text.isprintable():
        return text
    return "".join(character if character.isprintable() else _escaped(character) for character in text)


def json_text(value: object, *, indent: bool = False) -> str:
    """JSON whose unprintable characters are written as JSON has them; indented, its line ends stay."""
    import orjson

    try:
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None).decode()
    except orjson.JSONEncodeError:
        # For integers beyond 64 bits and halves of characters, which JSON from elsewhere may have.
        return json.dumps(value, indent=2 if indent else None)
    return "".join(c if c.isprintable() or c == "\n" else _as_json(c) for c in text)


def say(*lines: str) -> None:
    """Lines on standard output, at once: whoever reads one may act on it."""
    for line in lines or ("",):
        print(printable(line))
    sys.stdout.flush()


def say_all(lines: Iterable[str]) -> None:
    """The same, of lines that are there one after the other."""
    say(*lines)


def say_json(value: object, *, indent: bool = False) -> None:
    """An object on standard output: on one line, or indented."""
    # Not by `say`, whose escapes are no JSON.
    print(json_text(value, indent=indent), flush=True)


def tell(*lines: str) -> None:
    """Lines on standard error, for people, whatever standard output is for."""
    for line in lines:
        print(printable(line), file=sys.stderr)
    sys.stderr.flush()


def complain(sentence: str) -> None:
    """Sentences on standard error, a line each, that name the program."""
    tell(*(f"delaystream: {line}" for line in sentence.split("\n")))


def progress() -> Callable[[str], None]:
    """Takes what is done so far, for standard error: on a terminal one line that is overwritten."""
    terminal = sys.stderr.isatty()

    def step(text: str) -> None:
        line = printable(text)
        print(_CLEAR_LINE + line if terminal else line, end="" if terminal else "\n", file=sys.stderr)
        sys.stderr.flush()

    return step


def _escaped(character: str) -> str:
    return character.encode("unicode_escape").decode()


def _as_json(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"
