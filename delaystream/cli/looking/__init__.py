"""Commands that look: questions to the console, and their answers on a terminal."""
