"""What else a host tells the API: conditions, its virt-handler's pod, a planned reboot."""

from __future__ import annotations

import asyncio

from remediator.sim.resources import NODES, PODS

HANDLERS = "kubevirt.io=virt-handler"


def condition(cluster, node, kind):
    found = cluster.store.get(NODES, "", node)["status"]["conditions"]
    return next(((c["status"], c["reason"]) for c in found if c["type"] == kind), None)


def handler_pods(cluster):
    """Return each node's virt-handler pod: its name, and whether it is ready."""
    return {
        pod["spec"]["nodeName"]: (
            pod["metadata"]["name"],
            any(
                c["type"] == "Ready" and c["status"] == "True"
                for c in (pod.get("status") or {}).get("conditions") or ()
            ),
        )
        for pod in cluster.store.list(PODS, labels=HANDLERS)
    }


def schedulable(cluster, node):
    return cluster.store.get(NODES, "", node)["metadata"]["labels"]["kubevirt.io/schedulable"]


def beat(cluster, node):
    return cluster.store.get(NODES, "", node)["metadata"]["annotations"]["kubevirt.io/heartbeat"]


# --- conditions ----------------------------------------------------------------------------------


def test_node_problem_detector_reports_beside_the_kubelet_and_mends(in_cluster):
    async def story(cluster):
        cluster.faults.node_condition("n01", "KernelDeadlock", "True", reason="DockerHung")
        await asyncio.sleep(400)  # the kubelet has reported its own status meanwhile
        assert condition(cluster, "n01", "KernelDeadlock") == ("True", "DockerHung")
        assert condition(cluster, "n01", "Ready") == ("True", "KubeletReady")
        cluster.faults.node_condition("n01", "KernelDeadlock", "False")
        await asyncio.sleep(5)
        assert condition(cluster, "n01", "KernelDeadlock")[0] == "False"
        assert condition(cluster, "n02", "KernelDeadlock") is None

    in_cluster(story)


def test_it_reports_while_the_kubelet_hangs_but_not_through_a_cut_network(in_cluster):
    async def story(cluster):
        cluster.faults.kubelet_hang("n01")
        cluster.faults.node_condition("n01", "ReadonlyFilesystem", "True")
        cluster.faults.partition("n02")
        cluster.faults.node_condition("n02", "ReadonlyFilesystem", "True")
        await asyncio.sleep(30)
        assert condition(cluster, "n01", "ReadonlyFilesystem")[0] == "True"
        assert condition(cluster, "n02", "ReadonlyFilesystem") is None
        cluster.faults.heal("n02")
        await asyncio.sleep(30)
        assert condition(cluster, "n02", "ReadonlyFilesystem")[0] == "True"

    in_cluster(story)


def test_a_pressure_is_the_kubelets_own_word(in_cluster):
    async def story(cluster):
        cluster.faults.node_condition("n01", "MemoryPressure", "True", reason="KubeletHasPressure")
        await asyncio.sleep(15)
        assert condition(cluster, "n01", "MemoryPressure") == ("True", "KubeletHasPressure")
        await asyncio.sleep(400)
        assert condition(cluster, "n01", "MemoryPressure")[0] == "True"
        cluster.faults.end_all()
        await asyncio.sleep(15)
        assert condition(cluster, "n01", "MemoryPressure")[0] == "False"

    in_cluster(story)


# --- virt-handler's pod --------------------------------------------------------------------------


def test_every_worker_has_a_ready_virt_handler_pod(in_cluster):
    async def story(cluster):
        assert handler_pods(cluster) == {
            f"n{i:02d}": (f"virt-handler-n{i:02d}-0", True) for i in range(1, 5)
        }
        await asyncio.sleep(600)
        assert all(ready for _, ready in handler_pods(cluster).values())

    in_cluster(story, control_plane=1)


def test_a_rollout_replaces_one_pod_after_the_other_and_nobody_stays_away(in_cluster):
    async def story(cluster):
        cluster.faults.handler_rollout(away_s=20)
        away = []
        for _ in range(200):
            await asyncio.sleep(1)
            pods = handler_pods(cluster)
            away.append(4 - sum(ready for _, ready in pods.values()))
        assert max(away) == 1
        assert 4 * 30 < sum(away) < 4 * 45  # 20 s away and 15 s until it is ready, each
        assert away[-1] == 0
        assert {name for name, _ in handler_pods(cluster).values()} == {
            f"virt-handler-n{i:02d}-1" for i in range(1, 5)
        }
        assert all(cluster.ledger.running_copies(vm) for vm in cluster.vms)
        assert cluster.ledger.double_runs == ()

    in_cluster(story)


