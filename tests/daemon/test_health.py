"""The real daemon, asked by the real command: who is well, who is not, and why."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import json
import os
import signal
import sys
from pathlib import Path

import aiohttp
import pytest

from remediator.bus.embedded import EmbeddedServer
from remediator.exit_codes import ExitCode

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
until = _lab.until

START_S = 40.0


def port(daemon) -> int:
    found = [event for event in daemon.events() if event.get("event") == "http_listening"]
    return found[-1]["port"]


async def remediator(*arguments: str, **environ: str) -> tuple[int, str, str]:
    """Run one command line in a process of its own."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        *("-m", "remediator", *arguments),
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
        env={**os.environ, **environ},
    )
    async with asyncio.timeout(60):
        out, err = await process.communicate()
    return process.returncode, out.decode(), err.decode()


async def health(daemon, *arguments: str) -> tuple[int, str, str]:
    server = f"http://127.0.0.1:{port(daemon)}"
    return await remediator("health", *arguments, "--server", server)


async def view(daemon, path: str = "") -> dict:
    """Ask the API itself: a command of its own takes a second, in which much may happen."""
    url = f"http://127.0.0.1:{port(daemon)}/api/v1/health{path}"
    async with aiohttp.ClientSession() as session, session.get(url) as answer:
        found = await answer.json()
        assert answer.status == 200, found
        return found


async def view_where(daemon, condition, path: str = "", *, limit_s: float = START_S) -> dict:
    """Ask until the view is as it should be."""
    async with asyncio.timeout(limit_s):
        while True:
            found = await view(daemon, path)
            if condition(found):
                return found
            await asyncio.sleep(0.05)


def everybody_healthy(found: dict) -> bool:
    healthy = sum(zone["verdicts"].get("Healthy", 0) for zone in found["zones"])
    return healthy == sum(zone["nodes"] for zone in found["zones"]) == 4


async def leads(daemon) -> None:
    await until(lambda: daemon.decided() >= 1, START_S, "the daemon to lead")


async def test_the_course_of_a_loss_as_a_person_follows_it(lab):
    lab.daemon.start()
    await leads(lab.daemon)
    found = await view_where(lab.daemon, everybody_healthy)
    assert sum(zone["nodes"] for zone in found["zones"]) == 4
    assert found["leader"]["identity"].startswith("test_")
    assert found["leader"]["mode"] == "enforce"
    assert found["vms"] == 8
    code, out, _ = await health(lab.daemon)
    assert code == ExitCode.OK
    assert "every node is Healthy" in out

    victims = lab.cluster.vms_on("n02")
    lab.cluster.faults.power_loss("n02")
    found = await view_where(lab.daemon, lambda found: bool(found["nodes"]))
    (line,) = found["nodes"]
    assert line["name"] == "n02"
    node = await view_where(
        lab.daemon,
        lambda node: node["verdict"] == "Dead" and node["incident"],
        "/nodes/n02",
        limit_s=60,
    )
    assert node["row"]["name"] == "power-off"
    assert node["incident"]["verdict"] == "Dead"
    power = next(plane for plane in node["planes"] if plane["plane"] == "power")
    assert (power["value"], power["weighed"]) == ("off", True)
    assert power["sources"][0]["source"].startswith("redfish http://")
    assert power["sources"][0]["age_s"] < 60
    code, out, _ = await health(lab.daemon, "node/n02")
    assert code == ExitCode.OK
    assert out.startswith("node/n02 at ")

    await until(lambda: all(map(lab.cluster.ledger.is_up, victims)), 60, "the VMs")
    namespace, name = min(victims).split("/")
    vm = await view_where(
        lab.daemon,
        lambda vm: vm["verdict"] == "Healthy" and vm["node"] not in ("", "n02"),
        f"/vms/{namespace}/{name}",
    )
    assert {part["kind"] for part in vm["parts"]} >= {"VirtualMachine", "VMI", "launcher pod"}


async def test_what_is_not_there_is_one_line_with_names_that_are_near(lab):
    lab.daemon.start()
    await leads(lab.daemon)
    await view_where(lab.daemon, everybody_healthy)
    code, out, err = await health(lab.daemon, "node/n20")
    assert (code, out) == (ExitCode.FINDING, "")
    assert err == "remediator: there is no node n20; did you mean n02, n01, n03?\n"
    code, _, err = await health(lab.daemon, "--zone", "zone-z")
    assert code == ExitCode.FINDING
    assert err.startswith("remediator: there is no zone zone-z; known: zone-a, zone-b")


async def test_a_stopped_process_knows_that_it_was_deaf_and_gets_over_it(lab):
    lab.configure(election={})  # a Lease of 15 s: it leads before and after
    lab.daemon.start()
    await leads(lab.daemon)
    await view_where(lab.daemon, everybody_healthy)
    process = lab.daemon.process
    os.kill(process.pid, signal.SIGSTOP)
    try:
        await asyncio.sleep(3.0)  # six times the limit of a late timer
    finally:
        os.kill(process.pid, signal.SIGCONT)
    found = await view_where(lab.daemon, lambda found: found["own"]["multiplier"] > 1)
    assert any("event loop is late" in reason for reason in found["own"]["reasons"]), found["own"]
    found = await view_where(lab.daemon, lambda found: found["own"]["multiplier"] == 1, limit_s=60)
    assert found["own"]["reasons"] == []


