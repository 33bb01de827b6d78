"""Due entries leave their wheels and become deliveries."""
