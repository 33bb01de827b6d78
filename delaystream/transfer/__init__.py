"""Everything that is pending as JSON Lines, out of one application's state and into another's."""

from delaystream.transfer.exporting import Export, export, reopen
from delaystream.transfer.importing import Allowed, Import, import_
from delaystream.transfer.kafka import TransferError

__all__ = ["Allowed", "Export", "Import", "TransferError", "export", "import_", "reopen"]
