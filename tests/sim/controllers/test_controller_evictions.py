"""NoExecute taints, the zone brake, and what the pod garbage collector removes."""

from __future__ import annotations

import asyncio
import math

import pytest

from remediator.sim.controllers import ControlPlaneSettings
from remediator.sim.controllers.node_zones import (
    ZoneEvictions,
    ZoneState,
    eviction_rate,
    zone_state,
)
from remediator.sim.controllers.taints import seconds_tolerated
from remediator.sim.resources import LEASES, NODES, PODS

UNREACHABLE = ("unreachable", "NoExecute")


def no_execute(key="k"):
    return {"key": key, "effect": "NoExecute"}


def pod(**tolerations_s):
    """A pod that tolerates taints with these keys, each for so long (None: without end)."""
    listed = []
    for key, seconds in tolerations_s.items():
        toleration = {"key": key, "operator": "Exists", "effect": "NoExecute"}
        if seconds is not None:
            toleration["tolerationSeconds"] = seconds
        listed.append(toleration)
    return {"spec": {"tolerations": listed}}


@pytest.mark.parametrize(
    ("tolerating", "tainted", "seconds"),
    [
        (pod(), [no_execute()], 0),
        (pod(k=None), [no_execute()], math.inf),
        (pod(k=300), [no_execute()], 300),
        (pod(k=300, j=20), [no_execute(), no_execute("j")], 20),
        (pod(k=300), [no_execute(), no_execute("j")], 0),
        (pod(), [{"key": "k", "effect": "NoSchedule"}], math.inf),
        ({"spec": {"tolerations": [{"operator": "Exists"}]}}, [no_execute()], math.inf),
        ({"spec": {}}, [no_execute()], 0),
    ],
    ids=["none", "endless", "limited", "least", "one-missing", "other-effect", "all", "empty"],
)
def test_a_pod_may_stay_as_long_as_its_least_toleration(tolerating, tainted, seconds):
    assert seconds_tolerated(tolerating, tainted) == seconds


def test_a_node_that_comes_back_within_the_tolerations_keeps_its_pods(simulate, dead_node):
    async def story(c):
        node = await dead_node(c)
        await c.until(lambda: UNREACHABLE in c.taints(node), within_s=60)
        await asyncio.sleep(200)
        c.hosts[node].alive = True  # a partition that heals: nothing was lost
        await c.until(lambda: not c.taints(node), within_s=20)
        await c.never(lambda: "deletionTimestamp" in c.pod("vm")["metadata"], for_s=400)

    simulate(story)


def test_a_custom_no_execute_taint_evicts_at_once(simulate):
    async def story(c):
        c.add_vm("vm")
        await c.until(lambda: c.phase("vm") == "Running", within_s=30)
        node = c.node_of("vm")
        c.taint(node, no_execute("mine"))
        await c.until(lambda: "deletionTimestamp" in c.pod("vm")["metadata"], within_s=0.1)

    simulate(story)


def test_a_terminating_pod_that_was_never_bound_goes_away(simulate):
    async def story(c):
        def hook(request):
            if request.res == PODS and request.operation == "CREATE":
                request.obj["spec"]["schedulingGates"] = [{"name": "x"}]
                request.obj["metadata"]["finalizers"] = ["test/hold"]

        c.store.add_admission(hook)
        c.add_vm("vm")
        await c.until(lambda: c.pods("vm"), within_s=2)
        pod = c.pod("vm")
        c.store.delete(PODS, "default", pod["metadata"]["name"])
        c.store.mutate(
            PODS, "default", pod["metadata"]["name"], lambda p: p["metadata"].pop("finalizers")
        )
        await c.until(
            lambda: pod["metadata"]["uid"] not in {p["metadata"]["uid"] for p in c.pods("vm")},
            within_s=21,
        )

    simulate(story)


