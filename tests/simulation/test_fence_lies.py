"""A BMC that lies from the moment its host is cut off: what a second device saves, and what not."""

from __future__ import annotations

import fence_seeds
import pytest
from fence_seeds import FenceRehearsal

from remediator.sim.bmc import BmcMode
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.virtual_time import run

SPEC = ClusterSpec(
    nodes=4,
    zones=2,
    vms=4,
    seed=5,
    run_strategies={"Always": 1.0},
    rwx_share=0.0,
    diskless_share=0.0,
    agent_share=0.0,
)
TOGETHER = "bmc and storage at once"


@pytest.mark.parametrize(
    ("levels", "survived"),
    [((("bmc", "net"),), True), ((("bmc",),), False)],
    ids=["with the storage beside it", "alone: the known limit"],
)
def test_a_lie_that_begins_with_the_partition(monkeypatch, levels, survived):
    monkeypatch.setitem(fence_seeds.TOPOLOGIES, TOGETHER, levels)

    async def story() -> None:
        rehearsal = FenceRehearsal(TOGETHER, power_on=False, seed=5, spec=SPEC)
        await rehearsal.start()
        await rehearsal.run(30)
        node = next(name for name in rehearsal.cluster.hosts if rehearsal.cluster.vms_on(name))
        victims = rehearsal.cluster.vms_on(node)
        rehearsal.cluster.faults.partition(node)
        rehearsal.cluster.faults.bmc(node, BmcMode.ALWAYS_OFF)
        monkeypatch.setattr(rehearsal.cluster.hosts[node], "power_off", lambda _why: None)
        ledger = rehearsal.cluster.ledger
        await rehearsal.until(
            lambda: all(
                any(copy.node != node for copy in ledger.running_copies(vm)) for vm in victims
            ),
            200,
        )
        await rehearsal.run(30)
        assert rehearsal.cluster.hosts[node].powered
        assert (ledger.double_runs == ()) is survived
        monkeypatch.undo()
        await rehearsal.stop()

    run(story())
