"""The cluster as a whole: its mix, its sameness, its speed, its sockets."""

from __future__ import annotations

import asyncio
import base64
import json
import random
import time
from collections import Counter

import aiohttp
import pytest

from remediator.clock import Clock
from remediator.sim import virtual_time
from remediator.sim.cluster import SimCluster
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.controllers.settings import ControlPlaneSettings
from remediator.sim.hosts.settings import HostSettings
from remediator.sim.resources import NODES, PODS, VIRTUAL_MACHINE_INSTANCES, VIRTUAL_MACHINES

EPOCH = 1_800_000_000.0


def in_cluster(story, **spec):
    async def tell():
        cluster = SimCluster(ClusterSpec(**spec), clock=Clock(epoch_at_start=EPOCH))
        await cluster.start()
        try:
            return await story(cluster)
        finally:
            await cluster.stop()

    return virtual_time.run(tell())


def test_the_default_cluster_has_readable_names_and_the_mix_that_was_asked_for():
    async def story(cluster):
        nodes = cluster.store.list(NODES)
        assert [n["metadata"]["name"] for n in nodes] == [f"n{i:02d}" for i in range(1, 13)]
        zones = Counter(n["metadata"]["labels"]["topology.kubernetes.io/zone"] for n in nodes)
        assert zones == {"zone-a": 4, "zone-b": 4, "zone-c": 4}
        vms = cluster.store.list(VIRTUAL_MACHINES)
        assert {vm["metadata"]["namespace"] for vm in vms} == {"team-a", "team-b", "team-c"}
        strategies = Counter(vm["spec"]["runStrategy"] for vm in vms)
        assert strategies == {"Always": 48, "RerunOnFailure": 12}
        modes = Counter(vm.access_mode for vm in cluster.vms.values())
        assert modes == {"": 6, "ReadWriteMany": 27, "ReadWriteOnce": 27}
        assert Counter(vm.agent for vm in cluster.vms.values()) == {True: 48, False: 12}

    in_cluster(story)


def test_after_a_warm_start_every_vm_is_up_and_the_api_agrees_with_the_hosts():
    async def story(cluster):
        for later_s in (0, 600):
            await asyncio.sleep(later_s)
            for key in cluster.vms:
                (copy,) = cluster.ledger.running_copies(key)
                assert cluster.ledger.is_up(key)
                vmi = cluster.store.get(VIRTUAL_MACHINE_INSTANCES, *key.split("/"))
                assert vmi["status"]["phase"] == "Running"
                assert vmi["status"]["nodeName"] == copy.node
                assert vmi["metadata"]["uid"] == copy.vmi_uid
        per_node = Counter(
            copy.node for node in cluster.hosts for copy in cluster.ledger.running_on(node)
        )
        assert set(per_node.values()) == {5}
        assert cluster.ledger.peak_booting == 0

    in_cluster(story)


def test_control_plane_nodes_run_no_vms():
    async def story(cluster):
        assert [name for name in cluster.hosts if name.startswith("cp")] == ["cp1", "cp2", "cp3"]
        assert not any(cluster.vms_on(name) for name in ("cp1", "cp2", "cp3"))

    in_cluster(story, nodes=3, control_plane=3, vms=6)


def test_a_halted_vm_stays_off():
    async def story(cluster):
        await asyncio.sleep(120)
        assert not any(cluster.ledger.running_copies(key) for key in cluster.vms)

    in_cluster(story, nodes=3, vms=3, run_strategies={"Halted": 1})


@pytest.mark.parametrize(
    "wrong",
    [
        {"nodes": 0},
        {"vms": -1},
        {"zones": 0},
        {"zones": 99},
        {"namespaces": ()},
        {"run_strategies": {"Always": -1.0}},
        {"rwx_share": 1.5},
    ],
)
def test_a_spec_that_cannot_be_built_is_refused(wrong):
    with pytest.raises(ValueError, match=r"."):
        ClusterSpec(**wrong).vm_specs()


def random_faults(cluster, seed, until):
    async def go():
        rng = random.Random(seed)
        names = list(cluster.hosts)
        faults = cluster.faults
        verbs = [
            faults.power_loss,
            faults.power_restore,
            faults.partition,
            faults.heal,
            faults.host_hang,
            faults.kubelet_hang,
            faults.handler_hang,
            faults.resume,
            faults.kernel_panic,
        ]
        while cluster.clock.now() < until:
            rng.choice(verbs)(rng.choice(names))
            await asyncio.sleep(rng.uniform(1, 40))
        faults.end_all()

    return go()


def wild_run(seed):
    async def story(cluster):
        await random_faults(cluster, seed, cluster.clock.now() + 300)
        await asyncio.sleep(200)
        return cluster.ledger.timeline(), cluster.store.resource_version

    return in_cluster(story, nodes=6, vms=10, seed=seed, api_latency_s=0.01)


def test_the_same_seed_gives_the_same_timeline_to_the_last_event():
    assert wild_run(7) == wild_run(7)


def test_another_seed_gives_another_timeline():
    assert wild_run(7) != wild_run(8)


