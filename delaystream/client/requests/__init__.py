"""Requests as records, their outcomes, and the check of both before anything is sent."""
