"""What is told: events, receipts, dead letters, and how the partition stands."""
