"""RocksDB, and the directory that it lies in."""
