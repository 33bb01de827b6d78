"""The interface described: OpenAPI, its examples, and the page that shows it."""
