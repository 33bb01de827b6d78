"""Requests and commands that a console writes to Kafka, as anybody else could, and what came of them."""
