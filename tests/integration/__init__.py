"""Against real brokers: workers as processes, and what may befall either."""
