"""kill -9 of the real daemon while a real fence agent runs for it; the next one completes it."""

from __future__ import annotations

import contextlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import pytest
import yaml

from remediator.engine.model import Fence, OutcomeStatus

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until
sys.path.insert(0, str(Path(__file__).parents[1] / "actions" / "fence"))

from ipmi_sim import PASSWORD, USER, IpmiSim  # noqa: E402 - its directory is known only now

NODE = "n02"


def guid_of(uuid: str) -> str:
    """The bytes as a BMC stores them: the first three fields the other way round."""
    fields = uuid.split("-")
    return "".join([bytes.fromhex(each)[::-1].hex() for each in fields[:3]] + fields[3:])


def agents_of(pid: int) -> list[bytes]:
    found = []
    with contextlib.suppress(OSError):
        children = Path(f"/proc/{pid}/task/{pid}/children").read_text(encoding="ascii").split()
        for child in children:
            with contextlib.suppress(OSError):
                found.append(Path(f"/proc/{child}/cmdline").read_bytes())
    return [line for line in found if b"fence_ipmilan" in line]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("moment", ["the agent runs", "the order has arrived"])
async def test_a_daemon_killed_while_an_agent_fences_leaves_what_the_next_one_completes(
    tmp_path, moment
):
    path = f"{os.environ['PATH']}:/usr/sbin"
    if shutil.which("fence_ipmilan", path=path) is None or shutil.which("ipmi_sim") is None:
        if os.environ.get("FENCE_TESTS") == "required":
            pytest.fail("fence agents are not installed (.ci/packages installs them)")
        pytest.skip("fence agents are not installed (.ci/packages installs them)")
    async with open_lab(tmp_path / "lab", seed=3) as lab:
        cluster, daemon = lab.cluster, lab.daemon
        place = tmp_path / "bmc"
        place.mkdir()
        bmc = IpmiSim(place, guid=guid_of(cluster.hosts[NODE].system_uuid))
        await bmc.start()
        try:
            password = tmp_path / "ipmi-password"
            password.write_text(PASSWORD)
            device = {
                "name": "ipmi",
                "method": "agent",
                "program": "fence_ipmilan",
                "parameters": {
                    "ip": "127.0.0.1",
                    "ipport": str(bmc.port),
                    "lanplus": "1",
                    "cipher": "3",
                },
                "credentials": {"username": USER, "passwordFile": str(password)},
            }
            spec = {
                "nodes": {"names": [NODE]},
                "checkPeriod": "1h",
                "devices": [device],
                "levels": [{"devices": ["ipmi"]}],
            }
            configs = tmp_path / "fence"
            configs.mkdir()
            document = {"apiVersion": "remediator.io/v1alpha1", "kind": "FenceConfig"}
            document |= {"metadata": {"name": "ipmi"}, "spec": spec}
            (configs / "ipmi.yaml").write_text(yaml.safe_dump(document))
            lab.configure(fence={"configs": str(configs)})
            daemon.start()
            await until(lambda: daemon.decided() >= 1, 60, "the daemon to lead")
            victims = cluster.vms_on(NODE)
            assert victims
            bmc.mode = "slow"
            cluster.faults.kernel_panic(NODE)

            def fencing() -> bool:
                return any(
                    event.get("event") == "decision"
                    and event.get("kind") == "started"
                    and "power it off" in str(event.get("why"))
                    for event in daemon.events()
                )

            def reached() -> bool:
                if moment == "the agent runs":
                    return fencing() and bool(agents_of(daemon.process.pid))
                return bool(bmc.orders)

            await until(reached, 90, moment)
            daemon.kill()
            bmc.mode = "well"
            daemon.start()
            await until(
                lambda: all(cluster.ledger.is_up(vm) for vm in victims), 120, "the VMs to be back"
            )
            assert not bmc.power
            assert set(bmc.orders) == {"0"}, "it was switched on"
            await daemon.end()
            fences = [
                one.outcome
                for one in daemon.journal()
                if one.outcome is not None and isinstance(one.action.work, Fence)
            ]
            assert [one.status for one in fences][-1] is OutcomeStatus.SUCCEEDED
            assert fences[-1].proof is not None
            assert fences[-1].proof.source == "fence_ipmilan 127.0.0.1"
            assert cluster.ledger.double_runs == ()
        finally:
            await bmc.stop()
