"""What a host does to its VMs when its power goes and comes (facts/lab.md sections 1, 2 and 7)."""

from __future__ import annotations

import asyncio

from remediator.sim.resources import LEASES, NODES, PODS, VIRTUAL_MACHINE_INSTANCES


def lease(cluster, node):
    return cluster.store.get(LEASES, "kube-node-lease", node)["spec"]["renewTime"]


def node(cluster, name):
    return cluster.store.get(NODES, "", name)


def ready(cluster, name):
    conditions = node(cluster, name)["status"]["conditions"]
    return next(c["status"] for c in conditions if c["type"] == "Ready")


def pods_on(cluster, name):
    launchers = cluster.store.list(PODS, labels="kubevirt.io=virt-launcher")
    return [p for p in launchers if p["spec"].get("nodeName") == name]


def test_power_loss_stops_writing_at_once_and_the_api_sees_nothing_of_it(in_cluster):
    async def story(cluster):
        await asyncio.sleep(30)
        vms = cluster.vms_on("n01")
        assert vms
        cluster.faults.power_loss("n01")
        assert all(not cluster.ledger.writers(vm) for vm in vms)
        assert all(
            cluster.ledger.timeline(vm)[-1].detail == "power loss"
            and cluster.ledger.timeline(vm)[-1].at == cluster.clock.now()
            for vm in vms
        )
        renewed = lease(cluster, "n01")
        await asyncio.sleep(30)
        assert lease(cluster, "n01") == renewed
        assert ready(cluster, "n01") == "True"
        assert len(pods_on(cluster, "n01")) == len(vms)

    in_cluster(story)


def test_without_anybody_s_help_no_vm_of_a_dead_host_comes_back(in_cluster):
    async def story(cluster):
        vms = cluster.vms_on("n01")
        cluster.faults.power_loss("n01")
        took_s = await cluster.wait_until(lambda: ready(cluster, "n01") == "Unknown", timeout_s=60)
        assert 40 <= took_s <= 56
        await asyncio.sleep(900)
        assert all(not cluster.ledger.running_copies(vm) for vm in vms)
        assert all("deletionTimestamp" in p["metadata"] for p in pods_on(cluster, "n01"))

    in_cluster(story)


def test_a_fast_reboot_reports_the_old_pods_failed_and_the_vms_run_again(in_cluster):
    async def story(cluster):
        vms = cluster.vms_on("n01")
        boot_id = node(cluster, "n01")["status"]["nodeInfo"]["bootID"]
        old_pods = {p["metadata"]["uid"] for p in pods_on(cluster, "n01")}
        failed = set()

        def note(_kind, pod, _old):
            if pod["metadata"]["uid"] in old_pods and pod["status"]["phase"] == "Failed":
                failed.add(pod["metadata"]["uid"])

        cluster.store.subscribe(PODS, note)
        cluster.faults.power_loss("n01")
        cluster.faults.power_restore("n01", boot_s=5.0)
        took_s = await cluster.wait_until(
            lambda: all(cluster.ledger.running_copies(vm) for vm in vms), timeout_s=60
        )
        assert took_s < 15
        assert failed == old_pods
        assert node(cluster, "n01")["status"]["nodeInfo"]["bootID"] not in ("", boot_id)
        assert cluster.ledger.double_runs == ()

    in_cluster(story)


def test_a_host_that_returns_after_nothing_was_done_brings_its_stuck_vms_back(in_cluster):
    async def story(cluster):
        vms = cluster.vms_on("n01")
        cluster.faults.power_loss("n01")
        await asyncio.sleep(600)
        assert all("deletionTimestamp" in p["metadata"] for p in pods_on(cluster, "n01"))
        cluster.faults.power_restore("n01", boot_s=30.0)
        await cluster.wait_until(lambda: all(cluster.ledger.is_up(vm) for vm in vms), timeout_s=120)
        assert ready(cluster, "n01") == "True"
        assert cluster.ledger.double_runs == ()

    in_cluster(story)


def test_force_deleted_pods_of_a_dead_tainted_host_let_its_vms_start_elsewhere_within_seconds(
    in_cluster,
):
    async def story(cluster):
        vms = cluster.vms_on("n01")
        cluster.faults.power_loss("n01")
        taint = {"key": "node.kubernetes.io/out-of-service", "value": "x", "effect": "NoExecute"}
        cluster.store.mutate(NODES, "", "n01", lambda n: n["spec"].update(taints=[taint]))
        for pod in pods_on(cluster, "n01"):
            meta = pod["metadata"]
            cluster.store.delete(PODS, meta["namespace"], meta["name"], grace_s=0)
        took_s = await cluster.wait_until(
            lambda: all(cluster.ledger.running_copies(vm) for vm in vms), timeout_s=30
        )
        assert 2.0 < took_s < 7.0
        await cluster.wait_until(lambda: all(cluster.ledger.is_up(vm) for vm in vms), timeout_s=30)
        assert all(cluster.ledger.running_copies(vm)[0].node != "n01" for vm in vms)
        await asyncio.sleep(3)
        for vm in vms:
            vmi = cluster.store.get(VIRTUAL_MACHINE_INSTANCES, *vm.split("/"))
            conditions = {c["type"]: c["status"] for c in vmi["status"]["conditions"]}
            assert vmi["status"]["phase"] == "Running"
            assert conditions["Ready"] == "True"
            assert conditions.get("AgentConnected") == ("True" if cluster.vms[vm].agent else None)
        assert cluster.ledger.double_runs == ()

    in_cluster(story)


def test_a_graceful_shutdown_of_the_operating_system_lets_guests_end_first(in_cluster):
    async def story(cluster):
        vms = cluster.vms_on("n01")
        cluster.hosts["n01"].press_power_button()
        assert all(cluster.ledger.writers(vm) for vm in vms if cluster.vms[vm].access_mode)
        await cluster.wait_until(lambda: not cluster.hosts["n01"].powered, timeout_s=60)
        ends = [cluster.ledger.copies(vm)[0].end_reason for vm in vms]
        assert ends == ["guest shut down"] * len(vms)

    in_cluster(story)


def test_a_kernel_panic_ends_the_vms_and_leaves_a_dead_host_that_is_still_on(in_cluster):
    async def story(cluster):
        vms = cluster.vms_on("n01")
        cluster.faults.kernel_panic("n01")
        host = cluster.hosts["n01"]
        assert host.powered
        assert not host.works
        assert all(not cluster.ledger.running_copies(vm) for vm in vms)
        renewed = lease(cluster, "n01")
        await asyncio.sleep(60)
        assert lease(cluster, "n01") == renewed
        host.power_off("reset")
        host.power_on(boot_s=10)
        await cluster.wait_until(lambda: ready(cluster, "n01") == "True", timeout_s=60)

    in_cluster(story)


def test_a_cold_cluster_registers_its_nodes_and_boots_its_vms(in_cluster):
    async def story(cluster):
        assert cluster.store.list(NODES) == []
        await cluster.wait_until(
            lambda: all(cluster.ledger.is_up(vm) for vm in cluster.vms), timeout_s=180, step_s=1.0
        )
        nodes = cluster.store.list(NODES)
        assert [n["metadata"]["name"] for n in nodes] == ["n01", "n02", "n03", "n04"]
        for obj in nodes:
            info = obj["status"]["nodeInfo"]
            assert info["systemUUID"] == cluster.hosts[obj["metadata"]["name"]].system_uuid
            assert "kubevirt.io/heartbeat" in obj["metadata"]["annotations"]
        assert cluster.ledger.double_runs == ()
        assert cluster.ledger.peak_booting > 1

    in_cluster(story, warm=False)
