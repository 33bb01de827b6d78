"""The output beside deliveries: events, receipts, dead letters, and the partition's standing."""
