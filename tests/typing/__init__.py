"""Code as users write it, which mypy reads as it reads everything here: nothing of it runs."""
