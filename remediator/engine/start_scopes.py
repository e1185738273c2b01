"""Bounds of starts, at once and per minute: of the cluster, zones, storage, nodes, namespaces."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Collection, Iterable

from remediator.engine.start_words import Bound, Candidate, Limits, Reason, Started

MINUTE_S = 60.0
_WHOLE_CLUSTER = "cluster:"


class Scopes:
    """Places and starts per minute that are taken, by scope."""

    def __init__(
        self,
        limits: Limits,
        rate: int | None,
        booting: Iterable[Started],
        nodes: Collection[str] | None,
        now: float,
    ) -> None:
        self.limits = limits
        self.rate = rate
        self.now = now
        self.at_once: Counter[str] = Counter()
        self.minute: Counter[str] = Counter()
        self.oldest: dict[str, float] = {}  # scope -> its first start within the minute
        self.per_minute = any(
            bound.per_minute is not None for bound in (*_bounds(limits), *limits.named.values())
        )
        self._keys: dict[tuple[object, ...], tuple[tuple[str, Bound, Reason], ...]] = {}
        self.unplaced = 0
        for each in booting:
            self._count(each)
        self.room = math.inf  # places on nodes, for whoever has no node yet
        if nodes is not None and limits.node.at_once is not None:
            free = sum(max(0, self._node_bound(node) - self.at_once[f"node:{node}"])
                       for node in nodes)  # fmt: skip
            self.room = free - self.unplaced

    def _node_bound(self, node: str) -> int:
        bound = self.limits.named.get(f"node:{node}", self.limits.node)
        return bound.at_once if bound.at_once is not None else 1 << 30

    def _count(self, each: Started) -> None:
        # The same sum as the end of the wait in ``take``: rounding must not tell them apart.
        recent = each.started_at + MINUTE_S > self.now
        scopes = _scope_names(each.vm.namespace, each.storage, each.zone, each.node)
        if each.booting:
            self.at_once.update(scopes)
            self.unplaced += not each.node
        if recent and self.per_minute:
            self.minute.update(scopes)
            for scope in scopes:
                self.oldest[scope] = min(self.oldest.get(scope, math.inf), each.started_at)

    def spent(self) -> bool:
        """Whether nobody can start, whoever it is."""
        bound = self.limits.cluster
        booting = self.at_once[_WHOLE_CLUSTER]
        minute = self.minute[_WHOLE_CLUSTER]
        return (
            (self.rate is not None and booting >= self.rate)
            or (bound.at_once is not None and booting >= bound.at_once)
            or (bound.per_minute is not None and minute >= bound.per_minute)
        )

    def places(self) -> int:
        """Return how many can start besides, whoever they are."""
        booting, bound = self.at_once[_WHOLE_CLUSTER], self.limits.cluster
        rest = [self.room]
        if self.rate is not None:
            rest.append(self.rate - booting)
        if bound.at_once is not None:
            rest.append(bound.at_once - booting)
        if bound.per_minute is not None:
            rest.append(bound.per_minute - self.minute[_WHOLE_CLUSTER])
        least = min(rest)
        return max(0, int(least)) if least < math.inf else 1 << 30

    def _bounded(
        self, namespace: str, storage: tuple[str, ...], zone: str, node: str
    ) -> tuple[tuple[str, Bound, Reason], ...]:
        """Return the scopes of a start that have a bound, kept for the next of the same kind."""
        key = (namespace, storage, zone, node)
        found = self._keys.get(key)
        if found is None:
            kinds = {
                "cluster": (self.limits.cluster, Reason.PLACES),
                "zone": (self.limits.zone, Reason.ZONE),
                "storage": (self.limits.storage, Reason.STORAGE),
                "node": (self.limits.node, Reason.NODE),
                "namespace": (self.limits.namespace, Reason.NAMESPACE),
            }
            rows = []
            for scope in _scope_names(namespace, storage, zone, node):
                bound, reason = kinds[scope.partition(":")[0]]
                rows.append((scope, self.limits.named.get(scope, bound), reason))
            found = self._keys[key] = tuple(rows)
        return found

    def take(
        self, candidate: Candidate, zone: str, node: str
    ) -> tuple[Reason, str, float | None] | None:
        """Take a place for this VM, or say what it waits for."""
        at_once, rate = self.at_once, self.rate
        if rate is not None and at_once[_WHOLE_CLUSTER] >= rate:
            return Reason.PLACES, f"{rate} boot, as many as boot without delay", None
        if not node and self.room < 1:
            return Reason.NODE, "every node boots as many as it may", None
        rows = self._bounded(candidate.vm.namespace, candidate.storage, zone, node)
        for scope, bound, reason in rows:
            if bound.at_once is not None and at_once[scope] >= bound.at_once:
                return reason, f"{_spoken(scope)} boots {at_once[scope]}, as many as it may", None
            if bound.per_minute is not None and self.minute[scope] >= bound.per_minute:
                until = self.oldest.get(scope, self.now) + MINUTE_S
                why = f"{_spoken(scope)} has had its {bound.per_minute} starts a minute"
                return Reason.PER_MINUTE, why, until
        for scope, _, _ in rows:
            at_once[scope] += 1
            self.minute[scope] += 1
            self.oldest.setdefault(scope, self.now)
        if not node:
            self.room -= 1
        return None


def _bounds(limits: Limits) -> tuple[Bound, ...]:
    return limits.cluster, limits.zone, limits.storage, limits.node, limits.namespace


def _scope_names(namespace: str, storage: tuple[str, ...], zone: str, node: str) -> tuple[str, ...]:
    scopes = [_WHOLE_CLUSTER, f"namespace:{namespace}"]
    scopes += [f"storage:{each}" for each in dict.fromkeys(storage)]
    if zone:
        scopes.append(f"zone:{zone}")
    if node:
        scopes.append(f"node:{node}")
    return tuple(scopes)


def _spoken(scope: str) -> str:
    kind, _, name = scope.partition(":")
    return f"{kind} {name}" if name else f"the {kind}"
