"""What serves people: a process beside the workers that follows their topics, and answers questions."""
