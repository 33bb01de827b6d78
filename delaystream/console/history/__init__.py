"""What was: events kept in SQL, added up by minute, hour and day, and asked."""
