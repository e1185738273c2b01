"""A person's order: from the command line through NATS to the journal, and to a VM that is back."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from pathlib import Path

import msgspec
import yaml

from remediator.bus.embedded import EmbeddedServer
from remediator.engine.chain import DecisionKind
from remediator.exit_codes import ExitCode

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until

START_S, RECOVERY_S = 40.0, 90.0
REMEDIATOR = Path(sys.executable).with_name("remediator")


async def order(*arguments: str) -> tuple[int, str, str]:
    process = await asyncio.create_subprocess_exec(
        str(REMEDIATOR), "fence", *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(60.0):
        out, error = await process.communicate()
    return process.returncode or 0, out.decode(), error.decode()


def decided(daemon, kind: str, subject: str) -> list[dict]:
    return [
        event
        for event in daemon.events()
        if event.get("event") == "decision" and (event["kind"], event["subject"]) == (kind, subject)
    ]


async def test_a_confirmed_host_gives_its_vms_back_without_a_fence_device(tmp_path):
    server = EmbeddedServer(tmp_path / "nats")
    nats = msgspec.to_builtins(await server.start())
    nats = {key: nats[key] for key in ("url", "user", "password_file") if nats.get(key)}
    login = tmp_path / "login.yaml"
    login.write_text(yaml.safe_dump({"nats": nats}))
    try:
        async with open_lab(tmp_path / "lab", nodes=4, vms=4, seed=5) as lab:
            lab.configure(nats=nats, fence={"devices": []})
            daemon = lab.daemon
            daemon.start()
            await until(lambda: daemon.decided() >= 1, START_S, "the daemon to lead")
            options = (
                "--reason", "pulled both cords", "--by", "ana", "--yes",
                "--nats", nats["url"], "--config", str(login),
            )  # fmt: skip
            code, _, error = await order("confirm-off", "n02", *options)
            assert code == ExitCode.FINDING, error
            assert "refused" in error
            lab.cluster.faults.power_loss("n02")
            await until(
                lambda: decided(daemon, "opened", "node/n02"), RECOVERY_S, "the host to be missed"
            )
            async with asyncio.timeout(RECOVERY_S):
                while "not silent yet" in (said := await order("confirm-off", "n02", *options))[2]:
                    pass  # "ask again": an incident opens before the silence is certain
            code, out, error = said
            assert (code, error) == (ExitCode.OK, "")
            assert "confirm-off by ana: pulled both cords (record " in out
            await until(
                lambda: decided(daemon, "resolved", "node/n02"), RECOVERY_S, "its VMs to be back"
            )
            said = [record for record in daemon.journal() if record.kind is DecisionKind.COMMAND]
            assert {record.stage for record in said[:-1]} == {"confirm-off:refused"}
            assert said[-1].stage == "confirm-off:accepted"
            assert lab.cluster.ledger.double_runs == ()
    finally:
        await server.stop()


async def test_an_order_that_nobody_takes_is_one_clear_line(tmp_path):
    server = EmbeddedServer(tmp_path / "nats")
    nats = msgspec.to_builtins(await server.start())
    login = tmp_path / "login.yaml"
    nats = {key: nats[key] for key in ("url", "user", "password_file") if nats.get(key)}
    login.write_text(yaml.safe_dump({"nats": nats}))
    try:
        code, out, error = await order(
            "off", "n1", "--reason", "x", "--yes", "--nats", nats["url"], "--config", str(login)
        )
        assert (code, out) == (ExitCode.NO_DAEMON, "")
        assert error == "remediator: no daemon on this NATS leads now\n"
    finally:
        await server.stop()
