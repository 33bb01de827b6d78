"""What delaystream does in a second, beside the ceiling of a plain transactional copy on the same machine."""
