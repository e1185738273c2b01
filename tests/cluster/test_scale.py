"""A thousand nodes and ten thousand VMIs: what the daemon costs when nothing happens.

The objects of running VMs are put there as virt-controller would have left them, and it is stopped:
ten thousand starts would take it and two cores the better part of an hour. Kubelets renew their
leases and virt-handlers beat for real. ``CLUSTER_SCALE=1`` runs it;
``CLUSTER_SCALE_NODES`` and ``CLUSTER_SCALE_VMS`` change its size.
"""

from __future__ import annotations

import asyncio
import os

import pytest

from remediator.sim.cluster_spec import ClusterSpec, VmSpec
from remediator.sim.controllers import launcher_pod
from remediator.sim.controllers.vm_controller import instance_of_template
from remediator.sim.hosts.vmi_status import NODE_LABEL
from remediator.sim.hosts.wire import STRATEGIC_PATCH
from tests.cluster.daemon_process import Daemon
from tests.cluster.real_cluster import RealCluster
from tests.cluster.usage import RequestCount, cpu_s, memory_mib

NODES = int(os.environ.get("CLUSTER_SCALE_NODES", "1000"))
VMS = int(os.environ.get("CLUSTER_SCALE_VMS", "10000"))
SETTLE_S = 60.0
MEASURE_S = 120.0
SPEC = ClusterSpec(
    nodes=NODES, zones=3, vms=VMS, diskless_share=1.0, run_strategies={"Always": 1.0}
)


@pytest.mark.skipif("CLUSTER_SCALE" not in os.environ, reason="takes minutes: CLUSTER_SCALE=1")
@pytest.mark.timeout(2400)
async def test_a_large_cluster_in_steady_state_costs_little(control_plane, tmp_path):
    control_plane.virt_controller.stop()
    cluster = RealCluster(control_plane, SPEC)
    daemon = Daemon(tmp_path / "daemon", control_plane, cluster)
    try:
        await cluster.start(vms=run_by_hand)
        daemon.configure()
        await daemon.start()
        await asyncio.sleep(SETTLE_S)
        pid = daemon.process.pid
        requests = RequestCount(control_plane.audit_log)
        used_s = cpu_s(pid)
        await asyncio.sleep(MEASURE_S)
        used_s = cpu_s(pid) - used_s
        counted = requests.read()

        print(f"\n{NODES} nodes, {VMS} VMIs, nothing happens for {MEASURE_S:g} s")
        print(f"CPU {used_s / MEASURE_S:.1%} of a core, memory {memory_mib(pid):.0f} MiB")
        for what, count in counted.most_common():
            print(f"{count / MEASURE_S:8.3f}/s  {what}")
        decisions = await daemon.decisions()
        print([f"{one.kind} {one.subject.name}: {one.why}" for one in decisions][:10])
        assert {one.kind for one in decisions} == {"leading"}
        lists = {what for what in counted if what.startswith("list ")}
        assert lists == set()  # watches go on; nothing is listed again
    finally:
        await daemon.stop()
        await cluster.stop()


async def run_by_hand(cluster: RealCluster) -> None:
    """Create every VM with its VMI and launcher pod, running for long."""
    nodes = list(cluster.hosts)
    queue = list(enumerate(cluster.vms.values()))

    async def work() -> None:
        while queue:
            index, vm = queue.pop()
            await run(cluster, vm, nodes[index % len(nodes)])

    async with asyncio.TaskGroup() as group:
        for _ in range(32):
            group.create_task(work())


async def run(cluster: RealCluster, vm: VmSpec, node: str) -> None:
    ask = cluster.objects.ask
    owner = await cluster.objects.virtual_machine(vm)
    vmi = instance_of_template(owner)
    vmi["metadata"]["labels"][NODE_LABEL] = node
    vmi["metadata"]["finalizers"] = []
    vmi["status"] = {"phase": "Running", "nodeName": node, "conditions": []}
    path = f"/apis/kubevirt.io/v1/namespaces/{vm.namespace}/virtualmachineinstances"
    made = await ask("POST", path, vmi)
    pod = launcher_pod.render(made, cluster.spec.controllers)
    pod["spec"]["nodeName"] = node
    pods = f"/api/v1/namespaces/{vm.namespace}/pods"
    name = (await ask("POST", pods, pod))["metadata"]["name"]
    ready = [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady")]
    status = {"status": {"phase": "Running", "conditions": ready}}
    await ask("PATCH", f"{pods}/{name}/status", status, content_type=STRATEGIC_PATCH)
