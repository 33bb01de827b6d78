"""What is asked, as a record; what became of it; and the check of both sides before anything is sent."""
