"""Consumers of deliveries, their retries, and events as classes."""
