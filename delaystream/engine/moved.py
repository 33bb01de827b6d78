"""State that nothing must fire from here: of another layout, or on the move to another application."""

from __future__ import annotations

from delaystream.codec.envelope import FORMAT, Meta, TransferState
from delaystream.engine.failures import Misconfigured


def refuse_layout(meta: Meta) -> None:
    """Raise Misconfigured for rows that this version would not understand."""
    if meta.format != FORMAT:
        raise Misconfigured(
            f"the changelog's rows have layout {meta.format}, and this version reads layout {FORMAT}: go on "
            "with the version that wrote them, or begin with new topics"
        )


def refuse_moved(meta: Meta) -> None:
    """Raise Misconfigured unless the state is all here, and only here."""
    if meta.transfer_state == TransferState.EXPORTED:
        raise Misconfigured(
            f"what is pending was exported for good (transfer {meta.transfer}): it fires where it was "
            "imported, and would fire twice if it did here as well. `delaystream export --reopen` takes that "
            "back, if it was imported nowhere"
        )
    if meta.transfer_state == TransferState.IMPORTING:
        raise Misconfigured(
            f"the import of transfer {meta.transfer} has not ended: run `delaystream import` with the same "
            "file again, it goes on where it stopped"
        )
