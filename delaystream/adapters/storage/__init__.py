"""RocksDB, and its directory."""
