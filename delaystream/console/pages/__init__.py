"""Pages for people: rendered here, readable without script."""
