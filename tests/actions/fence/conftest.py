"""Real fence agents and real BMC emulators, on loopback and on real time."""

from __future__ import annotations

import asyncio
import os
import shutil
import sys
from pathlib import Path

import pytest

sys.path.insert(0, str(Path(__file__).parent))

from ipmi_sim import SYSTEM_UUID, IpmiSim

from remediator.actions.fence.driver import Target
from remediator.sim.virtual_time import VirtualTimeLoop

TOOLS = ("fence_ipmilan", "fence_redfish", "fence_dummy", "ipmi_sim", "ipmitool")


def pytest_asyncio_loop_factories(config, item):
    """Where other programs take part, time is real; a simulated cluster has virtual time."""
    del config
    if "in_cluster" in item.nodeid:
        return {"virtual": VirtualTimeLoop}
    return {"real": asyncio.SelectorEventLoop}


@pytest.fixture(scope="session")
def fence_tools() -> None:
    """Debian's fence agents and OpenIPMI; `.ci/packages` installs them."""
    path = f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin"
    missing = [tool for tool in TOOLS if shutil.which(tool, path=path) is None]
    if not missing:
        return
    why = f"not installed: {', '.join(missing)} (.ci/packages installs them, as root on Debian)"
    if os.environ.get("FENCE_TESTS") == "required":
        pytest.fail(why)
    pytest.skip(why)


@pytest.fixture
async def bmc(tmp_path, fence_tools):  # noqa: ARG001 - they must be there
    sim = IpmiSim(tmp_path)
    await sim.start()
    yield sim
    await sim.stop()


@pytest.fixture
def target() -> Target:
    return Target(node="n1", uid="u1", boot_id="b1", system_uuid=SYSTEM_UUID)
