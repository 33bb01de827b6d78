"""What people see of schedules, and how it is read from a partition's rows: pure, whoever holds the rows."""
