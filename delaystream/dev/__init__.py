"""The embedded brokers: a real Apache Kafka on this machine, for `delaystream dev` and for tests."""

from delaystream.dev.broker import EmbeddedBroker
from delaystream.dev.cluster import EmbeddedCluster
from delaystream.dev.configuration import Listener
from delaystream.dev.errors import BrokerError
from delaystream.dev.jars import DEFAULT_VERSION, locked_versions

__all__ = [
    "DEFAULT_VERSION",
    "BrokerError",
    "EmbeddedBroker",
    "EmbeddedCluster",
    "Listener",
    "locked_versions",
]
