"""What is due leaves its wheel and becomes deliveries."""