@pytest.mark.parametrize("seed", range(20))
def test_when_faults_end_every_vm_that_can_run_runs_once_and_the_api_says_so(seed):
    async def story(cluster):
        await random_faults(cluster, seed, cluster.clock.now() + 400)
        wanted = [key for key, vm in cluster.vms.items() if vm.run_strategy == "Always"]

        def well():
            return all(
                cluster.ledger.is_up(key) and len(cluster.ledger.running_copies(key)) == 1
                for key in wanted
            )

        await cluster.wait_until(well, timeout_s=1500, step_s=5)
        await asyncio.sleep(60)
        assert well()
        for vmi in cluster.store.list(VIRTUAL_MACHINE_INSTANCES):
            key = f"{vmi['metadata']['namespace']}/{vmi['metadata']['name']}"
            if vmi["status"]["phase"] == "Running":
                (copy,) = cluster.ledger.running_copies(key)
                assert (copy.node, copy.vmi_uid) == (
                    vmi["status"]["nodeName"],
                    vmi["metadata"]["uid"],
                )

    in_cluster(story, nodes=6, vms=10, seed=seed, ignores_shutdown_share=0.2)


def test_a_seeded_cluster_is_cheap_enough_for_thousands_of_runs():
    async def story(cluster):
        cluster.faults.power_loss("n01")
        await asyncio.sleep(200)

    in_cluster(story, nodes=6, vms=10)  # imports and caches
    began = time.process_time()
    runs = 5
    for seed in range(runs):
        in_cluster(story, nodes=6, vms=10, seed=seed)
    # The aim is 100 ms; the margin is for a machine that others use too.
    assert (time.process_time() - began) / runs < 0.3


def test_twenty_vms_released_at_once_boot_in_a_storm_of_thirty_seconds():
    async def story(cluster):
        vms = cluster.vms_on("n01")
        assert len(vms) == 20
        cluster.faults.power_loss("n01")
        taint = {"key": "node.kubernetes.io/out-of-service", "effect": "NoExecute"}
        cluster.store.mutate(NODES, "", "n01", lambda n: n["spec"].update(taints=[taint]))
        for pod in cluster.store.list(PODS, labels="kubevirt.io=virt-launcher"):
            if pod["spec"].get("nodeName") == "n01":
                meta = pod["metadata"]
                cluster.store.delete(PODS, meta["namespace"], meta["name"], grace_s=0)
        took_s = await cluster.wait_until(
            lambda: all(cluster.ledger.is_up(vm) for vm in vms), timeout_s=120
        )
        # Some 4 s until the domains run; boots that do not begin together thrash a little less.
        assert 29 < took_s < 36
        assert cluster.ledger.peak_booting == cluster.storage.peak_boots == 20
        assert cluster.ledger.double_runs == ()

    in_cluster(story, nodes=3, vms=60)


def quick_spec(**more):
    return ClusterSpec(
        nodes=2,
        vms=2,
        hosts=HostSettings(
            lease_period_s=0.2,
            os_boot_s=0.1,
            handler_start_s=0.1,
            heartbeat_s=0.5,
            pod_start_s=(0.05, 0.1),
            domain_start_s=(0.05, 0.1),
        ),
        controllers=ControlPlaneSettings(attach_s=(0.0, 0.01), detach_s=(0.0, 0.01)),
        **more,
    )


async def test_api_and_bmcs_are_served_on_sockets_with_a_kubeconfig(tmp_path):
    cluster = SimCluster(quick_spec(), clock=Clock())
    faces = await cluster.http(tmp_path / "kubeconfig", token="secret")
    await cluster.start()
    try:
        kubeconfig = json.loads(faces.kubeconfig.read_text())
        assert kubeconfig["clusters"][0]["cluster"]["server"] == faces.api_url
        bearer = {"authorization": "Bearer secret"}
        basic = {"authorization": "Basic " + base64.b64encode(b"admin:sim").decode()}
        async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=5)) as session:
            async with session.get(f"{faces.api_url}/api/v1/nodes", headers=bearer) as answer:
                listed = await answer.json()
            async with session.get(f"{faces.api_url}/api/v1/nodes") as answer:
                assert answer.status == 401
            url = cluster.bmc_url("n02", faces.bmc_url)
            async with session.get(url, headers=basic) as answer:
                system = await answer.json()
        names = [item["metadata"]["name"] for item in listed["items"]]
        assert names == ["n01", "n02"]
        assert system["UUID"] == listed["items"][1]["status"]["nodeInfo"]["systemUUID"]
    finally:
        await cluster.stop()


@pytest.mark.parametrize("warm", [True, False], ids=["warm", "cold"])
async def test_hosts_over_http_do_what_hosts_in_memory_do(tmp_path, warm):
    cluster = SimCluster(quick_spec(), clock=Clock(), hosts_over_http=True)
    await cluster.http(tmp_path / "kubeconfig")
    await cluster.start(warm=warm)
    try:
        running = lambda: all(cluster.ledger.running_copies(key) for key in cluster.vms)  # noqa: E731
        # A VMI that is lost before it was called Running is given up only after three minutes.
        called_running = lambda: all(  # noqa: E731
            (vmi.get("status") or {}).get("phase") == "Running"
            for vmi in cluster.store.list(VIRTUAL_MACHINE_INSTANCES)
        )
        await cluster.wait_until(lambda: running() and called_running(), timeout_s=20)
        victim = next(name for name in cluster.hosts if cluster.vms_on(name))
        vms = cluster.vms_on(victim)
        cluster.faults.power_loss(victim)
        assert not running()
        cluster.faults.power_restore(victim, boot_s=0.1)
        await cluster.wait_until(running, timeout_s=20)
        phases = lambda: {  # noqa: E731
            pod["status"]["phase"]
            for pod in cluster.store.list(PODS, labels="kubevirt.io=virt-launcher")
            if "deletionTimestamp" not in pod["metadata"]
        }
        await cluster.wait_until(lambda: phases() == {"Running"}, timeout_s=10)
        assert vms
        assert cluster.ledger.double_runs == ()
    finally:
        await cluster.stop()
