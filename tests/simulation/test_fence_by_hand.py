"""A host that a person fenced: once it is healthy again, nothing of ours is left."""

from __future__ import annotations

import fence_seeds
import pytest
from fence_seeds import FenceRehearsal

from remediator.engine.events import CommandGiven, Verb
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.fence_operators import OperatorMode
from remediator.sim.virtual_time import run

SPEC = ClusterSpec(nodes=4, zones=2, vms=4, seed=5, run_strategies={"Always": 1.0})


def test_what_a_failed_fence_by_hand_began_is_taken_back_at_once(monkeypatch):
    monkeypatch.setitem(fence_seeds.TOPOLOGIES, "alone", (("net",),))

    async def story() -> None:
        rehearsal = FenceRehearsal("alone", power_on=False, seed=5, spec=SPEC)
        await rehearsal.start()
        await rehearsal.run(30)
        rehearsal.operators.mode["n02"] = OperatorMode.FAILS
        (replica,) = rehearsal.alive.values()
        await replica.term.command(
            CommandGiven(id="o1", verb=Verb.FENCE_OFF, target="n02", by="ana", reason="test")
        )
        await rehearsal.run(30)
        assert rehearsal.left_behind()
        await rehearsal.run(60)
        rehearsal.operators.mode.clear()
        await rehearsal.until(lambda: not rehearsal.left_behind(), 200)
        assert rehearsal.cluster.hosts["n02"].boots == 1
        await rehearsal.stop()

    run(story())


@pytest.mark.parametrize("device", ["net", "snr", "bmc"])
def test_what_a_fence_by_hand_left_is_taken_back(monkeypatch, device):
    monkeypatch.setitem(fence_seeds.TOPOLOGIES, "alone", ((device,),))

    async def story() -> None:
        rehearsal = FenceRehearsal("alone", power_on=False, seed=5, spec=SPEC)
        await rehearsal.start()
        await rehearsal.run(30)
        (replica,) = rehearsal.alive.values()
        answer = await replica.term.command(
            CommandGiven(id="o1", verb=Verb.FENCE_OFF, target="n02", by="ana", reason="test")
        )
        assert answer.accepted, answer.text
        await rehearsal.run(30)
        host = rehearsal.cluster.hosts["n02"]
        assert not host.powered or rehearsal.left_behind() or device == "snr"
        # So quickly that nobody misses it: there is no incident whose clean-up would do.
        host.power_off("a person reboots it")
        host.power_on(boot_s=1.0)
        await rehearsal.run(30)
        await rehearsal.until(lambda: not rehearsal.left_behind(), 200)
        assert not rehearsal.down()
        await rehearsal.stop()

    run(story())
