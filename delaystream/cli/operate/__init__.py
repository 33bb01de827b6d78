"""Commands of whoever runs it: worker, console, topics, configuration, export and import."""
