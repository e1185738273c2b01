"""A rehearsal with named VMs on chosen nodes, quick settings, and hands that do harm."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Mapping
from typing import ClassVar

from harness import Rehearsal
from seeds import ENGINE

from remediator.engine.chain import Decision, DecisionKind
from remediator.engine.model import NodeFacts
from remediator.kube.client import KubeClient
from remediator.sim.cluster_spec import ClusterSpec, VmSpec
from remediator.sim.hosts.settings import HostSettings
from remediator.sim.resources import NODES
from remediator.sim.virtual_time import VirtualTimeLoop

QUICK = HostSettings(heartbeat_s=10.0, os_boot_s=10.0)
WARM_S = 30.0


def run(
    story: Coroutine[None, None, None],
    loop: Callable[[], asyncio.AbstractEventLoop] = VirtualTimeLoop,
) -> None:
    """Run a story to its end; whatever that is, nothing is left running behind it."""

    async def play() -> None:
        try:
            await story
        finally:
            for attack in Attack.under_way:
                await attack.abandon()
            Attack.under_way.clear()

    with asyncio.Runner(loop_factory=loop) as runner:
        runner.run(play())


class Attack(Rehearsal):
    """``seats`` says which VM is where: ``{"shop/db": "n02"}``; all have an RWX disk."""

    under_way: ClassVar[list[Attack]] = []

    def __init__(
        self,
        seats: Mapping[str, str],
        *,
        nodes: int = 6,
        zones: int = 3,
        strategy: str = "Always",
        spec: Mapping[str, object] | None = None,
        **options: object,
    ) -> None:
        options.setdefault("engine", ENGINE)
        super().__init__(
            ClusterSpec(
                nodes=nodes,
                zones=zones,
                vms=0,
                seed=7,
                namespaces=tuple({key.split("/")[0] for key in seats}) or ("shop",),
                hosts=QUICK,
                **(spec or {}),
            ),
            **options,
        )
        vms = {}
        for key in seats:
            namespace, name = key.split("/")
            vms[key] = VmSpec(namespace=namespace, name=name, run_strategy=strategy)
        self.cluster.vms = vms
        self.cluster._placement = lambda: [(vms[key], node) for key, node in seats.items() if node]
        self.operator = KubeClient(self.cluster.memory_transport("operator"))

    async def begin(self, *, replicas: int = 1) -> None:
        self.under_way.append(self)
        await self.start(replicas=replicas)
        await self.run(WARM_S)

    async def abandon(self) -> None:
        """End everything, also where a story ended in the middle."""
        tasks = [*self.replicas.values(), *self.dead]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.cluster.stop()

    # --- looking ---------------------------------------------------------------------------------

    def leader(self) -> str:
        return next(name for name, replica in self.alive.items() if replica.term is not None)

    def engine(self):
        return self.alive[self.leader()].engine

    def incident(self, node: str):
        return self.engine().state.incident_on(f"node/{node}")

    def facts(self, node: str) -> NodeFacts | None:
        return self.engine().context.inventory.nodes.get(node)

    def kinds(self, *kinds: DecisionKind) -> list[Decision]:
        return [decision for decision in self.decisions() if decision.kind in kinds]

    def started(self, step: str) -> list[Decision]:
        return [
            decision
            for decision in self.kinds(DecisionKind.STARTED, DecisionKind.RESUMED)
            if f"/{step}/" in decision.action.id
        ]

    async def comes(self, condition: Callable[[], object], limit_s: float = 120.0) -> None:
        """Wait for something that must happen for the attack to begin; a mistake fails loudly."""
        await self.until(condition, limit_s)

    def taints(self, node: str) -> set[str]:
        found = self.cluster.store.find(NODES, "", node)
        return {taint["key"] for taint in (found or {}).get("spec", {}).get("taints", ())}

    # --- harm ------------------------------------------------------------------------------------

    def change_node(self, node: str, change: Callable[[dict], None]) -> None:
        self.cluster.store.mutate(NODES, "", node, change)

    def cordon(self, *nodes: str, on: bool = True) -> None:
        for node in nodes:
            self.change_node(node, lambda obj: obj["spec"].update(unschedulable=on))

    def annotate(self, node: str, key: str, value: str) -> None:
        self.change_node(
            node, lambda obj: obj["metadata"].setdefault("annotations", {}).update({key: value})
        )
