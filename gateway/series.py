"""Prometheus series kept as plain numbers, for what is counted on every call.

The client library's own counters lock and search on each update, which added up to a tenth of a call's processor time;
these are updated on the event loop only and become metric families when somebody scrapes.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable, Sequence
from itertools import accumulate

from prometheus_client import CollectorRegistry
from prometheus_client.core import CounterMetricFamily, GaugeMetricFamily, HistogramMetricFamily, Metric
from prometheus_client.registry import Collector

Labels = tuple[str, ...]


class Number:
    """One counter or gauge, of one set of labels."""

    __slots__ = ("value",)

    def __init__(self) -> None:
        self.value = 0.0


class Distribution:
    """One histogram, of one set of labels."""

    __slots__ = ("_bounds", "counts", "total")

    def __init__(self, bounds: Sequence[float]) -> None:
        self._bounds = bounds
        self.counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self._bounds, value)] += 1
        self.total += value


class Numbers(Collector):
    """A counter or gauge with labels. `at` gives the number of one set of labels, made on first use."""

    def __init__(
        self,
        kind: type[CounterMetricFamily] | type[GaugeMetricFamily],
        name: str,
        text: str,
        labels: Sequence[str],
        registry: CollectorRegistry,
    ) -> None:
        self._kind = kind
        self._name = name
        self._text = text
        self._labels = labels
        self._cells: dict[Labels, Number] = {}
        registry.register(self)

    def at(self, *labels: str) -> Number:
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cells[labels] = Number()
        return cell

    def collect(self) -> Iterable[Metric]:
        family = self._kind(self._name, self._text, labels=self._labels)
        for labels, cell in self._cells.items():
            family.add_metric(labels, cell.value)
        yield family


class Distributions(Collector):
    """A histogram with labels and fixed upper bounds."""

    def __init__(
        self, name: str, text: str, labels: Sequence[str], bounds: Sequence[float], registry: CollectorRegistry
    ) -> None:
        self._name = name
        self._text = text
        self._labels = labels
        self._bounds = bounds
        self._cells: dict[Labels, Distribution] = {}
        registry.register(self)

    def at(self, *labels: str) -> Distribution:
        cell = self._cells.get(labels)
        if cell is None:
            cell = self._cells[labels] = Distribution(self._bounds)
        return cell

    def collect(self) -> Iterable[Metric]:
        family = HistogramMetricFamily(self._name, self._text, labels=self._labels)
        edges = [*(f"{bound:g}" for bound in self._bounds), "+Inf"]
        for labels, cell in self._cells.items():
            family.add_metric(labels, list(zip(edges, accumulate(cell.counts), strict=True)), cell.total)
        yield family
