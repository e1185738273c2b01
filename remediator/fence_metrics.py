"""Metrics of the fence devices: one series a device and node, as many as the cluster has.

They are made when they are read, from the table that the checks left last: what is gone from the
table is gone from the metrics, and a replica that does not lead shows none.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from typing import Protocol

from prometheus_client import CollectorRegistry, Histogram
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.registry import Collector

FAULTS = ("no-answer", "wrong-machine", "claimed-twice", "contradicted")
# A BMC answers in 0.1 to 2 s; a check is given up after 30 s.
_BUCKETS = (0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0)
_LABELS = ("node", "config", "device", "method")


class DeviceSeries(Protocol):
    """What of a row stands in the metrics (see ``actions.fence.check_rows``)."""

    @property
    def node(self) -> str: ...  # noqa: D102 - as in the row
    @property
    def config(self) -> str: ...  # noqa: D102
    @property
    def device(self) -> str: ...  # noqa: D102
    @property
    def method(self) -> str: ...  # noqa: D102
    @property
    def kind(self) -> str: ...  # noqa: D102
    @property
    def good_at(self) -> float: ...  # noqa: D102


def check_histogram(registry: CollectorRegistry) -> Histogram:
    """Return the metric of how long checks take."""
    return Histogram(
        "remediator_fence_check_seconds",
        "How long fence devices take to answer when they are asked in peace.",
        ["method", "answer"],
        buckets=_BUCKETS,
        registry=registry,
    )


class FenceDeviceCollector(Collector):
    """Shows the last table. ``collect`` may run on another thread."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self._rows: tuple[DeviceSeries, ...] = ()
        registry.register(self)

    def show(self, rows: Iterable[DeviceSeries]) -> None:
        """Take another table."""
        self._rows = tuple(rows)

    def collect(self) -> Iterator[GaugeMetricFamily]:
        """Yield the families."""
        rows = self._rows
        healthy = GaugeMetricFamily(
            "remediator_fence_device_healthy",
            "1 where a fence device could be used for its node when it was asked last.",
            labels=_LABELS,
        )
        good = GaugeMetricFamily(
            "remediator_fence_device_last_good_timestamp_seconds",
            "When a fence device last was without fault; 0: never, as far as this leader knows.",
            labels=_LABELS,
        )
        faults = GaugeMetricFamily(
            "remediator_fence_device_fault",
            "1 for the fault that a fence device has now, by kind (docs/fencing.md).",
            labels=(*_LABELS, "kind"),
        )
        for row in rows:
            labels = (row.node, row.config, row.device, row.method)
            healthy.add_metric(labels, 0.0 if row.kind else 1.0)
            good.add_metric(labels, row.good_at)
            if row.kind:
                faults.add_metric((*labels, str(row.kind)), 1.0)
        yield from (healthy, good, faults)
