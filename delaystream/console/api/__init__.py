"""The REST interface: what is asked, answered in JSON."""
