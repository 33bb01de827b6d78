"""delaystream: delayed events for Apache Kafka, delivered on time and exactly once."""

__version__ = "0.1.0"