@contextlib.asynccontextmanager
async def pair(lab):
    """Two daemons over one NATS: the first leads, the second follows."""
    async with EmbeddedServer(lab.directory / "shared-nats") as server:
        nats = server.settings
        shared = {"url": nats.url, "user": nats.user, "password_file": nats.password_file}
        lab.configure(nats=shared)
        lab.daemon.start()
        await leads(lab.daemon)
        second = _lab.Lab(lab.directory / "second", lab.cluster, lab.faces)
        second.directory.mkdir()
        second.configure(nats=shared, identity="second")
        second.daemon.start()
        try:
            await until(
                lambda: any(e.get("event") == "http_listening" for e in second.daemon.events()),
                START_S,
                "the second",
            )
            yield lab.daemon, second.daemon, server
        finally:
            if second.daemon.process.poll() is None:
                await second.daemon.end()


async def test_a_follower_passes_on_what_the_leader_says_and_takes_over_the_answers(lab):
    async with pair(lab) as (first, second, server):
        await view_where(first, everybody_healthy)
        told = await view(second)
        assert told["leader"]["identity"].startswith("test_")
        assert everybody_healthy(told)
        code, _, err = await health(second, "node/n20")
        assert (code, err) == (
            ExitCode.FINDING,
            "remediator: there is no node n20; did you mean n02, n01, n03?\n",
        )
        code, out, err = await remediator(
            *("health", "-o", "json", "--nats", server.settings.url),
            REMEDIATOR_NATS__USER=server.settings.user,
            REMEDIATOR_NATS__PASSWORD_FILE=str(server.settings.password_file),
        )
        assert (code, err) == (ExitCode.OK, "")
        assert json.loads(out)["leader"]["identity"].startswith("test_")

        first.kill()
        code, out, err = await health(second)
        if code != ExitCode.OK:  # it has not taken over yet: it invents nothing
            assert (code, out) == (ExitCode.NO_DAEMON, "")
            assert "nobody answers as leader" in err or "cannot reach the leader" in err

        async def takes_over() -> dict:
            while True:
                code, out, _ = await health(second, "-o", "json")
                if code == ExitCode.OK:
                    return json.loads(out)
                await asyncio.sleep(0.1)

        async with asyncio.timeout(START_S):
            told = await takes_over()
        assert told["leader"]["identity"].startswith("second_")


async def test_a_follower_without_a_leader_says_so_and_invents_nothing(lab):
    async with EmbeddedServer(lab.directory / "shared-nats") as server:
        nats = server.settings
        lab.configure(
            nats={"url": nats.url, "user": nats.user, "password_file": nats.password_file}
        )
        try:
            lab.daemon.start()
            await leads(lab.daemon)
            lab.cluster.api_faults.hang()
            await until(
                lambda: any(e.get("event") == "not_leading" for e in lab.daemon.events()),
                START_S,
                "the term to end",
            )
            code, out, err = await health(lab.daemon)
            assert (code, out) == (ExitCode.NO_DAEMON, "")
            assert err.count("\n") == 1
            assert "nobody answers as leader" in err
        finally:
            lab.cluster.api_faults.clear()


@pytest.mark.parametrize("path", ["/api/v1/health", "/api/v1/health/nodes/n02"])
async def test_the_leader_answers_over_http_while_nats_stands_still(lab, path):
    lab.daemon.start()
    await leads(lab.daemon)
    await view_where(lab.daemon, everybody_healthy)
    pid = next(
        event["pid"]
        for event in reversed(lab.daemon.events())
        if event.get("event") == "nats_server_started"
    )
    os.kill(pid, signal.SIGSTOP)
    try:
        async with aiohttp.ClientSession() as session:
            url = f"http://127.0.0.1:{port(lab.daemon)}{path}"
            async with asyncio.timeout(START_S):
                while True:
                    async with session.get(url) as answer:
                        assert answer.status == 200
                        own = (await answer.json())["own"]
                    if any("NATS" in reason for reason in own["reasons"]):
                        break
                    await asyncio.sleep(0.1)
    finally:
        os.kill(pid, signal.SIGCONT)


async def test_the_gauges_of_verdicts_are_the_leaders(lab):
    lab.daemon.start()
    await leads(lab.daemon)
    await view_where(lab.daemon, everybody_healthy)
    async with aiohttp.ClientSession() as session, asyncio.timeout(START_S):
        url = f"http://127.0.0.1:{port(lab.daemon)}/metrics"
        while True:
            async with session.get(url) as answer:
                lines = (await answer.text()).splitlines()
            if 'remediator_nodes{verdict="Healthy"} 4.0' in lines:
                break
            await asyncio.sleep(0.2)
    assert 'remediator_vms{verdict="Healthy"} 8.0' in lines
    assert "remediator_own_health_multiplier 1.0" in lines
    assert any(line.startswith('remediator_plane_age_seconds{plane="lease"}') for line in lines)
