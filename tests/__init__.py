"""The tests: what each package promises stands in its first line."""