def test_two_dead_nodes_of_one_zone_are_tainted_for_eviction_10_s_apart(simulate):
    async def story(c):
        await asyncio.sleep(30)
        c.hosts["n0"].power_off()
        c.hosts["n3"].power_off()  # z0 as well; n6 and n9 live
        await c.until(lambda: c.ready("n0") == c.ready("n3") == "Unknown", within_s=60)
        tainted = {}
        for _ in range(300):
            for name in ("n0", "n3"):
                if UNREACHABLE in c.taints(name):
                    tainted.setdefault(name, c.now())
            await asyncio.sleep(0.1)
        first, second = sorted(tainted.values())
        assert 9.8 <= second - first <= 11
        assert ("unreachable", "NoSchedule") in c.taints("n0") & c.taints("n3")

    simulate(story, nodes=12)


def test_a_small_zone_with_55_percent_dead_evicts_nothing(simulate):
    async def story(c):
        await asyncio.sleep(30)
        for name in ("n0", "n3", "n6"):  # 3 of 4 in z0
            c.hosts[name].power_off()
        await c.until(lambda: all(c.ready(n) == "Unknown" for n in ("n0", "n3", "n6")), within_s=70)
        # Those that crossed the line first may have been tainted before the brake closed.
        before = sum(UNREACHABLE in c.taints(n) for n in ("n0", "n3", "n6"))
        assert before < 3
        await asyncio.sleep(120)
        assert sum(UNREACHABLE in c.taints(n) for n in ("n0", "n3", "n6")) == before
        assert ("unreachable", "NoSchedule") in c.taints("n0") & c.taints("n3") & c.taints("n6")

    simulate(story, nodes=12)


def test_when_every_node_is_silent_no_pod_is_evicted(simulate):
    async def story(c):
        c.add_vm("vm")
        await c.until(lambda: c.phase("vm") == "Running", within_s=30)
        for host in c.hosts.values():
            host.power_off()
        await asyncio.sleep(600)
        assert all(c.ready(n) == "Unknown" for n in c.hosts)
        assert not any(UNREACHABLE in c.taints(n) for n in c.hosts)
        assert "deletionTimestamp" not in c.pod("vm")["metadata"]

    simulate(story)


@pytest.mark.parametrize(
    ("ready", "state"),
    [
        ([True] * 4, ZoneState.NORMAL),
        ([True, True, False, False], ZoneState.NORMAL),  # two are never a disruption
        ([True, False, False, False], ZoneState.PARTIAL),
        ([True] * 3 + [False] * 3, ZoneState.NORMAL),
        ([True] * 9 + [False] * 11, ZoneState.PARTIAL),
        ([False], ZoneState.FULL),
    ],
    ids=["all", "two-of-four", "three-of-four", "half", "55-percent", "only-one"],
)
def test_a_zone_is_judged_by_its_share_of_dead_nodes(ready, state):
    assert zone_state(ready, 0.55) == (state, len(ready))


def test_a_large_broken_zone_evicts_slowly_and_a_small_one_not_at_all():
    settings = ControlPlaneSettings()
    assert eviction_rate(ZoneState.PARTIAL, 51, settings) == 0.01
    assert eviction_rate(ZoneState.PARTIAL, 50, settings) == 0.0
    assert eviction_rate(ZoneState.FULL, 3, settings) == 0.1


def test_a_zone_without_a_rate_releases_nobody():
    zone = ZoneEvictions(0.0)
    zone.waiting["n"] = None
    assert zone.take(0.0) is None
    assert zone.next_in_s(1e9) is not None
    assert zone.take(1e9) is None


def test_what_a_deleted_node_owns_goes_with_it(simulate):
    async def story(c):
        owner = {
            "apiVersion": "v1",
            "kind": "Node",
            "name": "n0",
            "uid": c.store.get(NODES, "", "n0")["metadata"]["uid"],
        }
        c.store.create(
            LEASES,
            {
                "metadata": {
                    "name": "node-n0",
                    "namespace": "medik8s-leases",
                    "ownerReferences": [owner],
                },
                "spec": {"holderIdentity": "someone"},
            },
        )
        await asyncio.sleep(1)
        assert c.store.find(LEASES, "medik8s-leases", "node-n0") is not None
        c.store.delete(NODES, "", "n0")
        await asyncio.sleep(1)
        assert c.store.find(LEASES, "medik8s-leases", "node-n0") is None
        assert c.store.find(LEASES, "kube-node-lease", "n1") is not None

    simulate(story)
