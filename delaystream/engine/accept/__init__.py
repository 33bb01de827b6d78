"""What comes in: each request is decided on, or handed to whoever decides."""
