"""The chart on a real Kubernetes API server: run by `make test-cluster` alone."""
