"""The Grafana dashboards as code: `python -m deploy.dashboards` writes them to helm/delaystream/files."""
