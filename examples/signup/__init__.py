"""A service that reminds who signed up and did not confirm, and reports once a week."""
