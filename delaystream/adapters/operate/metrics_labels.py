"""Labels: those with values from requests, which are therefore bounded, and the one that all series have."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from prometheus_client import CollectorRegistry
from prometheus_client.core import Metric
from prometheus_client.registry import Collector
from prometheus_client.samples import Sample

#: The label of all values that have no label of their own.
OTHERS: Final = "other"


class BoundedLabels:
    """Gives the first ``most`` names labels of their own, and counts further ones together.

    Destinations come from requests: without a bound anyone could create any number of series.
    """

    def __init__(self, most: int) -> None:
        self.most = most
        self._known: set[str] = set()

    def of(self, name: str) -> str:
        """The label of a name."""
        if name in self._known:
            return name
        if len(self._known) >= self.most:
            return OTHERS
        self._known.add(name)
        return name


class OfApplication(Collector):
    """Everything in a registry, each series with the label ``app_id``.

    It tells applications apart wherever they are scraped from: names of jobs, addresses and namespaces are
    not ours.
    """

    def __init__(self, registry: CollectorRegistry, app_id: str) -> None:
        self._registry = registry
        self._app_id = app_id

    def collect(self) -> Iterator[Metric]:
        """See prometheus-client."""
        for family in self._registry.collect():
            labelled = Metric(family.name, family.documentation, family.type, family.unit)
            labelled.samples = [
                Sample(name, {"app_id": self._app_id, **labels}, value, timestamp, exemplar)
                for name, labels, value, timestamp, exemplar, *_ in family.samples
            ]
            yield labelled
