"""What all scenarios share: sizes, calm before the fault, and the printed time line."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from remediator.engine.chain import Decision
from remediator.engine.model import Fence
from remediator.sim.cluster_spec import ClusterSpec
from tests.cluster.stage import Stage
from tests.cluster.timeline import TimeLine

CALM_S = 12.0  # so that every lease has been seen renewed
# virt-controller makes these again by itself; Manual and Once need virt-api, which is not here.
STRATEGIES = {"Always": 0.6, "RerunOnFailure": 0.4}
TWENTY = ClusterSpec(
    nodes=6, zones=3, vms=20, run_strategies=STRATEGIES, rwx_share=0.5, diskless_share=0.2
)
TEN = ClusterSpec(
    nodes=5, zones=3, vms=10, run_strategies=STRATEGIES, rwx_share=0.5, diskless_share=0.2
)


async def calm(seconds: float = CALM_S) -> None:
    """Let time pass in which nothing is wrong, or in which nothing may happen."""
    await asyncio.sleep(seconds)


def busiest(stage: Stage) -> str:
    """Return the node that runs the most VMs."""
    cluster = stage.cluster
    return max(cluster.hosts, key=lambda name: (len(cluster.vms_on(name)), name))


async def tell(
    stage: Stage, title: str, node: str, victims: Sequence[str], fault_at: float
) -> TimeLine:
    """Print the time line and return it."""
    decisions = await stage.daemon.decisions() if stage.daemon.running else []
    line = TimeLine.read(title, stage.cluster, node, victims, fault_at, decisions)
    print(f"\n{line}")
    for run in stage.cluster.ledger.double_runs:
        print(run)
    return line


def fenced(decisions: Sequence[Decision]) -> set[str]:
    """Return the nodes that were ever ordered to be fenced."""
    return {
        decision.action.work.node
        for decision in decisions
        if decision.action is not None and isinstance(decision.action.work, Fence)
    }
