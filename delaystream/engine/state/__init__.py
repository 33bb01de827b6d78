"""The state of one partition, and the step that changes it."""
