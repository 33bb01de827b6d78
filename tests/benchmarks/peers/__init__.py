"""Peers: the same work done by Kafka's own Java libraries, compiled here, with the very same records."""
