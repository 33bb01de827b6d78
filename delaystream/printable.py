"""Text that terminals do not obey: what cannot be printed is escaped, whoever wrote it."""

from __future__ import annotations


def printable(text: str) -> str:
    """The text on one line; control characters and unprintable characters are escaped as Python does."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() else each.encode("unicode_escape").decode() for each in text)


def printable_json(text: str) -> str:
    """JSON with its unprintable characters, which are in strings, as JSON escapes them; line ends stay."""
    if text.isprintable():
        return text
    return "".join(each if each.isprintable() or each == "\n" else _as_json(each) for each in text)


def _as_json(character: str) -> str:
    code = ord(character)
    if code > 0xFFFF:
        code -= 0x10000
        return f"\\u{0xD800 + (code >> 10):04x}\\u{0xDC00 + (code & 0x3FF):04x}"
    return f"\\u{code:04x}"
