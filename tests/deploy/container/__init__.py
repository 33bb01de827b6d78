"""The container image, as far as it can be proved without an engine."""
