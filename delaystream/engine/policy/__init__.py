"""The policies for deliveries: which are allowed, how fast, and when a destination is parked."""
