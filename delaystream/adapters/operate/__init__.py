"""The operator's view of a worker: metrics, tracing, health, and the watchdog."""
