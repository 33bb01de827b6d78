"""Kafka's protocol without a consumer or a producer: connections, metadata, logs, record batches."""
