"""The real partition processor on a log in memory, in virtual time, under every misfortune of a seed."""
