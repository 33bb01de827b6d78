"""A copy of what is pending, kept up to date: followed from the changelog, indexed, and read."""
