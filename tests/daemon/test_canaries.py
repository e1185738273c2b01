"""No secret gets out: canary passwords in every kind of fence login, and a search of all it wrote.

A real daemon at debug level fences for real and fails for real: by a fence agent, by Redfish with
basic authentication and with sessions, with logins from files and from a Secret. The Redfish
service repeats whatever it was sent, as some do in their error messages.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import importlib.util
import os
import shutil
import sys
from pathlib import Path

import aiohttp
import msgspec
import pytest
import yaml
from aiohttp import web

from remediator.bus.embedded import EmbeddedServer
from remediator.sim.resources import SECRETS

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until

REMEDIATOR = Path(sys.executable).with_name("remediator")
CANARIES = {
    name: f"Kn4ry-{name}-7d1f"
    for name in ("file-basic", "secret-basic", "file-session", "secret-session", "agent", "token")
}
USER = "fencer"


class Echo:
    """A Redfish service that quotes every request in its answers; one login gets a token."""

    def __init__(self) -> None:
        self.orders = 0
        self.quoted: list[str] = []
        self._runner: web.AppRunner | None = None

    async def start(self) -> str:
        app = web.Application()
        app.router.add_route("*", "/{path:.*}", self._answer)
        self._runner = web.AppRunner(app, access_log=None)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        (address,) = self._runner.addresses
        return f"http://127.0.0.1:{address[1]}"

    async def stop(self) -> None:
        assert self._runner is not None
        await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.Response:
        body = (await request.read()).decode()
        if request.path.endswith("/Sessions") and CANARIES["file-session"] in body:
            self.quoted.append(body)
            headers = {"X-Auth-Token": CANARIES["token"], "Location": "/redfish/v1/Sessions/1"}
            return web.Response(status=201, headers=headers)
        authority = request.headers.get("authorization", "")
        with contextlib.suppress(ValueError):
            authority += base64.b64decode(authority.partition(" ")[2]).decode()
        quoted = f"cannot {body} {authority} {request.headers.get('x-auth-token', '')}"
        if request.method == "GET" and request.path.endswith("n03"):
            return web.json_response({"PowerState": "On", "UUID": None})
        if request.method == "POST":
            self.orders += 1
            self.quoted.append(quoted)
            return web.Response(status=400, text=quoted)
        self.quoted.append(quoted)
        return web.Response(status=418, text=quoted, headers={"x-quoted": quoted})


def configuration(name: str, node: str, device: dict) -> dict:
    return {
        "apiVersion": "remediator.io/v1alpha1",
        "kind": "FenceConfig",
        "metadata": {"name": name},
        "spec": {
            "nodes": {"names": [node]},
            "checkPeriod": "1s",
            "devices": [{"name": "device", **device}],
            "levels": [{"devices": ["device"], "attempts": 1}],
        },
    }


def configurations(directory: Path, url: str, *, agent: bool) -> dict[str, dict]:
    def by_file(name: str) -> dict:
        path = directory / f"login-{name}"
        path.write_text(f"{CANARIES[name]}\n")
        return {"username": USER, "passwordFile": str(path)}

    def by_secret(name: str) -> dict:
        return {"username": USER, "secret": {"name": name, "namespace": "remediator"}}

    redfish = {"method": "redfish", "endpoint": url, "system": "/redfish/v1/Systems/{node}"}
    found = {
        "n01": {**redfish, "credentials": by_file("file-basic")},
        "n02": {**redfish, "credentials": by_secret("secret-basic")},
        "n03": {**redfish, "credentials": by_file("file-session"), "session": True},
        "n04": {**redfish, "credentials": by_secret("secret-session"), "session": True},
    }
    if agent:
        found["n05"] = {
            "method": "agent",
            "program": "fence_ipmilan",
            # Nobody is there: it fails, and says with all its words how.
            "parameters": {"ip": "127.0.0.1", "ipport": "9", "lanplus": "1"},
            "timeout": "8s",
            "credentials": by_file("agent"),
        }
    return found


class CommandLines:
    """Every command line of every process, looked at again and again."""

    def __init__(self) -> None:
        self.seen: set[bytes] = set()

    async def watch(self) -> None:
        while True:
            for entry in Path("/proc").iterdir():
                if entry.name.isdecimal():
                    with contextlib.suppress(OSError):
                        self.seen.add((entry / "cmdline").read_bytes())
            await asyncio.sleep(0.02)


def forms(canary: str) -> list[bytes]:
    """The canary as it stands, and as an HTTP header carries it."""
    basic = base64.b64encode(f"{USER}:{canary}".encode())
    return [canary.encode(), basic, base64.b64encode(canary.encode())]


def found_in(content: bytes, where: str) -> list[str]:
    return [
        f"{name} in {where}"
        for name, canary in CANARIES.items()
        if any(form in content for form in forms(canary))
    ]


def files_below(*directories: Path) -> list[Path]:
    return [path for one in directories for path in one.rglob("*") if path.is_file()]


async def remediator(*arguments: str) -> bytes:
    process = await asyncio.create_subprocess_exec(
        str(REMEDIATOR), *arguments,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )  # fmt: skip
    async with asyncio.timeout(90.0):
        out, _ = await process.communicate()
    return out


@pytest.mark.timeout(240)
async def test_no_canary_is_in_anything_that_the_daemon_wrote(tmp_path):
    agent = shutil.which("fence_ipmilan", path=f"{os.environ['PATH']}:/usr/sbin") is not None
    if not agent and os.environ.get("FENCE_TESTS") == "required":
        pytest.fail("fence_ipmilan is not installed (.ci/packages installs it)")
    logins, configs = tmp_path / "logins", tmp_path / "fence"
    logins.mkdir()
    configs.mkdir()
    echo = Echo()
    url = await echo.start()
    nats_server = EmbeddedServer(tmp_path / "nats")
    nats = msgspec.to_builtins(await nats_server.start())
    nats = {key: nats[key] for key in ("url", "user", "password_file") if nats.get(key)}
    login = tmp_path / "login.yaml"
    login.write_text(yaml.safe_dump({"nats": nats}))
    lines = CommandLines()
    watching = asyncio.create_task(lines.watch())
    said: dict[str, bytes] = {}
    try:
        async with open_lab(tmp_path / "lab", nodes=6, vms=4, seed=5) as lab:
            for name in ("secret-basic", "secret-session"):
                data = {"password": base64.b64encode(CANARIES[name].encode()).decode()}
                where = {"name": name, "namespace": "remediator"}
                secret = {"apiVersion": "v1", "kind": "Secret", "metadata": where, "data": data}
                lab.cluster.store.create(SECRETS, secret)
            devices = configurations(logins, url, agent=agent)
            for node, device in devices.items():
                text = yaml.safe_dump(configuration(f"of-{node}", node, device))
                (configs / f"{node}.yaml").write_text(text)
            lab.configure(
                nats=nats,
                fence={"configs": str(configs)},
                log={"format": "json", "level": "debug"},
            )
            daemon = lab.daemon
            daemon.start()
            await until(lambda: daemon.decided() >= 1, 40, "the daemon to lead")
            (port,) = [e["port"] for e in daemon.events() if e.get("event") == "http_listening"]
            base = f"http://127.0.0.1:{port}"
            said["check --now"] = await remediator("fence", "check", "--now", "--server", base)
            lab.cluster.faults.power_loss("n01")  # and one by its own decision
            options = ("--reason", "test", "--by", "ana", "--yes", "--nats", nats["url"])
            others = sorted(devices)[1:]
            orders = [
                remediator("fence", "off", node, *options, "--config", str(login))
                for node in others
            ]
            for node, answer in zip(others, await asyncio.gather(*orders), strict=True):
                said[f"off {node}"] = answer

            def fences() -> int:
                return sum(
                    event.get("event") == "action_finished" and event.get("work") == "Fence"
                    for event in daemon.events()
                )

            await until(lambda: fences() >= len(devices), 90, "every fence to end")
            async with aiohttp.ClientSession() as session:
                for path in (
                    "/metrics", "/healthz", "/readyz", "/api/v1/decisions?limit=500",
                    "/api/v1/fence/devices", "/api/v1/health", "/api/v1/health/nodes/n01",
                    "/api/v1/decisions/1", "/nothing",
                ):  # fmt: skip
                    async with session.get(base + path) as answer:
                        said[f"GET {path}"] = str(answer.headers).encode() + await answer.read()
            await daemon.end()
            said["stdout and stderr"] = daemon.log.read_bytes()
            said["the journal"] = str(daemon.journal()).encode()
            data = lab.directory / "data"
            for path in files_below(data, tmp_path / "nats"):
                said[str(path.relative_to(tmp_path))] = path.read_bytes()
    finally:
        watching.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await watching
        await nats_server.stop()
        await echo.stop()
    said["command lines"] = b"\n".join(lines.seen)

    # The search can find: the service was sent, and quoted, every login; the fences did happen.
    quoted = " ".join(echo.quoted)
    for name in ("file-basic", "secret-basic", "file-session", "secret-session", "token"):
        assert CANARIES[name] in quoted, f"{name} was never used"
    assert echo.orders >= 1
    if agent:
        assert b"fence_ipmilan" in said["command lines"]
        assert b"ipmitool" in said["command lines"]
    assert b"cannot" in said["the journal"]
    assert b'"level":"debug"' in said["stdout and stderr"].replace(b" ", b"")
    assert [leak for where, content in said.items() for leak in found_in(content, where)] == []
