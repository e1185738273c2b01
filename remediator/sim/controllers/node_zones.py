"""The zone brake: how fast NoExecute taints may be set in each zone (k8s node lifecycle).

A zone in which too many nodes look dead is more likely cut off than dead, so evictions slow down or
stop. When every zone looks dead it is the control plane that is cut off, and nothing is evicted.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable

from remediator.sim.controllers.metadata import Obj, labels_of
from remediator.sim.controllers.settings import ControlPlaneSettings

ZONE_LABEL = "topology.kubernetes.io/zone"
REGION_LABEL = "topology.kubernetes.io/region"

_NOT_READY_MIN = 3
"""k8s ComputeZoneState: one or two dead nodes never make a zone disrupted."""


class ZoneState(enum.Enum):
    """What share of a zone's nodes is not Ready."""

    NORMAL = "Normal"
    PARTIAL = "PartialDisruption"
    FULL = "FullDisruption"


def zone_of(node: Obj) -> str:
    """Return the node's failure domain as the node lifecycle controller keys it."""
    labels = labels_of(node)
    return f"{labels.get(REGION_LABEL, '')}:{labels.get(ZONE_LABEL, '')}"


def zone_state(ready: Iterable[bool], threshold: float) -> tuple[ZoneState, int]:
    """Return a zone's state and size from the readiness of its nodes (k8s ComputeZoneState)."""
    flags = list(ready)
    bad = flags.count(False)
    if bad == len(flags) and bad > 0:
        return ZoneState.FULL, len(flags)
    if bad >= _NOT_READY_MIN and bad / len(flags) >= threshold:
        return ZoneState.PARTIAL, len(flags)
    return ZoneState.NORMAL, len(flags)


class ZoneEvictions:
    """Nodes of one zone that wait for their NoExecute taint, released at the zone's rate.

    A token bucket of one token: the first node of a quiet zone does not wait.
    """

    def __init__(self, rate_per_s: float) -> None:
        self.waiting: dict[str, None] = {}
        self.rate_per_s = rate_per_s
        self._tokens = 1.0
        self._filled_at: float | None = None

    def next_in_s(self, now: float) -> float | None:
        """Return how long until the next node may be tainted; None: nobody waits, or rate 0."""
        if not self.waiting:
            return None
        self._fill(now)
        if self._tokens >= 1.0:
            return 0.0
        if self.rate_per_s <= 0.0:
            return None
        return (1.0 - self._tokens) / self.rate_per_s

    def take(self, now: float) -> str | None:
        """Return the next node that may be tainted now, None when none may."""
        # A microsecond of slack: a timer set for the token may fire a rounding error early.
        wait_s = self.next_in_s(now)
        if wait_s is None or wait_s > 1e-6 or self.rate_per_s <= 0.0:
            return None
        self._tokens = max(0.0, self._tokens - 1.0)
        name = next(iter(self.waiting))
        del self.waiting[name]
        return name

    def _fill(self, now: float) -> None:
        if self._filled_at is not None:
            self._tokens = min(1.0, self._tokens + (now - self._filled_at) * self.rate_per_s)
        self._filled_at = now


def eviction_rate(state: ZoneState, size: int, settings: ControlPlaneSettings) -> float:
    """Return the zone's NoExecute taints per second (k8s HealthyQPSFunc, ReducedQPSFunc)."""
    if state is not ZoneState.PARTIAL:
        return settings.eviction_rate_per_s
    if size > settings.large_cluster_nodes:
        return settings.secondary_eviction_rate_per_s
    return 0.0
