"""Rules, dashboards and Compose, on a real Prometheus."""
