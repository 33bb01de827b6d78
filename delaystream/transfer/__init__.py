"""Moves everything pending from one application's state into another's, as JSON Lines."""

from delaystream.transfer.exporting import Export, export, reopen
from delaystream.transfer.importing import Allowed, Import, Requests, import_
from delaystream.transfer.kafka import Application, TransferError

__all__ = [
    "Allowed",
    "Application",
    "Export",
    "Import",
    "Requests",
    "TransferError",
    "export",
    "import_",
    "reopen",
]
