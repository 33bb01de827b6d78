"""What a console does with a million named schedules and ten million events without an id."""
