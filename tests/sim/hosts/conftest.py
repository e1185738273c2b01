from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from remediator.clock import Clock
from remediator.sim import virtual_time
from remediator.sim.cluster import SimCluster
from remediator.sim.cluster_spec import ClusterSpec

Story = Callable[[SimCluster], Awaitable[Any]]
EPOCH = 1_800_000_000.0


@pytest.fixture
def in_cluster() -> Callable[..., Any]:
    """Run a story in a cluster on virtual time; keywords make its spec. Returns its result."""

    def run(story: Story, *, warm: bool = True, **spec: Any) -> Any:
        async def tell() -> Any:
            size = {"nodes": 4, "vms": 8, **spec}
            cluster = SimCluster(ClusterSpec(**size), clock=Clock(epoch_at_start=EPOCH))
            await cluster.start(warm=warm)
            try:
                return await story(cluster)
            finally:
                await cluster.stop()

        return virtual_time.run(tell())

    return run
