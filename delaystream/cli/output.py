"""All that commands print: the one place where text leaves for a terminal.

Ids, header names, keys, topics, reasons and the answers of a console come from records, so anybody may have
written them. A terminal obeys none of it: every character that is not printable is escaped, and a line
stays one line. `print` is used nowhere else under `cli` (ruff sees to it).
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable
from typing import Literal

from delaystream.printable import printable, printable_json

Output = Literal["human", "json"]
"""For people, or for programs."""

_CLEAR_LINE = "\r\x1b[K"


def json_text(value: object, *, indent: bool = False) -> str:
    """JSON whose unprintable characters are written as JSON has them; indented, its line ends stay."""
    import orjson

    try:
        text = orjson.dumps(value, option=orjson.OPT_INDENT_2 if indent else None).decode()
    except orjson.JSONEncodeError:
        # For integers beyond 64 bits and halves of characters, which JSON from elsewhere may have.
        return json.dumps(value, indent=2 if indent else None)
    return printable_json(text)


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
