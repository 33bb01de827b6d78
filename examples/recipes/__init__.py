"""Short answers to what is asked most."""
