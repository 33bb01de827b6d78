"""What clients of every kind are configured with: addresses, TLS, SASL."""
