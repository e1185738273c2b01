"""Verbs of a story about nodes that are emptied."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from typing import Any

from remediator.engine.events import CommandGiven, Verb
from remediator.replica import Replica
from remediator.sim.cluster import SimCluster
from remediator.sim.resources import VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES


class MoveVerbs:
    """The verbs ``do_…``."""

    cluster: SimCluster
    alive: dict[str, Replica]
    note: Callable[[str], None]

    async def do_drain(self, node: str, reason: str = "maintenance") -> None:
        await self._order_about(Verb.DRAIN, node, reason)

    async def do_undrain(self, node: str, reason: str = "done") -> None:
        await self._order_about(Verb.UNDRAIN, node, reason)

    async def _order_about(self, verb: Verb, node: str, reason: str) -> None:
        self.note(f"ann orders: {verb} {node} ({reason})")
        command = CommandGiven(id=f"{verb}-{node}", verb=verb, target=node, by="ann", reason=reason)
        for replica in list(self.alive.values()):
            if replica.term is not None:
                with contextlib.suppress(TimeoutError):
                    await replica.term.command(command)

    def do_power_loss_of_target(self, vm: str) -> None:
        """Cut the power of the host that a VM is being copied to."""
        vmi = self._vmi(vm)
        state = vmi["status"]["migrationState"]
        assert not state.get("completed"), f"{vm} is not being copied"
        self.note(f"the host that vm/{vm} is copied to is {state['targetNode']}")
        self.cluster.faults.power_loss(state["targetNode"])

    def do_eviction_strategy(self, vm: str, strategy: str) -> None:
        self.note(f"eviction strategy of vm/{vm} is {strategy}")
        namespace, name = vm.split("/")

        def change(obj: dict[str, Any]) -> None:
            obj["spec"]["evictionStrategy"] = strategy

        self.cluster.store.mutate(VIRTUAL_MACHINE_INSTANCES, namespace, name, change)
        self.cluster.store.mutate(
            VIRTUAL_MACHINES,
            namespace,
            name,
            lambda vm: change(vm["spec"]["template"]),
        )

    def _vmi(self, vm: str) -> dict[str, Any]:
        return self.cluster.store.get(VIRTUAL_MACHINE_INSTANCES, *vm.split("/"))
