"""Moves everything pending from one application's state into another's, as JSON Lines."""

from delaystream.transfer.exporting import Export, export, reopen
from delaystream.transfer.importing import Allowed, Import, import_
from delaystream.transfer.kafka import TransferError

__all__ = ["Allowed", "Export", "Import", "TransferError", "export", "import_", "reopen"]
