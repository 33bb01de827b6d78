"""Headers of a record become a request, or a rejection with a code."""
