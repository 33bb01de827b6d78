"""What may be delivered, how fast, and when a destination is set aside."""
