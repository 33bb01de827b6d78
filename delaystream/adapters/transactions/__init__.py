"""The transactional producer (KIP-98) in a straight line, every wait bounded."""
