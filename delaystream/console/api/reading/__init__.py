"""What is read: schedules, what is pending, what comes, what happened, and numbers over all of it."""
