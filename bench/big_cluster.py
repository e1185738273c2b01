"""A process that serves a large, quiet simulated cluster over HTTP: objects, and nothing that acts.

``python bench/big_cluster.py NODES VMS KUBECONFIG DISKS`` (the share of VMs with a disk) prints
one line when it serves, and ends when its standard input does. Every node renews its lease every
10 s, as kubelets do.
"""

from __future__ import annotations

import asyncio
import random
import sys
import time
from pathlib import Path
from typing import Any

from remediator.clock import Clock
from remediator.sim.apiserver import ApiServer
from remediator.sim.cluster_objects import ObjectBuilder
from remediator.sim.cluster_spec import ClusterSpec
from remediator.sim.hosts.node_object import LEASE_NAMESPACE
from remediator.sim.http_server import serve, write_kubeconfig
from remediator.sim.resources import LEASES, NAMESPACES, Registry
from remediator.sim.store import Store
from remediator.sim.timestamps import rfc3339_micro

LEASE_PERIOD_S = 10.0  # kubelet
PORTIONS_HZ = 20


def build(store: Store, nodes: int, vms: int, now: float, disks: float = 1.0) -> list[str]:
    """Put the objects into the store; return the nodes' names."""
    spec = ClusterSpec(
        nodes=nodes,
        vms=vms,
        diskless_share=1.0 - disks,
        run_strategies={"Always": 1.0},
        namespaces=tuple(f"team-{number:02d}" for number in range(50)),
    )
    builder = ObjectBuilder(store, spec, now)
    builder.namespaces()
    store.create(NAMESPACES, {"metadata": {"name": "remediator"}})
    builder.storage_class()
    hosts = spec.host_specs()
    for host in hosts:
        builder.node(host, f"boot-{host.name}")
    for number, vm in enumerate(spec.vm_specs()):
        builder.virtual_machine(vm)
        builder.run(vm, hosts[number % nodes].name)
    return [host.name for host in hosts]


async def renew(store: Store, names: list[str], clock: Clock) -> None:
    """Renew all leases in turn, for ever."""
    portion = max(1, round(len(names) / (LEASE_PERIOD_S * PORTIONS_HZ)))
    turn = 0
    while True:
        text = rfc3339_micro(clock.now())

        def set_time(obj: dict[str, Any], text: str = text) -> None:
            obj["spec"]["renewTime"] = text

        for _ in range(portion):
            turn += 1
            store.mutate(LEASES, LEASE_NAMESPACE, names[turn % len(names)], set_time)
        await asyncio.sleep(1.0 / PORTIONS_HZ)


async def main(nodes: int, vms: int, kubeconfig: Path, disks: float) -> None:
    """Build, serve, and say so."""
    clock = Clock()
    store = Store(now=clock.now, rng=random.Random(1))
    server = ApiServer(store, Registry())
    began = time.perf_counter()
    names = build(store, nodes, vms, clock.now(), disks)
    built_s = time.perf_counter() - began
    url, close = await serve(server)
    write_kubeconfig(kubeconfig, url)
    renewing = asyncio.create_task(renew(store, names, clock))
    print(f"serving after {built_s:.1f} s", flush=True)
    await asyncio.to_thread(sys.stdin.read)
    renewing.cancel()
    server.close()
    await close()


if __name__ == "__main__":
    asyncio.run(main(int(sys.argv[1]), int(sys.argv[2]), Path(sys.argv[3]), float(sys.argv[4])))
