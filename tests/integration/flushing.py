"""``python -m tests.integration.flushing ARGUMENTS``: delaystream, with stores that are soon on disk.

A store is flushed each minute, and what a kill leaves is as of then. No test waits for so long: so a killed
process would leave nothing, and its successor would begin anew, whatever is wrong with what it left.
"""

from __future__ import annotations

import sys
from functools import partial

from delaystream.adapters.storage import rocksdb_store
from delaystream.cli import main

FLUSHED_MS = 40

if __name__ == "__main__":
    rocksdb_store.RocksDbSettings = partial(  # type: ignore[assignment, misc]
        rocksdb_store.RocksDbSettings, flush_interval_ms=FLUSHED_MS
    )
    sys.exit(main())
