"""What changes something over HTTP: bodies and conditions are read, and outcomes become answers."""
