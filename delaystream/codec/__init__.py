"""Bytes to types and back: Kafka headers, state keys and stored values."""
