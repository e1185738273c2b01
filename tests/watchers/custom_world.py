"""Custom resources in the simulated cluster, and what the watchers make of them."""

from __future__ import annotations

import asyncio

from remediator.engine.model import HandsOffFacts
from remediator.sim.custom_kinds import CustomKinds
from remediator.sim.resources import NAMESPACES, NODES
from tests.kube.custom_examples import STORED

WAKE_S = 40.0  # a period of discovery with its jitter, a list, and what a request takes


class CustomWorld:
    """One daemon's watchers over a cluster where kinds can be installed."""

    def __init__(self, cluster) -> None:
        self.cluster = cluster
        self.store = cluster.store
        self.published = cluster.published
        self.kinds = CustomKinds(cluster.server)
        self.versions: dict[tuple[str, str], object] = {}

    def install(self, *names: str) -> None:
        """Install kinds by "plural.group"."""
        for name in names:
            plural, _, group = name.partition(".")
            self.kinds.install(STORED[group, plural])

    def make(self, name: str, obj):
        plural, _, group = name.partition(".")
        namespace = obj["metadata"].get("namespace")
        if namespace and self.store.find(NAMESPACES, "", namespace) is None:
            self.store.create(NAMESPACES, {"metadata": {"name": namespace}})
        return self.store.create(STORED[group, plural], obj)

    def change(self, name: str, obj, change) -> None:
        plural, _, group = name.partition(".")
        meta = obj["metadata"]
        self.store.mutate(STORED[group, plural], meta.get("namespace", ""), meta["name"], change)

    def put(self, name: str, obj) -> None:
        """Give an object another specification and status."""

        def change(stored):
            stored["spec"], stored["status"] = obj["spec"], obj["status"]

        self.change(name, obj, change)

    def delete(self, name: str, obj) -> None:
        plural, _, group = name.partition(".")
        meta = obj["metadata"]
        self.store.delete(STORED[group, plural], meta.get("namespace", ""), meta["name"])

    def finish(self, name: str, obj) -> None:
        """Take the finalizers off: the object goes."""
        self.change(name, obj, lambda stored: stored["metadata"].pop("finalizers"))

    def remove(self, name: str) -> None:
        """Remove the CRD."""
        plural, _, group = name.partition(".")
        self.kinds.remove(STORED[group, plural])

    def mark_node(self, node: str, **annotations) -> None:
        def change(stored):
            stored["metadata"].setdefault("annotations", {}).update(annotations)

        self.store.mutate(NODES, "", node, change)

    def node_uid(self, node: str) -> str:
        return self.store.get(NODES, "", node)["metadata"]["uid"]

    async def start(self, *, lead: bool = True) -> None:
        await self.cluster.start(lead=lead)

    async def settle(self, seconds: float = 1.0) -> None:
        await asyncio.sleep(seconds)

    # --- what was published -----------------------------------------------------------------

    def said(self, plane, node=None):
        """Return (source, aspect, reading) of each signal, in order."""
        return [
            (each.source, each.aspect, each.reading.value)
            for each in self.published.signals(plane, node)
        ]

    def latest(self, plane, node):
        """Return the newest reading by (source, aspect)."""
        return {
            (each.source, each.aspect): each.reading.value
            for each in self.published.signals(plane, node)
        }

    def held(self):
        """Return what a listener takes for held by now: (node, name)."""
        held = {}
        for event in self.published.events(object):
            facts = getattr(event, "facts", None)
            if isinstance(facts, HandsOffFacts):
                held[facts.namespace, facts.name] = facts
            elif getattr(event, "kind", None) == "HandsOff" and hasattr(event, "uid"):
                known = held.get((event.namespace, event.name))
                assert known is None or known.uid == event.uid
                held.pop((event.namespace, event.name), None)
        return sorted((facts.node, facts.name) for facts in held.values())
