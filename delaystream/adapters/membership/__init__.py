"""Partition ownership, and the batches that a partition receives: Faust and the group's consumer."""
