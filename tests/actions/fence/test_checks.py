"""Real agents asked in peace: a BMC that is right, another host's, frozen; a wrong password."""

from __future__ import annotations

import asyncio
import contextlib
import random
import shutil

import pytest
import structlog
from ipmi_sim import GUID, PASSWORD, SYSTEM_UUID, USER, IpmiSim
from prometheus_client import CollectorRegistry

from remediator.actions.fence.agent_catalog import AgentCatalog
from remediator.actions.fence.check_rows import FaultKind
from remediator.actions.fence.checks import FenceChecks
from remediator.actions.fence.devices import FenceDevices
from remediator.actions.fence.driver import NotDown, Order, Target
from remediator.actions.fence.drivers import DriverFactory
from remediator.actions.fence.loading import load
from remediator.clock import Clock
from remediator.metrics import Metrics

CANARY = "s3cret-but-wrong"
CONFIG = """apiVersion: remediator.io/v1alpha1
kind: FenceConfig
metadata: {{name: racks}}
spec:
  devices:
    - name: bmc
      method: agent
      program: fence_ipmilan
      parameters: {{ip: 127.0.0.1, lanplus: "1"}}
      nodeParameters: {{{nodes}}}
      credentials: {{username: {user}, passwordFile: {password}}}
  levels: [{{devices: [bmc]}}]
"""


class Lab:
    def __init__(self, devices, clock, targets):
        self.devices, self.clock = devices, clock
        self.metrics = Metrics(CollectorRegistry())
        self.targets = targets
        self.checks = FenceChecks(
            devices,
            lambda: [(target, {}) for target in targets],
            clock,
            rng=random.Random(1),
            metrics=self.metrics,
        )

    async def row(self, node="n1"):
        rows = await self.checks.check_now([node])
        return next(row for row in rows if row.node == node)

    async def fence(self, node):
        target = next(one for one in self.targets if one.node == node)

        async def look():
            pass

        order = Order(action_id="a", deadline_at=self.clock.now() + 15.0, last_look=look)
        (config,) = self.devices.configs
        return await self.devices.take_down(config, 0, target, order)


@pytest.fixture
async def lab(tmp_path, fence_tools):  # noqa: ARG001 - they must be there
    opened = []

    async def make(ports, *, password=PASSWORD, **uuids):
        configs = tmp_path / "configs"
        configs.mkdir()
        (tmp_path / "password").write_text(password)
        nodes = ", ".join(f"{node}: {{ipport: '{port}'}}" for node, port in ports.items())
        text = CONFIG.format(nodes=nodes, user=USER, password=tmp_path / "password")
        (configs / "racks.yaml").write_text(text)
        clock, catalog = Clock(), AgentCatalog()
        loaded = await load(configs, [], catalog)
        devices = FenceDevices(loaded, clock, DriverFactory(clock, metadata=catalog.metadata))
        opened.append(devices)
        targets = [
            Target(node=node, uid="u", boot_id="b", system_uuid=uuids.get(node, SYSTEM_UUID))
            for node in ports
        ]
        return Lab(devices, clock, targets)

    yield make
    for devices in opened:
        await devices.close()


async def test_a_bmc_that_answers_is_well_and_the_nodes_own(lab, bmc):
    made = await lab({"n1": bmc.port})
    row = await made.row()
    assert (row.power, row.owner, row.fault) == ("on", "matches", "")
    assert row.good_at == pytest.approx(made.clock.now(), abs=1.0)
    assert 0.05 < row.took_s < 20.0
    count = "remediator_fence_check_seconds_count"
    labels = {"method": "agent", "answer": "answered"}
    assert made.metrics.registry.get_sample_value(count, labels) == 1
    assert bmc.orders == []


async def test_a_wrong_password_is_a_fault_that_does_not_repeat_it(lab, bmc):
    made = await lab({"n1": bmc.port}, password=CANARY)
    with structlog.testing.capture_logs() as logs:
        row = await made.row()
    assert row.kind is FaultKind.NO_ANSWER
    assert row.fault
    assert CANARY not in str(row)
    assert CANARY not in str(logs)
    assert [each["event"] for each in logs] == ["fence_device_faulty"]


async def test_another_hosts_bmc_is_a_loud_fault_and_gets_no_order(lab, bmc):
    made = await lab({"n1": bmc.port}, n1="4c4c4544-0051-3510-8052-b4c04f4d3132")
    row = await made.row()
    assert (row.kind, row.owner) == (FaultKind.WRONG_MACHINE, "differs")
    bmc.freeze()  # by the time of the fence it says nothing of itself
    answer = await made.fence("n1")
    assert isinstance(answer, NotDown)
    assert "configuration fault" in answer.detail
    assert bmc.orders == []


async def test_a_frozen_bmc_is_a_fault_and_its_last_good_time_stays(lab, bmc):
    made = await lab({"n1": bmc.port})
    well = await made.row()
    bmc.freeze()
    frozen = await made.row()
    assert frozen.kind is FaultKind.NO_ANSWER
    assert frozen.good_at == well.good_at
    assert frozen.power == "unknown"


async def test_two_bmcs_that_say_they_are_one_machine_fence_nobody(lab, bmc, tmp_path):
    """As where a board was copied with its identity, or a port forwards to another's BMC."""
    (tmp_path / "twin").mkdir()
    twin = IpmiSim(tmp_path / "twin", guid=GUID)
    await twin.start()
    try:
        made = await lab({"n1": bmc.port, "n2": twin.port})
        rows = await made.checks.check_now()
        assert [row.kind for row in rows] == [FaultKind.CLAIMED_TWICE] * 2
        assert isinstance(await made.fence("n1"), NotDown)
        assert (bmc.orders, twin.orders) == ([], [])
    finally:
        await twin.stop()


async def test_an_agent_that_was_removed_is_a_fault(lab, bmc, monkeypatch):
    made = await lab({"n1": bmc.port})
    (driver,) = made.devices.drivers(made.devices.configs[0])
    monkeypatch.setattr(driver, "_directories", ())
    row = await made.row()
    assert row.fault == "fence_ipmilan is not installed"


async def test_a_check_that_is_cancelled_leaves_no_process_behind(lab, bmc):
    made = await lab({"n1": bmc.port})
    bmc.freeze()
    asking = asyncio.create_task(made.row())
    await asyncio.sleep(0.5)
    asking.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await asking
    pgrep = shutil.which("pgrep")
    assert pgrep
    found = await asyncio.create_subprocess_exec(
        pgrep, "-f", f"fence_ipmilan.*{bmc.port}|ipmitool.*{bmc.port}",
        stdout=asyncio.subprocess.PIPE,
    )  # fmt: skip
    out, _ = await found.communicate()
    assert out == b""
