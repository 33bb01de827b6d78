"""Who owns a partition, and the batches that it is handed: Faust and the group's consumer."""
