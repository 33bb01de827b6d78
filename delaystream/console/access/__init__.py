"""Who asks a console, and what they may see and do."""
