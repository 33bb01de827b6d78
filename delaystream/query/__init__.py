"""The public view of schedules, and how to read it from a partition's rows. Pure: any store may hold them."""
