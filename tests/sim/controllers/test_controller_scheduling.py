"""Where new launcher pods go, and what holds them back."""

from __future__ import annotations

import asyncio

import pytest

from remediator.sim.controllers.quantities import mebibytes, quantity
from remediator.sim.resources import NODES, PODS


def gate_launchers(c, name="remediator.io/boot"):
    def hook(request):
        labels = request.obj["metadata"].get("labels") or {}
        if (
            request.res == PODS
            and request.operation == "CREATE"
            and labels.get("kubevirt.io") == "virt-launcher"
        ):
            request.obj["spec"]["schedulingGates"] = [{"name": name}]

    c.store.add_admission(hook)


def ungate(c, vm):
    c.store.mutate(
        PODS,
        "default",
        c.pod(vm)["metadata"]["name"],
        lambda pod: pod["spec"].pop("schedulingGates"),
    )


def test_a_gated_pod_waits_without_end_and_is_bound_at_once_when_the_gate_goes(simulate):
    async def story(c):
        gate_launchers(c)
        c.add_vm("vm")
        await c.until(lambda: c.phase("vm") == "Scheduling", within_s=1)
        await c.never(lambda: c.phase("vm") != "Scheduling", for_s=1800)
        scheduled = next(
            x for x in c.vmi("vm")["status"]["conditions"] if x["type"] == "PodScheduled"
        )
        assert (scheduled["status"], scheduled["reason"]) == ("False", "SchedulingGated")
        ungate(c, "vm")
        await c.until(lambda: c.pod("vm")["spec"].get("nodeName"), within_s=0.3)
        await c.until(lambda: c.phase("vm") == "Running", within_s=5)

    simulate(story)


def test_gated_pods_hold_no_room_on_nodes(simulate):
    async def story(c):
        c.store.mutate(
            NODES,
            "",
            "n0",
            lambda n: n["status"]["allocatable"].update(memory="3Gi"),
            subresource="status",
        )
        gate_launchers(c)
        for name in ("a", "b"):  # each asks for 2304Mi: there is room for one
            c.add_vm(name)
        await c.until(lambda: c.pods("a") and c.pods("b"), within_s=1)
        ungate(c, "b")
        await c.until(lambda: c.phase("b") == "Running", within_s=6)
        ungate(c, "a")
        await c.until(lambda: c.warnings("FailedScheduling"), within_s=1)
        assert c.phase("a") == "Scheduling"
        assert c.warnings("FailedScheduling") == ["0/1 nodes are available: 1 Insufficient memory."]
        await c.until(
            lambda: c.vm("a")["status"]["printableStatus"] == "ErrorUnschedulable", within_s=1
        )
        c.force_delete(c.pod("b"))  # its successor is gated: the room is free
        await c.until(lambda: c.phase("a") == "Running", within_s=15)

    simulate(story, nodes=1)


@pytest.mark.parametrize(
    ("spoil", "reason"),
    [
        (lambda n: n["spec"].update(unschedulable=True), "were unschedulable"),
        (
            lambda n: n["spec"].update(taints=[{"key": "k", "effect": "NoSchedule"}]),
            "untolerated taint",
        ),
        (
            lambda n: n["spec"].update(taints=[{"key": "k", "effect": "NoExecute"}]),
            "untolerated taint",
        ),
        (
            lambda n: n["metadata"]["labels"].update({"kubevirt.io/schedulable": "false"}),
            "node affinity/selector",
        ),
    ],
    ids=["cordon", "no-schedule", "no-execute", "unschedulable-label"],
)
def test_a_spoiled_node_takes_no_pod_until_it_is_mended(simulate, spoil, reason):
    async def story(c):
        c.hosts["n0"].handler_alive = False  # it would set the label to true again
        await asyncio.sleep(1)
        before = c.store.get(NODES, "", "n0")
        c.store.mutate(NODES, "", "n0", spoil)
        await asyncio.sleep(1)
        c.add_vm("vm")
        await c.until(lambda: c.warnings("FailedScheduling"), within_s=2)
        assert any(reason in message for message in c.warnings("FailedScheduling"))

        def mend(node):
            node["spec"] = {}
            node["metadata"]["labels"] = dict(before["metadata"]["labels"])

        c.store.mutate(NODES, "", "n0", mend)
        await c.until(lambda: c.pod("vm")["spec"].get("nodeName") == "n0", within_s=11)

    simulate(story, nodes=1)


def test_pods_spread_to_the_least_allocated_nodes(simulate):
    async def story(c):
        for i in range(8):
            c.add_vm(f"vm{i}")
        await c.until(lambda: all(c.phase(f"vm{i}") == "Running" for i in range(8)), within_s=20)
        placed = sorted(c.node_of(f"vm{i}") for i in range(8))
        assert placed == ["n0", "n0", "n1", "n1", "n2", "n2", "n3", "n3"]

    simulate(story)


def test_preferred_affinity_outweighs_an_emptier_node_and_required_affinity_binds(simulate):
    def affinity(rule, node):
        expression = {"key": "kubernetes.io/hostname", "operator": "In", "values": [node]}
        term = {"matchExpressions": [expression]}
        if rule == "preferred":
            return {
                "nodeAffinity": {
                    "preferredDuringSchedulingIgnoredDuringExecution": [
                        {"weight": 1, "preference": term}
                    ]
                }
            }
        return {
            "nodeAffinity": {
                "requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [term]}
            }
        }

    async def story(c):
        for i in range(3):
            c.add_vm(f"p{i}", spec={"affinity": affinity("preferred", "n2")})
        c.add_vm("r", spec={"affinity": affinity("required", "n1")})
        names = ["p0", "p1", "p2", "r"]
        await c.until(lambda: all(c.phase(n) == "Running" for n in names), within_s=20)
        assert [c.node_of(n) for n in names] == ["n2", "n2", "n2", "n1"]
        c.cordon("n2")
        c.add_vm("p3", spec={"affinity": affinity("preferred", "n2")})
        await c.until(lambda: c.phase("p3") == "Running", within_s=20)
        assert c.node_of("p3") != "n2"

    simulate(story)


def test_required_anti_affinity_keeps_members_of_one_cluster_apart(simulate):
    anti = {
        "podAntiAffinity": {
            "requiredDuringSchedulingIgnoredDuringExecution": [
                {
                    "labelSelector": {"matchExpressions": [{"key": "app", "operator": "Exists"}]},
                    "topologyKey": "topology.kubernetes.io/zone",
                }
            ]
        }
    }

    async def story(c):
        for i in range(4):
            c.add_vm(f"db{i}", spec={"affinity": anti})
        await asyncio.sleep(20)
        placed = [c.node_of(f"db{i}") for i in range(4) if c.phase(f"db{i}") == "Running"]
        assert len(placed) == 3  # three zones
        zones = {
            c.store.get(NODES, "", n)["metadata"]["labels"]["topology.kubernetes.io/zone"]
            for n in placed
        }
        assert len(zones) == 3

    simulate(story, nodes=6)


@pytest.mark.parametrize(
    ("text", "number"),
    [("500m", 0.5), ("4Gi", 4 * 2**30), ("1000Mi", 1000 * 2**20), ("2", 2.0), ("1.5", 1.5), (8, 8)],
)
def test_quantities_are_read_as_numbers(text, number):
    assert quantity(text) == number


def test_a_quantity_that_is_none_is_refused():
    with pytest.raises(ValueError, match="abc"):
        quantity("abc")


def test_bytes_are_rounded_up_to_mebibytes():
    assert mebibytes(2**20 + 1) == "2Mi"
