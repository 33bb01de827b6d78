"""The transactional producer (KIP-98): straight-line code, and every wait has a bound."""
