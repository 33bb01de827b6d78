"""Incoming requests: each is decided on here, or handed to the partition that decides."""
