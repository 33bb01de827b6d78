"""The configuration of all Kafka clients: addresses, TLS, SASL."""
