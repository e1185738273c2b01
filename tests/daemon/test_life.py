"""The real process through its life: signals in each phase, take-over, deposition, health."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
import signal
import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import aiohttp
import pytest

from remediator.bus.embedded import EmbeddedServer
from remediator.bus.settings import NatsSettings
from remediator.exit_codes import ExitCode
from remediator.sim.http_server import write_kubeconfig
from remediator.sim.resources import LEASES

_spec = importlib.util.spec_from_file_location("lab", Path(__file__).with_name("conftest.py"))
_lab = sys.modules.get("lab") or importlib.util.module_from_spec(_spec)
if sys.modules.setdefault("lab", _lab) is _lab and not hasattr(_lab, "open_lab"):
    _spec.loader.exec_module(_lab)
open_lab, until = _lab.open_lab, _lab.until

START_S = 40.0  # a start takes 2 s; the machine may be busy
END_S = 10.0  # what SIGTERM promises


def seen(daemon, name: str) -> list[dict]:
    return [event for event in daemon.events() if event.get("event") == name]


async def leads(daemon) -> None:
    await until(lambda: daemon.decided() >= 1, START_S, "the daemon to lead")


async def ends_in_order(daemon, number: int = signal.SIGTERM) -> None:
    assert await daemon.end(number, END_S) == ExitCode.OK
    log = daemon.log.read_text()
    assert "Traceback" not in log
    assert seen(daemon, "stopped")


async def ask(daemon, path: str) -> tuple[int, str]:
    port = seen(daemon, "http_listening")[-1]["port"]
    async with (
        aiohttp.ClientSession() as http,
        http.get(f"http://127.0.0.1:{port}{path}") as answer,
    ):
        return answer.status, await answer.text()


async def parts(daemon) -> tuple[int, dict[str, dict]]:
    status, text = await ask(daemon, "/readyz")
    return status, _lab.msgspec.json.decode(text)["parts"]


async def gauge(daemon, name: str) -> float:
    _, text = await ask(daemon, "/metrics")
    (line,) = [line for line in text.splitlines() if line.startswith(f"{name} ")]
    return float(line.split()[1])


async def becomes(daemon, name: str, value: float, limit_s: float = 20.0) -> None:
    """Wait for a gauge: they are measured every 5 s."""
    async with asyncio.timeout(limit_s):
        while await gauge(daemon, name) != value:
            await asyncio.sleep(0.2)


@contextlib.contextmanager
def stopped(pid: int) -> Iterator[None]:
    os.kill(pid, signal.SIGSTOP)
    try:
        yield
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGCONT)


# --- SIGTERM and SIGINT ---------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
async def test_a_signal_while_modules_still_load_ends_with_0(lab, number):
    lab.daemon.start()
    # Settings are read first, by msgspec; all other modules take a second more.
    maps = Path(f"/proc/{lab.daemon.process.pid}/maps")
    await until(lambda: "msgspec" in maps.read_text(), START_S, "the settings")
    assert await lab.daemon.end(number, END_S) == ExitCode.OK
    assert "Traceback" not in lab.daemon.log.read_text()


async def test_a_signal_while_the_api_server_does_not_answer_the_first_request(lab):
    asked = asyncio.Event()

    async def say_nothing(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readline()
        asked.set()
        await reader.read()
        writer.close()

    server = await asyncio.start_server(say_nothing, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    write_kubeconfig(lab.directory / "mute", f"http://127.0.0.1:{port}")
    lab.configure(kube={"kubeconfig": str(lab.directory / "mute")})
    lab.daemon.start()
    async with asyncio.timeout(START_S):
        await asked.wait()
    await ends_in_order(lab.daemon)
    server.close()


async def test_sigint_while_leading(lab):
    lab.daemon.start()
    await leads(lab.daemon)
    await ends_in_order(lab.daemon, signal.SIGINT)
    lease = lab.cluster.store.get(LEASES, "remediator", "remediator")
    assert not lease["spec"].get("holderIdentity"), "the Lease is given back"


async def test_sigterm_in_the_middle_of_a_recovery_which_another_start_finishes(lab):
    lab.daemon.start()
    await leads(lab.daemon)
    victims = lab.cluster.vms_on("n02")
    lab.cluster.faults.power_loss("n02")
    await until(
        lambda: any(e.get("state") == "recovering" for e in seen(lab.daemon, "decision")),
        START_S,
        "the recovery",
    )
    await ends_in_order(lab.daemon)
    lab.daemon.start()
    await until(lambda: all(map(lab.cluster.ledger.is_up, victims)), START_S, "the VMs")
    await ends_in_order(lab.daemon)
    assert not lab.cluster.ledger.double_runs


async def test_sigterm_while_nats_stands_still(lab):
    lab.daemon.start()
    await leads(lab.daemon)
    pid = seen(lab.daemon, "nats_server_started")[-1]["pid"]
    with stopped(pid):
        await ends_in_order(lab.daemon)
    assert not Path(f"/proc/{pid}").exists(), "the server was left behind"


async def test_sigterm_while_the_api_server_hangs(lab):
    lab.daemon.start()
    await leads(lab.daemon)
    lab.cluster.api_faults.hang()
    try:
        await until(lambda: seen(lab.daemon, "renewal_failed"), START_S, "the daemon to notice")
        await ends_in_order(lab.daemon)
    finally:
        lab.cluster.api_faults.clear()


# --- two daemons ----------------------------------------------------------------------------------


@contextlib.asynccontextmanager
async def pair(lab) -> AsyncIterator[tuple]:
    """Two daemons over one NATS: the first leads, the second follows."""
    async with EmbeddedServer(lab.directory / "shared-nats") as server:
        nats: NatsSettings = server.settings
        shared = {"url": nats.url, "user": nats.user, "password_file": nats.password_file}
        lab.configure(nats=shared)
        lab.daemon.start()
        await leads(lab.daemon)
        second = _lab.Lab(lab.directory / "second", lab.cluster, lab.faces)
        second.directory.mkdir()
        second.configure(nats=shared, identity="second")
        second.daemon.start()
        try:
            await until(lambda: seen(second.daemon, "http_listening"), START_S, "the second")
            async with asyncio.timeout(START_S):
                while (await parts(second.daemon))[0] != 200:
                    await asyncio.sleep(0.1)
            yield lab.daemon, second.daemon
        finally:
            if second.daemon.process.poll() is None:
                await second.daemon.end()


async def test_a_follower_is_ready_and_takes_over_when_the_leader_is_killed(lab):
    async with pair(lab) as (first, second):
        status, told = await parts(second)
        assert status == 200
        assert told["leader"]["detail"].startswith("follows test_")
        assert second.decided() == 0
        await becomes(first, "remediator_leader", 1.0)
        assert await gauge(second, "remediator_leader") == 0.0
        began = asyncio.get_running_loop().time()
        first.kill()
        await until(lambda: second.decided() == 2, 30, "the follower to take over")
        took_s = asyncio.get_running_loop().time() - began
        print(f"took over after {took_s:.1f} s; the Lease lasts 2 s")
        assert (await parts(second))[1]["leader"]["detail"] == "leads"
        victims = lab.cluster.vms_on("n02")
        lab.cluster.faults.power_loss("n02")
        await until(lambda: all(map(lab.cluster.ledger.is_up, victims)), 60, "the VMs")
        assert not lab.cluster.ledger.double_runs


async def test_a_leader_that_gives_up_hands_over_at_once_and_one_journal_holds_both(lab):
    async with pair(lab) as (first, second):
        await ends_in_order(first)
        await until(lambda: second.decided() == 2, 30, "the follower to take over")
        await until(lambda: len(second.journal()) == 2, 30, "the projection")
        leaders = [decision.leader.rpartition("_")[0] for decision in second.journal()]
        assert leaders == ["test", "second"]


async def test_a_lease_taken_away_ends_the_term_and_not_the_daemon(lab):
    lab.daemon.start()
    await leads(lab.daemon)

    def take(lease: dict) -> None:
        lease["spec"]["holderIdentity"] = "somebody-else"
        lease["spec"]["leaseTransitions"] += 1

    lab.cluster.store.mutate(LEASES, "remediator", "remediator", take)
    await until(lambda: seen(lab.daemon, "not_leading"), START_S, "the term to end")
    status, told = await parts(lab.daemon)
    assert status == 200
    assert told["leader"]["detail"] == "follows somebody-else"
    # Nobody renews it: after its duration the daemon leads again.
    await until(lambda: lab.daemon.decided() == 2, START_S, "the next term")
    await ends_in_order(lab.daemon)


# --- health ---------------------------------------------------------------------------------------


async def test_health_tells_of_nats_and_not_to_kill_the_daemon(lab):
    lab.daemon.start()
    await leads(lab.daemon)
    async with asyncio.timeout(START_S):
        while (await parts(lab.daemon))[0] != 200:
            await asyncio.sleep(0.1)
    await becomes(lab.daemon, "remediator_nats_connected", 1.0)
    # Not to be killed: its watchdog would start it again.
    pid = seen(lab.daemon, "nats_server_started")[-1]["pid"]
    with stopped(pid):
        async with asyncio.timeout(START_S):  # two pings
            while (await parts(lab.daemon))[0] != 503:
                await asyncio.sleep(0.1)
        status, told = await parts(lab.daemon)
        assert (status, told["nats"]["ok"]) == (503, False)
        assert (await ask(lab.daemon, "/healthz"))[0] == 200
        await becomes(lab.daemon, "remediator_nats_connected", 0.0)
    async with asyncio.timeout(START_S):
        while (await parts(lab.daemon))[0] != 200:
            await asyncio.sleep(0.1)
    await ends_in_order(lab.daemon)


async def test_readiness_waits_for_every_list(lab):
    lab.daemon.start()
    await until(lambda: seen(lab.daemon, "starting"), START_S, "the start")
    lab.cluster.api_faults.hang()
    try:
        await until(lambda: seen(lab.daemon, "http_listening"), START_S, "the port")
        status, told = await parts(lab.daemon)
        assert (status, told["watches"]["ok"]) == (503, False)
        assert "not listed yet: " in told["watches"]["detail"]
    finally:
        lab.cluster.api_faults.clear()
    async with asyncio.timeout(START_S):
        while (await parts(lab.daemon))[0] != 200:
            await asyncio.sleep(0.1)


# --- what it touches and what it tells ------------------------------------------------------------


async def test_observe_mode_writes_nothing_but_its_own_leases(lab):
    writes = []

    def note(request) -> None:
        if request.user == "remediator":
            meta = request.obj["metadata"]
            writes.append((request.res.kind, meta.get("namespace", ""), meta["name"]))

    lab.cluster.server.add_admission(note)
    answer = lab.cluster.bmc_service.handle
    asked = []

    async def note_bmc(method: str, *request):
        asked.append(method)
        return await answer(method, *request)

    lab.cluster.bmc_service.handle = note_bmc
    lab.configure(mode="observe")
    lab.daemon.start()
    await leads(lab.daemon)
    lab.cluster.faults.power_loss("n02")
    await until(
        lambda: any(e["kind"] == "planned" for e in seen(lab.daemon, "decision")),
        START_S,
        "a plan",
    )
    await asyncio.sleep(3.0)  # as long as the whole plan takes in enforce mode
    await ends_in_order(lab.daemon)
    assert set(asked) == {"GET"}
    assert writes, "its own Lease at least"
    assert {kind for kind, _, _ in writes} == {"Lease"}
    ours = {name for _, namespace, name in writes if namespace == "remediator"}
    assert ours == {"remediator"}
    others = {name for _, namespace, name in writes if namespace != "remediator"}
    assert all(name.startswith("remediator-canary-") for name in others)


async def test_no_secret_stands_in_the_log(tmp_path):
    async with open_lab(tmp_path, bmc_password="hunter2-of-the-bmc") as lab:
        lab.configure(log={"format": "json", "level": "debug"})
        lab.daemon.start()
        await leads(lab.daemon)
        password = tmp_path / "password"
        password.write_text("wrong-and-still-secret")  # a rotation gone wrong
        victims = lab.cluster.vms_on("n02")
        lab.cluster.faults.power_loss("n02")
        await until(
            lambda: any(e.get("outcome") == "failed" for e in seen(lab.daemon, "decision")),
            60,
            "the fence to fail",
        )
        password.write_text("hunter2-of-the-bmc")
        await until(lambda: all(map(lab.cluster.ledger.is_up, victims)), 60, "the VMs")
        nats = (tmp_path / "data" / "nats" / "password").read_text()
        await ends_in_order(lab.daemon)
        log = lab.daemon.log.read_text()
        journal = "".join(map(str, lab.daemon.journal()))
        for secret in ("hunter2-of-the-bmc", "wrong-and-still-secret", nats):
            assert secret not in log
            assert secret not in journal
