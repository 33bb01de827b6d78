"""One suite of cases over the engine's ports: on the log in memory, and on a real broker."""
