"""What an operator sees: metrics, tracing, health, and the watchdog."""
