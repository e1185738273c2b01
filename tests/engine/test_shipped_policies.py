"""Each shipped policy in the engine: it is taken, it is refused, and nothing is done then.

What is a near miss of each stands in policies/tests, and is held by tests/policy/test_shipped.py.
"""

from __future__ import annotations

import pytest
from vm_world import VmWorld

from remediator.engine.chain import DecisionKind
from remediator.engine.events import SignalSeen
from remediator.engine.maintenance import ANNOTATION
from remediator.engine.model import Plane, Reading, Signal, node_subject
from remediator.policy import load_directory, shipped_directory

SHIPPED = {policy.name: policy for policy in load_directory(shipped_directory())}


class World:
    """One cluster under all shipped policies, with a VM on n1."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.vms = VmWorld(cluster)
        self.vms.add("db", "n1")

    def on_node(self, name):
        return self.cluster.incident(name)

    def planned(self):
        return [each.plan.policy for each in self.cluster.kinds(DecisionKind.PLANNED)]

    def condition(self, aspect):
        self._say(Plane.KUBELET, Reading.DOWN, aspect)

    def _say(self, plane, reading, aspect=""):
        signal = Signal(
            plane=plane,
            source="test",
            subject=node_subject("n1"),
            reading=reading,
            at=self.cluster.now,
            aspect=aspect,
        )
        self.cluster.handle(SignalSeen(signal=signal))

    # --- what happens ----------------------------------------------------------------------------

    def node_lost(self):
        self.cluster.lose("n1")

    def site_lost(self):
        nodes = self.cluster.nodes
        zone = [name for name, node in nodes.items() if node.zone == nodes["n1"].zone]
        lost = [*zone[2:], "n1"]  # the one with a VM falls silent last; zone[1] lives on
        for name in lost:
            self.cluster.kill(name)
            self.cluster.run(3)
        for _ in range(120):
            self.cluster.run(1)
            for name in lost:
                if name in self.cluster.asked_power:
                    self.cluster.power(name, Reading.DOWN)

    def node_isolated(self):
        self.cluster.kill("n1")
        for _ in range(60):
            self._say(Plane.STORAGE, Reading.UP)
            self.cluster.run(10)

    def kubelet_down(self):
        self.cluster.silent.add("n1")
        self.cluster.run(400)

    def handler_down(self):
        self.cluster.handler_silent.add("n1")
        self.cluster.run(700)

    def node_degraded(self):
        self.condition("KernelDeadlock")
        self.cluster.run(300)

    def storage_path_lost(self):
        self.condition("SBRStorageUnhealthy")
        self.cluster.run(120)

    def drain_for_maintenance(self):
        self.cluster.node_changes("n1", annotations={ANNOTATION: "new DIMMs"})
        self.cluster.run(5)

    def guest_silent(self):
        self.vms.vmi(agent_connected=False, ready=False)
        self.vms.keep_signalling("readiness-probe", 125)

    def vm_crashed(self):
        self.vms.signal("panic")
        self.cluster.run(60)

    def vm_paused(self):
        self.vms.vmi(paused="PausedIOError")
        self.cluster.run(60)


def happen(make_cluster, name, **options):
    nodes = 12 if name == "site-lost" else 6
    cluster = make_cluster(policies=list(SHIPPED.values()), nodes=nodes, **options)
    world = World(cluster)
    getattr(world, name.replace("-", "_"))()
    return world


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_it_is_taken(make_cluster, name):
    world = happen(make_cluster, name)
    assert world.planned()[-1:] == [name], world.cluster.story()
    plan = world.cluster.kinds(DecisionKind.PLANNED)[-1].plan
    assert plan.policy_hash == SHIPPED[name].content_hash
    assert plan.steps == SHIPPED[name].steps


@pytest.mark.parametrize("name", sorted(SHIPPED))
def test_it_is_refused_in_observe_mode_and_nothing_is_touched(make_cluster, name):
    world = happen(make_cluster, name, enforce=False)
    assert world.planned()[-1:] == [name]
    refused = [
        row
        for each in world.cluster.kinds(DecisionKind.REFUSED, DecisionKind.ESCALATED)
        for row in each.guards
        if row.guard == "mode"
    ]
    assert refused
    assert all(row.answer == "refuse" for row in refused)
    assert world.cluster.actions == []


@pytest.mark.parametrize("name", [name for name, each in SHIPPED.items() if each.approval])
def test_what_needs_approval_waits_for_it(make_cluster, name):
    world = happen(make_cluster, name)
    asked = [
        row
        for each in world.cluster.kinds(DecisionKind.REFUSED)
        for row in each.guards
        if row.guard == "approval"
    ]
    assert asked
    assert asked[-1].answer == "wait"
    assert world.cluster.actions == []


def test_one_vm_that_crashes_again_and_again_is_left_to_people(make_cluster):
    world = World(make_cluster(policies=list(SHIPPED.values())))
    for _ in range(3):
        world.vms.fail()
        world.cluster.run(20)
        world.vms.launch("db", "n1", agent=True)
        world.cluster.run(60)
    assert "vm-crashed" not in world.planned()
