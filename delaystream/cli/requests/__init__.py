"""Commands that ask for something over Kafka, and tell what came of it."""
