"""A real control plane for each scenario, emulated hosts on it, and the daemon beside it.

Needs the programs that ``make cluster-assets`` provides. Without them these tests are skipped, and
say so; with ``CLUSTER_TESTS=required`` in the environment (as in CI) that is an error.
"""

from __future__ import annotations

import os
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from pathlib import Path

import pytest

from remediator.sim.cluster_spec import ClusterSpec
from tests.cluster.assets import provide
from tests.cluster.control_plane import ControlPlane
from tests.cluster.daemon_process import Daemon
from tests.cluster.real_cluster import RealCluster

REQUIRED = os.environ.get("CLUSTER_TESTS") == "required"
SCENARIO_TIMEOUT_S = 600


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents and item.get_closest_marker("timeout") is None:
            item.add_marker(pytest.mark.timeout(SCENARIO_TIMEOUT_S))


@pytest.fixture(scope="session")
def assets() -> dict[str, Path]:
    """The control plane's programs."""
    lacking = provide.missing()
    if lacking:
        why = f"no real control plane: {', '.join(lacking)} missing; {provide.HOW}"
        if REQUIRED:
            pytest.fail(why, pytrace=False)
        pytest.skip(why)
    if sys.platform != "linux":
        pytest.skip("the control plane's programs are built for Linux")
    return provide.find()


@pytest.fixture
def control_plane(assets, tmp_path) -> Iterator[ControlPlane]:
    """A control plane of this test's own."""
    directory = tmp_path / "control-plane"
    directory.mkdir()
    with ControlPlane(directory, assets) as plane:
        yield plane


class Stage:
    """What a scenario plays on."""

    def __init__(self, plane: ControlPlane, cluster: RealCluster, daemon: Daemon) -> None:
        self.plane = plane
        self.cluster = cluster
        self.daemon = daemon


@pytest.fixture
def set_stage(control_plane, tmp_path) -> Callable:
    """A function that opens a cluster: ``async with set_stage(spec, all_on="n01") as stage``."""

    @asynccontextmanager
    async def open_stage(
        spec: ClusterSpec, *, all_on: str = "", daemon: bool = True
    ) -> AsyncIterator[Stage]:
        async with AsyncExitStack() as stack:
            cluster = RealCluster(control_plane, spec)
            stack.push_async_callback(cluster.stop)
            await cluster.start(all_on=all_on)
            process = Daemon(tmp_path / "daemon", control_plane, cluster)
            stack.push_async_callback(process.stop)
            if daemon:
                process.configure()
                await process.start()
            yield Stage(control_plane, cluster, process)

    return open_stage
