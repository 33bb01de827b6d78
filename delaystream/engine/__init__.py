"""The engine: the partition processor and everything it decides; no client library in it."""
