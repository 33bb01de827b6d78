"""Headers that any request may have: its reason, and its conditions."""

from typing import Final

from delaystream.codec.requests import values
from delaystream.codec.requests.names import PREFIX
from delaystream.codec.requests.refusals import id_required, not_applicable
from delaystream.core.rejection import Code
from delaystream.core.request import NO_TERMS, Terms

OF_AN_ID: Final = frozenset({"if-version", "request-id"})
"""Conditions on one id."""
OF_A_SET: Final = frozenset({"declared-by", "deploy"})
"""Of an id that belongs to a declared set."""
_TERMS: Final = frozenset({"note", *OF_AN_ID, *OF_A_SET})

_NOTE_BYTES: Final = 1024
_NAME_BYTES: Final = 128


def read_terms(control: dict[str, bytes], id: str | None, instead: str | None = None) -> Terms:
    """The terms among the control headers; `instead` is the header that is given in place of an id, if any.

    Raises `RefusedError`.
    """
    given = control.keys() & _TERMS
    if not given:
        return NO_TERMS
    if id is None:
        for kind in sorted(given - {"note"}):
            if instead is not None:
                raise not_applicable(kind, f"{PREFIX}{instead}; expected it beside an id only")
            raise id_required(f"{PREFIX}{kind} is given")
    if "deploy" in given and "declared-by" not in given:
        raise not_applicable("deploy", f"no {PREFIX}declared-by; expected it beside that only")
    return Terms(
        note=note_of(control),
        if_version=_number(control, "if-version", Code.INVALID_VERSION),
        request_id=_text(control, "request-id", 1, _NAME_BYTES, Code.INVALID_REQUEST_ID),
        declared_by=_text(control, "declared-by", 1, _NAME_BYTES, Code.INVALID_DECLARED_BY),
        deploy=_number(control, "deploy", Code.INVALID_DEPLOY),
    )


def note_of(control: dict[str, bytes]) -> str | None:
    """The note among the control headers. Raises `RefusedError`."""
    return _text(control, "note", 0, _NOTE_BYTES, Code.INVALID_NOTE)


def _text(control: dict[str, bytes], kind: str, least: int, most: int, invalid: Code) -> str | None:
    content = control.get(kind)
    return None if content is None else values.short_text(PREFIX + kind, content, least, most, invalid)


def _number(control: dict[str, bytes], kind: str, invalid: Code) -> int | None:
    content = control.get(kind)
    return None if content is None else values.whole_number(PREFIX + kind, content, invalid)
