"""The console's pages: what the HTTP interface answers, for people to read."""
