"""One id's life: requests and commands about a named schedule."""
