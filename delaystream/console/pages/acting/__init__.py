"""Pages that change something: forms are asked back and read, and what came of them is told in sentences."""
