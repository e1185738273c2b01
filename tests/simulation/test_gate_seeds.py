"""Storms that others began, with the admission gate and random faults: no gate is left, ever.

``SEEDS=500 pytest tests/simulation/test_gate_seeds.py`` plays more; ``SEED=7`` plays one. Held:

* when the faults stop, no pod waits behind a gate and every VM that should run runs
* no pod but a launcher pod was ever held back, and never the target of a migration
* no double run; the hash chain verifies
"""

from __future__ import annotations

import os
import random
from typing import Any

import pytest
from harness import WEBHOOK_CONFIGURATION, WEBHOOK_SERVICE, Rehearsal

from remediator.engine.settings import EngineSettings, GateSettings, PacingSettings
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.resources import PODS
from remediator.sim.virtual_time import run

ONE = os.environ.get("SEED")
SEEDS = int(os.environ.get("SEEDS", "20"))
PER_TEST = 10
CHUNKS = (
    [range(int(ONE), int(ONE) + 1)]
    if ONE
    else [range(first, min(first + PER_TEST, SEEDS)) for first in range(0, SEEDS, PER_TEST)]
)
# Everybody attends within a minute, and a storm of 24 VMs, five at a time, lasts about 90 s.
PEACE_S = 400.0
ENGINE = EngineSettings(
    pacing=PacingSettings(starts_at_once_cluster=5), gates=GateSettings(max_age_s=300.0)
)
LAUNCHERS = "kubevirt.io=virt-launcher"


class Storm:
    """One seed's cluster, faults, and what was seen of gates."""

    def __init__(self, seed: int) -> None:
        self.rng = random.Random(seed)
        spec = ClusterSpec(nodes=6, zones=3, vms=24, seed=seed, agent_share=0.8, diskless_share=0.2)
        self.rehearsal = Rehearsal(
            spec, engine=ENGINE, seed=seed, webhook=WEBHOOK_CONFIGURATION, fenced=("*",)
        )
        self.acts: list[str] = []
        self.wrong: list[str] = []
        self.held: set[str] = set()
        self.rehearsal.cluster.store.subscribe(PODS, self._look)

    def _look(self, _kind: str, pod: dict[str, Any], _old: object) -> None:
        if not pod["spec"].get("schedulingGates"):
            return
        meta = pod["metadata"]
        self.held.add(meta["uid"])
        labels = meta.get("labels", {})
        if labels.get("kubevirt.io") != "virt-launcher":
            self.wrong.append(f"{meta['name']} is no launcher pod, and is held back")
        if "kubevirt.io/migrationJobUID" in labels:
            self.wrong.append(f"{meta['name']} is a migration's target, and is held back")

    async def play(self) -> None:
        rehearsal, rng = self.rehearsal, self.rng
        await rehearsal.start(replicas=rng.choice((1, 2, 2, 3)))
        await rehearsal.run(40.0)
        for _ in range(rng.choice((2, 3, 5))):
            self._act(rng.choice(ACTS))
            await rehearsal.run(rng.expovariate(1 / 15.0))
        await rehearsal.run(30.0)
        self._end()
        try:
            await rehearsal.until(lambda: not rehearsal.gates() and not self._down(), PEACE_S)
        except TimeoutError:
            self.wrong += [f"gate left on {pod}" for pod in rehearsal.gates()]
            self.wrong += [f"down: {vm}" for vm in self._down()]
        self.wrong += [str(double) for double in rehearsal.cluster.ledger.double_runs]
        await rehearsal.stop()
        rehearsal.verify()

    def _down(self) -> list[str]:
        """VMs that KubeVirt restarts whatever became of them, and of which no copy runs."""
        cluster = self.rehearsal.cluster
        always = (key for key, vm in cluster.vms.items() if vm.run_strategy == "Always")
        return [key for key in always if not cluster.ledger.running_copies(key)]

    def _act(self, act: str) -> None:
        self.acts.append(f"{self.rehearsal.clock.now() - 1.8e9:.1f} {act}")
        rehearsal, rng, webhooks = self.rehearsal, self.rng, self.rehearsal.cluster.webhooks
        nodes = sorted(rehearsal.cluster.hosts)
        if act == "restart":
            pods = rehearsal.cluster.store.list(PODS, labels=LAUNCHERS)
            for pod in rng.sample(pods, k=min(len(pods), rng.choice((3, 10, 24)))):
                meta = pod["metadata"]
                rehearsal.cluster.store.delete(PODS, meta["namespace"], meta["name"])
        elif act == "power":
            node = rng.choice(nodes)
            rehearsal.cluster.faults.power_loss(node)
        elif act == "reboot":
            rehearsal.cluster.faults.reboot(rng.choice(nodes))
        elif act == "kill":
            if rehearsal.replicas:
                rehearsal._crash(rng.choice(sorted(rehearsal.replicas)))
        elif act == "nats":
            away = rehearsal.bus.outage
            rehearsal.bus.outage = rehearsal.journal.outage = rehearsal.pace.outage = not away
            if away:
                self._nats_back()
        elif act == "down":
            webhooks.down.symmetric_difference_update({WEBHOOK_SERVICE})
        elif act == "expired":
            webhooks.expired.symmetric_difference_update({WEBHOOK_SERVICE})
        else:
            webhooks.slow_s[WEBHOOK_SERVICE] = rng.choice((0.0, 0.5, 5.0))

    def _nats_back(self) -> None:
        for replica in self.rehearsal.alive.values():
            replica.start_over()

    def _end(self) -> None:
        rehearsal, webhooks = self.rehearsal, self.rehearsal.cluster.webhooks
        webhooks.down.clear()
        webhooks.expired.clear()
        webhooks.slow_s.clear()
        if rehearsal.bus.outage:
            rehearsal.bus.outage = rehearsal.journal.outage = rehearsal.pace.outage = False
            self._nats_back()
        rehearsal.cluster.faults.end_all()


ACTS = (
    "restart",
    "restart",
    "restart",
    "power",
    "reboot",
    "kill",
    "nats",
    "down",
    "expired",
    "slow",
)


@pytest.mark.timeout(600)
@pytest.mark.parametrize("seeds", CHUNKS, ids=lambda seeds: f"{seeds.start}-{seeds.stop - 1}")
def test_no_gate_is_left(seeds):
    held = 0

    async def play(seed: int) -> Storm:
        storm = Storm(seed)
        await storm.play()
        return storm

    for seed in seeds:
        storm = run(play(seed))
        held += len(storm.held)
        assert not storm.wrong, "\n".join([f"SEED={seed}: {', '.join(storm.acts)}", *storm.wrong])
    assert held or ONE  # or nothing was tested