def test_a_virt_handler_that_ends_in_order_takes_no_new_vms_until_the_next_one_beats(in_cluster):
    async def story(cluster):
        before = beat(cluster, "n01")
        cluster.faults.handler_rollout(away_s=60)
        await asyncio.sleep(5)
        assert schedulable(cluster, "n01") == "false"
        assert beat(cluster, "n01") >= before
        await asyncio.sleep(60)
        assert schedulable(cluster, "n01") == "true"

    in_cluster(story)


def test_a_virt_handler_that_hangs_is_not_ready_after_a_minute(in_cluster):
    async def story(cluster):
        cluster.faults.handler_hang("n01")
        await asyncio.sleep(50)
        assert handler_pods(cluster)["n01"][1]
        await asyncio.sleep(15)
        assert not handler_pods(cluster)["n01"][1]
        cluster.faults.resume("n01")
        await asyncio.sleep(5)
        assert handler_pods(cluster)["n01"][1]

    in_cluster(story)


def test_a_virt_handler_may_beat_and_not_be_ready(in_cluster):
    async def story(cluster):
        cluster.faults.handler_unready("n01")
        before = beat(cluster, "n01")
        await asyncio.sleep(200)
        assert not handler_pods(cluster)["n01"][1]
        assert beat(cluster, "n01") > before
        cluster.faults.handler_ready("n01")
        await asyncio.sleep(5)
        assert handler_pods(cluster)["n01"][1]

    in_cluster(story)


def test_the_pod_of_a_dead_host_is_not_ready_and_ready_again_when_it_is_back(in_cluster):
    async def story(cluster):
        cluster.faults.power_loss("n01")
        await asyncio.sleep(70)  # Kubernetes sees the node NotReady
        assert not handler_pods(cluster)["n01"][1]
        cluster.faults.power_restore("n01", boot_s=30)
        await asyncio.sleep(60)
        assert handler_pods(cluster)["n01"] == ("virt-handler-n01-0", True)

    in_cluster(story)


def test_a_pod_that_somebody_deletes_is_made_anew(in_cluster):
    async def story(cluster):
        cluster.store.delete(PODS, "kubevirt", "virt-handler-n01-0", grace_s=30)
        await asyncio.sleep(30)
        assert handler_pods(cluster)["n01"] == ("virt-handler-n01-1", True)

    in_cluster(story)


# --- reboot --------------------------------------------------------------------------------------


def test_a_planned_reboot_ends_the_guests_in_order_and_leaves_the_power_on(in_cluster):
    async def story(cluster):
        host = cluster.hosts["n01"]
        boot_id, vms = host.boot_id, cluster.vms_on("n01")
        powered = []
        cluster.faults.reboot("n01", boot_s=40)
        for _ in range(120):
            await asyncio.sleep(1)
            powered.append(host.powered)
        assert all(powered)
        assert host.boot_id != boot_id
        assert host.ready
        copies = [copy for vm in vms for copy in cluster.ledger.copies(vm) if copy.node == "n01"]
        assert vms
        assert {copy.end_reason for copy in copies if copy.ended_at} <= {
            "guest shut down",
            "operating system restarts",
        }
        await cluster.wait_until(lambda: all(map(cluster.ledger.is_up, cluster.vms)), timeout_s=120)
        assert cluster.ledger.double_runs == ()

    in_cluster(story, run_strategies={"Always": 1.0})


def test_a_rollout_that_is_stopped_leaves_no_host_without_virt_handler(in_cluster):
    async def story(cluster):
        cluster.faults.handler_rollout(away_s=60)
        await asyncio.sleep(10)
        assert not cluster.hosts["n01"].handler.running
        cluster.faults.end_all()
        await asyncio.sleep(60)
        assert all(host.handler.running for host in cluster.hosts.values())
        assert all(host.handler_pod.ready for host in cluster.hosts.values())

    in_cluster(story)


def test_a_rollout_starts_no_virt_handler_on_a_host_that_has_no_power(in_cluster):
    async def story(cluster):
        cluster.faults.handler_rollout(away_s=20)
        await asyncio.sleep(10)
        cluster.faults.power_loss("n01")
        await asyncio.sleep(60)
        assert not cluster.hosts["n01"].handler.running

    in_cluster(story)
