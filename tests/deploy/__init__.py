"""The deployment, by the ecosystem's own tools: run by `make test-deploy` alone."""
