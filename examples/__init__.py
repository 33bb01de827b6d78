"""What services do with delaystream."""
