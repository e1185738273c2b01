"""``remediator fence check`` of a real daemon: its devices, right, wrong and silent; no secret."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import aiohttp

from remediator.exit_codes import ExitCode

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until

START_S = 40.0
REMEDIATOR = Path(sys.executable).with_name("remediator")
CANARY = "canary-9c1f-wrong-password"
CONFIG = """apiVersion: remediator.io/v1alpha1
kind: FenceConfig
metadata: {{name: {name}}}
spec:
  nodes: {{names: [{nodes}]}}
  checkPeriod: 1h
  devices:
    - name: bmc
      method: redfish
      endpoint: {url}
      system: /redfish/v1/Systems/{system}
      credentials: {{username: {user}, passwordFile: {password}}}
  levels: [{{devices: [bmc]}}]
"""


async def remediator(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        str(REMEDIATOR), "fence", *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(120.0):
        out, error = await process.communicate()
    return process.returncode or 0, out.decode(), error.decode()


def server(daemon) -> str:
    (port,) = [one["port"] for one in daemon.events() if one.get("event") == "http_listening"]
    return f"http://127.0.0.1:{port}"


async def test_the_table_tells_what_could_fence_and_why_not(tmp_path):
    async with open_lab(tmp_path, nodes=6, zones=2, vms=0) as lab:
        one, two, three, four, five, six = sorted(lab.cluster.fleet.hosts)
        configs = tmp_path / "fence"
        configs.mkdir()
        wrong = tmp_path / "wrong"
        wrong.write_text(CANARY)
        right = {
            "url": lab.faces.bmc_url,
            "user": lab.cluster.spec.bmc_user,
            "password": str(tmp_path / "password"),
        }
        for name, changes in {
            "well": {"nodes": one, "system": "{node}"},
            "of-another": {"nodes": two, "system": three},
            "twice": {"nodes": f"{three}, {four}", "system": four},
            "password": {"nodes": five, "system": five, "password": str(wrong)},
        }.items():
            text = CONFIG.format(name=name, **{**right, **changes})
            (configs / f"{name}.yaml").write_text(text)
        lab.configure(fence={"configs": str(configs)})
        daemon = lab.daemon
        daemon.start()
        await until(lambda: daemon.decided() >= 1, START_S, "the daemon to lead")
        options = ("--server", server(daemon))

        code, out, error = await remediator("check", *options)
        assert "not asked yet" in out
        assert f"no fence configuration: {six}" in error

        code, out, error = await remediator("check", "--now", *options)
        assert code == ExitCode.FINDING, error
        lines = {line.split()[0]: line for line in out.splitlines()}
        assert lines["NODE"].split() == [
            "NODE", "DEVICE", "METHOD", "LEVEL", "ANSWER", "IDENTITY", "TOOK", "LAST", "GOOD",
            "FAULT",
        ]  # fmt: skip
        assert lines[one].split()[1:6] == ["bmc", "redfish", "1", "on", "matches"]
        assert lines[one].split()[-2:] == ["ago", "-"]
        assert "differs" in lines[two]
        assert "wrong-machine: " in lines[two]
        assert "claimed-twice: " in lines[four]
        assert "no-answer: " in lines[five]

        code, out, _ = await remediator("check", one, "-o", "json", *options)
        assert code == ExitCode.OK
        (row,) = json.loads(out)["rows"]
        assert (row["power"], row["owner"], row["config"]) == ("on", "matches", "well")
        assert row["good_at"] > 0

        code, out, error = await remediator("check", "nobody", *options)
        assert code == ExitCode.FINDING
        assert "no such node: nobody" in error

        async with aiohttp.ClientSession() as session:
            async with session.get(f"{server(daemon)}/metrics") as answer:
                metrics = await answer.text()
            async with session.get(f"{server(daemon)}/api/v1/fence/devices") as answer:
                table = await answer.text()
        labels = (
            f'config="of-another",device="bmc",kind="wrong-machine",method="redfish",node="{two}"'
        )
        assert f"remediator_fence_device_fault{{{labels}}} 1.0" in metrics
        code, wide, _ = await remediator("check", "-o", "wide", *options)
        assert code == ExitCode.FINDING
        await daemon.end()
        said = (daemon.log.read_text(), metrics, table, wide, str(daemon.journal()))
        for secret in (CANARY, lab.cluster.spec.bmc_password):
            assert all(secret not in text for text in said)
