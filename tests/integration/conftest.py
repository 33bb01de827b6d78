"""Fixtures of the integration tests."""

from tests.integration.harness_fixtures import app, cluster, deploy, shared
from tests.integration.harness_topics import admin, create_topic, make_topic

__all__ = ["admin", "app", "cluster", "create_topic", "deploy", "make_topic", "shared"]
