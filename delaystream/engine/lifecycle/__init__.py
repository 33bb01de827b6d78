"""From an assignment to a running partition: what comes in, and the recovery."""
