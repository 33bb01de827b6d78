"""Their tests: without Kafka, in virtual time."""
