"""What a scenario plays on: a control plane, emulated hosts on it, and the daemon beside them."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

from remediator.sim.cluster_spec import ClusterSpec
from tests.cluster.control_plane import ControlPlane
from tests.cluster.daemon_process import Daemon
from tests.cluster.real_cluster import RealCluster


class Stage:
    """One scenario's control plane, cluster and daemon."""

    def __init__(self, plane: ControlPlane, cluster: RealCluster, daemon: Daemon) -> None:
        self.plane = plane
        self.cluster = cluster
        self.daemon = daemon


@asynccontextmanager
async def open_stage(
    plane: ControlPlane,
    directory: Path,
    spec: ClusterSpec,
    *,
    all_on: str = "",
    daemon: bool = True,
    **settings: object,
) -> AsyncIterator[Stage]:
    """Start hosts and VMs, then (if wanted) the daemon; ``settings`` are the daemon's."""
    async with AsyncExitStack() as stack:
        cluster = RealCluster(plane, spec)
        stack.push_async_callback(cluster.stop)
        await cluster.start(all_on=all_on)
        process = Daemon(directory, plane, cluster)
        stack.push_async_callback(process.stop)
        if daemon:
            process.configure(**settings)
            await process.start()
        yield Stage(plane, cluster, process)
