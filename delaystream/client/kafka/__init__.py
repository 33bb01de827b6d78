"""The way to Kafka and back: transports, partitions, receipts, deliveries."""
