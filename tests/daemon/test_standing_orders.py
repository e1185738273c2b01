"""Pauses and approvals, given on the command line to a daemon that runs on its own."""

from __future__ import annotations

import asyncio
import importlib.util
import json
import sys
from pathlib import Path

import msgspec
import yaml

from remediator.bus.embedded import EmbeddedServer
from remediator.exit_codes import ExitCode

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until

START_S, RECOVERY_S = 40.0, 90.0
REMEDIATOR = Path(sys.executable).with_name("remediator")
POLICY = """
apiVersion: remediator.io/v1alpha1
kind: RemediationPolicy
metadata: {name: lost-on-approval}
spec:
  subject: Node
  verdicts: [Dead, Unreachable]
  steps: [cordon, fence, reschedule]
  requiredProof: [power-off-verified]
  approval: {required: true, lapsesAfter: 1h, then: hold}
"""


async def remediator(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        str(REMEDIATOR), *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60.0):
        out, error = await process.communicate()
    return process.returncode or 0, out.decode(), error.decode()


def decided(daemon, kind: str) -> int:
    """How many records of this kind about the host the daemon has logged."""
    return sum(
        (event.get("kind"), event.get("subject")) == (kind, "node/n02")
        for event in daemon.events()
        if event.get("event") == "decision"
    )


async def test_a_plan_waits_for_a_yes_and_a_pause_holds_it(tmp_path):
    server = EmbeddedServer(tmp_path / "nats")
    nats = msgspec.to_builtins(await server.start())
    nats = {key: nats[key] for key in ("url", "user", "password_file") if nats.get(key)}
    login = tmp_path / "login.yaml"
    login.write_text(yaml.safe_dump({"nats": nats}))
    (tmp_path / "policies").mkdir()
    (tmp_path / "policies" / "lost-on-approval.yaml").write_text(POLICY)
    source = ("--nats", nats["url"], "--config", str(login))
    order = ("--reason", "a test", "--by", "ana", *source)

    async def budgets() -> dict:
        code, out, error = await remediator("budgets", *source, "-o", "json")
        assert (code, error) == (ExitCode.OK, "")
        return json.loads(out)

    try:
        async with open_lab(tmp_path / "lab", nodes=4, vms=4, seed=5) as lab:
            lab.configure(nats=nats, policies=str(tmp_path / "policies"))
            daemon = lab.daemon
            daemon.start()
            await until(lambda: daemon.decided() >= 1, START_S, "the daemon to lead")
            code, out, error = await remediator("pause", "--until", "1h", *order)
            assert (code, error) == (ExitCode.OK, "")
            assert out.startswith("pause by ana: a test; it ends by itself after 3600 s (record ")
            lab.cluster.faults.power_loss("n02")

            await until(lambda: decided(daemon, "refused") == 1, RECOVERY_S, "a hold")
            view = await budgets()
            (pause,) = view["pauses"]
            assert (pause["scope"], pause["meaning"], pause["by"]) == ("cluster", "freeze", "ana")
            assert 3000 < pause["in_s"] <= 3600
            (held,) = view["withheld"]
            assert held["subject"] == "node/n02"
            assert {guard["guard"] for guard in held["guards"]} == {"paused"}
            code, out, error = await remediator("resume", *order)
            assert (code, error) == (ExitCode.OK, "")
            await until(lambda: decided(daemon, "refused") == 2, RECOVERY_S, "a request")
            (asked,) = (await budgets())["approvals"]
            assert (asked["answer"], asked["policy"]) == ("waits", "lost-on-approval")
            code, _, error = await remediator("approve", "inc-1", *order)
            assert code == ExitCode.FINDING
            assert "'inc-1' is no open incident" in error
            table = (await remediator("budgets", *source))[1]
            assert "lost-on-approval  waits" in table
            code, out, error = await remediator("approve", asked["incident"], *order)
            assert (code, error) == (ExitCode.OK, "")
            await until(lambda: decided(daemon, "resolved"), RECOVERY_S, "its VMs to be back")
            assert lab.cluster.ledger.double_runs == ()
    finally:
        await server.stop()
